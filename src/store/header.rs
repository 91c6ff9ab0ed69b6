//! The first bytes of a database, read before SQLite does anything with the file.
//!
//! The first thing that SQLite does to a database is to play a journal or a log into it. So what
//! kind of file it is must be known before the first statement runs, and known of the very file
//! that SQLite has open. A second descriptor will not do: closing one lets go of every lock that
//! the process holds on that file (<https://sqlite.org/howtocorrupt.html>, section 2.2). So the
//! bytes are read through SQLite's own handle, which rusqlite does not offer: hence the `unsafe`.
#![allow(unsafe_code, reason = "SQLITE_FCNTL_FILE_POINTER has no safe face")]

use std::ffi::c_int;
use std::ptr;

use rusqlite::{Connection, ffi};

/// The fields of the header that are looked at. <https://sqlite.org/fileformat2.html>, section 1.3.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the file starts as every SQLite database does.
    pub is_sqlite: bool,
    /// Whether the file says that it is written through a write-ahead log.
    pub is_wal: bool,
    /// Which schema it holds.
    pub user_version: u32,
    /// Whose database it is.
    pub application_id: u32,
    /// Whether the file ends inside a page.
    pub has_partial_page: bool,
}

const LENGTH: usize = 100;

impl Header {
    /// The header of the database that `connection` has open. A file that is too short for one
    /// reads as if zeros followed. An error is SQLite's result code.
    pub fn read(connection: &Connection) -> Result<Self, c_int> {
        let mut bytes = [0u8; LENGTH];
        let mut size: ffi::sqlite3_int64 = 0;
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the connection is open for as long as it is borrowed. SQLite fills `file` with
        // its handle of the main database, valid as long as the connection is open; the methods of
        // an open file are not null. xRead writes at most LENGTH bytes, to a buffer of that length.
        let (read, sized) = unsafe {
            let main = c"main".as_ptr();
            let op = ffi::SQLITE_FCNTL_FILE_POINTER;
            let asked = ffi::sqlite3_file_control(connection.handle(), main, op, (&raw mut file).cast());
            if asked != ffi::SQLITE_OK {
                return Err(asked);
            }
            match (*file).pMethods.as_ref().map(|methods| (methods.xRead, methods.xFileSize)) {
                Some((Some(read), Some(file_size))) => (
                    read(file, bytes.as_mut_ptr().cast(), LENGTH as c_int, 0),
                    file_size(file, &raw mut size),
                ),
                _ => return Err(ffi::SQLITE_MISUSE),
            }
        };
        match (read, sized) {
            (ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_OK) => {
                Ok(Header::parse(&bytes, size))
            }
            (ffi::SQLITE_OK, error) | (error, _) => Err(error),
        }
    }

    fn parse(bytes: &[u8; LENGTH], size: i64) -> Self {
        let field = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        // The value 1 stands for 65536.
        let page_size = match field(16) >> 16 {
            1 => 65_536,
            size => size,
        };
        Header {
            is_sqlite: bytes.starts_with(b"SQLite format 3\0"),
            is_wal: bytes[18..20] == [2, 2],
            user_version: field(60),
            application_id: field(68),
            has_partial_page: page_size != 0 && size % i64::from(page_size) != 0,
        }
    }
}
