//! Whether a key is accepted.

use crate::error::Result;
use crate::key::Key;
use crate::store::{Record, Store};
use crate::timestamp::Timestamp;

/// What became of a key that was presented.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is accepted, and this is whose it is.
    Accepted(Record),
    /// It was issued once, and is expired or revoked.
    Refused(Record),
    /// It has the form of a key, but was never issued here.
    Unknown,
    /// It is not a key: a typo, a cut paste, something else.
    Malformed,
}

impl Store {
    /// Whether `text`, to the byte, is a key that is accepted at `now`. Reads only.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use apikey::{Store, Timestamp, Verdict};
    ///
    /// let store = Store::open("/var/lib/apikey/keys.db".as_ref(), Duration::from_secs(1))?;
    /// match store.verify(b"ak_...", Timestamp::now())? {
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
    pub fn verify_key(&self, key: &Key, now: Timestamp) -> Result<Verdict> {
        Ok(match self.find(&key.hash(), now)? {
            Some(record) if record.status.is_accepted() => Verdict::Accepted(record),
            Some(record) => Verdict::Refused(record),
            None => Verdict::Unknown,
        })
    }
}
