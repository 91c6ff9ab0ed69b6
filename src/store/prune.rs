//! Forgetting what ended long ago: in steps, each of which is found by looking and then checked again in the
//! transaction that does it.

use std::fmt;

use rusqlite::params;
use rusqlite::types::Value;
use serde::Serialize;

use super::{Event, Snapshot, Transaction};
use crate::error::Result;
use crate::text::count;
use crate::timestamp::Timestamp;

/// What is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Keys that ended, and with each all of its events: the clock may have gone back, and what is left of the log
    /// must not say that a key was issued and never ended. One that is stored as active or pending never did end: it is
    /// somebody's current key, be it expired.
    Keys,
    /// Events of no key that is known.
    Events,
    /// The settings of users who have no key left.
    Settings,
}

/// How many are forgotten, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Keys.
    pub keys: u64,
    /// Events.
    pub events: u64,
    /// Users whose settings are.
    #[serde(skip)]
    pub users: u64,
}

/// That a key ended before `?1`.
macro_rules! has_ended {
    () => {
        "status IN ('revoked', 'retiring', 'expired') \
         AND min(ifnull(revoked_at, '9'), ifnull(expires_at, '9')) < ?1"
    };
}

/// Forgets the events of the keys from `?2` to `?3` that are to be forgotten. No index has a key's events, but one its
/// user's, and those are gone through once for all of the keys.
const FORGET_EVENTS_OF_KEYS: &str = concat!(
    "DELETE FROM events WHERE prefix BETWEEN ?2 AND ?3 \
     AND user IN (SELECT user FROM keys WHERE prefix BETWEEN ?2 AND ?3) \
     AND EXISTS (SELECT 1 FROM keys WHERE keys.prefix = events.prefix AND keys.user = events.user AND ",
    has_ended!(),
    ")"
);

impl Old {
    /// All of it, in an order in which the later ones follow from the ones before.
    pub const ALL: [Old; 3] = [Old::Keys, Old::Events, Old::Settings];

    /// The next of it after `?2`, at most `?3`.
    fn next(self) -> &'static str {
        match self {
            Old::Keys => concat!(
                "SELECT prefix FROM keys WHERE prefix > ifnull(?2, -1) AND ",
                has_ended!(),
                " ORDER BY prefix LIMIT ?3"
            ),
            Old::Events => {
                "SELECT number FROM events WHERE number > ifnull(?2, -1) AND at < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.prefix = events.prefix) ORDER BY number LIMIT ?3"
            }
            Old::Settings => {
                "SELECT DISTINCT user FROM settings WHERE user > ifnull(?2, '') AND ?1 IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.user = settings.user) ORDER BY user LIMIT ?3"
            }
        }
    }

    /// Forgets `?2`, where it is still to be forgotten.
    fn forget(self) -> &'static str {
        match self {
            Old::Keys => concat!("DELETE FROM keys WHERE prefix = ?2 AND ", has_ended!()),
            Old::Events => {
                "DELETE FROM events WHERE number = ?2 AND at < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.prefix = events.prefix)"
            }
            Old::Settings => {
                "DELETE FROM settings WHERE user = ?2 AND ?1 IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.user = settings.user)"
            }
        }
    }
}

/// How far forgetting is.
#[derive(Clone, Debug, Default)]
pub struct Forgotten {
    /// How many so far.
    pub sum: Pruned,
    /// The event that says so, and its number.
    pub event: Option<(i64, Event)>,
}

impl Pruned {
    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Pruned::default()
    }

    fn with(mut self, what: Old, more: u64) -> Self {
        match what {
            Old::Keys => self.keys += more,
            Old::Events => self.events += more,
            Old::Settings => self.users += more,
        }
        self
    }
}

/// `2 keys, 5 events and the settings of 1 user`
impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [keys, events] = [count(self.keys, "key"), count(self.events, "event")];
        write!(f, "{keys}, {events} and the settings of {}", count(self.users, "user"))
    }
}

impl Snapshot<'_> {
    /// When the newest event was, by the clock of then.
    pub fn newest_event(&self) -> Result<Option<Timestamp>> {
        let newest = self.all("SELECT max(at) FROM events", (), |row, _| super::record::time(row, 0))?;
        Ok(newest.into_iter().next().flatten())
    }

    /// How many would be forgotten that ended, or were written down, before then.
    pub fn count_old(&self, before: Timestamp) -> Result<Pruned> {
        let sql = concat!(
            "WITH old AS (SELECT prefix, user FROM keys WHERE ",
            has_ended!(),
            ") SELECT (SELECT count(*) FROM old), \
             (SELECT count(*) FROM events WHERE prefix IN (SELECT prefix FROM old) \
              OR at < ?1 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.prefix = events.prefix)), \
             (SELECT count(DISTINCT user) FROM settings WHERE NOT EXISTS (SELECT 1 FROM keys \
              WHERE keys.user = settings.user AND prefix NOT IN (SELECT prefix FROM old)))"
        );
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let counts = self.all(sql, [before.to_string()], |row, _| {
            Ok(Pruned { keys: number(row, 0)?, events: number(row, 1)?, users: number(row, 2)? })
        })?;
        Ok(counts.into_iter().next().unwrap_or_default())
    }

    /// The next that are to be forgotten, `most` at a time, `after` the last of those before.
    pub fn next_old(
        &self,
        what: Old,
        before: Timestamp,
        after: Option<&Value>,
        most: usize,
    ) -> Result<Vec<Value>> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.all(what.next(), params![before.to_string(), after, most], |row, _| row.get(0))
    }
}

impl Transaction<'_> {
    /// Forgets those that were found, where they are still to be forgotten, and writes down how many that makes
    /// with those `so_far`: in the event that said so for those, where it is still there.
    pub fn forget(
        &self,
        what: Old,
        before: Timestamp,
        found: &[Value],
        so_far: &Forgotten,
    ) -> Result<Forgotten> {
        let mut sum = so_far.sum;
        if what == Old::Keys {
            let of_keys = params![before.to_string(), found.first(), found.last()];
            sum = sum.with(Old::Events, self.execute(FORGET_EVENTS_OF_KEYS, of_keys)? as u64);
        }
        for old in found {
            let forgotten = self.execute(what.forget(), params![before.to_string(), old])?;
            sum = sum.with(what, forgotten as u64);
        }
        if sum == so_far.sum {
            return Ok(so_far.clone());
        }
        let detail = format!("{sum}, from before {before}");
        if let Some((number, event)) = &so_far.event {
            // Another that prunes may have taken it, and its number may be another's by now.
            let sql = "UPDATE events SET detail = ?3 WHERE number = ?1 AND at = ?2 AND event = 'pruned'";
            if self.execute(sql, params![number, event.at.to_string(), detail])? == 1 {
                let event = Event { detail: Some(detail), ..event.clone() };
                return Ok(Forgotten { sum, event: Some((*number, event)) });
            }
        }
        let number = self.write_down("pruned", None, None, None, Some(&detail))?;
        // Of each step the system's log is told nothing: of the sum, when that is known.
        let event = self.events.borrow_mut().pop();
        Ok(Forgotten { sum, event: event.map(|event| (number, event)) })
    }
}
