//! What a database of each version holds, and how one becomes the next.
//!
//! - `application_id` says that the database is one of ours; `user_version` is the number of its
//!   version times 1000, plus the number of the oldest version whose programs can still read it.
//! - [`VERSIONS`] is append-only. A database of an older version is brought to the newest inside the
//!   first transaction that writes it; until then it is read as it is, so a query that needs what a
//!   later version brought asks for the version first.
//! - A newer database is read where its number says so, and never written.
//! - What is ours is, to the letter, what the version says. What is not ours is left alone where it
//!   can do nothing to what is: a table, and an index on it. A trigger or a view would run with our
//!   rights, and an index on a table of ours with each of our writes: those are refused.

use rusqlite::Connection;

use super::replica;

/// `akey`, as SQLite's `application_id`.
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"akey");

/// What is known of one version.
#[derive(Debug)]
pub struct Version {
    /// The oldest version whose programs can read it.
    pub(super) readable_since: u32,
    /// The texts in `sqlite_schema`.
    pub(super) schema: &'static [&'static str],
    /// What makes it out of the version before.
    pub(super) migration: &'static [&'static str],
}

/// Every version there was, the newest last.
pub type Versions = &'static [Version];

pub const VERSIONS: Versions = &[Version { readable_since: 1, schema: &FIRST, migration: &FIRST }];

const TABLES: [&str; 3] = ["keys", "settings", "events"];
const VIEW: &str = "accepted_keys";

pub(super) const FIRST: [&str; 11] = [
    // Found by the 48 bits of its prefix, one descent of one tree, and then compared by hash.
    // `status` is the one that the last command wrote; what time alone has done since (expired, no
    // longer retiring) is for the reader to work out, as the view does. When a key was issued is in its
    // id: the first 48 bits, milliseconds since 1970 (RFC 9562, section 5.7).
    "CREATE TABLE keys (
prefix INTEGER PRIMARY KEY,
key_hash BLOB NOT NULL,
id TEXT NOT NULL,
user TEXT NOT NULL,
name TEXT,
status TEXT NOT NULL,
expires_at TEXT,
revoked_at TEXT CHECK ((status IN ('retiring', 'revoked')) = (revoked_at IS NOT NULL)),
last_used_at TEXT
) STRICT",
    // The services' door: the hash as text, which is not stored a second time for it.
    "CREATE UNIQUE INDEX unique_key_hash ON keys (lower(hex(key_hash)))",
    // A user's keys, oldest first: the 48 bits.
    "CREATE INDEX keys_of_user ON keys (user, substr(id, 1, 13))",
    "CREATE UNIQUE INDEX one_active_key ON keys (user) WHERE status = 'active'",
    "CREATE UNIQUE INDEX one_pending_key ON keys (user) WHERE status = 'pending'",
    "CREATE INDEX retiring_keys ON keys (user) WHERE status = 'retiring'",
    // In force where `pending_key` is 0. Else they belong to the pending key with that prefix, and
    // come into force with it; the last two columns say what is left to do until then.
    "CREATE TABLE settings (
user TEXT,
pending_key INTEGER,
name TEXT,
lifetime_ms INTEGER,
key_file TEXT,
key_file_mode INTEGER,
key_file_uid INTEGER,
key_file_gid INTEGER,
key_file_env TEXT,
reload TEXT,
reload_timeout_ms INTEGER,
reload_machine TEXT,
renew_after_ms INTEGER,
renew_grace_ms INTEGER,
due_at TEXT,
grace_ms INTEGER,
reload_pending INTEGER,
PRIMARY KEY (user, pending_key)
) STRICT, WITHOUT ROWID",
    "CREATE INDEX due_keys ON settings (due_at) WHERE due_at IS NOT NULL",
    "CREATE TABLE events (
number INTEGER PRIMARY KEY,
at TEXT NOT NULL,
event TEXT NOT NULL,
user TEXT,
prefix INTEGER,
expires_at TEXT,
valid_until TEXT,
uid INTEGER NOT NULL,
login TEXT,
sudo_user TEXT,
audit_uid INTEGER,
detail TEXT
) STRICT",
    "CREATE INDEX events_of_user ON events (user)",
    // A retiring key's `revoked_at` is never later than its `expires_at`; '9' is later than every time.
    "CREATE VIEW accepted_keys AS
