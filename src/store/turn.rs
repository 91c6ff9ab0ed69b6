//! The right to write: whoever has it is the one who changes keys, until it is dropped.

use super::lock::WriteLock;
use super::{Snapshot, Store, Transaction};
use crate::actor::Actor;
use crate::error::{Code, Error, Result};
use crate::timestamp::Timestamp;

/// A turn at writing. It may take several transactions.
pub struct Turn<'store> {
    store: &'store mut Store,
    _lock: WriteLock,
    actor: Actor,
    clock: fn() -> Timestamp,
}

impl<'store> Turn<'store> {
    /// Waits for the right to write. Fails with [`Code::DbUnavailable`] when the time is over, with
    /// [`Code::Forbidden`] where the database may only be read.
    pub fn begin(store: &'store mut Store, clock: fn() -> Timestamp) -> Result<Self> {
        if store.read_only {
            let message = format!("{} may not be written", store.location.path().display());
            return Err(Error::new(Code::Forbidden, message).hint("run apikey as a user who may write it"));
        }
        // A directory service that is asked for a name can be slow: nobody is to wait for it.
        let actor = Actor::current();
        let lock = WriteLock::wait(&store.location, store.timeout)?;
        Ok(Turn { store, _lock: lock, actor, clock })
    }

    /// Looks at the keys as they stand now. Fails with [`Code::DbUnavailable`] where they may not be
    /// written: nothing is to be done about files either then.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let transaction = self.store.begin_writable()?;
        look(&Snapshot { connection: &transaction, location: &self.store.location, now: self.now() })
    }

    /// Does `work` as one immediate transaction, which is committed where that succeeds and undone
    /// where it fails.
    pub fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.store.write(&self.actor, self.clock, work)
    }

    /// The database, to look at it.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
