//! What a user has that is accepted, as much of each key as it takes to end it: every way to find it, and every way
//! to end it, past damage too.

use rusqlite::{Row, params};

use super::record::{Record, Status, damaged, parsed, time, user};
use super::{Snapshot, Transaction};
use crate::error::Result;
use crate::key::Prefix;
use crate::timestamp::Timestamp;
use crate::user::User;

/// A key that is accepted, or would be if the clock went back: as much of it as it takes to end it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Held {
    /// Its first 15 characters.
    pub prefix: Prefix,
    /// Where it stands at the moment it was read for.
    pub status: Status,
    /// The status as it is stored.
    pub(crate) stored: Status,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// What [`Held::read`] reads.
macro_rules! held_columns {
    () => {
        "prefix, status, expires_at, revoked_at"
    };
}

/// What a user has.
#[derive(Default)]
pub struct Holdings {
    /// The current key, be it expired.
    pub current: Option<Held>,
    /// The one that is on its way into a file.
    pub pending: Option<Held>,
    /// Those that are retiring.
    pub older: Vec<Held>,
}

/// Each status by itself, as a literal: only so does SQLite use the index of each, and not look through
/// all that the user ever had.
pub(super) const HELD: &str = concat!(
    "SELECT ",
    held_columns!(),
    " FROM keys WHERE (user = ?1 AND status = 'active') OR (user = ?1 AND status = 'pending') \
     OR (user = ?1 AND status = 'retiring') ORDER BY status"
);

/// A way to find what a user has. One flipped bit makes a blob of a text: the last two find that, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// By the index of each status.
    ByStatus,
    /// By the index of all that the user ever had.
    ByUser,
    /// By no index: through all keys.
    Through,
}

/// Revokes at `?2` a row that its table may not take as it is, or that cannot be read to its end. It reads nothing of
/// it that lies behind the status, and gives the rest the type of its column. Where it has no hash or no id,
/// which the table does not take either, it gets one that is no key's.
macro_rules! revoke_anew {
    () => {
        "UPDATE keys NOT INDEXED SET status = 'revoked', revoked_at = ?2, \
         key_hash = iif(length(CAST(key_hash AS BLOB)) = 32, CAST(key_hash AS BLOB), randomblob(32)), \
         id = ifnull(CAST(id AS TEXT), ''), user = ifnull(CAST(user AS TEXT), ''), name = CAST(name AS TEXT), expires_at = NULL, \
         last_used_at = NULL WHERE "
    };
}

impl Held {
    /// What a row of `held_columns!` is at the moment `now`. What cannot be read is left out: whatever else
    /// is wrong with a key, it can be revoked.
    pub(super) fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Self> {
        let prefix = Prefix::from_bits(row.get(0)?).ok_or_else(|| damaged(0))?;
        let stored = parsed(row, 1)?.ok_or_else(|| damaged(1))?;
        let (expires_at, revoked_at) = (time(row, 2).unwrap_or(None), time(row, 3).unwrap_or(None));
        Ok(Held { prefix, stored, status: stored.at(now, expires_at, revoked_at), expires_at, revoked_at })
    }

    /// Until when it is accepted; `None` where only a command will end that.
    pub fn until(&self) -> Option<Timestamp> {
        [self.expires_at, self.revoked_at].into_iter().flatten().min()
    }
}

impl From<&Record> for Held {
    fn from(record: &Record) -> Self {
        let &Record { prefix, status, stored, expires_at, revoked_at, .. } = record;
        Held { prefix, status, stored, expires_at, revoked_at }
    }
}

impl Look {
    /// Those that are quick.
    pub const QUICK: [Look; 2] = [Look::ByStatus, Look::ByUser];

    fn sql(self) -> &'static str {
        match self {
            Look::ByStatus => HELD,
            Look::ByUser => concat!(
                "SELECT ",
                held_columns!(),
                " FROM keys INDEXED BY keys_of_user \
                 WHERE user IN (?1, CAST(?1 AS BLOB)) AND status IN ('active', 'pending', 'retiring')"
            ),
            Look::Through => concat!(
                "SELECT ",
                held_columns!(),
                " FROM keys NOT INDEXED WHERE CAST(user AS TEXT) = ?1 AND status IN ('active', 'pending', 'retiring')"
            ),
        }
    }
}

