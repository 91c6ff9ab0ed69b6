//! Issuing a key: to a file, as `delivery` has it, or to whoever asked for it.
//!
//! A key that goes to no file is handed over inside the transaction, and the commit comes last.
//! Killed before the commit, the process has given out a key that nobody accepts; the other order
//! would leave an accepted key that nobody saw. A hand-over that fails undoes the transaction.

use std::time::Duration;

use super::revoke::check_agreed;
use super::{Recipient, Shortfall};
use crate::delivery::{Activated, Delivery, NewParcel, Replaces, send, tell_and_activate};
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::{KeyFile, Owner};
use crate::settings::{Changes, Reload, Settings};
use crate::store::{Held, Holdings, NewDelivery, NewKey, Record, Status, Transaction, Turn, later};
use crate::timestamp::Timestamp;
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
#[non_exhaustive]
pub struct Issued {
    /// The new key.
    pub record: Record,
    /// The file that it went to.
    pub key_file: Option<KeyFile>,
    /// From when on it is renewed.
    pub due_at: Option<Timestamp>,
    /// The key that it replaced, as it is now.
    pub previous: Option<Held>,
    /// The file that the last key went to, where that is another one.
    pub previous_key_file: Option<KeyFile>,
    /// Every key that was revoked before it was issued, as it was then.
    pub revoked_first: Vec<Held>,
    /// What was not done of that.
    pub shortfall: Shortfall,
    /// The user's older keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// An earlier run issued it; this one finished its delivery.
    pub was_waiting: bool,
    /// A signal came meanwhile that was to end the process.
    pub(super) was_interrupted: bool,
}

/// What is to be issued, with all that was decided.
pub(super) struct Issue<'a> {
    pub command: &'static str,
    pub user: &'a User,
    pub settings: &'a Settings,
    /// The file that the last key went to.
    pub kept_key_file: Option<&'a KeyFile>,
    /// Whose the file that is replaced may be, too.
    pub previous_owners: [Option<Owner>; 2],
    /// What the file may hold.
    pub replaces: Replaces,
    /// How the reader of the file is told.
    pub tell_by: Option<&'a Reload>,
    pub replace: Replace<'a>,
    /// Every key of the user that was revoked for it, as it was before.
    pub revoked_first: Vec<Held>,
    pub shortfall: Shortfall,
}

/// What becomes of the user's current key.
pub(super) enum Replace<'a> {
    /// None may be active.
    Nothing,
    /// It is accepted that much longer. If it is none of those that were agreed on, nothing is issued; nor
    /// where there was one that was `seen`, and is revoked since.
    Current { grace: Duration, agreed: Option<&'a [Prefix]>, seen: Option<Prefix> },
}

/// What [`Authority::create`](super::Authority::create) does.
pub(super) fn create(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    order: &Order,
    recipient: &mut dyn Recipient,
) -> Result<Issued> {
    check_none_waits(turn, waiting)?;
    let settings = order.changes.of(Settings::default())?;
    // Whose the file is that is there.
    let kept = match &settings.key_file {
        Some(_) => turn.read(|snapshot| snapshot.key_file(&order.user))?,
        None => None,
    };
    let issue = Issue {
        command: "create",
        user: &order.user,
        settings: &settings,
        kept_key_file: kept.as_ref(),
        previous_owners: [kept.as_ref().and_then(|kept| kept.owner), None],
        replaces: Replaces::Anything,
        // There is no reader yet, and nothing that ends.
        tell_by: None,
        replace: Replace::Nothing,
        revoked_first: Vec::new(),
        shortfall: Shortfall::default(),
    };
    issue.go(turn, recipient)
}

/// Checks that no delivery to the user is under way: the next key would have to wait for it.
pub(super) fn check_none_waits(turn: &Turn<'_>, waiting: Option<&Delivery>) -> Result<()> {
    waiting.map_or(Ok(()), |waiting| Err(waiting.error(turn.store(), turn.now())))
}

