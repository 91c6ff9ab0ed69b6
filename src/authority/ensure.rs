//! Making it so, and no more than is needed: a user's key in its key file, as its settings say.
//!
//! What is to be done is found out by looking, with no lock and no write. Where that is something, it is
//! found out once more in the turn that does it.

use serde::Serialize;

use super::refresh::{Ended, Kind, Refresh, check_may_run, refresh};
use super::show::shown;
use super::{Authority, Issued, Order, Recipient, Shown};
use crate::delivery::{End, check_is_not_the_database, check_may_replace};
use crate::error::{Code, Error, Result};
use crate::key_file::{Differs, Holding, KeyFile, Target};
use crate::settings::Settings;
use crate::store::{Held, Record, Snapshot, Store, Turn, later};
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;
use crate::user::User;

/// How a user stands after an ensure or an edit.
#[derive(Debug)]
pub struct Settled {
    /// The current key, and what is kept; none where one is still to be issued.
    pub shown: Option<Shown>,
    /// What was done, or is to be done; nothing where all was as it should be.
    pub done: Vec<Done>,
    /// The user's older keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// The key that was issued for it.
    pub issued: Option<Box<Issued>>,
    /// Until now more could read the key file than should.
    pub was_open: bool,
}

impl Settled {
    /// What an ensure would do where there is no database yet. Fails where the order does not fit together.
    #[cfg(feature = "cli")]
    pub(crate) fn to_be_created(order: &Order) -> Result<Self> {
        let settings = order.changes.of(Settings::default())?;
        let key_file = key_file_of(&settings, &order.user)?;
        let target = Target::open(key_file, [None; 2]);
        target.and_then(|target| target.check_replaceable()).map_err(undeliverable)?;
        let done = vec![Done::Created];
        Ok(Settled { shown: None, done, still_accepted: Vec::new(), issued: None, was_open: false })
    }
}

/// What was done for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// A key was issued to who had none.
    Created,
    /// The key was replaced.
    Refreshed,
    /// A delivery that an earlier run left was finished.
    Delivered,
    /// The key file was given to its owner.
    Owner,
    /// The key file got its permissions.
    Mode,
    /// What is kept, or the key's label or end, was changed.
    Settings,
}

impl Done {
    /// The word for it, as in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Done::Created => "created",
            Done::Refreshed => "refreshed",
            Done::Delivered => "delivered",
            Done::Owner => "owner",
            Done::Mode => "mode",
            Done::Settings => "settings",
        }
    }
}

/// What is there, and what should be.
pub(super) struct Plan {
    pub kept: Settings,
    pub settings: Settings,
    pub current: Option<Record>,
    /// When the current key is to end.
    pub expires_at: Option<Timestamp>,
    pub older: Vec<Held>,
    /// A key is on its way into a file, and has not expired there: that one is given up.
    pub is_pending: bool,
    /// From when on the current key is renewed, as things are kept.
    due_at: Option<Timestamp>,
    needs_key: bool,
    /// The key file, open, where it holds the current key in its form.
    pub file: Option<(Target, Holding)>,
}

impl Authority {
    /// Makes it so that the user's key lies in its key file, as the order and what is kept say, and does no
    /// more than is needed for it; with `check` it says what, and does nothing.
    ///
    /// Fails with [`Code::Usage`] where no path is given or kept, and as [`refresh`](Authority::refresh) does.
    pub fn ensure(&mut self, order: &Order, check: bool, recipient: &mut dyn Recipient) -> Result<Settled> {
        let plan = Plan::make(&self.store, order, (self.clock)()?)?;
        let done = plan.done();
        if check || done.is_empty() {
            return Ok(plan.settled(done));
        }
        let (mut turn, left) = self.turn(recipient)?;
        let of_user = left.iter().filter(|delivery| delivery.key().user == order.user);
        let was_finished = of_user.clone().any(|delivery| matches!(delivery.end, End::Finished));
        let waiting = of_user.clone().find(|delivery| !delivery.is_over());
        let plan = Plan::make(turn.store(), order, turn.now())?;
        let mut settled = if plan.needs_key || waiting.is_some() {
            let as_kept = Refresh { order: order.clone(), grace: None, revoke_first: false, agreed: None };
            let done = plan.done();
            let issued = refresh(&mut turn, waiting, &as_kept, Kind::Ensure, Ended::default(), recipient)?;
            let was_waiting = issued.was_waiting;
            let mut settled = settled_by(&turn, &order.user, issued, &done)?;
            if was_waiting {
                // The file that it has been in is as it was.
                let plan = Plan::make(turn.store(), order, turn.now())?;
                let rest = if plan.needs_key { Vec::new() } else { plan.carry_out(&mut turn)?.done };
                settled.done.extend(rest.into_iter().filter(|done| *done != Done::Settings));
            }
            settled
        } else {
            plan.carry_out(&mut turn)?
        };
        if was_finished {
            settled.done.insert(0, Done::Delivered);
        }
        Ok(settled)
    }
}

