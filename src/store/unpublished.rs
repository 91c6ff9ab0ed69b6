//! What a writer that was killed has left in the log is in the database, where Litestream replicates it.
//!
//! A writer writes the frames of its transaction to the log (`-wal`), and then publishes them: it writes in the
//! header of the index (`-shm`) which frame is the last (<https://sqlite.org/walformat.html>, section 2.1,
//! `mxFrame`). One that is killed in between leaves a whole transaction that nobody who asks SQLite sees, and the
//! next writer overwrites it: it never was. But Litestream reads the log itself and has copied it by then, and a
//! replica would accept a key that was never issued. So, where Litestream replicates:
//!
//! - No write overwrites a whole transaction. Whoever begins an immediate transaction looks for one past the last
//!   frame that is published. As it holds the write lock, no writer is alive whose frames those could be.
//! - Where there is one, the header of the index is made invalid (`index.rs`), so that SQLite makes the index anew
//!   from the log, as after any crash, and with that transaction: it is committed. What its command was about is
//!   finished or undone as where it was killed a moment later.
//! - What counts as a frame is what SQLite's recovery takes for one (the same page, section 1.3, "WAL Format"):
//!   the salts of the log's header, and a checksum that goes on from the frame before. So neither what is left of
//!   an older log counts, nor a frame that was cut off, and a transaction is whole with the frame that says how
//!   large the database is after it.
//! - SQLite's recovery ends at the first frame that is damaged. So all of the log is read as it would read it
//!   before an index is given up that knows more.
//!
//! What Litestream itself writes, once in a while at a checkpoint, overwrites such a transaction all the same.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::holder::Waited;
use super::index::Index;
use super::{Location, failure};
use crate::error::{Code, Error, Result};

/// Whether a whole transaction stands in the log of the database at `location` past what is published. The caller
/// has begun an immediate transaction.
pub fn is_there(location: &Location) -> Result<bool> {
    match look(location) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(false),
        looked => looked.map_err(|error| failed(&error, "look at the log of", location)),
    }
}

fn look(location: &Location) -> io::Result<bool> {
    let index = Index::open(&location.side_file("-shm"))?.header()?;
    let published = u32::from_ne_bytes([index[16], index[17], index[18], index[19]]);
    let Some(log) = Log::open(location)? else { return Ok(false) };
    let whole = log.last_commit(published)?;
    Ok(whole > published && log.last_commit(0)? == whole)
}

/// Has it published, by whoever looks at the database next. Nobody may have begun to write.
pub fn publish(location: &Location, timeout: Duration) -> Result<()> {
    let forgotten = Index::open(&location.side_file("-shm")).and_then(|index| index.forget(timeout));
    match forgotten.map_err(|error| failed(&error, "make anew the index of", location))? {
        true => Ok(()),
        false => Err(failure::locked(location, Waited::ForDatabase)),
    }
}

fn failed(error: &io::Error, what: &str, location: &Location) -> Error {
    Error::io(error, what, location.path(), Code::DbError)
}

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// A log, whose header is a valid one.
struct Log {
    file: File,
    page_size: usize,
    /// As its header has them.
    salts: [u8; 8],
    /// In which order the bytes of a number are that is summed up.
    number: fn([u8; 4]) -> u32,
    checksum: Checksum,
}

/// The sum of all that came before: the same page, section 4.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Checksum(u32, u32);

impl Log {
    /// The log of the database at `location`. `None` where its header is not a valid one.
    fn open(location: &Location) -> io::Result<Option<Self>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        // SQLite holds no locks on it, which closing it would end.
        let file =
            OpenOptions::new().read(true).custom_flags(flags.bits()).open(location.side_file("-wal"))?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let number = match number_at(&header, 0) {
            0x377f_0682 => u32::from_le_bytes,
            0x377f_0683 => u32::from_be_bytes,
            _ => return Ok(None),
        };
        let page_size = number_at(&header, 8);
        let is_page_size = page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
        let checksum = Checksum::default().and(&header[..24], number);
        if !is_page_size || checksum != Checksum::at(&header, 24) {
            return Ok(None);
        }
        let mut salts = [0; 8];
        salts.copy_from_slice(&header[16..24]);
        Ok(Some(Log { file, page_size: page_size as usize, salts, number, checksum }))
    }

    /// The last frame that ends a transaction, of `after` and those that follow it and are valid.
    fn last_commit(&self, after: u32) -> io::Result<u32> {
        let mut frame = vec![0; FRAME_HEADER + self.page_size];
        let mut checksum = match after {
            0 => self.checksum,
            _ if self.read(after, &mut frame)? => Checksum::at(&frame, 16),
            _ => return Ok(after),
        };
        let mut last = after;
        for number in after.saturating_add(1)..=u32::MAX {
            let is_read = self.read(number, &mut frame)?;
            if !is_read || frame[8..16] != self.salts || number_at(&frame, 0) == 0 {
                break;
            }
            checksum = checksum.and(&frame[..8], self.number).and(&frame[FRAME_HEADER..], self.number);
            if checksum != Checksum::at(&frame, 16) {
                break;
            }
            // How large the database is after a transaction, in the last frame of one.
            if number_at(&frame, 4) > 0 {
                last = number;
            }
        }
        Ok(last)
    }

    /// Reads a frame, of which the first is number 1. `false` where the log ends before it does.
    fn read(&self, number: u32, frame: &mut [u8]) -> io::Result<bool> {
        let start = HEADER as u64 + u64::from(number - 1) * frame.len() as u64;
        match self.file.read_exact_at(frame, start) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| true),
        }
    }
}

