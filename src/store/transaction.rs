//! Every change to the keys, inside one transaction. Each writes down what it did, by whom (`event.rs`).

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::time::Duration;

use rusqlite::params;
use uuid::Uuid;

use super::event::{Event, Witness};
use super::held::Held;
use super::record::{Pending, Record, Status};
use super::snapshot::Snapshot;
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::KeyFile;
use crate::name::Name;
use crate::random;
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::user::User;

/// An open transaction that may change the keys. The store begins and ends it.
pub struct Transaction<'store> {
    pub(super) snapshot: Snapshot<'store>,
    pub(super) actor: &'store Actor,
    pub(super) witness: Cell<Option<Witness>>,
    /// What was written down.
    pub(super) events: RefCell<Vec<Event>>,
}

/// To what `last_used_at` is precise.
const USE_PRECISION: Duration = Duration::from_secs(60);

/// What is to be known of a key that is issued.
pub struct NewKey<'a> {
    pub user: &'a User,
    /// What is kept from now on; for a key that is delivered, from its activation on.
    pub settings: &'a Settings,
    /// By which command, in whose place.
    pub detail: String,
}

/// How a key is on its way into its file.
pub struct NewDelivery<'a> {
    pub key_file: &'a KeyFile,
    pub grace: Duration,
    pub reload_pending: bool,
}

impl<'store> Deref for Transaction<'store> {
    type Target = Snapshot<'store>;

    fn deref(&self) -> &Snapshot<'store> {
        &self.snapshot
    }
}

impl Transaction<'_> {
    /// Issues `key`: it is the user's active one, whose place must be free.
    pub fn insert_active(&self, key: &Key, new: &NewKey<'_>) -> Result<Record> {
        let record = self.insert(key, new, Status::Active)?;
        self.keep(&record, new.settings)?;
        Ok(record)
    }

    /// Issues `key` as one that is on its way into a file.
    pub fn insert_pending(&self, key: &Key, new: &NewKey<'_>, delivery: &NewDelivery<'_>) -> Result<Pending> {
        let record = self.insert(key, new, Status::Pending)?;
        self.write_settings(&record, new.settings, Some(delivery))?;
        Ok(Pending {
            key: record,
            settings: new.settings.clone(),
            key_file: delivery.key_file.clone(),
            grace: delivery.grace,
            reload_pending: delivery.reload_pending,
        })
    }

    /// Makes a pending key, of which a delivery is done, the user's active one, whose place must be
    /// free, and brings its settings into force. `false` where it is not pending any more: then
    /// nothing has changed.
    pub fn activate(&self, pending: &Pending) -> Result<bool> {
        let sql = "UPDATE keys SET status = 'active' WHERE prefix = ?1 AND status = 'pending'";
        let changed = self.execute(sql, [pending.key.prefix.bits()])?;
        if changed == 1 {
            let Record { user, prefix, .. } = &pending.key;
            self.forget_settings_of(user, *prefix)?;
            self.keep(&pending.key, &pending.settings)?;
            self.record("delivered", user, &Held::from(&pending.key), None, Some(pending.key_file.path()))?;
        }
        Ok(changed == 1)
    }

    /// Takes the current key out of its place. It is accepted for `grace` more, but not past its own
    /// expiry. Returns it as it is then.
    pub fn retire(&self, user: &User, current: &Held, grace: Duration) -> Result<Held> {
        if !current.status.is_accepted() {
            self.set_status(current.prefix, Status::Expired, None)?;
            self.record("revoked", user, current, None, None)?;
            return Ok(Held { stored: Status::Expired, ..*current });
        }
        if grace.is_zero() {
            self.end(&[*current])?;
            self.ended(user, &[*current])?;
            let status = Status::Revoked;
            return Ok(Held { status, stored: status, revoked_at: Some(self.now), ..*current });
        }
        let until = later(self.now, grace)?;
        let until = current.expires_at.map_or(until, |expiry| until.min(expiry));
        let status = Status::Retiring;
        self.set_status(current.prefix, status, Some(until))?;
        self.record("retired", user, current, Some(until), None)?;
        Ok(Held { status, stored: status, revoked_at: Some(until), ..*current })
    }

    /// Changes what is known of the user's active key, and what is kept. `what` is what that is.
    pub fn edit(
        &self,
        key: &Record,
        expires_at: Option<Timestamp>,
        settings: &Settings,
        what: &str,
    ) -> Result<()> {
        let sql = "UPDATE keys SET name = ?2, expires_at = ?3 WHERE prefix = ?1";
        let (name, end) = (settings.name.as_ref().map(Name::as_str), expires_at.map(|at| at.to_string()));
        self.execute(sql, params![key.prefix.bits(), name, end])?;
        let (kept, due_at) = self.settings_and_due(&key.user)?;
        self.keep(key, settings)?;
        if let Some(due_at) = due_at.filter(|_| kept.renew_after == settings.renew_after) {
            // What made it due earlier is not over.
            self.make_due(&key.user, due_at)?;
        }
        self.record("edited", &key.user, &Held { expires_at, ..Held::from(key) }, None, Some(what))
    }

    /// Revokes a key whose delivery is given up, and forgets what it was to bring. `false` where it is not
    /// pending any more: then nothing has changed.
    pub fn undo(&self, pending: &Record) -> Result<bool> {
        let Record { user, prefix, .. } = pending;
        let sql =
            "UPDATE keys SET status = 'revoked', revoked_at = ?2 WHERE prefix = ?1 AND status = 'pending'";
        let changed = self.execute(sql, params![prefix.bits(), self.now.to_string()])?;
        if changed == 1 {
            self.forget_settings_of(user, *prefix)?;
            self.record("undone", user, &Held::from(pending), None, None)?;
        }
        Ok(changed == 1)
    }

    fn insert(&self, key: &Key, new: &NewKey<'_>, status: Status) -> Result<Record> {
        let sql = "INSERT INTO keys (prefix, key_hash, id, user, name, status, expires_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let record = Record {
            key_hash: key.hash(),
            id: new_id(self.now)?,
            user: new.user.clone(),
            prefix: key.prefix(),
            name: new.settings.name.clone(),
            status,
            stored: status,
            created_at: self.now,
            last_used_at: None,
            expires_at: new.settings.lifetime.map(|lifetime| later(self.now, lifetime)).transpose()?,
            revoked_at: None,
        };
        let parameters = params![
            record.prefix.bits(),
            record.key_hash.as_bytes(),
            record.id.to_string(),
            record.user.as_str(),
            record.name.as_ref().map(Name::as_str),
            record.status.as_str(),
            record.expires_at.map(|at| at.to_string()),
        ];
        self.execute(sql, parameters)?;
        self.record("issued", new.user, &Held::from(&record), None, Some(&new.detail))?;
        Ok(record)
    }

    pub(super) fn set_status(
        &self,
        key: Prefix,
        status: Status,
        revoked_at: Option<Timestamp>,
    ) -> Result<()> {
        let sql = "UPDATE keys SET status = ?2, revoked_at = ?3 WHERE prefix = ?1";
        let revoked_at = revoked_at.map(|at| at.to_string());
        self.execute(sql, params![key.bits(), status.as_str(), revoked_at]).map(drop)
    }

    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize> {
        self.statement(sql, |change| change.execute(parameters))
    }
}

