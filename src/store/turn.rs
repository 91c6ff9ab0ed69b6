//! The right to write: whoever has it is the one who changes keys, until it is dropped.

use super::lock::WriteLock;
use super::{Snapshot, Store, Transaction};
use crate::actor::Actor;
use crate::error::Result;
use crate::timestamp::Timestamp;

/// A turn at writing. It may take several transactions.
pub struct Turn<'store> {
    store: &'store mut Store,
    /// Taken, but for a moment in [`Turn::let_others_go_first`].
    lock: Option<WriteLock>,
    actor: Actor,
    clock: fn() -> Result<Timestamp>,
    began: Timestamp,
}

impl<'store> Turn<'store> {
    /// Waits for the right to write. Fails with [`Code::DbLocked`] when the time is over, with
    /// [`Code::Forbidden`] where the database may only be read, with [`Code::DbUnavailable`] where another was put
    /// in its place.
    pub fn begin(store: &'store mut Store, clock: fn() -> Result<Timestamp>) -> Result<Self> {
        store.check_is_writable()?;
        let began = clock()?;
        // A directory service that is asked for a name can be slow: nobody is to wait for it.
        let actor = store.actor.get_or_init(Actor::current).clone();
        let lock = Some(take(store)?);
        Ok(Turn { store, lock, actor, clock, began })
    }

    /// Does `work`, however long that takes, with the right to write given up for as long. What was read
    /// before is to be read again.
    ///
    /// Fails as [`Turn::begin`] does where the right cannot be had again; the work is done then.
    pub fn let_others_go_first<T>(&mut self, work: impl FnOnce() -> T) -> (T, Result<()>) {
        self.lock = None;
        let done = work();
        (done, take(self.store).map(|lock| self.lock = Some(lock)))
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

    /// What time it is; where the clock was set to a time that is none since, when the turn began.
    pub fn now(&self) -> Timestamp {
        (self.clock)().unwrap_or(self.began)
    }
}

fn take(store: &Store) -> Result<WriteLock> {
    let lock = WriteLock::wait(&store.location, store.timeout)?;
    // The lock is that of whatever lies there now.
    store.check_is_in_place().map(|()| lock)
}