impl Plan {
    fn make(store: &Store, order: &Order, now: Timestamp) -> Result<Self> {
        let Order { user, changes } = order;
        let mut plan = store.read_beside_writers(now, |snapshot| Plan::read(snapshot, user))?;
        plan.settings = changes.of(plan.kept.clone())?;
        let key_file = key_file_of(&plan.settings, user)?.clone();
        if !plan.is_pending {
            plan.file = plan.look_at(store, user, &key_file, now)?;
        }
        let Some(current) = plan.current.clone() else {
            plan.needs_key = true;
            return Ok(plan);
        };
        if plan.settings.lifetime != plan.kept.lifetime {
            let end = |lifetime| later(current.created_at, lifetime);
            plan.expires_at = plan.settings.lifetime.map(end).transpose()?;
        }
        let has_ended = plan.expires_at.is_some_and(|end| end <= now);
        // What is kept may say earlier, after a delivery that was given up.
        let as_kept = plan.due_at.filter(|_| plan.settings.renew_after == plan.kept.renew_after);
        let due_ats = [plan.settings.due_at(current.created_at), as_kept];
        let is_due = due_ats.into_iter().flatten().any(|due_at| due_at <= now);
        plan.needs_key = has_ended || is_due || (plan.file.is_none() && !plan.is_pending);
        if let Some(reload) = plan.settings.reload.as_ref().filter(|_| plan.needs_key || plan.is_pending) {
            check_may_run(reload, order, store)?;
        }
        Ok(plan)
    }

    pub fn read(snapshot: &Snapshot<'_>, user: &User) -> Result<Self> {
        let holdings = snapshot.holdings(user)?;
        // Of a key that is on its way, they are about to be what is kept.
        let pending = snapshot.pending_of(user)?;
        let (in_force, due_at) = snapshot.settings_and_due(user)?;
        let kept = match pending.filter(|pending| pending.key.status.is_accepted()) {
            Some(pending) => pending.settings,
            None => in_force,
        };
        let current = snapshot.current(user)?;
        Ok(Plan {
            settings: kept.clone(),
            kept,
            expires_at: current.as_ref().and_then(|current| current.expires_at),
            current,
            older: holdings.older,
            is_pending: holdings.pending.is_some_and(|pending| pending.status.is_accepted()),
            due_at,
            needs_key: false,
            file: None,
        })
    }

    /// The key file, where it holds the current key in its form. Fails where it may not be replaced either.
    pub fn look_at(
        &self,
        store: &Store,
        user: &User,
        key_file: &KeyFile,
        now: Timestamp,
    ) -> Result<Option<(Target, Holding)>> {
        let kept_owner = self.kept.key_file.as_ref().and_then(|kept| kept.owner);
        let look = || {
            let target = Target::open(key_file, [kept_owner, None])?;
            let current = self.current.as_ref();
            let holding = current.map(|current| target.holding(&current.key_hash)).transpose()?.flatten();
            match holding {
                Some(holding) => {
                    check_is_not_the_database(store, &target)?;
                    Ok(Some((target, holding)))
                }
                None => check_may_replace(store, &target, user, now).map(|_| None),
            }
        };
        look().map_err(undeliverable)
    }

    fn differs(&self) -> Differs {
        self.file.as_ref().map(|(target, holding)| target.differs(holding)).unwrap_or_default()
    }

