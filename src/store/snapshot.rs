//! Every look at the keys, inside one transaction.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Statement, params};

use super::event::{Event, event_columns};
use super::record::{
    self, Held, Listed, Pending, Record, SETTINGS_COLUMNS, Status, held_columns, key_columns,
    key_file_columns, settings_columns,
};
use super::{Location, failure, versions};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::KeyFile;
use crate::settings::Settings;
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// The database as it stands in one transaction, and the keys in it as they stand at one moment.
pub struct Snapshot<'store> {
    pub(super) connection: &'store Connection,
    pub(super) location: &'store Location,
    pub(super) now: Timestamp,
}

/// What a user has.
#[derive(Default)]
pub struct Holdings {
    /// The current key, be it expired.
    pub current: Option<Held>,
    /// The one that is on its way into a file.
    pub pending: Option<Held>,
    /// Those that are retiring.
    pub older: Vec<Held>,
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

/// Each status by itself, as a literal: only so does SQLite use the index of each, and not look through
/// all that the user ever had.
pub(super) const HELD: &str = concat!(
    "SELECT ",
    held_columns!(),
    " FROM keys WHERE (user = ?1 AND status = 'active') OR (user = ?1 AND status = 'pending') \
     OR (user = ?1 AND status = 'retiring') ORDER BY status"
);

/// A way to find what a user has. One flipped bit makes a blob of a text: the last two find that, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// By the index of each status.
    ByStatus,
    /// By the index of all that the user ever had.
    ByUser,
    /// By no index: through all keys.
    Through,
}

impl Look {
    /// Those that are quick.
    pub const QUICK: [Look; 2] = [Look::ByStatus, Look::ByUser];

    fn sql(self) -> &'static str {
        match self {
            Look::ByStatus => HELD,
            Look::ByUser => concat!(
                "SELECT ",
                held_columns!(),
                " FROM keys INDEXED BY keys_of_user \
                 WHERE user IN (?1, CAST(?1 AS BLOB)) AND status IN ('active', 'pending', 'retiring')"
            ),
            Look::Through => concat!(
                "SELECT ",
                held_columns!(),
                " FROM keys NOT INDEXED WHERE CAST(user AS TEXT) = ?1 AND status IN ('active', 'pending', 'retiring')"
            ),
        }
    }
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

    /// What the user has that is accepted, or would be if the clock went back; the current key first.
    pub fn held(&self, user: &User) -> Result<Vec<Held>> {
        self.all(HELD, [user.as_str()], Held::read)
    }

    /// The same, by these looks: what one of them does not show another does. And whether a row was left out
    /// that makes no sense.
    pub fn held_by(&self, looks: &[Look], user: &User) -> Result<(Vec<Held>, bool)> {
        let readable = |row: &Row<'_>, now| Ok(Held::read(row, now).ok());
        let mut held: Vec<Held> = Vec::new();
        let mut is_left_out = false;
        for look in looks {
            for key in self.all(look.sql(), [user.as_str()], readable)? {
                match key {
                    None => is_left_out = true,
                    Some(key) if held.iter().all(|known| known.prefix != key.prefix) => held.push(key),
                    Some(_) => {}
                }
            }
        }
        held.sort_by_key(|key| key.stored != Status::Active);
        Ok((held, is_left_out))
    }

    /// The key with this prefix, and whose it is.
    pub fn held_with_prefix(&self, prefix: Prefix) -> Result<Option<(User, Held)>> {
        let sql = concat!("SELECT ", held_columns!(), ", CAST(user AS TEXT) FROM keys WHERE prefix = ?1");
        let read = |row: &Row<'_>, now| Ok((record::user(row, 4)?, Held::read(row, now)?));
        Ok(self.all(sql, [prefix.bits()], read)?.pop())
    }

    /// The same, by what each is to the user.
    pub fn holdings(&self, user: &User) -> Result<Holdings> {
        let mut holdings = Holdings::default();
        for key in self.held(user)? {
            match key.stored {
                Status::Active => holdings.current = Some(key),
                Status::Pending => holdings.pending = Some(key),
                _ if key.status.is_accepted() => holdings.older.push(key),
                _ => {}
            }
        }
        Ok(holdings)
    }

    /// Whether the user (anyone, where that is `None`) ever had a key that is still known.
    pub fn knows_a_key(&self, user: Option<&User>) -> Result<bool> {
        let sql = "SELECT 1 FROM keys WHERE ?1 IS NULL OR user = ?1 LIMIT 1";
        self.statement(sql, |knows| knows.exists([user.map(User::as_str)]))
    }

    /// The key file that is kept of the user.
    pub fn key_file(&self, user: &User) -> Result<Option<KeyFile>> {
        let sql =
            concat!("SELECT ", key_file_columns!(), " FROM settings WHERE user = ?1 AND pending_key = 0");
        Ok(self.all(sql, [user.as_str()], |row, _| record::key_file(row, 0))?.pop().flatten())
    }

    /// What is kept of the user.
    pub fn settings(&self, user: &User) -> Result<Settings> {
        self.settings_and_due(user).map(|(settings, _)| settings)
    }

    /// What is kept of the user, and from when on the current key is to be renewed.
    pub fn settings_and_due(&self, user: &User) -> Result<(Settings, Option<Timestamp>)> {
        let sql = concat!(
            "SELECT ",
            settings_columns!(),
            ", due_at FROM settings WHERE user = ?1 AND pending_key = 0"
        );
        let read = |row: &Row<'_>, _| Ok((record::settings(row, 0)?, record::time(row, SETTINGS_COLUMNS)?));
        Ok(self.all(sql, [user.as_str()], read)?.pop().unwrap_or_default())
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

    /// The file that the key with this prefix is on its way into, where that can be told.
    pub fn key_file_of_pending(&self, user: &User, prefix: Prefix) -> Option<KeyFile> {
        let sql =
            concat!("SELECT ", key_file_columns!(), " FROM settings WHERE user = ?1 AND pending_key = ?2");
        let parameters = params![user.as_str(), prefix.bits()];
        self.all(sql, parameters, |row, _| record::key_file(row, 0)).ok()?.pop().flatten()
    }

    /// The next one, by when it was due and by the user's name as it is stored, whose key is due by now:
    /// after that one, where there is one.
    pub fn next_due(&self, after: Option<&(String, String)>) -> Result<Option<(String, String)>> {
        let sql = "SELECT due_at, user FROM settings WHERE due_at IS NOT NULL AND due_at <= ?1 \
                   AND (due_at, user) > (?2, ?3) ORDER BY due_at, user LIMIT 1";
        let (at, user) = after.map_or(("", ""), |(at, user)| (at.as_str(), user.as_str()));
        let parameters = params![self.now.to_string(), at, user];
        Ok(self.all(sql, parameters, |row, _| Ok((row.get(0)?, row.get(1)?)))?.pop())
    }

    /// How many users have a key that is due by now, and how many one that will be.
    pub fn count_due(&self) -> Result<(u64, u64)> {
        let sql = "SELECT count(*) FROM settings WHERE due_at IS NOT NULL AND due_at <= ?1 UNION ALL \
                   SELECT count(*) FROM settings WHERE due_at IS NOT NULL AND due_at > ?1";
        let count = |row: &Row<'_>, _| row.get::<_, i64>(0).map(i64::unsigned_abs);
        match self.all(sql, [self.now.to_string()], count)?.as_slice() {
            [due, later] => Ok((*due, *later)),
            _ => Ok((0, 0)),
        }
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