impl Checksum {
    /// The one that stands at `start` of a header.
    fn at(header: &[u8], start: usize) -> Self {
        Checksum(number_at(header, start), number_at(header, start + 4))
    }

    /// The sum with `bytes`, eight of which are two numbers.
    fn and(self, bytes: &[u8], number: fn([u8; 4]) -> u32) -> Self {
        let (pairs, _) = bytes.as_chunks::<8>();
        pairs.iter().fold(self, |Checksum(first, second), &[a, b, c, d, e, f, g, h]| {
            let first = first.wrapping_add(number([a, b, c, d])).wrapping_add(second);
            Checksum(first, second.wrapping_add(number([e, f, g, h])).wrapping_add(first))
        })
    }
}

/// The number at `start`, as the log has all but those that are summed up.
fn number_at(header: &[u8], start: usize) -> u32 {
    header[start..start + 4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rusqlite::Connection;
    use rusqlite::config::DbConfig;
    use tempfile::TempDir;

    use super::*;

    const PAGE: usize = 4096;

    /// A database, where it is, and what SQLite wrote into its log: three transactions.
    fn database() -> (TempDir, PathBuf, Vec<u8>) {
        let folder = crate::store::tests::folder();
        let path = folder.path().join("keys.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
        for table in ["a", "b", "c"] {
            connection.execute(&format!("CREATE TABLE {table} (number INTEGER)"), []).unwrap();
        }
        let log = std::fs::read(path.with_file_name("keys.db-wal")).unwrap();
        leave(connection);
        (folder, path, log)
    }

    /// Closes it, and leaves the log as it is.
    fn leave(connection: Connection) {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        drop(connection);
    }

    /// The same log, whose header has this at `at`, with all of its sums right, of numbers in this order.
    fn with(log: &[u8], at: usize, value: u32, number: fn([u8; 4]) -> u32) -> Vec<u8> {
        let mut log = log.to_vec();
        log[at..at + 4].copy_from_slice(&value.to_be_bytes());
        let mut sum = Checksum::default().and(&log[..24], number);
        write(&mut log[24..HEADER], sum);
        for frame in log[HEADER..].chunks_exact_mut(FRAME_HEADER + PAGE) {
            sum = sum.and(&frame[..8], number).and(&frame[FRAME_HEADER..], number);
            write(&mut frame[16..FRAME_HEADER], sum);
        }
        log
    }

    fn write(at: &mut [u8], Checksum(first, second): Checksum) {
        at[..4].copy_from_slice(&first.to_be_bytes());
        at[4..].copy_from_slice(&second.to_be_bytes());
    }

    #[test]
    fn the_log_of_a_machine_with_the_other_order_of_bytes_is_read_as_sqlite_reads_it() {
        let (_folder, path, log) = database();
        let location = Location::new(&path).unwrap();
        let frames = ((log.len() - HEADER) / (FRAME_HEADER + PAGE)) as u32;
        for (magic, number) in
            [(0x377f_0682, u32::from_le_bytes as fn([u8; 4]) -> u32), (0x377f_0683, u32::from_be_bytes)]
        {
            std::fs::write(path.with_file_name("keys.db-wal"), with(&log, 0, magic, number)).unwrap();
            let opened = Log::open(&location).unwrap().unwrap();
            assert_eq!(opened.last_commit(0).unwrap(), frames, "{magic:x}");
            let connection = Connection::open(&path).unwrap();
            connection.query_row("SELECT count(*) FROM c", [], |_| Ok(())).unwrap();
            leave(connection);
        }
    }

    #[test]
    fn a_log_of_pages_that_no_database_has_is_none() {
        let (_folder, path, log) = database();
        let location = Location::new(&path).unwrap();
        for (size, is_one) in
            [(512, true), (65_536, true), (0, false), (256, false), (3000, false), (131_072, false)]
        {
            std::fs::write(path.with_file_name("keys.db-wal"), with(&log, 8, size, u32::from_le_bytes))
                .unwrap();
            assert_eq!(Log::open(&location).unwrap().is_some(), is_one, "{size}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_one_that_has_ended() {
        let (folder, path, _) = database();
        let location = Location::new(&path).unwrap();
        assert!(!is_there(&location).unwrap());
        let mut log = Log::open(&location).unwrap().unwrap();
        log.file = File::open(folder.path()).unwrap();
        assert_eq!(log.last_commit(0).unwrap_err().kind(), ErrorKind::IsADirectory);
        let (file, away) = (path.with_file_name("keys.db-wal"), folder.path().join("away"));
        std::fs::rename(&file, &away).unwrap();
        assert!(!is_there(&location).unwrap());
        symlink(&away, &file).unwrap();
        assert!(is_there(&location).unwrap_err().to_string().contains("look at the log of"));
    }
}
