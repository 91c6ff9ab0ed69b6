//! Listing keys.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::{Listed, Snapshot, Status};
use crate::subject::Subject;
use crate::timestamp::Timestamp;

/// The keys, as they stand at one moment.
pub struct Keys<'a>(pub(super) &'a Snapshot<'a>);

/// Which keys are listed: those of which all of this holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Those that ended too, not only those that are current or accepted.
    pub all: bool,
    /// Those that end before so much time has passed, or have.
    pub expiring_within: Option<Duration>,
    /// Those that were issued so long ago.
    pub older_than: Option<Duration>,
    /// Those that were last used, as far as that was recorded, or else issued so long ago.
    pub unused_for: Option<Duration>,
    /// Those that a renewal would replace now.
    pub due: bool,
}

impl Filter {
    fn takes(&self, listed: &Listed, now: Timestamp) -> bool {
        let Listed { key, due_at, .. } = listed;
        let ends_within =
            |time| key.until().is_some_and(|end| now.checked_add(time).is_none_or(|then| end <= then));
        let is_ago = |time: Timestamp, ago| now.since(time).is_some_and(|since| since >= ago);
        // What is on its way waits for a renewal to go on with it, whenever it was issued.
        let is_due = || due_at.is_some_and(|due_at| due_at <= now || key.stored == Status::Pending);
        (self.all || listed.is_current_or_accepted())
            && self.expiring_within.is_none_or(ends_within)
            && self.older_than.is_none_or(|ago| is_ago(key.created_at, ago))
            && self.unused_for.is_none_or(|ago| is_ago(key.last_used_at.unwrap_or(key.created_at), ago))
            && (!self.due || is_due())
    }
}

impl Keys<'_> {
    /// Calls `each` with every key of the subject (of everyone, where that is `None`) that `filter` takes; by
    /// user, oldest first. Keeps one in memory at a time.
    pub fn for_each<E: From<Error>>(
        &self,
        subject: Option<&Subject>,
        filter: &Filter,
        mut each: impl FnMut(Listed) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let now = self.0.now();
        let each = |key: Listed| if filter.takes(&key, now) { each(key) } else { Ok(()) };
        match subject {
            None => self.0.for_each(None, each),
            Some(Subject::User(user)) => self.0.for_each(Some(user), each),
            Some(Subject::Key(prefix)) => self.0.listed(*prefix)?.map_or(Ok(()), each),
        }
    }

    /// Whether there is a key of the subject (of anyone, where that is `None`) that is known, an ended one
    /// too.
    pub fn any(&self, subject: Option<&Subject>) -> Result<bool> {
        match subject {
            None => self.0.knows_a_key(None),
            Some(Subject::User(user)) => self.0.knows_a_key(Some(user)),
            Some(Subject::Key(prefix)) => Ok(self.0.listed(*prefix)?.is_some()),
        }
    }
}
