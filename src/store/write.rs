//! What a write takes: a log that is turned on and not too long, a database of the newest version, and
//! what there is to do about a commit that failed.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, ffi};

use super::event::Witness;
use super::holder::Waited;
use super::lock::WriteLock;
use super::open::{Access, Checkpoint, checkpoint, set_timeout};
use super::transaction;
use super::versions::{self, Standing};
use super::{Event, Snapshot, Store, Transaction, failure, replica};
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::syslog;
use crate::timestamp::Timestamp;

/// Pages in the log from which on a write moves them to the database first. Each page left costs
/// every process that opens the database a checksum of it; each move costs two fsyncs more.
const CHECKPOINT_PAGES: i64 = 64;

/// Bytes that the log keeps when it starts anew: more than it comes to where nobody is reading for long,
/// since to grow it again takes an fsync longer. What a long look let it grow to goes to the file system.
const LONGEST_LOG: u32 = 1 << 20;

impl Store {
    /// Checks that the operating system lets the caller write the database.
    pub(super) fn check_is_writable(&self) -> Result<()> {
        if self.is_locked {
            return Err(failure::locked(&self.location, Waited::ForDatabase));
        }
        if !self.read_only {
            return Ok(());
        }
        replica::refuse(&self.location)?;
        let message = format!("{} may not be written", self.location.path().display());
        Err(Error::new(Code::Forbidden, message).hint("run apikey as a user who may write it"))
    }

    /// Does `work` as [`Turn::write`](super::Turn::write) does, but without a turn, and so behind nobody's
    /// delivery: for what must not wait.
    pub fn write_at_once<T>(
        &mut self,
        clock: fn() -> Result<Timestamp>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_is_writable()?;
        let actor = self.actor.get_or_init(Actor::current).clone();
        self.write(&actor, clock, work)
    }

    /// Does `work` as one immediate transaction, which is committed where that succeeds and undone
    /// where it fails.
    pub(super) fn write<T>(
        &mut self,
        actor: &Actor,
        clock: fn() -> Result<Timestamp>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        if !self.is_wal {
            self.turn_log_on()?;
        }
        let (now, value, witness, events, committed) = {
            let transaction = self.begin_write()?;
            let now = clock()?;
            let snapshot = Snapshot { connection: &transaction, location: &self.location, now };
            let (witness, events) = (Cell::new(None), RefCell::default());
            let work_on = Transaction { snapshot, actor, witness, events };
            let value = work(&work_on)?;
            let (witness, events) = (work_on.witness.get(), work_on.events.into_inner());
            (now, value, witness, events, commit(transaction))
        };
        if let Err(error) = committed {
            let (failed, is_cut_off) = (self.failed(&error), is_cut_off(&error));
            match witness {
                Some(witness) if self.took_hold(witness, now, is_cut_off)? => {}
                None if !is_cut_off => return Err(unknown(&failed)),
                _ => return Err(failed),
            }
        }
        syslog::write(events.iter().map(Event::to_string));
        Ok(value)
    }

