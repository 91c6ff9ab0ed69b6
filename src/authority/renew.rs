//! Renewing the keys that are due: as their settings say, on nobody's word.
//!
//! A user is renewed who has a renewal age, and a current key that is older, be it expired; or a key in
//! its file whose reader is still to be told. Who was revoked has no current key, and stays revoked.

use std::collections::HashSet;

use super::refresh::{Ended, Kind, Refresh, refresh};
use super::{Authority, Issued, Order, Recipient};
use crate::delivery::{End, recover_of};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::settings::Changes;
use crate::store::{Pending, Snapshot, Turn};
use crate::user::User;

/// A key that is due.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Due {
    /// Whose.
    pub user: User,
    /// The current key's, or that of the key whose reader is to be told.
    pub prefix: Prefix,
    /// Why it is due, in half a sentence.
    pub why: &'static str,
}

/// What became of a key that was due.
#[derive(Debug)]
#[non_exhaustive]
pub enum Renewal {
    /// There is a new one, or the reader of the one that waited was told.
    Renewed(Box<Issued>),
    /// It is as it was, for this reason.
    Failed(User, Error),
}

/// How many keys are due, and how many will be.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DueCount {
    /// By now.
    pub due: u64,
    /// Later.
    pub later: u64,
}

const IS_OLD: &str = "it is older than its renewal age";
const READER_WAITS: &str = "its reader is still to be told";

impl Authority {
    /// How many keys are due; of `user` alone, where one is named.
    pub fn count_due(&self, user: Option<&User>) -> Result<DueCount> {
        self.read_beside_writers(|snapshot| match user {
            Some(user) => {
                let due = u64::from(of_user(snapshot, user)?.is_some());
                let has_age = snapshot.settings(user)?.renew_after.is_some();
                Ok(DueCount {
                    due,
                    later: u64::from(has_age && due == 0 && snapshot.current(user)?.is_some()),
                })
            }
            None => {
                let (mut due, mut later) = snapshot.count_due()?;
                for Due { user, .. } in waiting(snapshot)? {
                    // Whose active key has its own time, which is the same user's.
                    // What makes no sense is told when the key is to be renewed.
                    match snapshot.settings_and_due(&user).map_or(None, |(_, due_at)| due_at) {
                        Some(due_at) if due_at <= snapshot.now() => {}
                        Some(_) => (due, later) = (due + 1, later.saturating_sub(1)),
                        None => due += 1,
                    }
                }
                Ok(DueCount { due, later })
            }
        })
    }

    /// Calls `each` with every key that is due by now, of `user` alone, where one is named: first those whose
    /// reader is to be told, then the others, the longest due first. They are looked up one by one, and others
    /// write in between. What of one makes no sense is its error alone.
    pub fn each_due(
        &mut self,
        user: Option<&User>,
        mut each: impl FnMut(&mut Self, &User, Result<Due>) -> Result<()>,
    ) -> Result<()> {
        if let Some(user) = user {
            let due = self.read_beside_writers(|snapshot| of_user(snapshot, user))?;
            return due.map_or(Ok(()), |due| each(self, user, Ok(due)));
        }
        let mut seen = HashSet::new();
        for due in self.read_beside_writers(waiting)? {
            let user = due.user.clone();
            seen.insert(user.to_string());
            each(self, &user, Ok(due))?;
        }
        // Those that become due meanwhile are for the next run.
        let now = (self.clock)()?;
        let mut last = None;
        loop {
            let next = self.store.read_beside_writers(now, |snapshot| snapshot.next_due(last.as_ref()))?;
            let Some(next) = next else { return Ok(()) };
            // Of whom one waits, the active key may be due too.
            let user = Some(next.1.as_str()).filter(|user| !seen.contains(*user)).map(str::parse::<User>);
            last = Some(next);
            // A name that is none is damage, and nobody's.
            let Some(Ok(user)) = user else { continue };
            match self.read_beside_writers(|snapshot| of_user(snapshot, &user)).transpose() {
                None => {}
                Some(Err(error)) if error.code() != Code::DbError => return Err(error),
                Some(due) => each(self, &user, due)?,
            }
        }
    }

