//! A key's way into a file: the overlap protocol.
//!
//! With exactly one accepted key, no order of 'commit' and 'replace the file' is without a moment
//! at which the file holds a key that nobody accepts. So for a moment two are accepted:
//!
//! 1. Under the lock, look at the file; refuse what may not be replaced (`state.rs`). Remove what a run
//!    that was killed has staged beside it, and stage the new key.
//! 2. First transaction: the new key is pending, and accepted. The old one stays.
//! 3. Put the stage in the file's place; sync the folder.
//! 4. Run the reload command, where there is one, with the lock let go: its reader takes the new key while
//!    both are good, and others write.
//! 5. Second transaction, where the new key is still pending: it is active; the old one ends, or retires.
//!
//! `forward.rs` goes that way, `recover.rs` goes on from wherever a run was killed, or back; where that
//! is and what follows is for `state.rs` to say, which changes nothing.
//!
//! | killed after | the file holds | accepted | state, and what the next run that writes does |
//! | --- | --- | --- | --- |
//! | staging, whole or in part | old | old | none: the next delivery to this file removes the stage |
//! | the first transaction | old | old, new | staged: goes on with 3. Without a whole stage lost: revokes the new key |
//! | the replacement | new | old, new | in place: syncs the folder and goes on with 5 |
//! | the second transaction | new | new | none |
//!
//! Without a stage, and with neither of the two keys in the file, nothing is revoked: another file system
//! may be mounted there, or none; the delivery is stuck. So it is where something of that user's is damaged,
//! which is nobody else's trouble. A key that waits for its reload goes on with 4 when that user is refreshed
//! again. A revocation waits for none of this: it ends what is pending, and who was delivering it finds that
//! out in step 5, or when it is to say that the delivery is not over, which is said by one function
//! (`Delivery::error`). While the lock is let go, others may finish the delivery and replace the key again, or
//! put another database in the place of this one.

mod forward;
mod recover;
mod reload;
mod state;

use std::fmt;

pub(crate) use self::forward::{Activated, NewParcel, Replaces, discard, send, tell_and_activate};
use self::forward::{not_pending, stored};
pub(crate) use self::recover::{recover, recover_of};
pub(crate) use self::state::{InFile, State, check_is_not_the_database, check_may_replace, look};
use crate::error::{Code, Error};
use crate::key_file::KeyFile;
use crate::store::{Pending, Record, Status, Store};
use crate::timestamp::Timestamp;

/// A delivery that an earlier run left, and what became of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    pub(crate) pending: Pending,
    /// What became of it.
    pub end: End,
}

/// What became of a delivery.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// The key is in its file, and is the user's active one.
    Finished,
    /// The key was lost or had expired, and is revoked.
    Undone,
    /// The key is in its file, and its reader is not told yet, for this reason where one is known: another
    /// run is telling it now, or a refresh of that user is to tell it.
    AwaitsReload(Option<String>),
    /// The key can be neither delivered nor given up now, for this reason.
    Stuck(String),
}

impl Delivery {
    pub(crate) fn of(pending: &Pending, end: End) -> Self {
        Delivery { pending: pending.clone(), end }
    }

    /// The key, as it was when it was found on its way.
    pub fn key(&self) -> &Record {
        &self.pending.key
    }

    /// The file that it is, or was, on its way to.
    pub fn key_file(&self) -> &KeyFile {
        &self.pending.key_file
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        matches!(self.end, End::Finished | End::Undone)
    }

    /// Whether its key is in the file, and not yet the active one.
    pub(crate) fn is_in_place(&self) -> bool {
        matches!(self.end, End::AwaitsReload(_))
    }

    /// What to do about it, where there is something to do.
    pub fn what_to_do(&self) -> Option<String> {
        let user = &self.pending.key.user;
        match self.end {
            End::Finished | End::Undone => None,
            End::AwaitsReload(_) => Some(format!(
                "`apikey refresh {user}` tells it again (by another command with --reload, not at all with \
                 --no-reload), `apikey revoke {user}` ends all keys of {user}"
            )),
            End::Stuck(_) => Some(format!(
                "see to that, and the next command that writes goes on from there; or give the key up: \
                 `apikey refresh {user} --revoke-first` replaces it, `apikey revoke {user}` ends all keys of \
                 {user}"
            )),
        }
    }

    /// That it is not over, as an error. A revocation waits for no turn, and others may have had one: where the key
    /// was ended meanwhile, the error is that.
    pub(crate) fn error(&self, store: &Store, now: Timestamp) -> Error {
        let key = &self.pending.key;
        match store.read_beside_writers(now, |snapshot| stored(snapshot, key)) {
            Ok(Some(Status::Pending | Status::Active)) | Err(_) => {}
            Ok(ended) => return not_pending(key, ended),
        }
        let error = Error::new(Code::DeliveryPending, self.to_string());
        match self.what_to_do() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pending { key, key_file, .. } = &self.pending;
        let (prefix, user, path) = (key.prefix, &key.user, key_file.path());
        match &self.end {
            End::Finished => {
                write!(f, "Finished the delivery of {prefix} of {user} to {path}, which was interrupted")
            }
            End::Undone => write!(
                f,
                "Revoked {prefix} of {user}: its delivery to {path} was interrupted, and it is gone or has \
                 expired"
            ),
            End::AwaitsReload(why) => {
                write!(f, "{prefix} of {user} is in {path} and accepted, but its reader is not told yet")?;
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            End::Stuck(why) => {
                write!(f, "{prefix} of {user} is accepted, and still on its way to {path}: {why}")
            }
        }
    }
}
