//! Issuing a key: to a file, as `delivery` has it, or to whoever asked for it.
//!
//! A key that goes to no file is handed over inside the transaction, and the commit comes last.
//! Killed before the commit, the process has given out a key that nobody accepts; the other order
//! would leave an accepted key that nobody saw. A hand-over that fails undoes the transaction.

use std::time::Duration;

use super::Recipient;
use super::revoke::check_agreed;
use crate::delivery::{Delivery, NewParcel, send, tell_and_activate};
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::{KeyFile, Owner};
use crate::settings::{Changes, Reload, Settings};
use crate::store::{NewDelivery, NewKey, Previous, Record, Transaction, Turn, later};
use crate::user::User;

/// What key to issue.
#[derive(Clone, Debug)]
pub struct Order {
    /// For whom.
    pub user: User,
    /// What is to be other than it is kept.
    pub changes: Changes,
}

/// A key that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The new key.
    pub record: Record,
    /// The file that it went to.
    pub key_file: Option<KeyFile>,
    /// The key that it replaced.
    pub previous: Option<Previous>,
    /// Every key that was revoked before it was issued, as it was then.
    pub revoked_first: Vec<Record>,
    /// An earlier run issued it; this one finished its delivery.
    pub was_waiting: bool,
}

/// What is to be issued, with all that was decided.
pub(super) struct Issue<'a> {
    pub command: &'static str,
    pub user: &'a User,
    pub settings: &'a Settings,
    /// Whose the file that is replaced may be, too.
    pub previous_owners: [Option<Owner>; 2],
    pub reload: Option<&'a Reload>,
    pub replace: Replace<'a>,
    /// Every key of the user that was revoked for it, as it was before.
    pub revoked_first: Vec<Record>,
    /// Which of them was the current one.
    pub ended: Option<Record>,
}

/// What becomes of the user's current key.
pub(super) enum Replace<'a> {
    /// None may be active.
    Nothing,
    /// It is accepted that much longer. If it is none of those that were agreed on, nothing is issued.
    Current { grace: Duration, agreed: Option<&'a [Prefix]> },
}

/// What [`Authority::create`](super::Authority::create) does.
pub(super) fn create(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    order: &Order,
    recipient: &mut dyn Recipient,
) -> Result<Issued> {
    check_none_waits(waiting)?;
    let settings = order.changes.of(Settings::default());
    let kept = match &settings.key_file {
        Some(_) => turn.read(|snapshot| snapshot.key_file(&order.user))?,
        None => None,
    };
    let issue = Issue {
        command: "create",
        user: &order.user,
        settings: &settings,
        previous_owners: [kept.and_then(|kept| kept.owner), None],
        reload: None,
        replace: Replace::Nothing,
        revoked_first: Vec::new(),
        ended: None,
    };
    issue.go(turn, recipient)
}

/// Checks that no delivery to the user is under way: the next key would have to wait for it.
pub(super) fn check_none_waits(waiting: Option<&Delivery>) -> Result<()> {
    waiting.map_or(Ok(()), |waiting| Err(waiting.error()))
}

impl Issue<'_> {
    pub fn go(&self, turn: &mut Turn<'_>, recipient: &mut dyn Recipient) -> Result<Issued> {
        match &self.settings.key_file {
            Some(key_file) => self.to_file(turn, key_file, recipient),
            None => self.to_recipient(turn, recipient),
        }
    }

    fn to_file(&self, turn: &mut Turn<'_>, key_file: &KeyFile, recipient: &dyn Recipient) -> Result<Issued> {
        let key = new_key(turn)?;
        let (user, previous_owners) = (self.user, self.previous_owners);
        let pending = send(turn, &NewParcel { key: &key, user, key_file, previous_owners }, |transaction| {
            // The second transaction must not fail for it.
            later(transaction.now(), self.grace())?;
            let current = self.current(transaction)?;
            let reload_pending = self.reload.is_some();
            let delivery = NewDelivery { key_file, grace: self.grace(), reload_pending };
            transaction.insert_pending(&key, &self.new_key(current.as_ref()), &delivery)
        })?;
        let (record, previous) = tell_and_activate(turn, &pending, self.reload, recipient.reload_stderr())?;
        Ok(self.issued(record, previous, Some(key_file.clone())))
    }

    fn to_recipient(&self, turn: &mut Turn<'_>, recipient: &mut dyn Recipient) -> Result<Issued> {
        recipient.check(&turn.store().location().files())?;
        let key = new_key(turn)?;
        turn.write(|transaction| {
            let current = self.current(transaction)?;
            let retire = |current| transaction.retire(current, self.grace());
            let previous = current.as_ref().map(retire).transpose()?;
            let record = transaction.insert_active(&key, &self.new_key(current.as_ref()))?;
            let issued = self.issued(record, previous, None);
            recipient.take(&key, &issued)?;
            Ok(issued)
        })
    }

    /// The current key, where one may be issued beside it or in its place.
    fn current(&self, transaction: &Transaction<'_>) -> Result<Option<Record>> {
        let current = transaction.current(self.user)?;
        match (&self.replace, &current) {
            (Replace::Nothing, Some(active)) if active.status.is_accepted() => {
                return Err(key_exists(active));
            }
            (Replace::Current { agreed, .. }, Some(current)) => check_agreed(current, *agreed)?,
            _ => {}
        }
        Ok(current)
    }

    fn new_key(&self, current: Option<&Record>) -> NewKey<'_> {
        let in_place_of = current.or(self.ended.as_ref());
        let in_place_of = in_place_of.map(|current| format!(", in place of {}", current.prefix));
        let detail = format!("{}{}", self.command, in_place_of.unwrap_or_default());
        NewKey { user: self.user, settings: self.settings, detail }
    }

    fn issued(&self, record: Record, previous: Option<Previous>, key_file: Option<KeyFile>) -> Issued {
        let revoked = self.ended.as_ref().map(|current| Previous {
            prefix: current.prefix,
            revoked: current.status.is_accepted(),
            valid_until: None,
        });
        let previous = previous.or(revoked);
        Issued { record, key_file, previous, revoked_first: self.revoked_first.clone(), was_waiting: false }
    }

    fn grace(&self) -> Duration {
        match self.replace {
            Replace::Nothing => Duration::ZERO,
            Replace::Current { grace, .. } => grace,
        }
    }
}

/// A key whose prefix no other has: drawn again where one has, once in a hundred million times
/// among a million keys.
fn new_key(turn: &Turn<'_>) -> Result<Key> {
    loop {
        let key = Key::generate()?;
        if turn.store().with_prefix(key.prefix(), turn.now())?.is_none() {
            return Ok(key);
        }
    }
}

fn key_exists(active: &Record) -> Error {
    Error::new(Code::KeyExists, format!("{} has an active key already: {}", active.user, active.prefix))
        .hint(format!("`apikey refresh {0}` replaces it, `apikey revoke {0}` ends it", active.user))
}
