//! What was done to keys, as it was written down with what it records.

use std::fmt;

use rusqlite::Row;
use serde::{Serialize, Serializer};

use super::record::{damaged, text, time, user};
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

fn name<S: Serializer>(user: &Option<User>, serializer: S) -> Result<S::Ok, S::Error> {
    user.as_ref().map(User::as_str).serialize(serializer)
}
