//! A key as the database holds it: everything but the key.

use std::path::{Component, PathBuf};
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::FromSqlError;
use serde::{Serialize, Serializer};

use crate::key::Key;
use crate::key_file::{KeyFile, Mode, Owner};
use crate::timestamp::Timestamp;

/// Where a key stands. Stored and shown as the lowercase word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The user's one current key.
    Active,
    /// A new key on its way into a key file; accepted already.
    Pending,
    /// Replaced, and still accepted until its `revoked_at`, which lies in the future.
    Retiring,
    /// No longer accepted: its `expires_at` has passed.
    Expired,
    /// No longer accepted: it was revoked or replaced.
    Revoked,
}

impl Status {
    /// The status as the database, the JSON and the tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Pending => "pending",
            Status::Retiring => "retiring",
            Status::Expired => "expired",
            Status::Revoked => "revoked",
        }
    }

    /// Whether a key with this status is accepted.
    pub const fn is_accepted(self) -> bool {
        matches!(self, Status::Active | Status::Pending | Status::Retiring)
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Status::Active, Status::Pending, Status::Retiring, Status::Expired, Status::Revoked];
        all.into_iter().find(|status| status.as_str() == text)
    }
}

/// Everything that is known of a key, at one moment. Never the key. Serialized, it is the JSON of
/// `show` and `list`.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The SHA-256 by which the database finds it.
    #[serde(skip)]
    pub(crate) key_hash: String,
    /// A UUID, version 7 (RFC 9562).
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Its first 15 characters.
    pub prefix: String,
    /// The label that the admin gave it.
    pub name: Option<String>,
    /// Where it stands at the moment it was read for.
    pub status: Status,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it was last verified, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it stops being accepted by itself.
    pub expires_at: Option<Timestamp>,
    /// When it stopped being accepted; in the future for a retiring key.
    pub revoked_at: Option<Timestamp>,
    /// The file that it was delivered to, or is on its way to.
    #[serde(serialize_with = "path")]
    pub key_file: Option<KeyFile>,
    /// On a pending key: how long the key that it replaces is accepted once this one is active.
    #[serde(skip)]
    pub(crate) grace: Duration,
    /// On a pending key: its reader must be told of it before the key that it replaces may end.
    #[serde(skip)]
    pub(crate) reload_pending: bool,
}

fn path<S: Serializer>(key_file: &Option<KeyFile>, serializer: S) -> Result<S::Ok, S::Error> {
    key_file.as_ref().map(KeyFile::path).serialize(serializer)
}

/// The columns that [`Record::read`] reads, in its order.
macro_rules! columns {
    () => {
        "key_hash, id, user, prefix, name, status, created_at, last_used_at, expires_at, revoked_at, \
         grace_ms, reload_pending, key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env"
    };
}
pub(super) use columns;

impl Record {
    /// Where its key file is, for a message.
    pub(crate) fn path(&self) -> &str {
        self.key_file.as_ref().map_or("no file", KeyFile::path)
    }

    /// The record that a row of `columns!` is at the moment `now`.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let stored = row.get_ref(5)?.as_str().ok().and_then(Status::parse).ok_or_else(|| damaged(5))?;
        let prefix: String = row.get(3)?;
        // It is a part of a file's name later.
        if !Key::is_prefix(&prefix) {
            return Err(damaged(3));
        }
        let mut record = Record {
            key_hash: row.get(0)?,
            id: row.get(1)?,
            user: row.get(2)?,
            prefix,
            name: row.get(4)?,
            status: stored,
            created_at: time(row, 6)?.ok_or_else(|| damaged(6))?,
            last_used_at: time(row, 7)?,
            expires_at: time(row, 8)?,
            revoked_at: time(row, 9)?,
            grace: grace(row)?,
            reload_pending: row.get::<_, Option<bool>>(11)?.unwrap_or(false),
            key_file: key_file(row)?,
        };
        record.status = record.status_at(now);
        Ok(record)
    }

    /// The stored status, moved on by the time that has passed. The view `accepted_keys` says the
    /// same in SQL.
    fn status_at(&self, now: Timestamp) -> Status {
        let passed = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
        match self.status {
            Status::Retiring if passed(self.revoked_at) => Status::Revoked,
            stored if stored.is_accepted() && passed(self.expires_at) => Status::Expired,
            stored => stored,
        }
    }
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))?;
    text.map(|text| Timestamp::parse(text).ok_or_else(|| damaged(column))).transpose()
}

fn grace(row: &Row<'_>) -> rusqlite::Result<Duration> {
    let milliseconds = row.get::<_, Option<i64>>(10)?.unwrap_or(0);
    u64::try_from(milliseconds).map(Duration::from_millis).map_err(|_| damaged(10))
}

/// The columns from the twelfth on.
fn key_file(row: &Row<'_>) -> rusqlite::Result<Option<KeyFile>> {
    let Some(path) = row.get::<_, Option<String>>(12)?.map(PathBuf::from) else { return Ok(None) };
    let has_dots = path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir));
    if !path.is_absolute() || path.file_name().is_none() || has_dots {
        return Err(damaged(12));
    }
    let owner = match (row.get(14)?, row.get(15)?) {
        (Some(uid), Some(gid)) => Some(Owner { uid, gid }),
        _ => None,
    };
    let env = row.get::<_, Option<String>>(16)?.map(|name| name.parse()).transpose();
    Ok(Some(KeyFile {
        path,
        mode: Mode::from_bits(row.get(13)?).ok_or_else(|| damaged(13))?,
        owner,
        env: env.map_err(|_| damaged(16))?,
    }))
}

fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        rusqlite::types::Type::Text,
        Box::new(FromSqlError::InvalidType),
    )
}
