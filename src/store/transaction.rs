//! Every change to the keys, inside one transaction. Each writes down what it did, by whom: the last
//! of those events is the witness by which a commit that failed is judged.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, params};
use uuid::Uuid;

use super::event::Event;
use super::record::{Held, Pending, Record, Status};
use super::snapshot::{Snapshot, prepared};
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::{EnvName, KeyFile};
use crate::name::Name;
use crate::random;
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::user::User;

/// An open transaction that may change the keys. The store begins and ends it.
pub struct Transaction<'store> {
    pub(super) snapshot: Snapshot<'store>,
    pub(super) actor: &'store Actor,
    pub(super) witness: Cell<Option<Witness>>,
    /// What was written down.
    pub(super) events: RefCell<Vec<Event>>,
}

/// An event that is in the database where the transaction took hold, and only there.
#[derive(Clone, Copy)]
pub struct Witness {
    number: i64,
    at: Timestamp,
    prefix: Option<Prefix>,
}

/// To what `last_used_at` is precise.
const USE_PRECISION: Duration = Duration::from_secs(60);
/// So many characters of why a delivery was refused are kept.
const LONGEST_REASON: usize = 1000;

/// Revokes at `?2` a row that its table may not take as it is, or that cannot be read to its end. It reads nothing of
/// it that lies behind the status, and gives the rest the type of its column.
macro_rules! revoke_anew {
    () => {
        "UPDATE keys NOT INDEXED SET status = 'revoked', revoked_at = ?2, key_hash = CAST(key_hash AS BLOB), \
         id = CAST(id AS TEXT), user = CAST(user AS TEXT), name = CAST(name AS TEXT), expires_at = NULL, \
         last_used_at = NULL WHERE "
    };
}

/// What is to be known of a key that is issued.
pub struct NewKey<'a> {
    pub user: &'a User,
    /// What is kept from now on; for a key that is delivered, from its activation on.
    pub settings: &'a Settings,
    /// By which command, in whose place.
    pub detail: String,
}

/// How a key is on its way into its file.
pub struct NewDelivery<'a> {
    pub key_file: &'a KeyFile,
    pub grace: Duration,
    pub reload_pending: bool,
}

impl<'store> Deref for Transaction<'store> {
    type Target = Snapshot<'store>;

    fn deref(&self) -> &Snapshot<'store> {
        &self.snapshot
    }
}

