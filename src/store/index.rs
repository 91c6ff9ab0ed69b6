//! The index of the log (`-shm`), opened besides SQLite: to look at its header, and to make that invalid.
//!
//! Whoever looks next at an index whose header is invalid reads the log instead, from its start, and makes
//! the index anew. The header is overwritten under the lock on byte 120, as a writer's, so no other lock is
//! needed: nobody is writing or making the index anew meanwhile, and who is reading goes on, since a writer
//! may be killed at any moment and leave such a header too. Doing it twice is harmless.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// Two copies of 48 bytes: <https://sqlite.org/walformat.html>, section 2.1.
const HEADER: usize = 96;
/// Which byte a writer locks: the same, section 2.3.
const WRITE_LOCK: libc::off_t = 120;

/// An index that this process has opened besides SQLite.
///
/// It is never closed. Closing any descriptor of a file lets go of every lock that the process holds on it
/// (<https://sqlite.org/howtocorrupt.html>, section 2.2), and others of its threads may have the database
/// open. That is one descriptor for each database in each process that is the first after a boot, or that
/// writes what Litestream replicates.
pub struct Index {
    identity: (u64, u64),
    file: File,
    forgetting: Mutex<()>,
    /// Whether this process has made sure that it is (`boot.rs`).
    pub is_of_this_boot: Mutex<bool>,
}

static OPENED: Mutex<Vec<&'static Index>> = Mutex::new(Vec::new());

impl Index {
    /// The index at `path`, for writing.
    pub fn open(path: &Path) -> io::Result<&'static Self> {
        let found = path.symlink_metadata()?;
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = opened.iter().find(|index| index.identity == (found.dev(), found.ino())) {
            return Ok(index);
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)?;
        let index =
            Index { identity: (0, 0), file, forgetting: Mutex::default(), is_of_this_boot: Mutex::default() };
        let index = Box::leak(Box::new(index));
        let found = index.file.metadata()?;
        index.identity = (found.dev(), found.ino());
        opened.push(index);
        Ok(index)
    }

    /// Its header as it is now. Where it is too short for one, that fails.
    pub fn header(&self) -> io::Result<[u8; HEADER]> {
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0).map(|()| header)
    }

    /// Makes its header invalid, and waits up to `timeout` until nobody is writing. `false` where somebody
    /// still is.
    pub fn forget(&self, timeout: Duration) -> io::Result<bool> {
        // The lock keeps out other descriptors, and not other threads that use this one.
        let _one_at_a_time = self.forgetting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.lock(timeout)? {
            return Ok(false);
        }
        let forgotten = self.file.write_all_at(&[0; HEADER], 0);
        self.set_lock(libc::F_UNLCK)?;
        forgotten.map(|()| true)
    }

    /// Waits up to `timeout` for the right to write.
    fn lock(&self, timeout: Duration) -> io::Result<bool> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match self.set_lock(libc::F_WRLCK) {
                Ok(()) => return Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES) if start.elapsed() >= timeout => return Ok(false),
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    thread::sleep(pause.min(timeout.saturating_sub(start.elapsed())));
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A lock of the descriptor and not of the process: it keeps out SQLite in this process, too.
    fn set_lock(&self, kind: libc::c_int) -> nix::Result<()> {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: WRITE_LOCK,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rusqlite::Connection;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_link_in_the_place_of_an_index_is_not_followed() {
        let folder = crate::store::tests::folder();
        let (index, link) = (folder.path().join("index"), folder.path().join("link"));
        std::fs::write(&index, "").unwrap();
        symlink(&index, &link).unwrap();
        assert!(Index::open(&index).is_ok());
        assert!(Index::open(&link).is_err());
    }

    #[test]
    fn another_thread_that_has_the_database_open_keeps_its_locks() {
        let folder = crate::store::tests::folder();
        let path = folder.path().join("keys.db");
        let store = || Store::open_or_create(&path, Duration::ZERO).unwrap();
        let first = store();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM keys").unwrap();
        let index = path.with_file_name("keys.db-shm").metadata().unwrap();
        let locks = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let (of_this, on_index) = (format!(" {} ", std::process::id()), format!(":{} ", index.ino()));
            let held = locks.lines().filter(|line| line.contains(&of_this) && line.contains(&on_index));
            held.map(|line| line.split_once(':').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let before = locks();
        assert!(before.len() >= 2, "{before:?}");
        for _ in 0..2 {
            std::fs::write(path.with_file_name("keys.db-lock"), "another boot").unwrap();
            drop(store());
            // The kernel lists them piece by piece, and may leave one out while others come and go.
            assert!((0..100).any(|_| locks() == before), "{before:?}, {:?}", locks());
        }
        let opened = OPENED.lock().unwrap().iter().filter(|opened| opened.identity.1 == index.ino()).count();
        assert_eq!(opened, 1, "one descriptor for all times");
        drop((first, reader));
    }
}
