//! What the database says, by a look of one's own.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};

#[derive(Debug)]
pub struct Row {
    pub prefix: String,
    /// As it is stored.
    pub status: String,
    pub is_accepted: bool,
    /// Within ten minutes.
    pub ends_soon: bool,
}

impl Row {
    /// Nothing here lives so short that it expires: it is what a revocation does where no more can be written.
    pub fn has_expired(&self) -> bool {
        !self.is_accepted && ["active", "pending"].contains(&self.status.as_str()) || self.status == "expired"
    }
}

pub struct Reader(pub Connection);

impl Reader {
    pub fn open(database: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        Ok(Reader(connection))
    }

    /// The keys of a user, also while the disk is full, when that may have to wait.
    pub fn rows_of(&self, user: &str) -> Result<Vec<Row>> {
        let start = Instant::now();
        loop {
            match self.look(user) {
                Err(_) if start.elapsed() < Duration::from_secs(60) => {
                    thread::sleep(Duration::from_millis(50));
                }
                rows => return Ok(rows?),
            }
        }
    }

    fn look(&self, user: &str) -> rusqlite::Result<Vec<Row>> {
        let sql = "SELECT printf('ak_%012x', prefix), status,
                status IN ('active', 'pending', 'retiring')
                    AND coalesce(revoked_at, expires_at, '9') > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                coalesce(revoked_at, expires_at, '9') < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+600 seconds')
            FROM keys WHERE user = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        let row = |row: &rusqlite::Row<'_>| {
            let (prefix, status) = (row.get(0)?, row.get(1)?);
            Ok(Row { prefix, status, is_accepted: row.get(2)?, ends_soon: row.get(3)? })
        };
        statement.query_map([user], row)?.collect()
    }
}
