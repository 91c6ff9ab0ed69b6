//! What was done to keys, written down with what it records: the last of it is the witness by which a commit that
//! failed is judged.

use std::fmt;

use rusqlite::{Row, params};
use serde::{Serialize, Serializer};

use super::held::Held;
use super::record::{damaged, text, time, user};
use super::{Snapshot, Transaction};
use crate::actor::Actor;
use crate::error::Result;
use crate::key::Prefix;
use crate::timestamp::Timestamp;
use crate::user::User;

/// Something that was done. Serialized, it is the JSON of `log`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What: `issued`, `delivered`, `retired`, `revoked`, `undone`, `edited`, `refused` or `pruned`. A newer
    /// program may have written others.
    pub event: String,
    /// Whose key it was, where it was one.
    #[serde(serialize_with = "name")]
    pub user: Option<User>,
    /// That key's first 15 characters.
    pub prefix: Option<Prefix>,
    /// When that key stops being accepted by itself.
    pub expires_at: Option<Timestamp>,
    /// Until when a key that was replaced is accepted.
    pub valid_until: Option<Timestamp>,
    /// By whom: the real uid.
    pub uid: u32,
    /// The name of that uid's account, then.
    pub login: Option<String>,
    /// Who called sudo(8), as the environment said: a hint, not a proof.
    pub sudo_user: Option<String>,
    /// Who had logged in, as the kernel said: it outlives su and sudo.
    pub audit_uid: Option<u32>,
    /// By which command and in whose place, to which path, what was changed, why not, or how many.
    pub detail: Option<String>,
}

/// The columns that [`Event::read`] reads, in its order.
macro_rules! event_columns {
    () => {
        "at, event, user, prefix, expires_at, valid_until, uid, login, sudo_user, audit_uid, detail"
    };
}
pub(super) use event_columns;

/// An event that is in the database where the transaction took hold, and only there.
#[derive(Clone, Copy)]
pub struct Witness {
    number: i64,
    at: Timestamp,
    prefix: Option<Prefix>,
}

/// So many characters of why a delivery was refused are kept.
const LONGEST_REASON: usize = 1000;

impl Event {
    /// By whom, in words: the login name, or the uid; then who called sudo, and who had logged in, where that is
    /// another.
    pub(crate) fn by_whom(&self) -> String {
        let mut by = self.login.clone().unwrap_or_else(|| format!("uid {}", self.uid));
        by.extend(self.sudo_user.as_ref().map(|user| format!(" (sudo: {user})")));
        by.extend(
            self.audit_uid.filter(|uid| *uid != self.uid).map(|uid| format!(" (logged in: uid {uid})")),
        );
        by
    }

    /// What more there is to say, in words.
    pub(crate) fn details(&self) -> Option<String> {
        let until = self.valid_until.map(|until| format!("until {until}"));
        let details: Vec<&str> = [self.detail.as_deref(), until.as_deref()].into_iter().flatten().collect();
        (!details.is_empty()).then(|| details.join(", "))
    }

    /// What a row of `event_columns!` is.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let owned = |column| Ok::<_, rusqlite::Error>(text(row, column)?.map(str::to_owned));
        let prefix = |bits| Prefix::from_bits(bits).ok_or_else(|| damaged(3));
        Ok(Event {
            at: time(row, 0)?.ok_or_else(|| damaged(0))?,
            event: owned(1)?.ok_or_else(|| damaged(1))?,
            user: text(row, 2)?.map(|_| user(row, 2)).transpose()?,
            prefix: row.get::<_, Option<i64>>(3)?.map(prefix).transpose()?,
            expires_at: time(row, 4)?,
            valid_until: time(row, 5)?,
            uid: row.get(6)?,
            login: owned(7)?,
            sudo_user: owned(8)?,
            audit_uid: row.get(9)?,
            detail: owned(10)?,
        })
    }
}

/// `issued ak_0123456789ab of web by root: create`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.event)?;
        self.prefix.iter().try_for_each(|prefix| write!(f, " {prefix}"))?;
        self.user.iter().try_for_each(|user| write!(f, " of {user}"))?;
        write!(f, " by {}", self.by_whom())?;
        self.details().iter().try_for_each(|details| write!(f, ": {details}"))
    }
}

fn name<S: Serializer>(user: &Option<User>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    user.as_ref().map(User::as_str).serialize(serializer)
}

impl Transaction<'_> {
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

    /// Writes down what was done to `key`.
    pub(super) fn record(
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
}

impl Witness {
    /// Whether the transaction that made it took hold.
    pub fn is_there(self, snapshot: &Snapshot<'_>) -> Result<bool> {
        let sql = "SELECT 1 FROM events WHERE number = ?1 AND at = ?2 AND prefix IS ?3";
        let parameters = params![self.number, self.at.to_string(), self.prefix.map(Prefix::bits)];
        snapshot.statement(sql, |event| event.exists(parameters))
    }
}
