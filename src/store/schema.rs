//! What an `apikey` database holds, and how an older one becomes a newer one.
//!
//! - `application_id` says that the database is one of ours, `user_version` which schema it has.
//! - [`MIGRATIONS`] is append-only: entry N turns version N into version N + 1.
//! - A database whose schema is not, to the letter, what its version says is not ours: a trigger
//!   or a view that somebody added would run with our rights.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{Code, Error, Result};

/// `akey`, as SQLite's `application_id`.
pub const APPLICATION_ID: u32 = u32::from_be_bytes(*b"akey");

/// The newest schema, as SQLite's `user_version`.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// Version 1: the keys, and the view that services look a key up in.
const KEYS: [&str; 6] = [
    // Clustered by hash: a look-up by hash, which is what verifying does, is one descent of one
    // tree. `status` is the one that the last command wrote; what time alone has done since
    // (expired, no longer retiring) is for the reader to work out, as the view does.
    "CREATE TABLE keys (
key_hash TEXT NOT NULL PRIMARY KEY,
id TEXT NOT NULL,
user TEXT NOT NULL,
prefix TEXT NOT NULL,
name TEXT,
status TEXT NOT NULL CHECK (status IN ('active', 'pending', 'retiring', 'expired', 'revoked')),
created_at TEXT NOT NULL,
expires_at TEXT,
revoked_at TEXT CHECK ((status IN ('retiring', 'revoked')) = (revoked_at IS NOT NULL)),
last_used_at TEXT,
key_file TEXT CHECK (key_file IS NOT NULL OR status <> 'pending'),
key_file_mode INTEGER,
key_file_uid INTEGER,
key_file_gid INTEGER,
key_file_env TEXT,
grace_ms INTEGER,
reload_pending INTEGER
) STRICT, WITHOUT ROWID",
    "CREATE UNIQUE INDEX unique_prefix ON keys (prefix)",
    "CREATE UNIQUE INDEX one_active_key ON keys (user) WHERE status = 'active'",
    "CREATE UNIQUE INDEX one_pending_key ON keys (user) WHERE status = 'pending'",
    "CREATE INDEX retiring_keys ON keys (user) WHERE status = 'retiring'",
    // '9' sorts after every time there is.
    "CREATE VIEW accepted_keys AS
SELECT key_hash, id, user, prefix, name, status, created_at, expires_at FROM keys
WHERE status IN ('active', 'pending', 'retiring')
AND min(coalesce(revoked_at, '9'), coalesce(expires_at, '9')) > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
];

const MIGRATIONS: [&[&str]; 1] = [&KEYS];

/// What `sqlite_schema` holds at [`VERSION`].
const SCHEMA: [&str; 6] = KEYS;

/// Brings an empty database to [`VERSION`].
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    for statement in MIGRATIONS.concat() {
        connection.execute_batch(statement)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// Checks that what `application_id` and `user_version` say is a database that this program knows.
pub fn check_version(database: &Path, application_id: u32, user_version: u32) -> Result<()> {
    let database = database.display();
    if application_id != APPLICATION_ID || user_version == 0 {
        return Err(Error::new(Code::DbUnavailable, format!("{database} is not an apikey database"))
            .hint("name another with --db"));
    }
    if user_version > VERSION {
        let message = format!("{database} has schema {user_version}; this apikey knows none past {VERSION}");
        return Err(Error::new(Code::DbUnavailable, message).hint("use the newer apikey that wrote it"));
    }
    Ok(())
}

/// Whether the schema is [`SCHEMA`] to the letter. What SQLite itself adds is left out: indexes without
/// a text, and `sqlite_stat1`.
pub fn is_unchanged(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        match row.get_ref(0)?.as_str_or_null() {
            Ok(None) => {}
            Ok(Some(sql)) if sql.starts_with("CREATE TABLE sqlite_") => {}
            Ok(Some(sql)) if SCHEMA.contains(&sql) => found += 1,
            _ => return Ok(false),
        }
    }
    Ok(found == SCHEMA.len())
}