    /// Replaces every key that is due by now, of `user` alone, where one is named, and tells `each` what has
    /// become of it. One that fails does not keep the others from theirs, but a signal does that is to end the
    /// process: the rest fails with [`Code::Cancelled`]. An error is the database's.
    pub fn renew(
        &mut self,
        user: Option<&User>,
        recipient: &mut dyn Recipient,
        mut each: impl FnMut(Step<'_>),
    ) -> Result<()> {
        let (mut is_begun, mut was_interrupted) = (false, false);
        self.each_due(user, |authority, user, due| {
            let interrupted = || {
                let message = format!("the key of {user} is due, and a signal came first");
                Err(Error::new(Code::Cancelled, message).hint("run it again"))
            };
            let due = match if was_interrupted { interrupted() } else { due } {
                Ok(due) => due,
                Err(error) => {
                    each(Step::Ends(Renewal::Failed(user.clone(), error)));
                    return Ok(());
                }
            };
            each(Step::Begins(&due));
            if !std::mem::replace(&mut is_begun, true) {
                authority.store.keep_statements()?;
                // What others left, once for all.
                authority.recover_but(&due.user, recipient)?;
            }
            let mut turn = Turn::begin(&mut authority.store, authority.clock)?;
            match renew(&mut turn, &due.user, recipient) {
                Ok(Some(issued)) => {
                    was_interrupted = issued.was_interrupted;
                    each(Step::Ends(Renewal::Renewed(Box::new(issued))));
                }
                // Another run was faster, or somebody revoked it.
                Ok(None) => each(Step::Passed),
                Err(error) if error.code() == Code::NoKey && !error.was_interrupted() => each(Step::Passed),
                Err(error) => {
                    was_interrupted = error.was_interrupted();
                    each(Step::Ends(Renewal::Failed(due.user, error)));
                }
            }
            Ok(())
        })
    }

    fn recover_but(&mut self, user: &User, recipient: &mut dyn Recipient) -> Result<()> {
        let mut turn = Turn::begin(&mut self.store, self.clock)?;
        let left = recover_of(&mut turn, |other| other != user)?;
        left.iter().for_each(|delivery| recipient.hear(delivery));
        Ok(())
    }
}

/// `None` where it is not due any more, or not to be renewed.
fn renew(turn: &mut Turn<'_>, user: &User, recipient: &mut dyn Recipient) -> Result<Option<Issued>> {
    // Who had a current key and has none by then was revoked meanwhile.
    let had_current = turn.read(|snapshot| Ok(snapshot.current(user)?.is_some()))?;
    let left = recover_of(turn, |other| other == user)?;
    let waiting = left.iter().find(|delivery| !delivery.is_over());
    let undone = left.iter().find(|delivery| matches!(delivery.end, End::Undone) && !had_current);
    let superseded = undone.map(|delivery| delivery.key().created_at);
    if waiting.is_none() {
        let (due, kept) = turn.read(|snapshot| Ok((of_user(snapshot, user)?, snapshot.settings(user)?)))?;
        let is_due = superseded.is_some() || due.is_some();
        if !is_due || kept.key_file.is_none() || kept.renew_after.is_none() {
            return Ok(None);
        }
    }
    let order = Order { user: user.clone(), changes: Changes::default() };
    let kind = Kind::Renew { superseded };
    refresh(turn, waiting, &Refresh::as_kept(order), kind, Ended::default(), recipient).map(Some)
}

/// Where a renewal of many is.
#[non_exhaustive]
pub enum Step<'a> {
    /// This one begins.
    Begins(&'a Due),
    /// It has ended so.
    Ends(Renewal),
    /// There was nothing to do: another run was faster, or somebody revoked it.
    Passed,
}

/// That its reader is still to be told, where it is one that is renewed at all.
fn waits(pending: Pending) -> Option<Due> {
    let due = Due { user: pending.key.user, prefix: pending.key.prefix, why: READER_WAITS };
    pending.settings.renew_after.map(|_| due)
}

fn waiting(snapshot: &Snapshot<'_>) -> Result<Vec<Due>> {
    Ok(snapshot.pending()?.into_iter().filter_map(waits).collect())
}

/// Why the user's key is due, where it is.
fn of_user(snapshot: &Snapshot<'_>, user: &User) -> Result<Option<Due>> {
    if let Some(due) = snapshot.pending_of(user)?.and_then(waits) {
        return Ok(Some(due));
    }
    let Some(current) = snapshot.current(user)? else { return Ok(None) };
    let (_, due_at) = snapshot.settings_and_due(user)?;
    let is_due = due_at.is_some_and(|due_at| due_at <= snapshot.now());
    Ok(is_due.then(|| Due { user: user.clone(), prefix: current.prefix, why: IS_OLD }))
}
