//! Which process keeps others from a database, as far as the kernel tells: proc_locks(5).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::Location;

/// The bytes of the index by which SQLite keeps writers, checkpoints and recoveries apart:
/// <https://sqlite.org/walformat.html>, section 2.3.
const INDEX_LOCKS: (u64, u64) = (120, 122);

/// A process, such as `process 1234 (apikey)`, that holds a lock on the database at `location`. None is
/// known of an open file description's lock, nor of a process that this one cannot see.
pub fn holder(location: &Location, waited: Waited) -> Option<String> {
    // The kernel writes a page at a time, and passes over one while others come and go.
    (0..5).find_map(|_| look_for_holder(location, waited))
}

/// What somebody waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The right to write: the file of the lock.
    ForTurn,
    /// SQLite's own locks.
    ForDatabase,
}

fn look_for_holder(location: &Location, waited: Waited) -> Option<String> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let find = |suffix, is_held: fn(&Lock<'_>) -> bool| {
        let file = file_id(&location.side_file(suffix))?;
        let held = locks.lines().filter_map(Lock::parse).find(|lock| lock.file == file && is_held(lock))?;
        let comm = fs::read_to_string(format!("/proc/{}/comm", held.pid)).ok()?;
        Some(format!("process {} ({})", held.pid, comm.trim_end()))
    };
    match waited {
        Waited::ForTurn => find("-lock", |lock| lock.kind == "FLOCK"),
        Waited::ForDatabase => find("-shm", |lock| lock.is_on_index())
            .or_else(|| find("", |lock| lock.kind == "POSIX" && lock.is_write)),
    }
}

/// How /proc/locks names the file at `path`.
fn file_id(path: &Path) -> Option<String> {
    let found = path.symlink_metadata().ok()?;
    Some(format!("{:02x}:{:02x}:{}", major(found.dev()), minor(found.dev()), found.ino()))
}

/// A lock that another process holds.
#[derive(Debug, PartialEq, Eq)]
struct Lock<'a> {
    kind: &'a str,
    is_write: bool,
    pid: u32,
    file: &'a str,
    bytes: (u64, u64),
}

impl<'a> Lock<'a> {
    /// What a line says; `None` of one who waits, of one whose process is not told, and of ourselves.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let kind = words.next().filter(|kind| *kind != "->")?;
        let is_write = words.nth(1)? == "WRITE";
        // -1 where the lock is an open file description's, 0 where it is another namespace's.
        let pid = words.next()?.parse().ok().filter(|pid| *pid != 0 && *pid != std::process::id())?;
        let (file, first, last) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let last = if last == "EOF" { u64::MAX } else { last.parse().ok()? };
        Some(Lock { kind, is_write, pid, file, bytes: (first, last) })
    }

    fn is_on_index(&self) -> bool {
        self.kind != "FLOCK" && self.bytes.0 <= INDEX_LOCKS.1 && self.bytes.1 >= INDEX_LOCKS.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_the_kernel_writes_it() {
        let found = Lock::parse("1: FLOCK  ADVISORY  WRITE 4000001 fe:00:131 0 EOF").unwrap();
        assert_eq!(
            (found.kind, found.is_write, found.pid, found.file),
            ("FLOCK", true, 4_000_001, "fe:00:131")
        );
        let on_index = |bytes: &str| {
            let line = format!("2: POSIX  ADVISORY  READ 4000001 fe:00:131 {bytes}");
            Lock::parse(&line).unwrap().is_on_index()
        };
        let bytes = ["0 EOF", "120 120", "122 130", "128 128", "119 119", "123 EOF"];
        assert_eq!(bytes.map(on_index), [true, true, true, false, false, false]);
        for line in [
            "1: -> FLOCK  ADVISORY  WRITE 4000001 fe:00:131 0 EOF",
            "3: OFDLCK ADVISORY  WRITE -1 fe:00:131 120 120",
            "4: POSIX  ADVISORY  WRITE 0 fe:00:131 120 120",
            &format!("5: POSIX  ADVISORY  WRITE {} fe:00:131 120 120", std::process::id()),
            "6: LEASE  ACTIVE",
            "",
        ] {
            assert_eq!(Lock::parse(line), None, "{line}");
        }
    }
}
