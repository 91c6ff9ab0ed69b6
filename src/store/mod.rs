//! The database of keys: the one part of the program that knows SQL.
//!
//! - Where a database is and that nobody can swap it: `location.rs`. What kind of file it is,
//!   before SQLite touches it: `header.rs`. What it holds: `schema.rs`. Who writes next: `lock.rs`.
//! - A write takes the [`WriteLock`], then begins an immediate transaction, then checks the schema,
//!   and only then writes. A database that is damaged, newer or not ours is never written to.
//! - The journal is a write-ahead log, `synchronous=FULL`; the log and its index stay when the last
//!   process closes, and nothing is moved from the log to the database then. So a write costs a
//!   process two fsyncs, of the log and of its folder, and a reader with no more than read
//!   permission finds a database that it can open at any moment (<https://sqlite.org/wal.html>,
//!   "Read-Only Databases").
//! - An error from COMMIT does not say that nothing was committed. After one the database is
//!   opened anew and read, and what it says is believed.

mod failure;
mod header;
mod location;
mod lock;
mod make;
mod open;
mod queries;
mod record;
mod schema;
mod transaction;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use self::failure::failure;
pub(crate) use self::location::Location;
pub(crate) use self::lock::WriteLock;
use self::make::make;
use self::open::{Checkpoint, checkpoint, open, set_timeout};
pub use self::record::{Record, Status};
pub(crate) use self::transaction::{NewDelivery, NewKey, Transaction};
use crate::error::{Code, Error, Result};
use crate::timestamp::Timestamp;

/// Pages in the log from which on a write moves them to the database first. Each page left costs
/// every process that opens the database a checksum of it; each move costs two fsyncs more.
const CHECKPOINT_PAGES: i64 = 64;

/// To what `last_used_at` is precise.
const USE_PRECISION: Duration = Duration::from_secs(60);

/// An open database of keys.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    location: Location,
    timeout: Duration,
    read_only: bool,
    is_wal: bool,
}

/// What a write has achieved once it is committed: the key with this hash has this status, which
/// it did not have before.
pub(crate) struct Outcome {
    pub key_hash: String,
    pub status: Status,
}

