//! Issuing a key: what `create` and `refresh` have in common.
//!
//! The key is handed over inside the transaction, and the commit comes last. Killed before the
//! commit, the process has shown a key that nobody accepts; the other order would leave an
//! accepted key that nobody saw. A hand-over that fails undoes the transaction.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::key::Key;
use crate::name::Name;
use crate::random;
use crate::store::{NewKey, Outcome, Record, Status, Store, Transaction};
use crate::timestamp::Timestamp;
use crate::user::User;

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
    /// It stops being accepted after `grace`, and by its own expiry at the latest.
    Current {
        /// How long it is still accepted.
        grace: Duration,
        /// The prefix of the current key where somebody was asked about it: if another has taken
        /// its place since, nothing is issued.
        agreed: Option<String>,
    },
}

/// A key that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The new key.
    pub record: Record,
    /// The key that it replaced.
    pub previous: Option<Previous>,
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

/// Issues a key and hands it over with `print`, as one transaction.
///
/// Fails with [`Code::KeyExists`] where [`Replace::Nothing`] finds an active key, and with what
/// `print` fails with; then nothing has changed.
pub fn issue(
    store: &mut Store,
    order: &Order,
    clock: fn() -> Timestamp,
    mut print: impl FnMut(&Key, &Issued) -> Result<()>,
) -> Result<Issued> {
    let lock = store.lock()?;
    store.write(&lock, |transaction| {
        let now = clock();
        let agreed = match &order.replace {
            Replace::Current { agreed, .. } => agreed.as_deref(),
            Replace::Nothing => None,
        };
        let current = transaction.current(&order.user, agreed, now)?;
        let previous = make_room(transaction, order, current.as_ref(), now)?;
        let (key, record) = insert(transaction, order, current, now)?;
        let outcome = Outcome { key_hash: record.key_hash.clone(), status: Status::Active };
        let issued = Issued { record, previous };
        print(&key, &issued)?;
        Ok((issued, outcome))
    })
}

/// Takes the current key out of its place, as the order says.
fn make_room(
    transaction: &Transaction<'_>,
    order: &Order,
    current: Option<&Record>,
    now: Timestamp,
) -> Result<Option<Previous>> {
    let active = current.filter(|current| current.status.is_accepted());
    let grace = match (&order.replace, active) {
        (Replace::Nothing, Some(active)) => return Err(key_exists(active)),
        (Replace::Nothing, None) => Duration::ZERO,
        (Replace::Current { grace, .. }, _) => *grace,
    };
    let Some(current) = current else { return Ok(None) };
    let valid_until = match (grace, active) {
        (Duration::ZERO, _) | (_, None) => None,
        (grace, Some(active)) => Some(later(now, grace)?.min(active.expires_at.unwrap_or(Timestamp::MAX))),
    };
    transaction.retire(current, valid_until, now)?;
    let revoked = active.is_some() && valid_until.is_none();
    Ok(Some(Previous { prefix: current.prefix.clone(), revoked, valid_until }))
}

/// Makes a key and inserts it; another one where its prefix is taken, which is once in a hundred
/// million times among a million keys.
fn insert(
    transaction: &Transaction<'_>,
    order: &Order,
    current: Option<Record>,
    now: Timestamp,
) -> Result<(Key, Record)> {
    let kept_name =
        current.filter(|_| matches!(order.replace, Replace::Current { .. })).and_then(|key| key.name);
    let new = NewKey {
        id: new_id(now)?,
        user: &order.user,
        name: order.name.as_ref().map(Name::as_str).or(kept_name.as_deref()),
        created_at: now,
        expires_at: order.expires_in.map(|duration| later(now, duration)).transpose()?,
    };
    loop {
        let key = Key::generate()?;
        if let Some(record) = transaction.insert(&key, &new)? {
            return Ok((key, record));
        }
    }
}

/// A UUID, version 7: RFC 9562, section 5.7.
fn new_id(now: Timestamp) -> Result<String> {
    let mut random = [0; 10];
    random::fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random).into_uuid().to_string())
}

fn later(now: Timestamp, duration: Duration) -> Result<Timestamp> {
    now.checked_add(duration).ok_or_else(|| {
        Error::new(Code::Usage, "a duration ends after the year 9999").hint("give a shorter one")
    })
}

fn key_exists(active: &Record) -> Error {
    Error::new(Code::KeyExists, format!("{} has an active key already: {}", active.user, active.prefix))
        .hint(format!("`apikey refresh {0}` replaces it, `apikey revoke {0}` ends it", active.user))
}
