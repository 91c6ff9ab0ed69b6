//! Looking at the keys.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::record::columns;
use super::{Record, Store, Transaction};
use crate::error::{Error, Result};
use crate::key::KeyHash;
use crate::key_file::KeyFile;
use crate::timestamp::Timestamp;
use crate::user::User;

impl Store {
    /// The user's current key as it stands at `now`: the active one, or the one that was until it
    /// expired.
    pub fn show(&self, user: &User, now: Timestamp) -> Result<Option<Record>> {
        self.read(|transaction| transaction.current(user.as_str(), now))
    }

    /// Where the user's newest key was delivered to, whatever became of that key. Looks through all
    /// keys: for a user who has none, and that is rare.
    pub(crate) fn last_key_file(&self, user: &User, now: Timestamp) -> Result<Option<KeyFile>> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM keys WHERE user = ?1 ORDER BY created_at DESC, id DESC LIMIT 1"
        );
        let newest = self
            .connection
            .prepare(sql)
            .and_then(|mut find| find.query_row([user.as_str()], |row| Record::read(row, now)).optional())
            .map_err(|error| self.failed(&error))?;
        Ok(newest.and_then(|newest| newest.key_file))
    }

    /// Calls `each` with every key of `user` (of everyone, where that is `None`) that is accepted
    /// at `now`, or with `all` of them; by user, oldest first. Keeps one in memory at a time, and
    /// is in nobody's way however long it takes.
    pub fn list<E: From<Error>>(
        &self,
        user: Option<&User>,
        all: bool,
        now: Timestamp,
        each: impl FnMut(Record) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let transaction = self.begin(TransactionBehavior::Deferred)?;
        Transaction { connection: &transaction, location: &self.location }.for_each(user, all, now, each)
    }

    /// Up to `most` of the users who have an active key and whose names begin with `start`, in
    /// order.
    pub fn users(&self, start: &str, most: u32) -> Result<Vec<String>> {
        let sql = "SELECT user FROM keys WHERE status = 'active' AND user >= ?1 ORDER BY user LIMIT ?2";
        let users: rusqlite::Result<Vec<String>> = self
            .connection
            .prepare(sql)
            .and_then(|mut find| find.query_map(params![start, most], |row| row.get(0))?.collect());
        let mut users = users.map_err(|error| self.failed(&error))?;
        users.retain(|user| user.starts_with(start));
        Ok(users)
    }

    /// The record of the key with this hash as it stands at `now`; `None` where there is none. It
    /// is accepted where its [`status`](Record::status) is.
    pub fn find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<Record>> {
        let sql = concat!("SELECT ", columns!(), " FROM keys WHERE key_hash = ?1");
        let found = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut find| find.query_row([hash.as_str()], |row| Record::read(row, now)).optional())
            .map_err(|error| self.failed(&error))?;
        Ok(found.filter(|record| hash.matches(&record.key_hash)))
    }

    /// Every key that is on its way into a key file.
    pub(crate) fn pending(&self, now: Timestamp) -> Result<Vec<Record>> {
        let sql = concat!("SELECT ", columns!(), " FROM keys WHERE status = 'pending'");
        self.connection
            .prepare(sql)
            .and_then(|mut find| find.query_map([], |row| Record::read(row, now))?.collect())
            .map_err(|error| self.failed(&error))
    }

    /// Whether a key with this prefix was ever issued.
    pub(crate) fn has_prefix(&self, prefix: &str) -> Result<bool> {
        self.connection
            .prepare("SELECT 1 FROM keys WHERE prefix = ?1")
            .and_then(|mut find| find.exists([prefix]))
            .map_err(|error| self.failed(&error))
    }
}