/// Writes that the key was used now, unless that was written within the last minute. No event: nothing about the
/// key has changed.
pub fn write_use(snapshot: &Snapshot<'_>, prefix: Prefix) -> Result<()> {
    // A use in the future is a clock that went back: not to be believed.
    let sql = "UPDATE keys SET last_used_at = ?2 WHERE prefix = ?1 \
               AND (last_used_at IS NULL OR last_used_at <= ?3 OR last_used_at >= ?4)";
    let now = snapshot.now;
    let (before, after) = (now.before(USE_PRECISION), now.checked_add(USE_PRECISION).unwrap_or(now));
    let parameters = params![prefix.bits(), now.to_string(), before.to_string(), after.to_string()];
    snapshot.statement(sql, |use_| use_.execute(parameters)).map(drop)
}

/// Whether that `key` is used now is news.
pub fn is_use_worth_writing(key: &Record, now: Timestamp) -> bool {
    let apart = |used: Timestamp| now.since(used).or(used.since(now));
    key.last_used_at.and_then(apart).is_none_or(|apart| apart >= USE_PRECISION)
}

/// The moment `duration` later, where there is one.
pub fn later(now: Timestamp, duration: Duration) -> Result<Timestamp> {
    now.checked_add(duration).ok_or_else(|| {
        Error::new(Code::Usage, "a duration ends after the year 9999").hint("give a shorter one")
    })
}

/// A UUID, version 7: RFC 9562, section 5.7.
fn new_id(now: Timestamp) -> Result<Uuid> {
    let mut random = [0; 10];
    random::fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random).into_uuid())
}
