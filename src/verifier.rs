//! Whether a key is accepted: for a service that was sent one.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::key::Key;
use crate::store::{Record, Store};
use crate::timestamp::Timestamp;

/// An open database of keys, to check keys against.
#[derive(Debug)]
pub struct Verifier {
    store: Store,
    /// When it was last seen that the database is still the one at its path.
    seen: Cell<Instant>,
}

/// As long a database that was replaced by another file may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(1);

/// What became of a key that was presented.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is accepted, and this is whose it is.
    Accepted(Record),
    /// It was issued once, and is expired or revoked.
    Refused(Record),
    /// It has the form of a key, but was never issued here, or is forgotten.
    Unknown,
    /// It is not a key: a typo, a cut paste, something else.
    Malformed,
}

impl Verifier {
    /// Opens the database at `path`; read permission is enough. Whoever waits for another process does
    /// so for up to `timeout`.
    ///
    /// Fails with [`Code::NoDatabase`](crate::Code::NoDatabase) where there is none, with
    /// [`Code::DbUnavailable`](crate::Code::DbUnavailable) where it is not one of ours or too new, with
    /// [`Code::Forbidden`](crate::Code::Forbidden) where it may not be read or others may write it, with
    /// [`Code::DbLocked`](crate::Code::DbLocked) when the time is over.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self> {
        let store = Store::open(path, timeout)?;
        store.check()?;
        Ok(Verifier { store, seen: Cell::new(Instant::now()) })
    }

    /// Whether `text`, to the byte, is a key that is accepted at `now`. Reads only.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use apikey::{Timestamp, Verdict, Verifier};
    ///
    /// let verifier = Verifier::open("/var/lib/apikey/keys.db".as_ref(), Duration::from_secs(1))?;
    /// match verifier.verify(b"ak_...", Timestamp::now()?)? {
    ///     Verdict::Accepted(key) => println!("hello {}", key.user),
    ///     Verdict::Refused(_) | Verdict::Unknown | Verdict::Malformed => println!("401"),
    /// }
    /// # Ok::<(), apikey::Error>(())
    /// ```
    pub fn verify(&self, text: &[u8], now: Timestamp) -> Result<Verdict> {
        match Key::parse(text) {
            Some(key) => self.verify_key(&key, now),
            None => Ok(Verdict::Malformed),
        }
    }

    /// Whether `key` is accepted at `now`. Reads only.
    ///
    /// Fails with [`Code::DbUnavailable`](crate::Code::DbUnavailable), a second later at the latest, where another
    /// file lies at the database's path, a backup that was restored: what is open still is the old one.
    pub fn verify_key(&self, key: &Key, now: Timestamp) -> Result<Verdict> {
        if self.seen.get().elapsed() >= UNNOTICED {
            self.store.check_is_in_place()?;
            self.seen.set(Instant::now());
        }
        Ok(match self.store.find(key, now)? {
            Some(record) if record.status.is_accepted() => Verdict::Accepted(record),
            Some(record) => Verdict::Refused(record),
            None => Verdict::Unknown,
        })
    }

    /// Writes that `key`, which was just verified, was used at `now`: at most once a minute, with
    /// no fsync but for the write that starts a long log anew, and only where no other process is
    /// writing, so that nobody waits for it. Returns whether it wrote.
    pub fn record_use(&mut self, key: &Record, now: Timestamp) -> Result<bool> {
        self.store.record_use(key, now)
    }
}