SELECT lower(hex(key_hash)) AS key_hash, id, user, printf('ak_%012x', prefix) AS prefix, name, status, expires_at
FROM keys
WHERE status IN ('active', 'pending', 'retiring')
AND coalesce(revoked_at, expires_at, '9') > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
];

/// What a database is to a program that knows certain versions.
#[derive(Clone, Copy, Debug)]
pub enum Standing {
    /// It has the newest of them.
    Newest,
    /// It has an older one of them: so many are to follow.
    Older { schema: &'static [&'static str], missing: Versions },
    /// It has one that came later, and that can be read all the same.
    Newer,
    /// It has one that came later, this one, and that cannot be read.
    Unreadable(u32),
    /// It is none of ours.
    Foreign,
}

/// What the header's `application_id` and `user_version` say.
pub fn standing(versions: Versions, application_id: u32, user_version: u32) -> Standing {
    let (number, readable_since) = (user_version / 1000, user_version % 1000);
    let newest = versions.len() as u32;
    if application_id != APPLICATION_ID || !(1..=number).contains(&readable_since) {
        return Standing::Foreign;
    }
    match versions.split_at_checked(number as usize) {
        Some((known, missing)) => match known.last() {
            Some(last) if last.readable_since != readable_since => Standing::Foreign,
            Some(last) if !missing.is_empty() => Standing::Older { schema: last.schema, missing },
            _ => Standing::Newest,
        },
        None if readable_since <= newest => Standing::Newer,
        None => Standing::Unreadable(number),
    }
}

/// Whether the database that is open has a version that came later than all that are known.
pub fn is_newer(connection: &Connection) -> bool {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    version.is_ok_and(|version| version.cast_unsigned() / 1000 > VERSIONS.len() as u32)
}

/// Brings an empty database to the newest version.
pub fn create(connection: &Connection, versions: Versions) -> rusqlite::Result<()> {
    let Some(newest) = versions.last() else { return Ok(()) };
    newest.schema.iter().try_for_each(|statement| connection.execute_batch(statement))?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    stamp(connection, versions)
}

/// Brings a database to the newest version, of which these are `missing`. The caller's transaction
/// makes it one change.
pub fn migrate(connection: &Connection, versions: Versions, missing: Versions) -> rusqlite::Result<()> {
    let mut statements = missing.iter().flat_map(|version| version.migration);
    statements.try_for_each(|statement| connection.execute_batch(statement))?;
    stamp(connection, versions)
}

fn stamp(connection: &Connection, versions: Versions) -> rusqlite::Result<()> {
    let readable_since = versions.last().map_or(0, |newest| newest.readable_since);
    connection.pragma_update(None, "user_version", versions.len() as u32 * 1000 + readable_since)
}

/// A schema that is ours.
pub struct Schema {
    /// Whether Litestream replicates the database.
    pub is_replicated: bool,
}

/// The schema; `None` where it is not what it should be for the `standing`, as this module's page says.
pub fn schema(
    connection: &Connection,
    versions: Versions,
    standing: Standing,
) -> rusqlite::Result<Option<Schema>> {
    let texts = match standing {
        Standing::Newest => versions.last().map(|newest| newest.schema),
        Standing::Older { schema, .. } => Some(schema),
        // Its texts are not known, but what kinds of things may be there is.
        Standing::Newer => None,
        Standing::Unreadable(_) | Standing::Foreign => return Ok(None),
    };
    let of_ours = |table: &str| TABLES.iter().any(|ours| table.eq_ignore_ascii_case(ours));
    let mut statement = connection.prepare("SELECT type, tbl_name, sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    let (mut found, mut is_replicated) = (0, false);
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
        let (kind, table, sql) = (text(0)?, text(1)?.unwrap_or_default(), text(2)?);
        is_replicated |= table == replica::TABLE;
        match (kind, sql, texts) {
            // SQLite itself makes indexes without a text.
            (Some("index"), None, _) => {}
            (_, Some(sql), Some(texts)) if texts.contains(&sql) => found += 1,
            (Some("table" | "index"), Some(_), Some(_)) if !of_ours(table) => {}
            (Some("table" | "index"), Some(_), None) => found += usize::from(of_ours(table)),
            (Some("view"), Some(_), None) if table == VIEW => {}
            _ => return Ok(None),
        }
    }
    let is_ours = texts.map_or(found >= TABLES.len(), |texts| found == texts.len());
    Ok(is_ours.then_some(Schema { is_replicated }))
}
