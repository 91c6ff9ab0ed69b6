//! Whether a key is accepted: for a service that was sent one.
//!
//! One [`Verifier`] is shared by all threads of a service. Each look has a connection of its own, from a pool that
//! grows to as many as look at once; what a look costs is SQLite's read lock and one row. That an accepted key was
//! used is written down behind the answer's back, by a thread of its own.

mod pool;
mod uses;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::pool::Pool;
use self::uses::Uses;
use crate::error::Result;
use crate::key::Key;
use crate::store::{Record, Store};
use crate::timestamp::Timestamp;

/// An open database of keys, to check keys against: for any number of threads.
///
/// As many connections are opened as threads look at once, so who looks must be able to open the database at any time.
/// It looks again where SQLite says that the next look will do, and waits for another process up to its timeout. A
/// database that was replaced by another file, a backup that was restored, is noticed within a second, and opened.
///
/// A replica that Litestream keeps up is only read, whoever runs this; what Litestream writes counts from the next
/// look on.
///
/// Where the database may be written, it is written down when an accepted key was last used: at most once a minute
/// for each, about a second later, and at the latest when this is dropped; never while another process is writing.
#[derive(Debug)]
pub struct Verifier {
    pool: Arc<Pool>,
    uses: Uses,
}

/// What became of a key that was presented.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
        Self::with(Store::open, path, timeout)
    }

    /// Opens it likewise, for reading, whatever the operating system allows: no use is written down.
    pub fn open_read_only(path: &Path, timeout: Duration) -> Result<Self> {
        Self::with(Store::open_read_only, path, timeout)
    }

    fn with(open: fn(&Path, Duration) -> Result<Store>, path: &Path, timeout: Duration) -> Result<Self> {
        let pool = Arc::new(Pool::of(open, path, timeout)?);
        Ok(Verifier { uses: Uses::of(&pool), pool })
    }

    /// Whether `text`, to the byte, is a key that is accepted at `now`.
    ///
    /// Fails as [`open`](Verifier::open) does; the next call looks anew.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use apikey::{Timestamp, Verdict, Verifier};
    ///
    /// let verifier = Verifier::open("/var/lib/apikey/keys.db".as_ref(), Duration::from_secs(1))?;
    /// match verifier.verify(b"ak_...", Timestamp::now()?)? {
    ///     Verdict::Accepted(key) => println!("hello {}", key.user),
    ///     _ => println!("401"),
    /// }
    /// # Ok::<(), apikey::Error>(())
    /// ```
    pub fn verify(&self, text: &[u8], now: Timestamp) -> Result<Verdict> {
        Key::parse(text).map_or(Ok(Verdict::Malformed), |key| self.verify_key(&key, now))
    }

    /// Whether `key` is accepted at `now`. Fails likewise.
    pub fn verify_key(&self, key: &Key, now: Timestamp) -> Result<Verdict> {
        let look = self.pool.look(|store| Ok((store.find(key, now)?, store.writes_uses())));
        let (found, writes_uses) = look?;
        let verdict = Verdict::of(found);
        if let Verdict::Accepted(key) = &verdict
            && writes_uses
        {
            self.uses.collect(key, now);
        }
        Ok(verdict)
    }

    /// The same of each of these texts, in one read transaction, which is quicker for many: what is revoked
    /// meanwhile counts from the next call. Fails likewise.
    pub fn verify_all(&self, texts: &[&[u8]], now: Timestamp) -> Result<Vec<Verdict>> {
        let keys: Vec<Option<Key>> = texts.iter().map(|text| Key::parse(text)).collect();
        let (verdicts, writes_uses) = self.pool.look(|store| {
            let verdicts = store.read_beside_writers(now, |snapshot| {
                let find = |key: &Option<Key>| match key {
                    Some(key) => snapshot.find(key).map(Verdict::of),
                    None => Ok(Verdict::Malformed),
                };
                keys.iter().map(find).collect::<Result<Vec<_>>>()
            })?;
            Ok((verdicts, store.writes_uses()))
        })?;
        for verdict in verdicts.iter().filter(|_| writes_uses) {
            if let Verdict::Accepted(key) = verdict {
                self.uses.collect(key, now);
            }
        }
        Ok(verdicts)
    }

    /// Writes down now, and not in a second, which keys were used: for who ends before. Nothing is waited for.
    pub fn write_uses(&self) {
        self.uses.write();
    }
}

impl Verdict {
    fn of(found: Option<Record>) -> Self {
        match found {
            Some(record) if record.status.is_accepted() => Verdict::Accepted(record),
            Some(record) => Verdict::Refused(record),
            None => Verdict::Unknown,
        }
    }
}
