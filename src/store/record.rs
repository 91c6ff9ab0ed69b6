//! What the database holds of a key, as a row has it: everything but the key.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::key::{KeyHash, Prefix};
use crate::key_file::{KeyFile, Mode, Owner};
use crate::name::Name;
use crate::settings::{Reload, Settings};
use crate::timestamp::Timestamp;
use crate::user::User;

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
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Status::Active, Status::Pending, Status::Retiring, Status::Expired, Status::Revoked];
        all.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

/// Everything that is known of a key, at one moment. Never the key.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The SHA-256 by which a key is told to be this one.
    #[serde(skip)]
    pub(crate) key_hash: KeyHash,
    /// A UUID, version 7 (RFC 9562).
    #[serde(serialize_with = "as_text")]
    pub id: Uuid,
    /// Whose it is.
    #[serde(serialize_with = "as_text")]
    pub user: User,
    /// Its first 15 characters.
    pub prefix: Prefix,
    /// The label that the admin gave it.
    #[serde(serialize_with = "label")]
    pub name: Option<Name>,
    /// Where it stands at the moment it was read for.
    pub status: Status,
    /// When it was issued, which the id says, too.
    pub created_at: Timestamp,
    /// When it was last verified, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it stops being accepted by itself.
    pub expires_at: Option<Timestamp>,
    /// When it stopped being accepted; in the future for a retiring key.
    pub revoked_at: Option<Timestamp>,
}

/// A key and the file that it is in or on its way to. Serialized, it is the JSON of `show` and
/// `list`.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The key.
    #[serde(flatten)]
    pub key: Record,
    /// The file of a current or a pending key.
    #[serde(serialize_with = "path")]
    pub key_file: Option<KeyFile>,
}

/// A key on its way into a file.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The key.
    pub(crate) key: Record,
    /// The settings that come into force with it.
    pub(crate) settings: Settings,
    /// Where it is on its way to, which the settings say, too.
    pub(crate) key_file: KeyFile,
    /// How long the key that it replaces is accepted once this one is active.
    pub(crate) grace: Duration,
    /// Its reader must be told of it before the key that it replaces may end.
    pub(crate) reload_pending: bool,
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn label<S: Serializer>(name: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(Name::as_str).serialize(serializer)
}

fn path<S: Serializer>(key_file: &Option<KeyFile>, serializer: S) -> Result<S::Ok, S::Error> {
    key_file.as_ref().map(KeyFile::path).serialize(serializer)
}

/// The columns that [`Record::read`] reads, in its order.
macro_rules! key_columns {
    () => {
        "keys.prefix, key_hash, id, keys.user, keys.name, status, last_used_at, expires_at, revoked_at"
    };
}
/// What [`key_file`] reads.
macro_rules! key_file_columns {
    () => {
        "key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env"
    };
}
/// What [`settings`] reads.
macro_rules! settings_columns {
    () => {
        "key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env, name, lifetime_ms, \
         reload, reload_timeout_ms, reload_machine, renew_after_ms, renew_grace_ms"
    };
}
pub(super) use {key_columns, key_file_columns, settings_columns};

const KEY_COLUMNS: usize = 9;
const SETTINGS_COLUMNS: usize = 12;

impl Record {
    /// The record that a row of `key_columns!` is at the moment `now`.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let id = parsed::<Uuid>(row, 2)?.filter(|id| id.get_version_num() == 7).ok_or_else(|| damaged(2))?;
        let mut record = Record {
            prefix: Prefix::from_bits(row.get(0)?).ok_or_else(|| damaged(0))?,
            key_hash: row
                .get_ref(1)?
                .as_blob()
                .ok()
                .and_then(KeyHash::from_bytes)
                .ok_or_else(|| damaged(1))?,
            created_at: Timestamp::from_unix_millis(milliseconds_in(id)).ok_or_else(|| damaged(2))?,
            id,
            user: parsed(row, 3)?.ok_or_else(|| damaged(3))?,
            name: parsed(row, 4)?,
            status: parsed(row, 5)?.ok_or_else(|| damaged(5))?,
            last_used_at: time(row, 6)?,
            expires_at: time(row, 7)?,
            revoked_at: time(row, 8)?,
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

impl Listed {
    /// What a row of `key_columns!` and `key_file_columns!` is.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        Ok(Listed { key: Record::read(row, now)?, key_file: key_file(row, KEY_COLUMNS)? })
    }
}

impl Pending {
    /// How `key` is on its way, in a row of `settings_columns!`, the grace and what is left to do.
    pub(super) fn read(row: &Row<'_>, key: Record) -> rusqlite::Result<Self> {
        let settings = settings(row)?;
        Ok(Pending {
            key,
            key_file: settings.key_file.clone().ok_or_else(|| damaged(0))?,
            settings,
            grace: duration(row, SETTINGS_COLUMNS)?.ok_or_else(|| damaged(SETTINGS_COLUMNS))?,
            reload_pending: row.get(SETTINGS_COLUMNS + 1)?,
        })
    }
}

/// The settings in a row of `settings_columns!`.
pub(super) fn settings(row: &Row<'_>) -> rusqlite::Result<Settings> {
    let command: Option<String> = row.get(7)?;
    let (timeout, machine) = (duration(row, 8)?, row.get(9)?);
    Ok(Settings {
        key_file: key_file(row, 0)?,
        name: parsed(row, 5)?,
        lifetime: duration(row, 6)?,
        reload: command.map(|command| Reload { command, timeout, machine }),
        renew_after: duration(row, 10)?,
        renew_grace: duration(row, 11)?,
    })
}

pub(super) fn key_file(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<KeyFile>> {
    let Some(path) = row.get::<_, Option<String>>(at)?.map(PathBuf::from) else { return Ok(None) };
    if !KeyFile::is_resolved(&path) {
        return Err(damaged(at));
    }
    let owner = match (row.get(at + 2)?, row.get(at + 3)?) {
        (Some(uid), Some(gid)) => Some(Owner { uid, gid }),
        _ => None,
    };
    let mode = Mode::from_bits(row.get(at + 1)?).ok_or_else(|| damaged(at + 1))?;
    Ok(Some(KeyFile { path, mode, owner, env: parsed(row, at + 4)? }))
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))?;
    text.map(|text| text.parse().map_err(|_| damaged(column))).transpose()
}

/// When the key with this id was issued: RFC 9562, section 5.7.
fn milliseconds_in(id: Uuid) -> u64 {
    id.as_u64_pair().0 >> 16
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))?;
    text.map(|text| Timestamp::parse(text).ok_or_else(|| damaged(column))).transpose()
}

fn duration(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    let milliseconds: Option<i64> =
        Option::column_result(row.get_ref(column)?).map_err(|_| damaged(column))?;
    milliseconds
        .map(|ms| u64::try_from(ms).map(Duration::from_millis).map_err(|_| damaged(column)))
        .transpose()
}

fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        rusqlite::types::Type::Text,
        Box::new(FromSqlError::InvalidType),
    )
}
