//! Issuing a key, to standard output.
//!
//! The key is handed over inside the transaction, and the commit comes last. Killed before the
//! commit, the process has shown a key that nobody accepts; the other order would leave an
//! accepted key that nobody saw. A hand-over that fails undoes the transaction.
//!
//! Issuing to a key file is in `delivery.rs`; what both have in common is here.

use std::time::Duration;

use crate::agreed::check_agreed;
use crate::error::{Code, Error, Result};
use crate::key::Key;
use crate::name::Name;
use crate::random;
use crate::recovery::{End, Recovered, remove_stage};
use crate::store::{NewDelivery, NewKey, Outcome, Record, Status, Transaction};
use crate::timestamp::Timestamp;
use crate::user::User;
use crate::writer::Writer;

/// What key to issue.
#[derive(Clone, Debug)]
pub struct Order {
    /// For whom.
    pub user: User,
    /// Its label. Where there is none, that of the key it replaces.
    pub name: Option<Name>,
    /// How long it is accepted. Where there is none, until it is replaced or revoked.
    pub expires_in: Option<Duration>,
    /// What becomes of the user's current key.
    pub replace: Replace,
}

/// What becomes of the user's current key when the next one is issued.
#[derive(Clone, Debug)]
pub enum Replace {
    /// None may be active: otherwise nothing is issued.
    Nothing,
    /// It stops being accepted.
    Current {
        /// How long it is still accepted, but not past its own expiry. Where that is `None`, it is
        /// not accepted any more.
        grace: Option<Duration>,
        /// Whether it ends before the next one is delivered to its file, so that for a moment
        /// there is none that the file's reader could use.
        revoke_first: bool,
        /// The prefixes of the keys that somebody was asked about: if another would end too, nothing
        /// is issued.
        agreed: Option<Vec<String>>,
    },
}

impl Order {
    pub(crate) fn agreed(&self) -> Option<&[String]> {
        match &self.replace {
            Replace::Current { agreed, .. } => agreed.as_deref(),
            Replace::Nothing => None,
        }
    }

    /// Whether `waiting`, a key that was delivered and waits for its reload, is what it asks for.
    pub fn is_met_by(&self, waiting: &Record) -> bool {
        let Replace::Current { grace, revoke_first: false, .. } = self.replace else { return false };
        let name = self.name.as_ref().map(Name::as_str);
        let ends = |expires_in| waiting.created_at.checked_add(expires_in);
        (name.is_none() || name == waiting.name.as_deref())
            && self.expires_in.is_none_or(|expires_in| {
                ends(expires_in).is_some_and(|ends| Some(ends) == waiting.expires_at)
            })
            && grace.is_none_or(|grace| grace == waiting.grace)
    }

    pub(crate) fn grace(&self) -> Duration {
        match self.replace {
            Replace::Current { grace, .. } => grace.unwrap_or_default(),
            Replace::Nothing => Duration::ZERO,
        }
    }
}

/// A key that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The new key.
    pub record: Record,
    /// The key that it replaced.
    pub previous: Option<Previous>,
    /// The prefix of a key that was on its way into a file, and was revoked before it.
    pub superseded: Option<String>,
}

/// A key that was replaced.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Its first 15 characters.
    pub prefix: String,
    /// Whether it was revoked by this: not where it has a grace period, or had expired before.
    pub revoked: bool,
    /// Until when it is still accepted; `None` where it is not.
    pub valid_until: Option<Timestamp>,
}

impl Writer<'_> {
    /// Issues a key and hands it over with `print`, as one transaction.
    ///
    /// Fails with [`Code::KeyExists`] where [`Replace::Nothing`] finds an active key, and with what
    /// `print` fails with; then nothing has changed.
    pub fn issue(
        &mut self,
        order: &Order,
        mut print: impl FnMut(&Key, &Issued) -> Result<()>,
    ) -> Result<Issued> {
        let clock = self.clock;
        let superseded = self.superseded(order)?;
        let key = self.new_key()?;
        let issued = self.store.write(&self.lock, |transaction| {
            let now = clock();
            superseded.iter().try_for_each(|pending| transaction.revoke(pending, now))?;
            let current = current(transaction, order, now)?;
            let replace = |current| replace(transaction, current, order.grace(), now);
            let previous = current.as_ref().map(replace).transpose()?;
            let record = insert(transaction, order, &key, current.as_ref(), None, now)?;
            let outcome = Outcome { key_hash: record.key_hash.clone(), status: Status::Active };
            let superseded = superseded.as_ref().map(|key| key.prefix.clone());
            let issued = Issued { record, previous, superseded };
            print(&key, &issued)?;
            Ok((issued, outcome))
        })?;
        superseded.iter().for_each(remove_stage);
        Ok(issued)
    }

    /// The key that is still on its way, where the order ends it with the current one. Any other
    /// order has to wait for it.
    pub(crate) fn superseded(&self, order: &Order) -> Result<Option<Record>> {
        match (self.unfinished(&order.user), &order.replace) {
            (None, _) => Ok(None),
            (Some(unfinished), Replace::Current { revoke_first: true, agreed, .. }) => {
                check_agreed(&unfinished.key, agreed.as_deref())?;
                Ok(Some(unfinished.key.clone()))
            }
            (Some(unfinished), _) => Err(not_at_its_end(unfinished)),
        }
    }

    /// A key whose prefix no other has: drawn again where one has, once in a hundred million times
    /// among a million keys.
    pub(crate) fn new_key(&self) -> Result<Key> {
        loop {
            let key = Key::generate()?;
            if !self.store.has_prefix(key.prefix())? {
                return Ok(key);
            }
        }
    }
}

