//! What is kept for a user from one key to the next, and what a pending key is to bring, as the table `settings` has
//! it; and when a key is due.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::types::FromSql as _;
use rusqlite::{Row, params};

use super::record::{damaged, parsed, text, time};
use super::transaction::NewDelivery;
use super::{Record, Snapshot, Transaction};
use crate::error::Result;
use crate::key::Prefix;
use crate::key_file::{EnvName, KeyFile, Mode, Owner};
use crate::name::Name;
use crate::settings::{Reload, ReloadCommand, Settings};
use crate::timestamp::Timestamp;
use crate::user::User;

/// What [`key_file`] reads.
macro_rules! key_file_columns {
    () => {
        "key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env"
    };
}

/// What [`settings`] reads.
macro_rules! settings_columns {
    () => {
        "key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env, settings.name, lifetime_ms, \
         reload, reload_timeout_ms, reload_machine, renew_after_ms, renew_grace_ms"
    };
}

pub(super) use {key_file_columns, settings_columns};

pub(super) const KEY_FILE_COLUMNS: usize = 5;
pub(super) const SETTINGS_COLUMNS: usize = 12;

/// The settings in a row that has `settings_columns!` from column `at` on.
pub(super) fn settings(row: &Row<'_>, at: usize) -> rusqlite::Result<Settings> {
    let command: Option<ReloadCommand> = parsed(row, at + 7)?;
    let (timeout, machine) = (duration(row, at + 8)?, text(row, at + 9)?.map(str::to_owned));
    Ok(Settings {
        key_file: key_file(row, at)?,
        name: parsed(row, at + 5)?,
        lifetime: duration(row, at + 6)?,
        reload: command.map(|command| Reload { command, timeout, machine }),
        renew_after: duration(row, at + 10)?,
        renew_grace: duration(row, at + 11)?,
    })
}

pub(super) fn key_file(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<KeyFile>> {
    let Some(path) = text(row, at)?.map(PathBuf::from) else { return Ok(None) };
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

pub(super) fn duration(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    let milliseconds: Option<i64> =
        Option::column_result(row.get_ref(column)?).map_err(|_| damaged(column))?;
    milliseconds
        .map(|ms| u64::try_from(ms).map(Duration::from_millis).map_err(|_| damaged(column)))
        .transpose()
}

impl Snapshot<'_> {
    /// The key file that is kept of the user.
    pub fn key_file(&self, user: &User) -> Result<Option<KeyFile>> {
        let sql =
            concat!("SELECT ", key_file_columns!(), " FROM settings WHERE user = ?1 AND pending_key = 0");
        Ok(self.all(sql, [user.as_str()], |row, _| key_file(row, 0))?.pop().flatten())
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
        let read = |row: &Row<'_>, _| Ok((settings(row, 0)?, time(row, SETTINGS_COLUMNS)?));
        Ok(self.all(sql, [user.as_str()], read)?.pop().unwrap_or_default())
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
}

impl Transaction<'_> {
    /// Lets a user whose keys could only be made to expire be renewed no more: an expired key would be.
    pub fn renew_no_more(&self, user: &User) -> Result<()> {
        let sql = "UPDATE settings SET renew_after_ms = NULL, due_at = NULL \
                   WHERE user = ?1 AND renew_after_ms IS NOT NULL";
        self.execute(sql, [user.as_str()]).map(drop)
    }

    /// Makes the user's current key due at `due_at`, where it is renewed at all and was due later only.
    pub fn make_due(&self, user: &User, due_at: Timestamp) -> Result<()> {
        let sql = "UPDATE settings SET due_at = ?2 WHERE user = ?1 AND due_at > ?2";
        self.execute(sql, params![user.as_str(), due_at.to_string()]).map(drop)
    }

    /// Keeps what a pending key is to bring, although it will not be the active one, where its reader was
    /// still to be told: but for the moment before that it is in its file, which is the one to know of.
    pub fn keep_where_delivered(&self, user: &User, pending: Prefix) -> Result<()> {
        let sql = "DELETE FROM settings WHERE user = ?1 AND pending_key = 0 AND EXISTS \
                   (SELECT 1 FROM settings WHERE user = ?1 AND pending_key = ?2 AND reload_pending)";
        self.execute(sql, params![user.as_str(), pending.bits()])?;
        self.keep_where_nothing_is(user, pending)
    }

    /// Keeps what a key was to bring, if it is a pending one, where nothing else is kept: who was to have a
    /// key in a file does not get the next one elsewhere.
    pub fn keep_where_nothing_is(&self, user: &User, pending: Prefix) -> Result<()> {
        // Whether the current key, where there is one, is in that file is not known.
        let sql = "UPDATE OR IGNORE settings SET pending_key = 0, grace_ms = NULL, reload_pending = NULL, \
                   due_at = iif(renew_after_ms IS NOT NULL AND EXISTS \
                   (SELECT 1 FROM keys WHERE keys.user = ?1 AND status = 'active'), ?3, NULL) \
                   WHERE user = ?1 AND pending_key = ?2";
        self.execute(sql, params![user.as_str(), pending.bits(), self.now.to_string()]).map(drop)
    }

    /// Keeps `settings` for the user whose active key is now `key`.
    pub(super) fn keep(&self, key: &Record, settings: &Settings) -> Result<()> {
        self.execute("DELETE FROM settings WHERE user = ?1 AND pending_key = 0", [key.user.as_str()])?;
        if *settings == Settings::default() { Ok(()) } else { self.write_settings(key, settings, None) }
    }

    pub(super) fn write_settings(
        &self,
        key: &Record,
        settings: &Settings,
        delivery: Option<&NewDelivery<'_>>,
    ) -> Result<()> {
        let sql = "INSERT INTO settings (key_file, key_file_mode, key_file_uid, key_file_gid, key_file_env, \
                   name, lifetime_ms, reload, reload_timeout_ms, reload_machine, renew_after_ms, \
                   renew_grace_ms, user, pending_key, due_at, grace_ms, reload_pending) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
        let ms = |duration: Option<Duration>| duration.map(|duration| duration.as_millis() as i64);
        let (key_file, reload) = (settings.key_file.as_ref(), settings.reload.as_ref());
        let owner = key_file.and_then(|key_file| key_file.owner);
        let due_at = settings.due_at(key.created_at);
        let parameters = params![
            key_file.map(KeyFile::path),
            key_file.map(|key_file| key_file.mode.bits()),
            owner.map(|owner| owner.uid),
            owner.map(|owner| owner.gid),
            key_file.and_then(|key_file| key_file.env.as_ref()).map(EnvName::as_str),
            settings.name.as_ref().map(Name::as_str),
            ms(settings.lifetime),
            reload.map(|reload| reload.command.as_str()),
            ms(reload.and_then(|reload| reload.timeout)),
            reload.and_then(|reload| reload.machine.as_ref()),
            ms(settings.renew_after),
            ms(settings.renew_grace),
            key.user.as_str(),
            delivery.map_or(0, |_| key.prefix.bits()),
            due_at.filter(|_| delivery.is_none()).map(|at| at.to_string()),
            ms(delivery.map(|delivery| delivery.grace)),
            delivery.map(|delivery| delivery.reload_pending),
        ];
        self.execute(sql, parameters).map(drop)
    }

    pub(super) fn forget_settings_of(&self, user: &User, pending: Prefix) -> Result<()> {
        let sql = "DELETE FROM settings WHERE user = ?1 AND pending_key = ?2";
        self.execute(sql, params![user.as_str(), pending.bits()]).map(drop)
    }
}
