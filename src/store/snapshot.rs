//! Every look at the keys, inside one transaction.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Statement, params};

use super::event::{Event, event_columns};
use super::record::{Listed, Pending, Record, key_columns};
use super::settings::{self, key_file_columns, settings_columns};
use super::{Location, failure, versions};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::KeyFile;
use crate::subject::Subject;
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
    () => {
        concat!(
            "SELECT ",
            key_columns!(),
            ", ",
            key_file_columns!(),
            ", renew_after_ms, due_at FROM keys LEFT JOIN settings ON settings.user = keys.user AND status IN ('active', 'pending') \
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
        let found = self.with_prefix(key.prefix())?;
        Ok(found.filter(|record| key.hash().matches(&record.key_hash)))
    }

    /// The key with this prefix.
    pub fn with_prefix(&self, prefix: Prefix) -> Result<Option<Record>> {
        let sql = concat!("SELECT ", key_columns!(), " FROM keys WHERE prefix = ?1");
        self.run(|connection| {
            failure::again(|| {
                let mut find = connection.prepare_cached(sql)?;
                find.query_row([prefix.bits()], |row| Record::read(row, self.now)).optional()
            })
        })
    }

    /// The user's current key: the active one, or the one that was until it expired.
    pub fn current(&self, user: &User) -> Result<Option<Record>> {
        let sql = concat!("SELECT ", key_columns!(), " FROM keys WHERE user = ?1 AND status = 'active'");
        Ok(self.all(sql, [user.as_str()], Record::read)?.pop())
    }

    /// Whether the user (anyone, where that is `None`) ever had a key that is still known.
    pub fn knows_a_key(&self, user: Option<&User>) -> Result<bool> {
        let sql = "SELECT 1 FROM keys WHERE ?1 IS NULL OR user = ?1 LIMIT 1";
        self.statement(sql, |knows| knows.exists([user.map(User::as_str)]))
    }

    /// Every key that is on its way into a key file. One whose rows make no sense is its user's trouble
    /// alone, and left out.
    pub fn pending(&self) -> Result<Vec<Pending>> {
        // As a literal, so that SQLite can use the index of those.
        self.deliveries("SELECT prefix FROM keys WHERE status = 'pending'", ())
    }

    /// The user's key that is on its way into a key file, likewise.
    pub fn pending_of(&self, user: &User) -> Result<Option<Pending>> {
        let sql = "SELECT prefix FROM keys WHERE user = ?1 AND status = 'pending'";
        Ok(self.deliveries(sql, [user.as_str()])?.pop())
    }

    fn deliveries(&self, prefixes: &str, parameters: impl Params) -> Result<Vec<Pending>> {
        let prefixes = self.all(prefixes, parameters, |row, _| row.get::<_, i64>(0))?;
        let delivery = concat!(
            "SELECT ",
            key_columns!(),
            ", ",
            settings_columns!(),
            ", grace_ms, reload_pending FROM keys JOIN settings ON settings.user = keys.user \
             AND pending_key = keys.prefix WHERE keys.prefix = ?1"
        );
        let readable = |row: &Row<'_>, now| Ok(Pending::read(row, now).ok());
        let mut pending = Vec::new();
        for prefix in prefixes {
            pending.extend(self.all(delivery, [prefix], readable)?.into_iter().flatten());
        }
        Ok(pending)
    }

    /// The file that the key with this prefix is on its way into.
    pub fn key_file_of_pending(&self, user: &User, prefix: Prefix) -> Result<Option<KeyFile>> {
        let sql =
            concat!("SELECT ", key_file_columns!(), " FROM settings WHERE user = ?1 AND pending_key = ?2");
        let parameters = params![user.as_str(), prefix.bits()];
        Ok(self.all(sql, parameters, |row, _| settings::key_file(row, 0))?.pop().flatten())
    }

    /// The key with this prefix, and the file that it is in or on its way to.
    pub fn listed(&self, prefix: Prefix) -> Result<Option<Listed>> {
        let sql = concat!(with_settings!(), "WHERE keys.prefix = ?1");
        Ok(self.all(sql, [prefix.bits()], Listed::read)?.pop())
    }

    /// Calls `each` with every key of `user` (of everyone, where that is `None`); by user, oldest first.
    /// Keeps one in memory at a time.
    pub fn for_each<E: From<Error>>(
        &self,
        user: Option<&User>,
        each: impl FnMut(Listed) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let sql = match user {
            // In order from the index.
            Some(_) => {
                concat!(with_settings!(), "WHERE keys.user = ?1 ORDER BY keys.user, substr(id, 1, 13)")
            }
            // Sorting all of them is faster than to jump to each.
            None => concat!(with_settings!(), "WHERE ?1 IS NULL ORDER BY +keys.user, id"),
        };
        self.one_by_one(sql, [user.map(User::as_str)], |row| Listed::read(row, self.now), each)
    }

    /// Calls `each` with every event that is about the subject (about anybody, where that is `None`), from
    /// `since` on, in the order in which they were written. Keeps one in memory at a time.
    pub fn for_each_event<E: From<Error>>(
        &self,
        subject: Option<&Subject>,
        since: Option<Timestamp>,
        each: impl FnMut(Event) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let since = since.map(|since| since.to_string());
        let sql = |condition| {
            format!(
                "SELECT {} FROM events WHERE at >= ifnull(?1, '') {condition} ORDER BY number",
                event_columns!()
            )
        };
        match subject {
            None => self.one_by_one(&sql(""), [since], Event::read, each),
            Some(Subject::User(user)) => {
                self.one_by_one(&sql("AND user = ?2"), params![since, user.as_str()], Event::read, each)
            }
            Some(Subject::Key(prefix)) => {
                self.one_by_one(&sql("AND prefix = ?2"), params![since, prefix.bits()], Event::read, each)
            }
        }
    }

    /// Up to `most` of the users who have an active key and whose names begin with `start`, in
    /// order.
    pub fn users(&self, start: &str, most: u32) -> Result<Vec<User>> {
        let sql = "SELECT user FROM keys WHERE status = 'active' AND user >= ?1 ORDER BY user LIMIT ?2";
        let users: Vec<String> = self.all(sql, params![start, most], |row, _| row.get(0))?;
        // What else a database may hold does not belong on a terminal.
        Ok(users.iter().filter(|user| user.starts_with(start)).filter_map(|user| user.parse().ok()).collect())
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl Fn(&Row<'_>, Timestamp) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.statement(sql, |all| all.query_map(parameters, |row| read(row, self.now))?.collect())
    }

    pub(super) fn one_by_one<T, E: From<Error>>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        mut each: impl FnMut(T) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut statement = self.run(|connection| connection.prepare(sql))?;
        let mut rows = self.run(|_| statement.query(parameters))?;
        while let Some(row) = self.run(|_| rows.next())? {
            each(self.run(|_| read(row))?)?;
        }
        Ok(())
    }

    pub(super) fn statement<T>(
        &self,
        sql: &str,
        run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.run(|connection| prepared(connection, sql, run))
    }

    pub(super) fn run<'a, T>(
        &'a self,
        statement: impl FnOnce(&'store Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        statement(self.connection).map_err(|error| {
            if failure::is_misfit(&error) && versions::is_newer(self.connection) {
                return failure::newer(self.location, "this one cannot read all of it");
            }
            failure(&error, self.location)
        })
    }
}

/// Runs a statement, which is kept for the next time where the store is to
/// [keep its statements](super::Store::keep_statements).
pub(super) fn prepared<T>(
    connection: &Connection,
    sql: &str,
    run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    match connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG)? {
        true => run(&mut *connection.prepare_cached(sql)?),
        false => run(&mut connection.prepare(sql)?),
    }
}
