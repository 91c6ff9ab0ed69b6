//! When keys were last used: collected, and written down by a thread that nobody waits for.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::pool::Pool;
use crate::key::Prefix;
use crate::store::{Record, is_use_worth_writing};
use crate::timestamp::Timestamp;

/// How long uses are collected before they are written.
const A_WHILE: Duration = Duration::from_secs(1);
/// Uses that are written in one transaction, for which a writer may have to wait.
const AT_A_TIME: usize = 500;
/// Uses that wait at the most, where somebody is always writing. Those that come then are not written down.
const MOST: usize = 100_000;

/// Uses that are still to be written, and the thread that writes them once there are any.
#[derive(Debug)]
pub struct Uses {
    pool: Arc<Pool>,
    collected: Arc<Collected>,
    thread: OnceLock<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Collected {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by who writes, so that whoever writes next does not take the write lock for another process's.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    uses: HashMap<Prefix, Timestamp>,
    is_over: bool,
}

impl Uses {
    pub fn of(pool: &Arc<Pool>) -> Self {
        Uses { pool: Arc::clone(pool), collected: Arc::default(), thread: OnceLock::new() }
    }

    /// Notes that `key` was used, where that was not written down within the last minute.
    pub fn collect(&self, key: &Record, now: Timestamp) {
        if !is_use_worth_writing(key, now) {
            return;
        }
        let mut waiting = self.collected.lock();
        if waiting.uses.len() < MOST {
            waiting.uses.insert(key.prefix, now);
        }
        drop(waiting);
        self.collected.changed.notify_one();
        self.thread.get_or_init(|| {
            let (pool, collected) = (Arc::clone(&self.pool), Arc::clone(&self.collected));
            // Where there can be no thread, uses are not written down.
            thread::Builder::new().spawn(move || write_until_it_is_over(&pool, &collected)).ok()
        });
    }

    /// Writes now what was collected.
    pub fn write(&self) {
        self.collected.write(&self.pool);
    }
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.collected.lock().is_over = true;
        self.collected.changed.notify_one();
        if let Some(Some(thread)) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Collected {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes those that wait. Where another process is writing they go on to wait; what fails would fail the next
    /// time, too.
    fn write(&self, pool: &Pool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let uses: Vec<(Prefix, Timestamp)> = mem::take(&mut self.lock().uses).into_iter().collect();
        // With whatever it fails, the next look may do.
        let is_left = |uses: &&[_]| matches!(pool.look(|store| Ok(store.write_uses(uses))), Ok(Ok(false)));
        let left: Vec<&[_]> = uses.chunks(AT_A_TIME).filter(is_left).collect();
        let mut waiting = self.lock();
        for &(prefix, at) in left.into_iter().flatten() {
            waiting.uses.entry(prefix).or_insert(at);
        }
    }
}

fn write_until_it_is_over(pool: &Pool, collected: &Collected) {
    let mut is_over = false;
    while !is_over {
        let nothing = |waiting: &mut Waiting| waiting.uses.is_empty() && !waiting.is_over;
        let waited = collected.changed.wait_while(collected.lock(), nothing);
        let goes_on = |waiting: &mut Waiting| !waiting.is_over;
        let waiting = waited.unwrap_or_else(PoisonError::into_inner);
        let waited = collected.changed.wait_timeout_while(waiting, A_WHILE, goes_on);
        is_over = waited.unwrap_or_else(PoisonError::into_inner).0.is_over;
        collected.write(pool);
    }
}
