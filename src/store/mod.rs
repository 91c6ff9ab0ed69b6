//! The database of keys: the one part of the program that knows SQL.
//!
//! - Where a database is and that nobody can swap it: `location.rs`. What kind of file it is,
//!   before SQLite touches it: `header.rs`. That its index is no old one: `boot.rs`. What it holds:
//!   `versions.rs`. Who writes next: `lock.rs`.
//!   What Litestream replicates, and keeps up elsewhere: `replica.rs`. What a killed writer left there:
//!   `unpublished.rs`.
//! - A row of a key: `record.rs`. What a user has, and how that ends: `held.rs`. What is kept of a user:
//!   `settings.rs`. What was done: `event.rs`.
//! - Whoever looks does so in a [`Snapshot`], whoever writes in a [`Transaction`]; both see a
//!   database whose schema was checked in the same transaction.
//! - A write takes the lock (see [`Turn`]; but for a revocation, which waits for nobody's delivery), then
//!   begins an immediate transaction, then checks the schema and brings it to the newest version, and only
//!   then writes. A database that is damaged,
//!   newer or not ours is never written to.
//! - The journal is a write-ahead log, `synchronous=FULL`; the log and its index stay when the last
//!   process closes, and nothing is moved from the log to the database then. So a write costs a
//!   process two fsyncs, of the log and of its folder, and a reader with no more than read
//!   permission finds a database that it can open at any moment (<https://sqlite.org/wal.html>,
//!   "Read-Only Databases").
//! - An error from COMMIT does not say that nothing was committed. After one the database is
//!   opened anew and read, and what it says is believed.

mod boot;
mod copy;
mod event;
mod failure;
mod header;
mod health;
mod held;
mod holder;
mod index;
mod location;
mod lock;
mod make;
mod open;
mod prune;
mod record;
mod replica;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod unpublished;
mod versions;
mod write;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

pub use self::event::Event;
use self::failure::failure;
pub(crate) use self::health::Kept;
pub use self::held::Held;
pub(crate) use self::held::{Holdings, Look};
pub(crate) use self::location::Location;
use self::lock::WriteLock;
use self::make::make;
use self::open::{Access, open, set_timeout};
pub use self::prune::Pruned;
pub(crate) use self::prune::{Forgotten, Old};
pub use self::record::{Listed, Pending, Record, Status};
pub(crate) use self::snapshot::Snapshot;
pub(crate) use self::transaction::{NewDelivery, NewKey, Transaction, is_use_worth_writing, later};
pub(crate) use self::turn::Turn;
use self::versions::{Schema, Standing, VERSIONS, Versions};
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::timestamp::Timestamp;

/// How many statements are kept: more than there are in this program.
const STATEMENTS: usize = 64;

/// An open database of keys.
#[derive(Debug)]
pub struct Store {
    /// There is none where the database could not be opened anew.
    connection: Option<Connection>,
    location: Location,
    timeout: Duration,
    read_only: bool,
    /// It is read-only because of a lock that somebody holds.
    is_locked: bool,
    is_wal: bool,
    versions: Versions,
    is_new: bool,
    /// Who is changing keys through it, once that was asked.
    actor: OnceLock<Actor>,
}