impl Transaction<'_> {
    /// Issues `key`: it is the user's active one, whose place must be free.
    pub fn insert_active(&self, key: &Key, new: &NewKey<'_>) -> Result<Record> {
        let record = self.insert(key, new, Status::Active)?;
        self.keep(&record, new.settings)?;
        Ok(record)
    }

    /// Issues `key` as one that is on its way into a file.
    pub fn insert_pending(&self, key: &Key, new: &NewKey<'_>, delivery: &NewDelivery<'_>) -> Result<Pending> {
        let record = self.insert(key, new, Status::Pending)?;
        self.write_settings(&record, new.settings, Some(delivery))?;
        Ok(Pending {
            key: record,
            settings: new.settings.clone(),
            key_file: delivery.key_file.clone(),
            grace: delivery.grace,
            reload_pending: delivery.reload_pending,
        })
    }

    /// Makes a pending key, of which a delivery is done, the user's active one, whose place must be
    /// free, and brings its settings into force. `false` where it is not pending any more: then
    /// nothing has changed.
    pub fn activate(&self, pending: &Pending) -> Result<bool> {
        let sql = "UPDATE keys SET status = 'active' WHERE prefix = ?1 AND status = 'pending'";
        let changed = self.execute(sql, [pending.key.prefix.bits()])?;
        if changed == 1 {
            let Record { user, prefix, .. } = &pending.key;
            self.forget_settings_of(user, *prefix)?;
            self.keep(&pending.key, &pending.settings)?;
            self.record("delivered", user, &Held::from(&pending.key), None, Some(pending.key_file.path()))?;
        }
        Ok(changed == 1)
    }

    /// Takes the current key out of its place. It is accepted for `grace` more, but not past its own
    /// expiry. Returns it as it is then.
    pub fn retire(&self, user: &User, current: &Held, grace: Duration) -> Result<Held> {
        if !current.status.is_accepted() {
            self.set_status(current.prefix, Status::Expired, None)?;
            self.record("revoked", user, current, None, None)?;
            return Ok(Held { stored: Status::Expired, ..*current });
        }
        if grace.is_zero() {
            self.end(&[*current])?;
            self.ended(user, &[*current])?;
            let status = Status::Revoked;
            return Ok(Held { status, stored: status, revoked_at: Some(self.now), ..*current });
        }
        let until = later(self.now, grace)?;
        let until = current.expires_at.map_or(until, |expiry| until.min(expiry));
        let status = Status::Retiring;
        self.set_status(current.prefix, status, Some(until))?;
        self.record("retired", user, current, Some(until), None)?;
        Ok(Held { status, stored: status, revoked_at: Some(until), ..*current })
    }

    /// Changes what is known of the user's active key, and what is kept. `what` is what that is.
    pub fn edit(
        &self,
        key: &Record,
        expires_at: Option<Timestamp>,
        settings: &Settings,
        what: &str,
    ) -> Result<()> {
        let sql = "UPDATE keys SET name = ?2, expires_at = ?3 WHERE prefix = ?1";
        let (name, end) = (settings.name.as_ref().map(Name::as_str), expires_at.map(|at| at.to_string()));
        self.execute(sql, params![key.prefix.bits(), name, end])?;
        let (kept, due_at) = self.settings_and_due(&key.user)?;
        self.keep(key, settings)?;
        if let Some(due_at) = due_at.filter(|_| kept.renew_after == settings.renew_after) {
            // What made it due earlier is not over.
            self.make_due(&key.user, due_at)?;
        }
        self.record("edited", &key.user, &Held { expires_at, ..Held::from(key) }, None, Some(what))
    }

    /// Revokes keys at once and for good. What was revoked before keeps its time. [`Transaction::ended`]
    /// is to follow.
    pub fn end(&self, keys: &[Held]) -> Result<()> {
        keys.iter().try_for_each(|key| {
            let revoked_at = key.revoked_at.map_or(self.now, |before| before.min(self.now));
            self.set_status(key.prefix, Status::Revoked, Some(revoked_at))
        })
    }

    /// The same where a row is damaged: each is written anew, but for when the key was to end and was last used.
    pub fn end_anew(&self, keys: &[Held]) -> Result<()> {
        let now = self.now.to_string();
        let end = |key: &Held| {
            self.execute(concat!(revoke_anew!(), "prefix = ?1"), params![key.prefix.bits(), now]).map(drop)
        };
        keys.iter().try_for_each(end)
    }

    /// The same where an index is damaged in which the change of a status would have to be written: their
    /// time is over now. No index has that.
    pub fn end_by_time(&self, keys: &[Held]) -> Result<()> {
        let sql = "UPDATE keys SET expires_at = iif(status = 'retiring', expires_at, ?2), \
                   revoked_at = iif(status = 'retiring', ?2, revoked_at) WHERE prefix = ?1";
        let now = self.now.to_string();
        keys.iter().try_for_each(|key| self.execute(sql, params![key.prefix.bits(), now]).map(drop))
    }

    /// Lets a user whose keys could only be made to expire be renewed no more: an expired key would be.
    pub fn renew_no_more(&self, user: &User) -> Result<()> {
        let sql = "UPDATE settings SET renew_after_ms = NULL, due_at = NULL WHERE user = ?1";
        self.unless_damaged(self.execute(sql, [user.as_str()]).map(drop))
    }

    /// Sees to what comes of keys that were just revoked: what a pending one was to bring is kept where nothing
    /// else is, nothing is due any more, and it is written down. Damage leaves that out, but does not undo what
    /// was done: SQLite may do nothing more in a transaction that met some.
    pub fn ended(&self, user: &User, keys: &[Held]) -> Result<()> {
        for key in keys.iter().filter(|key| key.stored != Status::Active) {
            let kept = self.keep_where_nothing_is(user, key.prefix);
            self.unless_damaged(kept.and_then(|()| self.forget_settings_of(user, key.prefix)))?;
        }
        let no_longer_due = "UPDATE settings SET due_at = NULL WHERE user = ?1 AND due_at IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM keys WHERE user = ?1 AND status = 'active')";
        self.unless_damaged(self.execute(no_longer_due, [user.as_str()]).map(drop))?;
        for key in keys {
            self.unless_damaged(self.record("revoked", user, key, None, None))?;
        }
        Ok(())
    }

    /// Makes the indexes of the keys anew.
    pub fn remake_indexes(&self) -> Result<()> {
        self.run(|connection| connection.execute_batch("REINDEX keys"))
    }

    /// Revokes whatever else is stored as a key of the user that is accepted: rows that cannot be read. Returns
    /// how many.
    pub fn revoke_unreadable(&self, user: &User) -> Result<usize> {
        let sql = concat!(
            revoke_anew!(),
            "CAST(user AS TEXT) = ?1 AND CAST(status AS TEXT) IN ('active', 'pending', 'retiring')"
        );
        let parameters = params![user.as_str(), self.now.to_string()];
        let revoked = self.remake_indexes().and_then(|()| self.execute(sql, parameters));
        let rows = *revoked.as_ref().unwrap_or(&0);
        self.unless_damaged(revoked.map(drop)).map(|()| rows)
    }

    /// Revokes a key whose delivery is given up, and forgets what it was to bring. `false` where it is not
    /// pending any more: then nothing has changed.
    pub fn undo(&self, pending: &Record) -> Result<bool> {
        let Record { user, prefix, .. } = pending;
        let sql =
            "UPDATE keys SET status = 'revoked', revoked_at = ?2 WHERE prefix = ?1 AND status = 'pending'";
        let changed = self.execute(sql, params![prefix.bits(), self.now.to_string()])?;
        if changed == 1 {
            self.forget_settings_of(user, *prefix)?;
            self.record("undone", user, &Held::from(pending), None, None)?;
        }
        Ok(changed == 1)
    }

    /// Writes down that no key of the user's was delivered, and `why`: once, where it is refused again and again
    /// for the same reason.
    pub fn refuse(&self, user: &User, why: &str) -> Result<()> {
        let why: String = why.chars().take(LONGEST_REASON).collect();
        let sql = "SELECT event = 'refused' AND detail IS ?2 FROM events WHERE user = ?1 \
                   ORDER BY number DESC LIMIT 1";
        let is_known = |row: &rusqlite::Row<'_>, _| row.get(0);
        match self.all(sql, params![user.as_str(), why], is_known)?.pop() {
            Some(true) => Ok(()),
            _ => self.write_down("refused", Some(user), None, None, Some(&why)).map(drop),
        }
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

    fn insert(&self, key: &Key, new: &NewKey<'_>, status: Status) -> Result<Record> {
        let sql = "INSERT INTO keys (prefix, key_hash, id, user, name, status, expires_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let record = Record {
            key_hash: key.hash(),
            id: new_id(self.now)?,
            user: new.user.clone(),
            prefix: key.prefix(),
            name: new.settings.name.clone(),
            status,
            stored: status,
            created_at: self.now,
            last_used_at: None,
            expires_at: new.settings.lifetime.map(|lifetime| later(self.now, lifetime)).transpose()?,
            revoked_at: None,
        };
        let parameters = params![
            record.prefix.bits(),
            record.key_hash.as_bytes(),
            record.id.to_string(),
            record.user.as_str(),
            record.name.as_ref().map(Name::as_str),
            record.status.as_str(),
            record.expires_at.map(|at| at.to_string()),
        ];
        self.execute(sql, parameters)?;
        self.record("issued", new.user, &Held::from(&record), None, Some(&new.detail))?;
        Ok(record)
    }

    /// Keeps `settings` for the user whose active key is now `key`.
    fn keep(&self, key: &Record, settings: &Settings) -> Result<()> {
        self.execute("DELETE FROM settings WHERE user = ?1 AND pending_key = 0", [key.user.as_str()])?;
        if *settings == Settings::default() { Ok(()) } else { self.write_settings(key, settings, None) }
    }

    fn write_settings(
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

    /// What was done, or left out for damage: but not where that has undone the transaction, as an I/O error
    /// does.
    fn unless_damaged(&self, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.code() == Code::DbError && !self.connection.is_autocommit() => Ok(()),
            done => done,
        }
    }

    fn forget_settings_of(&self, user: &User, pending: Prefix) -> Result<()> {
        let sql = "DELETE FROM settings WHERE user = ?1 AND pending_key = ?2";
        self.execute(sql, params![user.as_str(), pending.bits()]).map(drop)
    }

    /// Where an index does not fit the table, as one flipped bit can make it, all of them are made anew from
    /// the table.
    fn set_status(&self, key: Prefix, status: Status, revoked_at: Option<Timestamp>) -> Result<()> {
        let sql = "UPDATE keys SET status = ?2, revoked_at = ?3 WHERE prefix = ?1";
        let revoked_at = revoked_at.map(|at| at.to_string());
        let set = |connection: &Connection| {
            let parameters = params![key.bits(), status.as_str(), revoked_at];
            prepared(connection, sql, |set| set.execute(parameters))
        };
        let mend = |connection: &Connection| connection.execute_batch("REINDEX keys");
        let set_anyhow = |connection| match set(connection) {
            Err(error) if is_damage(&error) => mend(connection).and_then(|()| set(connection)),
            set => set,
        };
        self.run(set_anyhow).map(drop)
    }

    /// Writes down what was done to `key`.
    fn record(
        &self,
        event: &str,
        user: &User,
        key: &Held,
        valid_until: Option<Timestamp>,
        detail: Option<&str>,
    ) -> Result<()> {
        self.write_down(event, Some(user), Some(key), valid_until, detail).map(drop)
    }

    /// Writes down what was done, and returns the event's number.
    pub(super) fn write_down(
        &self,
        event: &str,
        user: Option<&User>,
        key: Option<&Held>,
        valid_until: Option<Timestamp>,
        detail: Option<&str>,
    ) -> Result<i64> {
        let sql = "INSERT INTO events (at, event, user, prefix, expires_at, valid_until, uid, login, \
                   sudo_user, audit_uid, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let Actor { uid, login, sudo_user, audit_uid } = self.actor.clone();
        let event = Event {
            at: self.now,
            event: event.to_owned(),
            user: user.cloned(),
            prefix: key.map(|key| key.prefix),
            expires_at: key.and_then(|key| key.expires_at),
            valid_until,
            uid,
            login,
            sudo_user,
            audit_uid,
            detail: detail.map(str::to_owned),
        };
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let parameters = params![
            event.at.to_string(),
            event.event,
            event.user.as_ref().map(User::as_str),
            event.prefix.map(Prefix::bits),
            time(event.expires_at),
            time(event.valid_until),
            event.uid,
            event.login,
            event.sudo_user,
            event.audit_uid,
            event.detail,
        ];
        let number = self.statement(sql, |record| record.insert(parameters))?;
        self.witness.set(Some(Witness { number, at: event.at, prefix: event.prefix }));
        self.events.borrow_mut().push(event);
        Ok(number)
    }

    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize> {
        self.statement(sql, |change| change.execute(parameters))
    }
}

