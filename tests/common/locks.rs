//! Locks of SQLite's kind on the index of the log, taken by hand, as whoever may read it can.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::Host;

#[derive(Clone, Copy, Debug)]
pub enum Lock {
    Read,
    Write,
}

/// Locks `count` bytes of the index from `first` on, until the file is closed.
pub fn lock_index(host: &Host, lock: Lock, first: i64, count: i64) -> File {
    lock_file(&host.path("keys.db-shm"), lock, first, count)
}

/// The same of a file. It is a lock of the process: to name it the kernel tells whose it is. Where this
/// process has the file open a second time, to close that ends it.
pub fn lock_file(path: &Path, lock: Lock, first: i64, count: i64) -> File {
    lock_by(|lock| FcntlArg::F_SETLK(lock), path, lock, first, count)
}

/// The same of which the kernel does not tell whose it is.
pub fn lock_file_as_nobody(path: &Path, lock: Lock, first: i64, count: i64) -> File {
    lock_by(|lock| FcntlArg::F_OFD_SETLK(lock), path, lock, first, count)
}

fn lock_by(
    command: fn(&libc::flock) -> FcntlArg<'_>,
    path: &Path,
    lock: Lock,
    first: i64,
    count: i64,
) -> File {
    let writes = matches!(lock, Lock::Write);
    let file = OpenOptions::new().read(true).write(writes).open(path).unwrap();
    let kind = if writes { libc::F_WRLCK } else { libc::F_RDLCK };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: first,
        l_len: count,
        l_pid: 0,
    };
    fcntl(&file, command(&lock)).unwrap();
    file
}