impl Snapshot<'_> {
    /// What the user has that is accepted, or would be if the clock went back; the current key first.
    pub fn held(&self, user: &User) -> Result<Vec<Held>> {
        self.all(HELD, [user.as_str()], Held::read)
    }

    /// The same, by these looks: what one of them does not show another does. And whether a row was left out
    /// that makes no sense. An index may be damaged, or the row: what a key's row does not call the user's is, where
    /// two looks do.
    pub fn held_by(&self, looks: &[Look], user: &User) -> Result<(Vec<Held>, bool)> {
        let readable = |row: &Row<'_>, now| Ok(Held::read(row, now).ok());
        let mut found: Vec<(Held, usize)> = Vec::new();
        let mut is_left_out = false;
        for look in looks {
            for key in self.all(look.sql(), [user.as_str()], readable)? {
                let Some(key) = key else {
                    is_left_out = true;
                    continue;
                };
                match found.iter_mut().find(|(known, _)| known.prefix == key.prefix) {
                    Some((_, looks)) => *looks += 1,
                    None => found.push((key, 1)),
                }
            }
        }
        let mut held = Vec::new();
        for (key, looks) in found {
            if looks > 1 || self.is_of(key.prefix, user)? {
                held.push(key);
            }
        }
        held.sort_by_key(|key| key.stored != Status::Active);
        Ok((held, is_left_out))
    }

    /// Whether the key's row itself says that it is the user's.
    fn is_of(&self, prefix: Prefix, user: &User) -> Result<bool> {
        let sql = "SELECT CAST(user AS TEXT) = ?2 FROM keys NOT INDEXED WHERE prefix = ?1";
        let says = self.all(sql, params![prefix.bits(), user.as_str()], |row, _| row.get::<_, bool>(0))?;
        Ok(says == [true])
    }

    /// The key with this prefix, and whose it is, as far as that can be read.
    pub fn held_with_prefix(&self, prefix: Prefix) -> Result<Option<(User, Held)>> {
        let sql = concat!("SELECT ", held_columns!(), ", CAST(user AS TEXT) FROM keys WHERE prefix = ?1");
        let whose = |row: &Row<'_>| {
            let text = row.get_ref(4)?.as_bytes_or_null()?.unwrap_or_default();
            Ok::<_, rusqlite::Error>(user(row, 4).unwrap_or_else(|_| User::damaged(text)))
        };
        let read = |row: &Row<'_>, now| Ok((whose(row)?, Held::read(row, now)?));
        Ok(self.all(sql, [prefix.bits()], read)?.pop())
    }

    /// The same, by what each is to the user.
    pub fn holdings(&self, user: &User) -> Result<Holdings> {
        let mut holdings = Holdings::default();
        for key in self.held(user)? {
            match key.stored {
                Status::Active => holdings.current = Some(key),
                Status::Pending => holdings.pending = Some(key),
                _ if key.status.is_accepted() => holdings.older.push(key),
                _ => {}
            }
        }
        Ok(holdings)
    }
}

impl Transaction<'_> {
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
    /// time is over now, where it was not before. No index has that.
    pub fn end_by_time(&self, keys: &[Held]) -> Result<()> {
        let sql = "UPDATE keys SET expires_at = iif(status = 'retiring', expires_at, ?2), \
                   revoked_at = iif(status = 'retiring', ?2, revoked_at) WHERE prefix = ?1";
        keys.iter().try_for_each(|key| {
            let end = key.until().map_or(self.now, |before| before.min(self.now));
            self.execute(sql, params![key.prefix.bits(), end.to_string()]).map(drop)
        })
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

    /// Revokes whatever else is stored as a key of the user that was not revoked: rows that cannot be read. Returns
    /// what can be told of each; `None` where its prefix is none.
    pub fn revoke_unreadable(&self, user: &User) -> Result<Vec<Option<Held>>> {
        let sql = concat!(
            revoke_anew!(),
            "CAST(user AS TEXT) = ?1 AND ifnull(CAST(status AS TEXT), '') NOT IN ('revoked', 'expired') RETURNING prefix"
        );
        let parameters = params![user.as_str(), self.now.to_string()];
        let read = |row: &Row<'_>, _| {
            let (status, stored) = (Status::Active, Status::Active);
            let held = |prefix| Held { prefix, status, stored, expires_at: None, revoked_at: None };
            Ok(Prefix::from_bits(row.get(0)?).map(held))
        };
        self.unless_damaged(self.remake_indexes())?;
        self.unless_damaged(self.all(sql, parameters, read))
    }

    /// What was done or seen, or nothing where damage keeps that from being: but not where the transaction is undone
    /// by what failed, as by an I/O error. What follows would take hold by itself.
    pub fn unless_damaged<T: Default>(&self, done: Result<T>) -> Result<T> {
        if self.connection.is_autocommit() { done } else { Ok(done.unwrap_or_default()) }
    }
}
