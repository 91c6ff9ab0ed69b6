//! What can be done to the keys inside one transaction.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::record::{Record, Status, columns};
use super::{Location, failure};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::key_file::{EnvName, KeyFile};
use crate::timestamp::Timestamp;
use crate::user::User;

/// An open transaction. [`Store`](super::Store) begins and ends it.
pub struct Transaction<'store> {
    pub(super) connection: &'store Connection,
    pub(super) location: &'store Location,
}

/// What is known of a key before it is inserted.
pub(crate) struct NewKey<'a> {
    pub id: String,
    pub user: &'a User,
    pub name: Option<&'a str>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Where it is on its way to: it is pending then, and active at once where it is on no way.
    pub delivery: Option<NewDelivery<'a>>,
}

/// Where a new key is on its way to.
pub(crate) struct NewDelivery<'a> {
    pub key_file: &'a KeyFile,
    pub grace: Duration,
    pub reload_pending: bool,
}

impl Transaction<'_> {
    /// The user's current key: the active one, or the one that was until it expired.
    pub(crate) fn current(&self, user: &str, now: Timestamp) -> Result<Option<Record>> {
        let sql = concat!("SELECT ", columns!(), " FROM keys WHERE user = ?1 AND status = 'active'");
        self.run(|connection| {
            let mut statement = connection.prepare(sql)?;
            statement.query_row([user], |row| Record::read(row, now)).optional()
        })
    }

    /// What the user has that is accepted, or would be if the clock went back; the current key
    /// first.
    pub(crate) fn held(&self, user: &User, now: Timestamp) -> Result<Vec<Record>> {
        // One arm for each status, as a literal: only so can SQLite use the partial indexes.
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM keys WHERE user = ?1 AND status = 'active' UNION ALL ",
            "SELECT ",
            columns!(),
            " FROM keys WHERE user = ?1 AND status = 'pending' UNION ALL ",
            "SELECT ",
            columns!(),
            " FROM keys WHERE user = ?1 AND status = 'retiring'",
        );
        self.run(|connection| {
            let mut statement = connection.prepare(sql)?;
            statement.query_map([user.as_str()], |row| Record::read(row, now))?.collect()
        })
    }

    /// Inserts `key` and returns its record.
    pub(crate) fn insert(&self, key: &Key, new: &NewKey<'_>) -> Result<Record> {
        let sql = concat!(
            "INSERT INTO keys (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, NULL, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
        );
        let delivery = new.delivery.as_ref();
        let record = Record {
            key_hash: key.hash().as_str().to_owned(),
            id: new.id.clone(),
            user: new.user.as_str().to_owned(),
            prefix: key.prefix().to_owned(),
            name: new.name.map(str::to_owned),
            status: if delivery.is_some() { Status::Pending } else { Status::Active },
            created_at: new.created_at,
            last_used_at: None,
            expires_at: new.expires_at,
            revoked_at: None,
            key_file: delivery.map(|delivery| delivery.key_file.clone()),
            grace: delivery.map(|delivery| delivery.grace).unwrap_or_default(),
            reload_pending: delivery.is_some_and(|delivery| delivery.reload_pending),
        };
        let key_file = record.key_file.as_ref();
        let owner = key_file.and_then(|key_file| key_file.owner);
        let parameters = params![
            record.key_hash,
            record.id,
            record.user,
            record.prefix,
            record.name,
            record.status.as_str(),
            record.created_at.to_string(),
            record.expires_at.map(|at| at.to_string()),
            delivery.map(|delivery| delivery.grace.as_millis() as i64),
            delivery.map(|delivery| delivery.reload_pending),
            key_file.map(KeyFile::path),
            key_file.map(|key_file| key_file.mode.bits()),
            owner.map(|owner| owner.uid),
            owner.map(|owner| owner.gid),
            key_file.and_then(|key_file| key_file.env.as_ref()).map(EnvName::as_str),
        ];
        self.run(|connection| connection.prepare(sql)?.execute(parameters))?;
        Ok(record)
    }

    /// Makes a pending key the user's active one. The place must be free.
    pub(crate) fn activate(&self, pending: &Record) -> Result<()> {
        let sql = "UPDATE keys SET status = 'active', grace_ms = NULL, reload_pending = NULL \
                   WHERE key_hash = ?1 AND status = 'pending'";
        self.run(|connection| connection.prepare(sql)?.execute([&pending.key_hash]))?;
        Ok(())
    }

    /// Takes the current key out of its place: accepted until `valid_until` where that is given
    /// and the key has not expired, else not accepted from now on.
    pub(crate) fn retire(
        &self,
        current: &Record,
        valid_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        let (status, revoked_at) = match (current.status, valid_until) {
            (Status::Expired, _) => (Status::Expired, None),
            (_, None) => (Status::Revoked, Some(now)),
            (_, Some(until)) => (Status::Retiring, Some(until)),
        };
        self.set_status(current, status, revoked_at)
    }

    fn set_status(&self, key: &Record, status: Status, revoked_at: Option<Timestamp>) -> Result<()> {
        let sql = "UPDATE keys SET status = ?2, revoked_at = ?3 WHERE key_hash = ?1";
        let parameters = params![key.key_hash, status.as_str(), revoked_at.map(|at| at.to_string())];
        self.run(|connection| connection.prepare(sql)?.execute(parameters))?;
        Ok(())
    }

    /// Revokes a key at once and for good. What was revoked before keeps its time.
    pub(crate) fn revoke(&self, key: &Record, now: Timestamp) -> Result<()> {
        let revoked_at = key.revoked_at.map_or(now, |before| before.min(now));
        self.set_status(key, Status::Revoked, Some(revoked_at))
    }

    /// Writes that the key was used now, unless another has written it since the key was read.
    pub(crate) fn record_use(&self, key: &Record, now: Timestamp) -> Result<bool> {
        let sql = "UPDATE keys SET last_used_at = ?2 WHERE key_hash = ?1 AND last_used_at IS ?3";
        let before = key.last_used_at.map(|at| at.to_string());
        let parameters = params![key.key_hash, now.to_string(), before];
        self.run(|connection| connection.prepare(sql)?.execute(parameters)).map(|changed| changed > 0)
    }

    /// What [`Store::list`](super::Store::list) does.
    pub(crate) fn for_each<E: From<Error>>(
        &self,
        user: Option<&User>,
        all: bool,
        now: Timestamp,
        mut each: impl FnMut(Record) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM keys WHERE ?1 IS NULL OR user = ?1 ORDER BY user, created_at, id"
        );
        let mut statement = self.run(|connection| connection.prepare(sql))?;
        let mut rows = self.run(|_| statement.query([user.map(User::as_str)]))?;
        while let Some(row) = self.run(|_| rows.next())? {
            let record = self.run(|_| Record::read(row, now))?;
            if all || record.status.is_accepted() {
                each(record)?;
            }
        }
        Ok(())
    }

    fn run<'a, T>(&'a self, statement: impl FnOnce(&'a Connection) -> rusqlite::Result<T>) -> Result<T> {
        statement(self.connection).map_err(|error| failure(&error, self.location))
    }
}
