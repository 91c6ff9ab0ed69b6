//! Every look at the keys, inside one transaction.

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};

use super::record::{self, Listed, Pending, Record, key_columns, key_file_columns, settings_columns};
use super::{Location, failure};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::user::User;

/// The database as it stands in one transaction, and the keys in it as they stand at one moment.
pub struct Snapshot<'store> {
    pub(super) connection: &'store Connection,
    pub(super) location: &'store Location,
    pub(super) now: Timestamp,
}

/// The settings in force for a current key, and those that come with a pending one.
macro_rules! with_settings {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            key_columns!(),
            ", ",
            $columns,
            " FROM keys LEFT JOIN settings ON settings.user = keys.user AND status IN ('active', 'pending') \
             AND pending_key = iif(status = 'pending', keys.prefix, 0) "
        )
    };
}

impl<'store> Snapshot<'store> {
    /// The moment it is about.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// `key` as it stands; `None` where it was never issued. It is accepted where its
    /// [`status`](Record::status) is.
    pub fn find(&self, key: &Key) -> Result<Option<Record>> {
        let sql = concat!("SELECT ", key_columns!(), " FROM keys WHERE prefix = ?1");
        let now = self.now;
        let found = self.run(|connection| {
            let mut find = connection.prepare_cached(sql)?;
            find.query_row([key.prefix().bits()], |row| Record::read(row, now)).optional()
        })?;
        Ok(found.filter(|record| key.hash().matches(&record.key_hash)))
    }

    /// Whether a key with this prefix was ever issued.
    pub fn has_prefix(&self, prefix: Prefix) -> Result<bool> {
        self.run(|connection| {
            connection.prepare("SELECT 1 FROM keys WHERE prefix = ?1")?.exists([prefix.bits()])
        })
    }

    /// The user's current key: the active one, or the one that was until it expired.
    pub fn current(&self, user: &User) -> Result<Option<Listed>> {
        let sql = concat!(with_settings!(key_file_columns!()), "WHERE keys.user = ?1 AND status = 'active'");
        Ok(self.all(sql, user.as_str(), Listed::read)?.pop())
    }

    /// What the user has that is accepted, or would be if the clock went back; the current key first.
    pub fn held(&self, user: &User) -> Result<Vec<Record>> {
        // One arm for each status, as a literal: only so can SQLite use the partial indexes.
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE user = ?1 AND status = 'active' UNION ALL SELECT ",
            key_columns!(),
            " FROM keys WHERE user = ?1 AND status = 'pending' UNION ALL SELECT ",
            key_columns!(),
            " FROM keys WHERE user = ?1 AND status = 'retiring'"
        );
        self.all(sql, user.as_str(), Record::read)
    }

    /// What is kept of the user.
    pub fn settings(&self, user: &User) -> Result<Settings> {
        let sql =
            concat!("SELECT ", settings_columns!(), " FROM settings WHERE user = ?1 AND pending_key = 0");
        let kept = self.all(sql, user.as_str(), |row, _| record::settings(row, 0))?.pop();
        Ok(kept.unwrap_or_default())
    }

    /// Every key that is on its way into a key file, of this user or of everyone.
    pub fn pending(&self, user: Option<&User>) -> Result<Vec<Pending>> {
        // As a literal, so that SQLite can use the index of those.
        let sql = concat!(
            with_settings!(concat!(settings_columns!(), ", grace_ms, reload_pending")),
            "WHERE status = 'pending' AND (?1 IS NULL OR keys.user = ?1)"
        );
        self.all(sql, user.map(User::as_str), Pending::read)
    }

    /// Calls `each` with every key of `user` (of everyone, where that is `None`) that is accepted,
    /// or with `all` of them; by user, oldest first. Keeps one in memory at a time.
    pub fn for_each<E: From<Error>>(
        &self,
        user: Option<&User>,
        all: bool,
        mut each: impl FnMut(Listed) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut statement = self.run(|connection| match user {
            // In order from the index.
            Some(_) => connection.prepare(concat!(
                with_settings!(key_file_columns!()),
                "WHERE keys.user = ?1 ORDER BY keys.user, id"
            )),
            // Sorting all of them is faster than to jump to each.
            None => connection.prepare(concat!(
                with_settings!(key_file_columns!()),
                "WHERE ?1 IS NULL ORDER BY +keys.user, id"
            )),
        })?;
        let mut rows = self.run(|_| statement.query([user.map(User::as_str)]))?;
        while let Some(row) = self.run(|_| rows.next())? {
            let listed = self.run(|_| Listed::read(row, self.now))?;
            if all || listed.key.status.is_accepted() {
                each(listed)?;
            }
        }
        Ok(())
    }

    /// Up to `most` of the users who have an active key and whose names begin with `start`, in
    /// order.
    pub fn users(&self, start: &str, most: u32) -> Result<Vec<User>> {
        let sql = "SELECT user FROM keys WHERE status = 'active' AND user >= ?1 ORDER BY user LIMIT ?2";
        let users: Vec<String> = self.run(|connection| {
            connection.prepare(sql)?.query_map(params![start, most], |row| row.get(0))?.collect()
        })?;
        // What else a database may hold does not belong on a terminal.
        Ok(users.iter().filter(|user| user.starts_with(start)).filter_map(|user| user.parse().ok()).collect())
    }

    fn all<T>(
        &self,
        sql: &str,
        parameter: impl rusqlite::ToSql,
        read: impl Fn(&Row<'_>, Timestamp) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let collect = |mut statement: Statement<'_>| {
            statement.query_map([parameter], |row| read(row, self.now))?.collect()
        };
        self.run(|connection| connection.prepare(sql).and_then(collect))
    }

    pub(super) fn run<'a, T>(
        &'a self,
        statement: impl FnOnce(&'store Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        statement(self.connection).map_err(|error| failure(&error, self.location))
    }
}