impl Store {
    /// Opens the database at `path`, for writing where the operating system allows that. Whoever
    /// waits for another process does so for up to `timeout`.
    ///
    /// Fails with [`Code::DbUnavailable`] where there is none, it is not one of ours, or its schema
    /// is newer; with [`Code::Forbidden`] where it may not be read or others may write it.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self> {
        Self::open_at(Location::new(path)?, timeout)
    }

    /// Opens the database at `path`, or makes it where there is none: all of it or, after a crash,
    /// nothing; readable by its owner alone.
    pub fn open_or_create(path: &Path, timeout: Duration) -> Result<Self> {
        let location = Location::new(path)?;
        if location.identity()?.is_none() {
            // Not even the lock is made where it should not be.
            location.check()?;
            let _lock = lock(&location, timeout)?;
            if location.check()?.is_none() {
                make(&location)?;
            }
        }
        Self::open_at(location, timeout)
    }

    fn open_at(location: Location, timeout: Duration) -> Result<Self> {
        let opened = open(&location, timeout)?;
        Ok(Store {
            connection: opened.connection,
            read_only: opened.read_only,
            is_wal: opened.is_wal,
            location,
            timeout,
        })
    }

    /// Where the database is.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Waits for the right to write. Fails with [`Code::DbUnavailable`] when the time is over, with
    /// [`Code::Forbidden`] where the database may only be read.
    pub(crate) fn lock(&self) -> Result<WriteLock> {
        if self.read_only {
            let message = format!("{} may not be written", self.location.path().display());
            return Err(Error::new(Code::Forbidden, message).hint("run apikey as a user who may write it"));
        }
        lock(&self.location, self.timeout)
    }

    /// Does `work` as one immediate transaction, which is committed where that succeeds and undone
    /// where it fails. Who holds the lock may do so more than once.
    pub(crate) fn write<T>(
        &mut self,
        _lock: &WriteLock,
        work: impl FnOnce(&Transaction<'_>) -> Result<(T, Outcome)>,
    ) -> Result<T> {
        if !self.is_wal {
            self.read(|_| Ok(()))?;
            self.turn_log_on().map_err(|error| self.failed(&error))?;
            self.is_wal = true;
        }
        let transaction = self.begin_write()?;
        let (value, outcome) = work(&Transaction { connection: &transaction, location: &self.location })?;
        let Err(error) = transaction.commit() else { return Ok(value) };
        let error = self.failed(&error);
        if self.took_hold(&outcome)? { Ok(value) } else { Err(error) }
    }

    /// Makes a database that has no log one that has, unless the one who held the lock before did.
    fn turn_log_on(&self) -> rusqlite::Result<()> {
        let mode: String = self.connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode == "wal" {
            return Ok(());
        }
        // All that changes is in the first sector of the file, which a disk writes whole: no journal,
        // which a kill would leave and which is refused, has to keep what was there.
        self.connection.pragma_update(None, "journal_mode", "MEMORY")?;
        self.connection.pragma_update(None, "journal_mode", "WAL")
    }

    /// Does `work` as one transaction that writes nothing: an immediate one, so that it sees no
    /// state that another is about to replace, or a plain one on a database that may only be read.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let behavior =
            if self.read_only { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        let transaction = self.begin(behavior)?;
        work(&Transaction { connection: &transaction, location: &self.location })
    }

    /// Writes that `key`, which was just verified, was used at `now`: at most once a minute, with
    /// no fsync but for the write that starts a long log anew, and only where no other process is
    /// writing, so that nobody waits for it. Returns whether it wrote.
    pub fn record_use(&mut self, key: &Record, now: Timestamp) -> Result<bool> {
        // A use in the future is a clock that went back: not to be believed.
        let recent = |used: Timestamp| now.since(used).is_some_and(|age| age < USE_PRECISION);
        if self.read_only || !self.is_wal || key.last_used_at.is_some_and(recent) {
            return Ok(false);
        }
        let Some(_lock) = try_lock(&self.location, Duration::ZERO)? else { return Ok(false) };
        let failed = |error| failure(&error, &self.location);
        self.connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        self.connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        let written = self.begin_write().and_then(|transaction| {
            let written =
                Transaction { connection: &transaction, location: &self.location }.record_use(key, now)?;
            transaction.commit().map_err(failed).map(|()| written)
        });
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        set_timeout(&self.connection, self.timeout).map_err(failed)?;
        written
    }

    /// Begins a transaction that may write. A log that has grown long is started anew by it.
    ///
    /// A log starts anew with the first write after all of it was moved to the database. How much
    /// was moved is known only as long as a process has the database open, so the one that moves
    /// the pages must be the one that writes next. SQLite moves them after a commit; with one short
    /// process after another, each would move all of them again and the log would never end.
    fn begin_write(&self) -> Result<rusqlite::Transaction<'_>> {
        let checkpoint = |mode| checkpoint(&self.connection, mode).map_err(|error| self.failed(&error));
        if checkpoint(Checkpoint::Noop)?.in_log >= CHECKPOINT_PAGES {
            // What is not ours gets no page moved either.
            drop(self.begin(TransactionBehavior::Immediate)?);
            checkpoint(Checkpoint::Passive)?;
        }
        self.begin(TransactionBehavior::Immediate)
    }

    fn begin(&self, behavior: TransactionBehavior) -> Result<rusqlite::Transaction<'_>> {
        let failed = |error| self.failed(&error);
        let transaction = rusqlite::Transaction::new_unchecked(&self.connection, behavior).map_err(failed)?;
        let pragma = |name| {
            let number = transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
            number.map(i32::cast_unsigned).map_err(failed)
        };
        schema::check_version(self.location.path(), pragma("application_id")?, pragma("user_version")?)?;
        if !schema::is_unchanged(&transaction).map_err(failed)? {
            let message = format!(
                "{} is not an apikey database: its schema was changed",
                self.location.path().display()
            );
            return Err(Error::new(Code::DbUnavailable, message).hint("undo the change, or restore a backup"));
        }
        Ok(transaction)
    }

    /// Whether the transaction whose commit failed was committed all the same.
    ///
    /// Its frames may lie in the log, whole but not yet valid, and would come to life when the log
    /// is next read from its start. So it is read from its start now: all of this connection is
    /// closed before the database is opened anew. Where another process keeps it open, a write of
    /// what is there already buries them.
    fn took_hold(&mut self, outcome: &Outcome) -> Result<bool> {
        let unknown = |error: Error| {
            Error::new(error.code(), format!("a commit failed, and whether it took hold is unknown: {error}"))
                .hint("look with `apikey show` before you go on")
        };
        let nothing = Connection::open_in_memory().map_err(|error| unknown(self.failed(&error)))?;
        drop(std::mem::replace(&mut self.connection, nothing));
        *self = Self::open_at(self.location.clone(), self.timeout).map_err(unknown)?;
        let status: Option<String> = self
            .connection
            .query_row("SELECT status FROM keys WHERE key_hash = ?1", [&outcome.key_hash], |row| row.get(0))
            .optional()
            .map_err(|error| unknown(self.failed(&error)))?;
        let took_hold = status.as_deref() == Some(outcome.status.as_str());
        let lasts = match took_hold {
            true => self.make_last(),
            // It is buried by a write of what is there already. Where that fails, the disk takes no
            // write at all, and there is nothing more to be done.
            false => self.write_nothing().map(|()| true).or(Ok(true)),
        };
        match lasts {
            Ok(true) => Ok(took_hold),
            Ok(false) => Err(unknown(failure::locked(&self.location))),
            Err(error) => Err(unknown(self.failed(&error))),
        }
    }

    /// Puts on the disk what the log holds, although an fsync of the log may have failed: another one
    /// would not write it again (fsync(2)). So all of it is written to the database, and the log is
    /// started anew, so that nothing of it is read after a power cut. `false` where a reader is in the
    /// way.
    fn make_last(&self) -> rusqlite::Result<bool> {
        let log = checkpoint(&self.connection, Checkpoint::Truncate)?;
        self.write_nothing().map(|()| log.in_log == 0)
    }

    /// A transaction that changes nothing.
    fn write_nothing(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "user_version", schema::VERSION)
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        failure(error, &self.location)
    }
}

fn lock(location: &Location, timeout: Duration) -> Result<WriteLock> {
    try_lock(location, timeout)?.ok_or_else(|| failure::locked(location))
}

fn try_lock(location: &Location, timeout: Duration) -> Result<Option<WriteLock>> {
    let lock = WriteLock::acquire(&location.side_file("-lock"), timeout)?;
    lock.iter().try_for_each(|lock| lock.share_with_writers_of(location.path()))?;
    Ok(lock)
}
