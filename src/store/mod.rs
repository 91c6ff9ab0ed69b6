//! The database of keys: the one part of the program that knows SQL.
//!
//! - Where a database is and that nobody can swap it: `location.rs`. What kind of file it is,
//!   before SQLite touches it: `header.rs`. What it holds: `versions.rs`. Who writes next: `lock.rs`.
//! - Whoever looks does so in a [`Snapshot`], whoever writes in a [`Transaction`]; both see a
//!   database whose schema was checked in the same transaction.
//! - A write takes the lock (see [`Turn`]), then begins an immediate transaction, then checks the
//!   schema and brings it to the newest version, and only then writes. A database that is damaged,
//!   newer or not ours is never written to.
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
mod record;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod versions;

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use self::failure::failure;
pub(crate) use self::location::Location;
use self::lock::WriteLock;
use self::make::make;
use self::open::{Checkpoint, Synchronous, checkpoint, open, set_synchronous, set_timeout};
pub use self::record::{Listed, Pending, Record, Status};
pub(crate) use self::snapshot::Snapshot;
pub use self::transaction::Previous;
use self::transaction::Witness;
pub(crate) use self::transaction::{NewDelivery, NewKey, Transaction, later};
pub(crate) use self::turn::Turn;
use self::versions::{Standing, VERSIONS, Versions};
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::timestamp::Timestamp;

/// Pages in the log from which on a write moves them to the database first. Each page left costs
/// every process that opens the database a checksum of it; each move costs two fsyncs more.
const CHECKPOINT_PAGES: i64 = 64;

/// To what `last_used_at` is precise.
const USE_PRECISION: Duration = Duration::from_secs(60);

/// An open database of keys.
#[derive(Debug)]
pub struct Store {
    /// There is none where the database could not be opened anew.
    connection: Option<Connection>,
    location: Location,
    timeout: Duration,
    read_only: bool,
    is_wal: bool,
    versions: Versions,
}

