//! What the database holds of a key, as a row has it: everything but the key.

use std::str::FromStr;
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::FromSqlError;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::held::Held;
use super::settings::{KEY_FILE_COLUMNS, SETTINGS_COLUMNS, duration, key_file, settings};
use crate::key::{KeyHash, Prefix};
use crate::key_file::KeyFile;
use crate::name::Name;
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::user::User;

/// Where a key stands. Stored and shown as the lowercase word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
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

    /// A stored status, moved on by the time that has passed. The view `accepted_keys` says the same in SQL.
    pub(super) fn at(
        self,
        now: Timestamp,
        expires_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
    ) -> Status {
        let passed = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
        match self {
            Status::Retiring if passed(revoked_at) => Status::Revoked,
            stored if stored.is_accepted() && passed(expires_at) => Status::Expired,
            stored => stored,
        }
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
#[non_exhaustive]
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
    /// The status as it is stored, whatever time has passed since.
    #[serde(skip)]
    pub(crate) stored: Status,
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
#[non_exhaustive]
pub struct Listed {
    /// The key.
    #[serde(flatten)]
    pub key: Record,
    /// The file of a current or a pending key.
    #[serde(serialize_with = "path")]
    pub key_file: Option<KeyFile>,
    /// From when on a current or a pending key is renewed.
    pub due_at: Option<Timestamp>,
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
pub(super) use key_columns;

/// The longest path that the kernel takes, in bytes, and the longest of all that is kept.
const LONGEST_TEXT: usize = 4096;

pub(super) const KEY_COLUMNS: usize = 9;

impl Record {
    /// Until when it is, or was, accepted; `None` where only a command will end that.
    pub fn until(&self) -> Option<Timestamp> {
        Held::from(self).until()
    }

    /// The record that a row of `key_columns!` is at the moment `now`.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let id = parsed::<Uuid>(row, 2)?.filter(|id| id.get_version_num() == 7).ok_or_else(|| damaged(2))?;
        let stored: Status = parsed(row, 5)?.ok_or_else(|| damaged(5))?;
        let (expires_at, revoked_at) = (time(row, 7)?, time(row, 8)?);
        // The table's CHECK: damage, or a hand that turned it off, gets past that.
        if matches!(stored, Status::Retiring | Status::Revoked) != revoked_at.is_some() {
            return Err(damaged(8));
        }
        Ok(Record {
            prefix: Prefix::from_bits(row.get(0)?).ok_or_else(|| damaged(0))?,
            key_hash: row
                .get_ref(1)?
                .as_blob()
                .ok()
                .and_then(KeyHash::from_bytes)
                .ok_or_else(|| damaged(1))?,
            created_at: Timestamp::from_unix_millis(milliseconds_in(id)).ok_or_else(|| damaged(2))?,
            id,
            user: user(row, 3)?,
            name: parsed(row, 4)?,
            status: stored.at(now, expires_at, revoked_at),
            stored,
            last_used_at: time(row, 6)?,
            expires_at,
            // Of the two ends of a retiring key the view looks at this one alone, which is never the later one.
            revoked_at: match (stored, revoked_at, expires_at) {
                (Status::Retiring, Some(revoked_at), Some(expires_at)) if revoked_at > expires_at => {
                    return Err(damaged(8));
                }
                _ => revoked_at,
            },
        })
    }
}

impl Listed {
    /// Whether it is its user's current key, be it expired, or another one that is accepted.
    pub(crate) fn is_current_or_accepted(&self) -> bool {
        self.key.stored == Status::Active || self.key.status.is_accepted()
    }

    /// What a row of `key_columns!`, `key_file_columns!`, the renewal age and when it is due is.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let key = Record::read(row, now)?;
        let age = duration(row, KEY_COLUMNS + KEY_FILE_COLUMNS)?;
        let due_at = match key.stored {
            // Its settings are not in force yet.
            Status::Pending => age.and_then(|age| key.created_at.checked_add(age)),
            _ => time(row, KEY_COLUMNS + KEY_FILE_COLUMNS + 1)?,
        };
        Ok(Listed { key_file: key_file(row, KEY_COLUMNS)?, key, due_at })
    }
}

impl Pending {
    /// What a row of `key_columns!`, `settings_columns!`, the grace and what is left to do is.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        const REST: usize = KEY_COLUMNS + SETTINGS_COLUMNS;
        let settings = settings(row, KEY_COLUMNS)?;
        Ok(Pending {
            key: Record::read(row, now)?,
            key_file: settings.key_file.clone().ok_or_else(|| damaged(KEY_COLUMNS))?,
            settings,
            grace: duration(row, REST)?.ok_or_else(|| damaged(REST))?,
            reload_pending: row.get(REST + 1)?,
        })
    }
}

/// The user in column `at`.
pub(super) fn user(row: &Row<'_>, at: usize) -> rusqlite::Result<User> {
    parsed(row, at)?.ok_or_else(|| damaged(at))
}

/// Text of any kind, which nobody wrote who wrote more than [`LONGEST_TEXT`].
pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Option<&'a str>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))?;
    if text.is_some_and(|text| text.len() > LONGEST_TEXT) { Err(damaged(column)) } else { Ok(text) }
}

pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    text(row, column)?.map(|text| text.parse().map_err(|_| damaged(column))).transpose()
}

/// When the key with this id was issued: RFC 9562, section 5.7.
fn milliseconds_in(id: Uuid) -> u64 {
    id.as_u64_pair().0 >> 16
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))?;
    text.map(|text| Timestamp::parse(text).ok_or_else(|| damaged(column))).transpose()
}

pub(super) fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        rusqlite::types::Type::Text,
        Box::new(FromSqlError::InvalidType),
    )
}