    /// What of what is kept, and of the key, is to be changed.
    fn what_changes(&self) -> Vec<&'static str> {
        let (kept, settings) = (&self.kept, &self.settings);
        let current = self.current.as_ref();
        let (was, is) = (kept.key_file.as_ref(), settings.key_file.as_ref());
        let has_another_name = |current: &Record| current.name != settings.name;
        let changes = [
            ("name", kept.name != settings.name || current.is_some_and(has_another_name)),
            ("end", self.expires_at != current.and_then(|current| current.expires_at)),
            ("lifetime", kept.lifetime != settings.lifetime),
            ("key file", was.map(KeyFile::path) != is.map(KeyFile::path)),
            ("owner", was.map(|file| file.owner) != is.map(|file| file.owner)),
            ("mode", was.map(|file| file.mode) != is.map(|file| file.mode)),
            ("format", was.map(|file| &file.env) != is.map(|file| &file.env)),
            ("reload", kept.reload != settings.reload),
            ("renewal", (kept.renew_after, kept.renew_grace) != (settings.renew_after, settings.renew_grace)),
        ];
        changes.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect()
    }

    /// What is to be done.
    pub fn done(&self) -> Vec<Done> {
        let mut done = Vec::new();
        let differs = self.differs();
        match (&self.current, self.is_pending, self.needs_key) {
            (_, true, _) => done.push(Done::Delivered),
            (None, ..) => return vec![Done::Created],
            (Some(_), _, true) => done.push(Done::Refreshed),
            (Some(_), _, false) => {
                done.extend(differs.owner.then_some(Done::Owner));
                done.extend(differs.mode.then_some(Done::Mode));
            }
        }
        done.extend((!self.what_changes().is_empty()).then_some(Done::Settings));
        done
    }

    fn settled(self, done: Vec<Done>) -> Settled {
        let was_open = self.differs().was_open && !done.is_empty();
        let kept = self.kept;
        let shown = self.current.map(|current| shown(current, kept, self.due_at));
        Settled { shown, done, still_accepted: self.older, issued: None, was_open }
    }

    /// Changes what is kept, and owner and mode of the file: with no new key.
    pub fn carry_out(self, turn: &mut Turn<'_>) -> Result<Settled> {
        let done = self.done();
        let differs = self.differs();
        if let Some((target, holding)) = self.file.as_ref().filter(|_| differs.owner || differs.mode) {
            target.amend(holding).map_err(undeliverable)?;
        }
        let Some(current) = self.current.as_ref() else { return Ok(self.settled(done)) };
        let mut edited = current.clone();
        let changes = self.what_changes();
        if !changes.is_empty() {
            let what = changes.join(", ");
            edited = turn.write(|transaction| {
                let found = transaction.current(&current.user)?;
                if found.is_none_or(|found| found.prefix != current.prefix) {
                    let message = format!("{} of {} was replaced meanwhile", current.prefix, current.user);
                    return Err(Error::new(Code::NoKey, message).hint("run it again"));
                }
                transaction.edit(current, self.expires_at, &self.settings, &what)
            })?;
        }
        let was_open = differs.was_open;
        let (_, due_at) = turn.read(|snapshot| snapshot.settings_and_due(&edited.user))?;
        let shown = Some(shown(edited, self.settings, due_at));
        Ok(Settled { shown, done, still_accepted: self.older, issued: None, was_open })
    }
}

/// How the user stands after a key was issued, or one that waited was made the active one.
fn settled_by(turn: &Turn<'_>, user: &User, issued: Issued, planned: &[Done]) -> Result<Settled> {
    let (settings, due_at) = turn.read(|snapshot| snapshot.settings_and_due(user))?;
    let first = match issued.was_waiting {
        true => Done::Delivered,
        false if issued.previous.is_none() => Done::Created,
        false => Done::Refreshed,
    };
    let rest = planned.iter().copied().filter(|done| *done == Done::Settings);
    Ok(Settled {
        shown: Some(shown(issued.record.clone(), settings, due_at)),
        done: std::iter::once(first).chain(rest).collect(),
        still_accepted: issued.still_accepted.clone(),
        issued: Some(Box::new(issued)),
        was_open: false,
    })
}

fn key_file_of<'a>(settings: &'a Settings, user: &User) -> Result<&'a KeyFile> {
    settings.key_file.as_ref().ok_or_else(|| {
        Error::new(Code::Usage, format!("there is no key file that {user}'s key could be in"))
            .hint("name it with --key-file")
    })
}

fn undeliverable(obstacle: Obstacle) -> Error {
    Error::new(Code::Undeliverable, obstacle.reason).hint(obstacle.hint)
}
