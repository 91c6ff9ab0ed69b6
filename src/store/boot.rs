//! The log's index (`-shm`) is believed only where it was made in this boot of the host.
//!
//! It is memory that processes share, and reaches the disk whenever the kernel likes. SQLite makes it anew
//! where nobody else has the database open, which byte 128 of it says: but a lock on that byte can be
//! taken by whoever may read. After a power cut the index on the disk may be an old one, and with such a
//! lock it would be believed: a key that was revoked since would be accepted again, and the next write
//! would make that last. So:
//!
//! - Which boot it was made in is noted in the file of the lock, which who may only read cannot write. A
//!   note that is not there, or not on the disk, costs no more than doing it again.
//! - Where the boot is another one, both copies of the index's header are overwritten with zeros, before
//!   SQLite has looked at it. Whoever looks at it next reads the log instead, and makes it anew.
//! - That is done under the lock on byte 120, as a writer's, so no other lock is needed: nobody is writing
//!   or making the index anew meanwhile, and who is reading goes on, since a writer may be killed at any
//!   moment and leave such a header too. Doing it twice is harmless.
//! - A kill between that and the next look leaves a header that only who may write can mend. A reader that
//!   may not is refused until then, where somebody else has the database open: once a boot, if ever.
//! - Where byte 120 is held for longer than the caller would wait, the database is not opened: what is in
//!   the index may be old.
//!
//! Who may only read cannot do it. What asks by SQL alone can be deceived until the first run of whoever
//! may write; so can everybody where there is no `/proc` to tell the boot.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use super::holder::Waited;
use super::lock::{open_file, share_with_writers};
use super::{Location, failure};
use crate::error::{Code, Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A UUID and a line's end.
type BootId = [u8; 37];

/// Two copies of 48 bytes: <https://sqlite.org/walformat.html>, section 2.1.
const HEADER: [u8; 96] = [0; 96];
/// Which byte a writer locks: the same, section 2.3.
const WRITE_LOCK: libc::off_t = 120;

/// Makes sure that the index of the database at `location`, which the caller may write, is of this boot.
/// Fails with [`Code::DbLocked`] when the time is over.
pub fn make_sure_of_index(location: &Location, timeout: Duration) -> Result<()> {
    let Some(boot) = read_id(BOOT_ID.as_ref()) else { return Ok(()) };
    if read_id(&location.side_file("-lock")) == Some(boot) {
        return Ok(());
    }
    if forget_index(location, timeout)? {
        // Where that fails, the next run does it again.
        drop(note(location, &boot));
    }
    Ok(())
}

fn read_id(path: &Path) -> Option<BootId> {
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).ok()?;
    let mut id = [0; 37];
    file.read_exact(&mut id).ok().map(|()| id)
}

fn note(location: &Location, boot: &BootId) -> Result<()> {
    let path = location.side_file("-lock");
    let failed = |error: io::Error| Error::io(&error, "write", &path, Code::DbError);
    let file = open_file(&path).map_err(failed)?;
    share_with_writers(&file, location.path())?;
    file.write_all_at(boot, 0).and_then(|()| file.set_len(boot.len() as u64)).map_err(failed)
}

/// Makes the header of the index invalid, where there is an index. `false` where it may only be read.
fn forget_index(location: &Location, timeout: Duration) -> Result<bool> {
    let path = location.side_file("-shm");
    let failed = |error: io::Error| Error::io(&error, "make anew", &path, Code::DbError);
    let index = match Index::open(&path) {
        Ok(index) => index,
        // Whoever makes one makes it in this boot.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            return Ok(false);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut is_forgotten = index.is_forgotten.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_forgotten {
        if !index.lock(timeout).map_err(failed)? {
            return Err(failure::locked(location, Waited::ForDatabase));
        }
        let forgotten = index.forget();
        index.set_lock(libc::F_UNLCK).map_err(|error| failed(error.into()))?;
        forgotten.map_err(failed)?;
        *is_forgotten = true;
    }
    Ok(true)
}

/// An index that this process has opened besides SQLite.
///
/// It is never closed. Closing any descriptor of a file lets go of every lock that the process holds on it
/// (<https://sqlite.org/howtocorrupt.html>, section 2.2), and others of its threads may have the database
/// open. That is one descriptor for each database in each process that is the first after a boot.
struct Index {
    identity: (u64, u64),
    file: File,
    is_forgotten: Mutex<bool>,
}

static OPENED: Mutex<Vec<&'static Index>> = Mutex::new(Vec::new());

impl Index {
    fn open(path: &Path) -> io::Result<&'static Self> {
        let found = path.symlink_metadata()?;
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = opened.iter().find(|index| index.identity == (found.dev(), found.ino())) {
            return Ok(index);
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)?;
        let index = Box::leak(Box::new(Index { identity: (0, 0), file, is_forgotten: Mutex::new(false) }));
        let found = index.file.metadata()?;
        index.identity = (found.dev(), found.ino());
        opened.push(index);
        Ok(index)
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

    fn forget(&self) -> io::Result<()> {
        match self.file.metadata()?.len() {
            0 => Ok(()),
            _ => self.file.write_all_at(&HEADER, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::Store;

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