impl Store {
    /// Opens the database at `path`, for writing where the operating system allows that. Whoever
    /// waits for another process does so for up to `timeout`. Where a lock keeps everybody from it, it is
    /// opened for reading; that can take SQLite's own ten seconds. So is a replica, whoever opens it.
    ///
    /// Fails with [`Code::NoDatabase`] where there is none, with [`Code::DbUnavailable`] where it is not
    /// one of ours or its schema is too new, with [`Code::Forbidden`] where it may not be read or others
    /// may write it, with [`Code::DbLocked`] when the time is over.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self> {
        Self::open_at(Location::new(path)?, Access::Any, timeout, VERSIONS)
    }

    /// Opens the database at `path` likewise, for reading, whatever the operating system allows.
    pub fn open_read_only(path: &Path, timeout: Duration) -> Result<Self> {
        Self::open_at(Location::new(path)?, Access::ReadOnly, timeout, VERSIONS)
    }

    /// Opens the database at `path`, or makes it where there is none: all of it or, after a crash,
    /// nothing; readable by its owner alone.
    pub fn open_or_create(path: &Path, timeout: Duration) -> Result<Self> {
        let location = Location::new(path)?;
        let mut is_new = false;
        if location.identity()?.is_none() {
            // Not even the lock is made where it should not be.
            location.check()?;
            replica::refuse(&location)?;
            let _lock = WriteLock::wait(&location, timeout)?;
            if location.check()?.is_none() {
                make(&location, VERSIONS)?;
                is_new = true;
            }
        }
        Ok(Store { is_new, ..Self::open_at(location, Access::Any, timeout, VERSIONS)? })
    }

    fn open_at(location: Location, access: Access, timeout: Duration, versions: Versions) -> Result<Self> {
        let opened = open(&location, access, timeout, versions)?;
        Ok(Store {
            connection: Some(opened.connection),
            read_only: opened.read_only,
            is_locked: opened.is_locked,
            is_wal: opened.is_wal,
            location,
            timeout,
            versions,
            is_new: false,
            actor: OnceLock::new(),
        })
    }

    /// Keeps each statement from now on when it was prepared, for who does the same for many users: to keep
    /// one takes longer than to prepare it, and pays from the second time on.
    pub fn keep_statements(&self) -> Result<()> {
        let connection = self.connection()?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // Else SQLite prepares it anew for each value that could change its plan.
        let is_kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
        is_kept.map(drop).map_err(|error| self.failed(&error))
    }

    /// Whether it was made when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the database is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Does `look` in one transaction that writes nothing: an immediate one, so that it sees no
    /// state that another is about to replace, or a plain one where the database may only be read or a
    /// writer does not come to an end.
    pub fn read<T>(&self, now: Timestamp, look: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let plain = || self.begin(TransactionBehavior::Deferred);
        let begun = if self.read_only { plain() } else { self.begin(TransactionBehavior::Immediate) };
        let begun = match begun {
            Err(error) if error.code() == Code::DbLocked && !self.read_only => plain(),
            begun => begun,
        };
        let (transaction, _) = begun?;
        look(&Snapshot { connection: &transaction, location: &self.location, now })
    }

    /// The same in a plain transaction, for which no writer waits, however long it takes. The log grows
    /// meanwhile, and starts anew when it is over.
    pub fn read_beside_writers<T, E: From<Error>>(
        &self,
        now: Timestamp,
        look: impl FnOnce(&Snapshot<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let (transaction, _) = self.begin(TransactionBehavior::Deferred)?;
        look(&Snapshot { connection: &transaction, location: &self.location, now })
    }

    /// The same for a look that may take long, as one does whose reader is slow.
    pub fn read_at_length<T, E: From<Error>>(
        &self,
        now: Timestamp,
        look: impl FnOnce(&Snapshot<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        if !replica::is_at(&self.location)? {
            return self.read_beside_writers(now, look);
        }
        let mut store = Self::open_at(self.location.clone(), Access::ReadOnly, self.timeout, self.versions)?;
        let copy = store.connection.take().map(replica::into_memory).transpose();
        store.connection = copy.map_err(|error| self.failed(&error))?;
        store.read_beside_writers(now, look)
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

    /// The key with this prefix, by a single query likewise.
    pub fn with_prefix(&self, prefix: Prefix, now: Timestamp) -> Result<Option<Record>> {
        Snapshot { connection: self.connection()?, location: &self.location, now }.with_prefix(prefix)
    }

    /// Publishes what a writer that was killed has left (`unpublished.rs`), for a look that writes nothing.
    /// Fails with [`Code::DbLocked`] where somebody is writing when the time is over.
    pub fn publish(&self, timeout: Duration) -> Result<()> {
        let connection = self.connection()?;
        let failed = |error| self.failed(&error);
        if self.read_only || !replica::is_replicated(connection).map_err(failed)? {
            return Ok(());
        }
        set_timeout(connection, timeout).map_err(failed)?;
        let begun = self.begin(TransactionBehavior::Immediate).map(drop);
        set_timeout(connection, self.timeout).map_err(failed)?;
        begun
    }

    /// Begins a transaction, and checks that the schema is ours.
    ///
    /// An immediate one sees, and does not overwrite, what a writer that was killed has left, where Litestream
    /// replicates the database (`unpublished.rs`).
    fn begin(&self, behavior: TransactionBehavior) -> Result<(rusqlite::Transaction<'_>, Standing)> {
        let (transaction, standing, schema) = self.begin_as_published(behavior)?;
        if !schema.is_replicated
            || !matches!(behavior, TransactionBehavior::Immediate)
            || !unpublished::is_there(&self.location)?
        {
            return Ok((transaction, standing));
        }
        drop(transaction);
        unpublished::publish(&self.location, self.timeout)?;
        self.begin_as_published(behavior).map(|(transaction, standing, _)| (transaction, standing))
    }

    fn begin_as_published(
        &self,
        behavior: TransactionBehavior,
    ) -> Result<(rusqlite::Transaction<'_>, Standing, Schema)> {
        let failed = |error| self.failed(&error);
        let transaction =
            rusqlite::Transaction::new_unchecked(self.connection()?, behavior).map_err(failed)?;
        let pragma = |name| {
            let number = || transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
            failure::again(number).map(i32::cast_unsigned).map_err(failed)
        };
        let standing = versions::standing(self.versions, pragma("application_id")?, pragma("user_version")?);
        open::check_standing(&self.location, standing, self.versions)?;
        let schema = versions::schema(&transaction, self.versions, standing).map_err(failed)?;
        let Some(schema) = schema else {
            let message = format!(
                "{} is not an apikey database: its schema was changed",
                self.location.path().display()
            );
            return Err(Error::new(Code::DbUnavailable, message).hint("undo the change, or restore a backup"));
        };
        Ok((transaction, standing, schema))
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
