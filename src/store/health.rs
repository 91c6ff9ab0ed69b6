//! How a database is, for who looks after it. Nothing is changed.

use std::fs;
use std::path::Path;

use rusqlite::{FileControl, Row, params};

use super::event::{Event, event_columns};
use super::record::{self, KEY_COLUMNS, Record, key_columns};
use super::settings::{self, SETTINGS_COLUMNS, settings_columns};
use super::{Snapshot, Store, replica};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::user::User;

/// How large a database is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Pages of the database, and bytes of each.
    pub pages: u64,
    pub page_size: u64,
    /// Pages that hold nothing.
    pub free: u64,
    /// Bytes of the log, on the disk.
    pub log: u64,
}

/// What is kept of a user who has a current key.
pub struct Kept {
    /// The current key, be it expired.
    pub key: Record,
    /// The settings in force.
    pub settings: Settings,
    /// From when on it is to be renewed.
    pub due_at: Option<Timestamp>,
    /// Another key is on its way into a file.
    pub is_delivered_to: bool,
}

/// As many lines of what is damaged are told.
const MOST: u32 = 10;

impl Store {
    /// How large it is.
    pub fn size(&self) -> Result<Size> {
        let connection = self.connection()?;
        let number = |name| {
            let number = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            number.map(i64::unsigned_abs).map_err(|error| self.failed(&error))
        };
        let log = fs::metadata(self.location.side_file("-wal"));
        Ok(Size {
            pages: number("page_count")?,
            page_size: number("page_size")?,
            free: number("freelist_count")?,
            log: log.map_or(0, |log| log.len()),
        })
    }

    /// Checks that the database is the file at its path, and no other was put there.
    pub fn check_is_in_place(&self) -> Result<()> {
        let mut has_moved = 0;
        let asked = self.connection()?.file_control(Some(c"main"), FileControl::HasMoved(&mut has_moved));
        asked.map_err(|error| self.failed(&error))?;
        // Where it cannot be looked at, as after a service gave up its rights, it is said to have moved, too.
        if has_moved == 0 || !matches!(self.location.identity(), Ok(Some(_))) {
            return Ok(());
        }
        let database = self.location.path().display();
        let message = format!("another file lies at {database} than the one that is open");
        Err(Error::new(Code::DbUnavailable, message).hint("open it again"))
    }

    /// Whether it is written through a log: one that was restored is not, until it is written.
    pub fn has_log(&self) -> bool {
        self.is_wal
    }

    /// Whether it may only be read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it is a replica.
    pub fn is_replica(&self) -> Result<bool> {
        replica::is_at(&self.location)
    }

    /// When Litestream last wrote the replica, where that can be told.
    pub fn written_at(&self) -> Result<Option<Timestamp>> {
        replica::written_at(&self.location)
    }
}

impl Snapshot<'_> {
    /// What of the database is damaged. <https://sqlite.org/pragma.html#pragma_integrity_check>
    pub fn damage(&self) -> Result<Vec<String>> {
        let lines: Vec<String> =
            self.all(&format!("PRAGMA integrity_check({MOST})"), (), |row, _| row.get(0))?;
        Ok(if lines == ["ok"] { Vec::new() } else { lines })
    }

    /// How many keys and how many events are stored that make no sense; and the prefixes of the first of those keys.
    pub fn senseless(&self) -> Result<([u64; 2], Vec<Prefix>)> {
        let mut first = Vec::new();
        let mut count = |sql: &str, is_read: &dyn Fn(&Row<'_>) -> bool| {
            let mut count = 0;
            self.one_by_one(
                sql,
                (),
                |row| Ok((!is_read(row)).then(|| row.get(0).ok().and_then(Prefix::from_bits))),
                |senseless| {
                    count += u64::from(senseless.is_some());
                    first.extend(senseless.flatten().filter(|_| count <= u64::from(MOST)));
                    Ok::<_, Error>(())
                },
            )?;
            Ok::<_, Error>(count)
        };
        let keys = concat!("SELECT ", key_columns!(), " FROM keys");
        let events = concat!("SELECT ", event_columns!(), " FROM events");
        let counts = [
            count(keys, &|row| Record::read(row, self.now).is_ok())?,
            count(events, &|row| Event::read(row).is_ok())?,
        ];
        Ok((counts, first))
    }

    /// When a key was last issued by a renewal.
    pub fn last_renewal(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT max(at) FROM events WHERE event = 'issued' AND detail LIKE 'renew%'";
        Ok(self.all(sql, (), |row, _| record::time(row, 0))?.into_iter().next().flatten())
    }

    /// The next users, in order, who have a current key, be it expired.
    ///
    /// As bytes: a name that makes no sense is no reason to leave out the others. Nor is an index that is damaged,
    /// where another or the table itself can be read.
    pub fn users_after(&self, last: Option<&[u8]>, most: u32) -> Result<Vec<Vec<u8>>> {
        by_some_way(|way| {
            let sql = format!(
                "SELECT CAST(user AS BLOB) FROM keys {way} WHERE status = 'active' \
                 AND (?1 IS NULL OR user > CAST(?1 AS TEXT)) ORDER BY user LIMIT ?2"
            );
            self.all(&sql, params![last, most], |row, _| row.get(0))
        })
    }

    /// The user's current key, be it expired, and what is kept of the user.
    pub fn kept(&self, user: &User) -> Result<Option<Kept>> {
        let read = |row: &Row<'_>, now| {
            Ok(Kept {
                key: Record::read(row, now)?,
                settings: settings::settings(row, KEY_COLUMNS)?,
                due_at: record::time(row, KEY_COLUMNS + SETTINGS_COLUMNS)?,
                is_delivered_to: row.get(KEY_COLUMNS + SETTINGS_COLUMNS + 1)?,
            })
        };
        let kept = by_some_way(|way| {
            let sql = format!(
                "SELECT {}, {}, due_at, EXISTS (SELECT 1 FROM keys WHERE user = ?1 AND status = 'pending') \
                 FROM keys {way} LEFT JOIN settings ON settings.user = keys.user AND pending_key = 0 \
                 WHERE keys.user = ?1 AND status = 'active'",
                key_columns!(),
                settings_columns!()
            );
            self.all(&sql, [user.as_str()], read)
        });
        kept.map(|mut kept| kept.pop())
    }

    /// The users who have a key on its way to a file, whatever else is known of it.
    pub fn users_with_pending(&self) -> Result<Vec<String>> {
        let lossy = |row: &Row<'_>, _| Ok(String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned());
        self.all("SELECT CAST(user AS BLOB) FROM keys WHERE status = 'pending'", (), lossy)
    }

    /// Whether a key file is kept at `path`.
    pub fn is_key_file(&self, path: &Path) -> Result<bool> {
        let sql = "SELECT 1 FROM settings WHERE key_file = ?1 LIMIT 1";
        self.statement(sql, |file| file.exists([path.to_str()]))
    }
}

/// What `look` finds by an index, or where that is damaged by another, or by the table itself.
fn by_some_way<T>(look: impl Fn(&str) -> Result<T>) -> Result<T> {
    look("INDEXED BY one_active_key")
        .or_else(|_| look("INDEXED BY keys_of_user"))
        .or_else(|_| look("NOT INDEXED"))
}