/// Why no key was issued.
pub fn undeliverable(why: &str) -> Error {
    Error::new(Code::Undeliverable, format!("the key cannot be handed over, so none was issued: {why}"))
}

/// The current key, where the order allows one to be issued beside it or in its place.
pub(crate) fn current(
    transaction: &Transaction<'_>,
    order: &Order,
    now: Timestamp,
) -> Result<Option<Record>> {
    let current = transaction.current(order.user.as_str(), now)?;
    current.iter().try_for_each(|current| check_agreed(current, order.agreed()))?;
    match (&order.replace, &current) {
        (Replace::Nothing, Some(active)) if active.status.is_accepted() => Err(key_exists(active)),
        _ => Ok(current),
    }
}

/// Takes the current key out of its place.
pub(crate) fn replace(
    transaction: &Transaction<'_>,
    current: &Record,
    grace: Duration,
    now: Timestamp,
) -> Result<Previous> {
    let accepted = current.status.is_accepted();
    let valid_until = match current.expires_at {
        _ if grace.is_zero() || !accepted => None,
        Some(expiry) => Some(later(now, grace)?.min(expiry)),
        None => Some(later(now, grace)?),
    };
    transaction.retire(current, valid_until, now)?;
    Ok(Previous { prefix: current.prefix.clone(), revoked: accepted && valid_until.is_none(), valid_until })
}

/// Inserts `key`: active, or pending where it is on its way to a file.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    order: &Order,
    key: &Key,
    current: Option<&Record>,
    delivery: Option<NewDelivery<'_>>,
    now: Timestamp,
) -> Result<Record> {
    let kept_name = match order.replace {
        Replace::Current { .. } => current.and_then(|current| current.name.as_deref()),
        Replace::Nothing => None,
    };
    transaction.insert(
        key,
        &NewKey {
            id: new_id(now)?,
            user: &order.user,
            name: order.name.as_ref().map(Name::as_str).or(kept_name),
            created_at: now,
            expires_at: order.expires_in.map(|duration| later(now, duration)).transpose()?,
            delivery,
        },
    )
}

/// A UUID, version 7: RFC 9562, section 5.7.
fn new_id(now: Timestamp) -> Result<String> {
    let mut random = [0; 10];
    random::fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random).into_uuid().to_string())
}

/// The moment `duration` later, where there is one.
pub(crate) fn later(now: Timestamp, duration: Duration) -> Result<Timestamp> {
    now.checked_add(duration).ok_or_else(|| {
        Error::new(Code::Usage, "a duration ends after the year 9999").hint("give a shorter one")
    })
}

fn key_exists(active: &Record) -> Error {
    Error::new(Code::KeyExists, format!("{} has an active key already: {}", active.user, active.prefix))
        .hint(format!("`apikey refresh {0}` replaces it, `apikey revoke {0}` ends it", active.user))
}

fn not_at_its_end(unfinished: &Recovered) -> Error {
    let Record { prefix, user, .. } = &unfinished.key;
    let path = unfinished.key.path();
    match &unfinished.end {
        End::Stuck(reason) => {
            let message = format!("{prefix} of {user} is accepted, and still on its way to {path}: {reason}");
            Error::new(Code::DeliveryPending, message).hint(see_to_that(user))
        }
        _ => {
            let message =
                format!("{prefix} of {user} is in {path} and accepted, but its reader has not been told");
            Error::new(Code::DeliveryPending, message).hint(tell_its_reader(user))
        }
    }
}

/// What to do about a delivery that something stands in the way of.
pub(crate) fn see_to_that(user: &str) -> String {
    format!(
        "see to that, and the next command that writes goes on from there; or give the key up: \
         `apikey refresh {user} --revoke-first` replaces it, `apikey revoke {user}` ends all keys of {user}"
    )
}

/// What to do about a key that is in its file, and whose reader does not know.
pub(crate) fn tell_its_reader(user: &str) -> String {
    format!(
        "`apikey refresh {user} --reload COMMAND` goes on from there, `apikey revoke {user}` ends all keys of {user}"
    )
}
