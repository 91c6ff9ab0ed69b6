//! Connections that wait for the next look.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::Store;

/// As long a database that was replaced by another file, or by a schema that is not to be read, may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(1);

/// More than look at once but for a moment. Each has two files open.
const MOST_IDLE: usize = 32;

/// As many connections as were looking at once.
#[derive(Debug)]
pub struct Pool {
    open: fn(&Path, Duration) -> Result<Store>,
    path: PathBuf,
    timeout: Duration,
    idle: Mutex<Vec<Opened>>,
}

#[derive(Debug)]
struct Opened {
    store: Store,
    /// When it was last seen that the database is still the one at its path.
    seen: Instant,
}

impl Pool {
    /// Opens the database at `path`, once.
    pub fn of(open: fn(&Path, Duration) -> Result<Store>, path: &Path, timeout: Duration) -> Result<Self> {
        let pool = Pool { open, path: path.to_owned(), timeout, idle: Mutex::default() };
        pool.look(|_| Ok(())).map(|()| pool)
    }

    /// Does `look` with a connection that nobody else uses meanwhile. One with which it fails is closed.
    pub fn look<T>(&self, look: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        let mut opened = self.take()?;
        let looked = look(&mut opened.store)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(opened);
        }
        Ok(looked)
    }

    fn take(&self) -> Result<Opened> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let seen = Instant::now();
        let as_it_was =
            |idle: &Opened| idle.store.check_is_in_place().and_then(|()| idle.store.check()).is_ok();
        match idle {
            Some(idle) if seen.duration_since(idle.seen) < UNNOTICED => Ok(idle),
            // One that had no log, as a backup that was restored, may have one by now, and uses can be written.
            Some(idle) if as_it_was(&idle) && !idle.store.has_log() => {
                Ok(self.open(seen).unwrap_or(Opened { seen, ..idle }))
            }
            Some(idle) if as_it_was(&idle) => Ok(Opened { seen, ..idle }),
            _ => self.open(seen),
        }
    }

    fn open(&self, seen: Instant) -> Result<Opened> {
        let store = (self.open)(&self.path, self.timeout)?;
        store.check()?;
        Ok(Opened { store, seen })
    }
}