impl Issued {
    pub(super) fn new(activated: Activated, key_file: Option<KeyFile>, settings: &Settings) -> Self {
        let Activated { record, previous, still_accepted, interrupted } = activated;
        Issued {
            due_at: settings.due_at(record.created_at),
            record,
            key_file,
            previous,
            previous_key_file: None,
            revoked_first: Vec::new(),
            shortfall: Shortfall::default(),
            still_accepted,
            was_waiting: false,
            was_interrupted: interrupted,
        }
    }
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
        let Issue { user, previous_owners, replaces, .. } = *self;
        let parcel = NewParcel { key: &key, user, key_file, previous_owners, replaces };
        let mut replaced = self.ended().map(|ended| ended.prefix);
        let pending = send(turn, &parcel, |transaction| {
            // The second transaction must not fail for it.
            later(transaction.now(), self.grace())?;
            let current = self.replaceable(transaction)?.current;
            replaced = current.map(|current| current.prefix).or(replaced);
            let reload_pending = self.tell_by.is_some();
            let delivery = NewDelivery { key_file, grace: self.grace(), reload_pending };
            transaction.insert_pending(&key, &self.new_key(current), &delivery)
        });
        let pending = pending.inspect_err(|error| {
            if error.code() == Code::Undeliverable {
                // The stage's name is another each time, and the reason the same.
                write_down_refusal(turn, user, &error.why().replace(&key.prefix().to_string(), "PREFIX"));
            }
        })?;
        let stderr = recipient.reload_stderr();
        let activated = tell_and_activate(turn, &pending, replaced, self.tell_by, stderr)?;
        Ok(self.issued(activated, Some(key_file.clone())))
    }

    fn to_recipient(&self, turn: &mut Turn<'_>, recipient: &mut dyn Recipient) -> Result<Issued> {
        recipient.check(&turn.store().location().files())?;
        let key = new_key(turn)?;
        turn.write(|transaction| {
            let Holdings { current, mut older, .. } = self.replaceable(transaction)?;
            let retire = |current| transaction.retire(self.user, current, self.grace());
            let previous = current.as_ref().map(retire).transpose()?;
            older.extend(previous.filter(|previous| previous.status.is_accepted()));
            let record = transaction.insert_active(&key, &self.new_key(current))?;
            let interrupted = false;
            let activated = Activated { record, previous, still_accepted: older, interrupted };
            let issued = self.issued(activated, None);
            recipient.take(&key, &issued)?;
            Ok(issued)
        })
    }

    /// What the user has, where a key may be issued beside it or in its place.
    fn replaceable(&self, transaction: &Transaction<'_>) -> Result<Holdings> {
        let holdings = transaction.holdings(self.user)?;
        match (&self.replace, &holdings.current) {
            (Replace::Nothing, Some(active)) if active.status.is_accepted() => {
                return Err(key_exists(self.user, active));
            }
            (Replace::Current { agreed, .. }, Some(current)) => check_agreed(self.user, current, *agreed)?,
            (Replace::Current { seen: Some(seen), .. }, None) => {
                let message = format!("{seen} of {} was revoked meanwhile, so none was issued", self.user);
                return Err(Error::new(Code::NoKey, message)
                    .hint(format!("`apikey refresh {}` issues one all the same", self.user)));
            }
            _ => {}
        }
        match &holdings.pending {
            Some(pending) => Err(is_pending(self.user, pending)),
            None => Ok(holdings),
        }
    }

    fn new_key(&self, current: Option<Held>) -> NewKey<'_> {
        let in_place_of = current.map(|current| current.prefix).or(self.ended().map(|ended| ended.prefix));
        let in_place_of = in_place_of.map(|prefix| format!(", in place of {prefix}"));
        let detail = format!("{}{}", self.command, in_place_of.unwrap_or_default());
        NewKey { user: self.user, settings: self.settings, detail }
    }

    /// The one of the revoked keys that was the current one.
    fn ended(&self) -> Option<&Held> {
        self.revoked_first.iter().find(|key| key.stored == Status::Active)
    }

    fn issued(&self, activated: Activated, key_file: Option<KeyFile>) -> Issued {
        let revoked = self.ended().map(|current| Held {
            status: if current.status.is_accepted() { Status::Revoked } else { current.status },
            ..*current
        });
        let path = key_file.as_ref().map(KeyFile::path);
        let is_another = |kept: &&KeyFile| Some(kept.path()) != path;
        let previous_key_file = self.kept_key_file.filter(is_another).cloned();
        let issued = Issued::new(activated, key_file, self.settings);
        Issued {
            previous: issued.previous.or(revoked),
            previous_key_file,
            revoked_first: self.revoked_first.clone(),
            // The next one is there.
            shortfall: Shortfall { still_renewed: false, ..self.shortfall },
            ..issued
        }
    }

    fn grace(&self) -> Duration {
        match self.replace {
            Replace::Nothing => Duration::ZERO,
            Replace::Current { grace, .. } => grace,
        }
    }
}

/// Writes down that a delivery to `user` was refused, and `why`. It changes nothing, so that what it records is no
/// transaction that could have this in it; and that it was refused is what is told, written down or not.
pub(super) fn write_down_refusal(turn: &mut Turn<'_>, user: &User, why: &str) {
    let _ = turn.write(|transaction| transaction.refuse(user, why));
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

/// What comes of a key that a run without the lock has put there, or whose rows make no sense.
pub(super) fn is_pending(user: &User, pending: &Held) -> Error {
    let message = format!("{} of {user} is on its way into a file, and not done", pending.prefix);
    Error::new(Code::DeliveryPending, message).hint(format!(
        "try again; if that does not help, `apikey refresh {user} --revoke-first` replaces it, and \
         `apikey revoke {user}` ends all keys of {user}"
    ))
}

fn key_exists(user: &User, active: &Held) -> Error {
    Error::new(Code::KeyExists, format!("{user} has an active key already: {}", active.prefix))
        .hint(format!("`apikey refresh {user}` replaces it, `apikey revoke {user}` ends it"))
}