impl Witness {
    /// Whether the transaction that made it took hold.
    pub fn is_there(self, snapshot: &Snapshot<'_>) -> Result<bool> {
        let sql = "SELECT 1 FROM events WHERE number = ?1 AND at = ?2 AND prefix IS ?3";
        let parameters = params![self.number, self.at.to_string(), self.prefix.map(Prefix::bits)];
        snapshot.statement(sql, |event| event.exists(parameters))
    }
}

/// Writes that the key was used now, unless that was written within the last minute. No event: nothing about the
/// key has changed.
pub fn write_use(snapshot: &Snapshot<'_>, prefix: Prefix) -> Result<()> {
    // A use in the future is a clock that went back: not to be believed.
    let sql = "UPDATE keys SET last_used_at = ?2 WHERE prefix = ?1 \
               AND (last_used_at IS NULL OR last_used_at <= ?3 OR last_used_at >= ?4)";
    let now = snapshot.now;
    let (before, after) = (now.before(USE_PRECISION), now.checked_add(USE_PRECISION).unwrap_or(now));
    let parameters = params![prefix.bits(), now.to_string(), before.to_string(), after.to_string()];
    snapshot.statement(sql, |use_| use_.execute(parameters)).map(drop)
}

/// Whether that `key` is used now is news.
pub fn is_use_worth_writing(key: &Record, now: Timestamp) -> bool {
    let apart = |used: Timestamp| now.since(used).or(used.since(now));
    key.last_used_at.and_then(apart).is_none_or(|apart| apart >= USE_PRECISION)
}

/// Whether it is what SQLite found the database to be.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// The moment `duration` later, where there is one.
pub fn later(now: Timestamp, duration: Duration) -> Result<Timestamp> {
    now.checked_add(duration).ok_or_else(|| {
        Error::new(Code::Usage, "a duration ends after the year 9999").hint("give a shorter one")
    })
}

/// A UUID, version 7: RFC 9562, section 5.7.
fn new_id(now: Timestamp) -> Result<Uuid> {
    let mut random = [0; 10];
    random::fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random).into_uuid())
}
