//! Connections that wait for the next look.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::Store;

/// As long a database that was replaced by another file may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(1);

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
    pub fn open(open: fn(&Path, Duration) -> Result<Store>, path: &Path, timeout: Duration) -> Result<Self> {
        let pool = Pool { open, path: path.to_owned(), timeout, idle: Mutex::default() };
        pool.look(|_| Ok(())).map(|()| pool)
    }

    /// Does `look` with a connection that nobody else uses meanwhile. One with which it fails is closed.
    pub fn look<T>(&self, look: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        let mut opened = self.take()?;
        let looked = look(&mut opened.store)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(opened);
        Ok(looked)
    }

    fn take(&self) -> Result<Opened> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let seen = Instant::now();
        match idle {
            Some(idle) if seen.duration_since(idle.seen) < UNNOTICED => return Ok(idle),
            Some(idle) if idle.store.check_is_in_place().is_ok() => return Ok(Opened { seen, ..idle }),
            _ => {}
        }
        let store = (self.open)(&self.path, self.timeout)?;
        store.check()?;
        Ok(Opened { store, seen })
    }
}