    /// Makes a database that has no log one that has, unless another run did meanwhile.
    fn turn_log_on(&mut self) -> Result<()> {
        drop(self.begin_writable()?);
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

    /// Whether [`write_uses`](Store::write_uses) has anything to do: nothing where the database may only be read,
    /// or has no log.
    pub fn writes_uses(&self) -> bool {
        self.is_wal && !self.read_only
    }

    /// Writes when each of these keys, which were just verified, was used: at most once a minute for each, with
    /// no fsync but for the write that starts a long log anew, and only where no other process is
    /// writing, so that nobody waits for it. `false` where one is.
    pub fn write_uses(&mut self, uses: &[(Prefix, Timestamp)]) -> Result<bool> {
        if !self.writes_uses() {
            return Ok(true);
        }
        let Some(_lock) = WriteLock::take(&self.location, Duration::ZERO)? else { return Ok(false) };
        let connection = self.connection()?;
        let _as_it_was = Hurried::begin(connection, self.timeout).map_err(|error| self.failed(&error))?;
        let (transaction, standing) = match self.begin_checked() {
            Err(error) if error.code() == Code::DbLocked => return Ok(false),
            begun => begun?,
        };
        // It is not worth bringing an older database to the newest version.
        if !matches!(standing, Standing::Newest) {
            return Ok(true);
        }
        for &(prefix, at) in uses {
            let snapshot = Snapshot { connection: &transaction, location: &self.location, now: at };
            transaction::write_use(&snapshot, prefix)?;
        }
        commit(transaction).map(|()| true).map_err(|error| self.failed(&error))
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

    /// Begins a transaction, where it may write.
    pub(super) fn begin_writable(&self) -> Result<rusqlite::Transaction<'_>> {
        let (transaction, standing) = self.begin(TransactionBehavior::Immediate)?;
        self.check_may_write(standing).map(|()| transaction)
    }

    fn check_may_write(&self, standing: Standing) -> Result<()> {
        match standing {
            Standing::Newest | Standing::Older { .. } => Ok(()),
            Standing::Newer | Standing::Unreadable(_) | Standing::Foreign => {
                Err(failure::newer(&self.location, "may only be read by this one"))
            }
        }
    }

    /// Begins a transaction that may write. A log that has grown long is started anew by it.
    ///
    /// A log starts anew with the first write after all of it was moved to the database. How much
    /// was moved is known only as long as a process has the database open, so the one that moves
    /// the pages must be the one that writes next. Nobody waits for a reader: while one is looking at an
    /// older state, the log goes on growing. SQLite moves them after a commit; with one short
    /// process after another, each would move all of them again and the log would never end.
    fn begin_checked(&self) -> Result<(rusqlite::Transaction<'_>, Standing)> {
        let connection = self.connection()?;
        let checkpoint = |mode| checkpoint(connection, mode).map_err(|error| self.failed(&error));
        if checkpoint(Checkpoint::Noop)?.in_log >= CHECKPOINT_PAGES {
            let (_, standing) = self.begin(TransactionBehavior::Immediate)?;
            if self.check_may_write(standing).is_ok() {
                checkpoint(Checkpoint::Passive)?;
                connection
                    .pragma_update(None, "journal_size_limit", LONGEST_LOG)
                    .map_err(|error| self.failed(&error))?;
            }
        }
        self.begin(TransactionBehavior::Immediate)
    }

    /// Whether the transaction whose commit failed was committed all the same.
    ///
    /// Its frames may lie in the log, whole but not yet valid, and would come to life when the log
    /// is next read from its start. So it is read from its start now: all of this connection is
    /// closed before the database is opened anew. Where another process keeps it open, a write of
    /// what is there already buries them, or, where that is Litestream, they are published first; neither is
    /// needed where they are cut off.
    ///
    /// Fails where it cannot be told, or may change yet.
    pub(super) fn took_hold(&mut self, witness: Witness, now: Timestamp, is_cut_off: bool) -> Result<bool> {
        drop(self.connection.take());
        *self = Self::open_at(self.location.clone(), Access::Any, self.timeout, self.versions)
            .map_err(|error| unknown(&error))?;
        self.publish(self.timeout).map_err(|error| unknown(&error))?;
        let took_hold = self.read_beside_writers(now, |snapshot| witness.is_there(snapshot));
        let took_hold = took_hold.map_err(|error| unknown(&error))?;
        let lasts = match took_hold {
            true => self.make_last(),
            false if is_cut_off => Ok(true),
            false => self.write_nothing().map(|()| true),
        };
        match lasts {
            Ok(true) => Ok(took_hold),
            Ok(false) => Err(unknown(&failure::locked(&self.location, Waited::ForDatabase))),
            Err(error) => Err(unknown(&error)),
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
    pub(super) fn write_nothing(&self) -> Result<()> {
        let (transaction, _) = self.begin(TransactionBehavior::Immediate)?;
        let written = replica::write_first_page(&transaction);
        written.and_then(|()| transaction.commit()).map_err(|error| self.failed(&error))
    }
}

fn commit(transaction: rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    replica::touch_first_page(&transaction).and_then(|()| transaction.commit())
}

/// Whether a commit failed before its last frame was written, so that it can never come to life.
fn is_cut_off(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_extended_error_code(), Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE))
}

/// What to say of a commit that failed, and of which it cannot be told whether it will be there.
fn unknown(error: &Error) -> Error {
    let message = format!("a commit failed, and what was asked may or may not have been done: {error}");
    Error::new(error.code(), message).hint("look with `apikey show` before you go on")
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
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(hurried)
    }
}

impl Drop for Hurried<'_> {
    fn drop(&mut self) {
        // Neither asks anything of the database: they set fields of the connection.
        let _ = set_timeout(self.connection, self.timeout);
        let _ = self.connection.pragma_update(None, "synchronous", "FULL");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_cut_off_where_a_write_failed_and_not_where_a_sync_did() {
        for (code, is_cut) in
            [(ffi::SQLITE_FULL, true), (ffi::SQLITE_IOERR_WRITE, true), (ffi::SQLITE_IOERR_FSYNC, false)]
        {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_cut_off(&error), is_cut, "{code}");
        }
    }
}