impl Store {
    /// Opens the database at `path`, for writing where the operating system allows that. Whoever
    /// waits for another process does so for up to `timeout`.
    ///
    /// Fails with [`Code::DbUnavailable`] where there is none, it is not one of ours, or its schema
    /// is too new; with [`Code::Forbidden`] where it may not be read or others may write it.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self> {
        Self::open_at(Location::new(path)?, timeout, VERSIONS)
    }

    /// Opens the database at `path`, or makes it where there is none: all of it or, after a crash,
    /// nothing; readable by its owner alone.
    pub fn open_or_create(path: &Path, timeout: Duration) -> Result<Self> {
        let location = Location::new(path)?;
        if location.identity()?.is_none() {
            // Not even the lock is made where it should not be.
            location.check()?;
            let _lock = WriteLock::wait(&location, timeout)?;
            if location.check()?.is_none() {
                make(&location, VERSIONS)?;
            }
        }
        Self::open_at(location, timeout, VERSIONS)
    }

    fn open_at(location: Location, timeout: Duration, versions: Versions) -> Result<Self> {
        let opened = open(&location, timeout, versions)?;
        Ok(Store {
            connection: Some(opened.connection),
            read_only: opened.read_only,
            is_wal: opened.is_wal,
            location,
            timeout,
            versions,
        })
    }

    /// Where the database is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Does `look` in one transaction that writes nothing: an immediate one, so that it sees no
    /// state that another is about to replace, or a plain one on a database that may only be read.
    pub fn read<T>(&self, now: Timestamp, look: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let behavior =
            if self.read_only { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        self.read_as(behavior, now, look)
    }

    /// The same in a plain transaction, which is in no writer's way, however long it takes.
    pub fn read_beside_writers<T, E: From<Error>>(
        &self,
        now: Timestamp,
        look: impl FnOnce(&Snapshot<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.read_as(TransactionBehavior::Deferred, now, look)
    }

    fn read_as<T, E: From<Error>>(
        &self,
        behavior: TransactionBehavior,
        now: Timestamp,
        look: impl FnOnce(&Snapshot<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let (transaction, _) = self.begin(behavior)?;
        look(&Snapshot { connection: &transaction, location: &self.location, now })
    }

    /// Checks that the schema is ours, for [`find`](Store::find).
    pub fn check(&self) -> Result<()> {
        self.begin(TransactionBehavior::Deferred).map(drop)
    }

    /// `key` as it stands, by a single query, the quickest look there is: the schema is the one that
    /// was checked last.
    pub fn find(&self, key: &Key, now: Timestamp) -> Result<Option<Record>> {
        Snapshot { connection: self.connection()?, location: &self.location, now }.find(key)
    }

    /// Whether a key with this prefix was ever issued, by a single query likewise.
    pub fn has_prefix(&self, prefix: Prefix, now: Timestamp) -> Result<bool> {
        Snapshot { connection: self.connection()?, location: &self.location, now }.has_prefix(prefix)
    }

    /// Does `work` as one immediate transaction, which is committed where that succeeds and undone
    /// where it fails.
    fn write<T>(
        &mut self,
        actor: &Actor,
        clock: fn() -> Timestamp,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        if !self.is_wal {
            self.turn_log_on()?;
        }
        let (value, witness, committed) = {
            let transaction = self.begin_write()?;
            let snapshot = Snapshot { connection: &transaction, location: &self.location, now: clock() };
            let work_on = Transaction { snapshot, actor, witness: Cell::new(None) };
            let value = work(&work_on)?;
            let witness = work_on.witness.get();
            (value, witness, transaction.commit().map_err(|error| self.failed(&error)))
        };
        match (committed, witness) {
            (Ok(()), _) => Ok(value),
            (Err(error), None) => Err(error),
            (Err(error), Some(witness)) => {
                if self.took_hold(witness, clock())? {
                    Ok(value)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Makes a database that has no log one that has, unless the one who held the lock before did.
    fn turn_log_on(&mut self) -> Result<()> {
        self.check_writable()?;
        let turn_on = |connection: &Connection| {
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            if mode == "wal" {
                return Ok(());
            }
            // All that changes is in the first sector of the file, which a disk writes whole: no journal,
            // which a kill would leave and which is refused, has to keep what was there.
            connection.pragma_update(None, "journal_mode", "MEMORY")?;
            connection.pragma_update(None, "journal_mode", "WAL")
        };
        turn_on(self.connection()?).map_err(|error| self.failed(&error))?;
        self.is_wal = true;
        Ok(())
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
        let Some(_lock) = WriteLock::take(&self.location, Duration::ZERO)? else { return Ok(false) };
        let connection = self.connection()?;
        let _as_it_was = Hurried::begin(connection, self.timeout).map_err(|error| self.failed(&error))?;
        let (transaction, standing) = self.begin_checked()?;
        // It is not worth bringing an older database to the newest version.
        if !matches!(standing, Standing::Newest) {
            return Ok(false);
        }
        let snapshot = Snapshot { connection: &transaction, location: &self.location, now };
        let written = transaction::record_use(&snapshot, key)?;
        transaction.commit().map_err(|error| self.failed(&error)).map(|()| written)
    }

    /// Begins a transaction that writes, and brings the database to the newest version in it.
    fn begin_write(&self) -> Result<rusqlite::Transaction<'_>> {
        let (transaction, standing) = self.begin_checked()?;
        self.check_may_write(standing)?;
        if let Standing::Older { missing, .. } = standing {
            versions::migrate(&transaction, self.versions, missing).map_err(|error| self.failed(&error))?;
        }
        Ok(transaction)
    }

    /// Checks, before anything but a transaction changes the file, that a transaction would.
    fn check_writable(&self) -> Result<()> {
        let (_, standing) = self.begin(TransactionBehavior::Immediate)?;
        self.check_may_write(standing)
    }

    fn check_may_write(&self, standing: Standing) -> Result<()> {
        match standing {
            Standing::Newest | Standing::Older { .. } => Ok(()),
            Standing::Newer | Standing::Unreadable(_) | Standing::Foreign => {
                let database = self.location.path().display();
                let message =
                    format!("{database} was made by a newer apikey, and may only be read by this one");
                Err(Error::new(Code::DbUnavailable, message).hint("use the newer apikey that wrote it"))
            }
        }
    }

    /// Begins a transaction that may write. A log that has grown long is started anew by it.
    ///
    /// A log starts anew with the first write after all of it was moved to the database. How much
    /// was moved is known only as long as a process has the database open, so the one that moves
    /// the pages must be the one that writes next. SQLite moves them after a commit; with one short
    /// process after another, each would move all of them again and the log would never end.
    fn begin_checked(&self) -> Result<(rusqlite::Transaction<'_>, Standing)> {
        let connection = self.connection()?;
        let checkpoint = |mode| checkpoint(connection, mode).map_err(|error| self.failed(&error));
        if checkpoint(Checkpoint::Noop)?.in_log >= CHECKPOINT_PAGES {
            self.check_writable()?;
            checkpoint(Checkpoint::Passive)?;
        }
        self.begin(TransactionBehavior::Immediate)
    }

    fn begin(&self, behavior: TransactionBehavior) -> Result<(rusqlite::Transaction<'_>, Standing)> {
        let failed = |error| self.failed(&error);
        let transaction =
            rusqlite::Transaction::new_unchecked(self.connection()?, behavior).map_err(failed)?;
        let pragma = |name| {
            let number = transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
            number.map(i32::cast_unsigned).map_err(failed)
        };
        let standing = versions::standing(self.versions, pragma("application_id")?, pragma("user_version")?);
        open::check_standing(&self.location, standing, self.versions)?;
        if !versions::is_ours(&transaction, self.versions, standing).map_err(failed)? {
            let message = format!(
                "{} is not an apikey database: its schema was changed",
                self.location.path().display()
            );
            return Err(Error::new(Code::DbUnavailable, message).hint("undo the change, or restore a backup"));
        }
        Ok((transaction, standing))
    }

    /// Whether the transaction whose commit failed was committed all the same.
    ///
    /// Its frames may lie in the log, whole but not yet valid, and would come to life when the log
    /// is next read from its start. So it is read from its start now: all of this connection is
    /// closed before the database is opened anew. Where another process keeps it open, a write of
    /// what is there already buries them.
    fn took_hold(&mut self, witness: Witness, now: Timestamp) -> Result<bool> {
        let unknown = |error: Error| {
            Error::new(error.code(), format!("a commit failed, and whether it took hold is unknown: {error}"))
                .hint("look with `apikey show` before you go on")
        };
        drop(self.connection.take());
        *self = Self::open_at(self.location.clone(), self.timeout, self.versions).map_err(unknown)?;
        let took_hold =
            self.read_beside_writers(now, |snapshot| witness.is_there(snapshot)).map_err(unknown)?;
        let lasts = match took_hold {
            true => self.make_last(),
            // It is buried by a write of what is there already. Where that fails, the disk takes no
            // write at all, and there is nothing more to be done.
            false => self.write_nothing().map(|()| true).or(Ok(true)),
        };
        match lasts {
            Ok(true) => Ok(took_hold),
            Ok(false) => Err(unknown(failure::locked(&self.location))),
            Err(error) => Err(unknown(error)),
        }
    }

    /// Puts on the disk what the log holds, although an fsync of the log may have failed: another one
    /// would not write it again (fsync(2)). So all of it is written to the database, and the log is
    /// started anew, so that nothing of it is read after a power cut. `false` where a reader is in the
    /// way.
    fn make_last(&self) -> Result<bool> {
        let log =
            checkpoint(self.connection()?, Checkpoint::Truncate).map_err(|error| self.failed(&error))?;
        self.write_nothing().map(|()| log.in_log == 0)
    }

    /// A transaction that writes the number that the database has already.
    fn write_nothing(&self) -> Result<()> {
        let (transaction, _) = self.begin(TransactionBehavior::Immediate)?;
        let rewrite = |name| {
            let number: i32 = transaction.pragma_query_value(None, name, |row| row.get(0))?;
            transaction.pragma_update(None, name, number)
        };
        rewrite("user_version").and_then(|()| transaction.commit()).map_err(|error| self.failed(&error))
    }

    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| {
            let database = self.location.path().display();
            Error::new(
                Code::DbError,
                format!("{database} could not be opened anew after a commit that failed"),
            )
            .hint("open it again")
        })
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        failure(error, &self.location)
    }
}

/// A connection that waits for nobody and does not sync, and that is as it was when this is dropped.
struct Hurried<'a> {
    connection: &'a Connection,
    timeout: Duration,
}

impl<'a> Hurried<'a> {
    fn begin(connection: &'a Connection, timeout: Duration) -> rusqlite::Result<Self> {
        let hurried = Hurried { connection, timeout };
        set_timeout(connection, Duration::ZERO)?;
        set_synchronous(connection, Synchronous::Normal)?;
        Ok(hurried)
    }
}

impl Drop for Hurried<'_> {
    fn drop(&mut self) {
        // Neither asks anything of the database: they set fields of the connection.
        let _ = set_timeout(self.connection, self.timeout);
        let _ = set_synchronous(self.connection, Synchronous::Full);
    }
}
