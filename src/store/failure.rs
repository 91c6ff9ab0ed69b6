//! SQLite's errors in this program's terms. <https://sqlite.org/rescode.html>

use std::thread;
use std::time::Duration;

use rusqlite::ErrorCode::{
    CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, FileLockingProtocolFailed, NotADatabase,
    PermissionDenied, ReadOnly, Unknown,
};
use rusqlite::ffi;

use super::Location;
use super::holder::{Waited, holder};
use crate::error::{Code, Error};

/// What `error` means for the database at `location`.
pub fn failure(error: &rusqlite::Error, location: &Location) -> Error {
    let database = location.path().display();
    // rusqlite has a kind of its own for a statement that cannot be prepared.
    let code = if is_misfit(error) { Some(Unknown) } else { error.sqlite_error_code() };
    match code {
        _ if is_lock(error) => locked(location, Waited::ForDatabase),
        Some(CannotOpen) => location
            .forbidden_file()
            .unwrap_or_else(|| Error::new(Code::DbUnavailable, format!("cannot open {database}: {error}"))),
        Some(ReadOnly) if is_half_written(error) => {
            let message = format!("the index of {database} is to be made anew by who may write it");
            Error::new(Code::Forbidden, message).hint("run `apikey list` as a user who may write it")
        }
        Some(ReadOnly | PermissionDenied) => {
            Error::new(Code::Forbidden, format!("{database} may not be written: {error}"))
        }
        // A statement that does not fit the schema: the statements are ours, so the schema is not.
        Some(Unknown) => {
            Error::new(Code::DbUnavailable, format!("{database} is not an apikey database: {error}"))
                .hint("name another with --db")
        }
        Some(NotADatabase) => {
            Error::new(Code::DbUnavailable, format!("{database} is not an apikey database"))
        }
        None => Error::new(Code::DbError, format!("{database} is damaged: a row makes no sense: {error}")).hint(
            "restore it from a backup, or begin anew with that user: `apikey revoke USER`, `apikey create USER`",
        ),
        Some(DatabaseCorrupt) => Error::new(Code::DbError, format!("{database} is damaged: {error}"))
            .hint("restore it from a backup"),
        Some(_) => Error::new(Code::DbError, format!("{database}: {error}")),
    }
}

/// Whether it is a statement that does not fit the schema.
pub fn is_misfit(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqlInputError { .. }) || error.sqlite_error_code() == Some(Unknown)
}

/// A newer program made the database, and this one `may_not`.
pub fn newer(location: &Location, may_not: &str) -> Error {
    let message = format!("{} was made by a newer apikey, and {may_not}", location.path().display());
    Error::new(Code::DbUnavailable, message).hint("use the newer apikey that wrote it")
}

/// Whether what kept SQLite from it is a lock. It says so of its protocol where the lock is on a byte that
/// nobody is to hold for long.
pub fn is_lock(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
}

/// Whether who may only read met an index whose header was half written, and nobody was writing it: the
/// writer was done by then, or it was killed.
fn is_half_written(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(ffi::SQLITE_READONLY_RECOVERY)
}

/// Looks again, a few times within 63 ms, where an index was half written: once in 200,000 times a look
/// beside a writer meets one, and the next is all right.
pub fn again<T>(mut look: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match look() {
            Err(error) if is_half_written(&error) && pause < Duration::from_millis(64) => {
                thread::sleep(pause);
                pause *= 2;
            }
            looked => return looked,
        }
    }
}

/// Another process held the database for longer than the caller would wait.
pub fn locked(location: &Location, waited: Waited) -> Error {
    let holder = holder(location, waited);
    let holder = holder.as_deref().unwrap_or("another process");
    Error::new(Code::DbLocked, format!("{} is locked by {holder}", location.path().display()))
        .hint("try again, or wait longer with --timeout")
}

/// There is no database at that place.
pub fn missing(location: &Location) -> Error {
    Error::new(Code::NoDatabase, format!("there is no database at {}", location.path().display()))
        .hint("`apikey create` makes it, --db names another")
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::FileExt as _;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    use rusqlite::{Connection, OpenFlags};
    use tempfile::TempDir;

    use super::*;
    use crate::key::Key;
    use crate::store::Store;
    use crate::timestamp::Timestamp;

    /// A database that is open to a reader without write permission, and its index, which somebody else has
    /// open, too.
    struct Reader {
        store: Store,
        index: File,
        header: [u8; 48],
        _folder: TempDir,
    }

    impl Reader {
        fn new() -> Self {
            let folder = crate::store::tests::folder();
            let path = folder.path().join("keys.db");
            let mut store = Store::open_or_create(&path, Duration::ZERO).unwrap();
            store.write_nothing().unwrap();
            drop(store.connection.take());
            let index =
                OpenOptions::new().read(true).write(true).open(path.with_file_name("keys.db-shm")).unwrap();
            let lock = libc::flock {
                l_type: libc::F_RDLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: 128,
                l_len: 1,
                l_pid: 0,
            };
            fcntl(&index, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            let uri = format!("file:{}?readonly_shm=1", path.display());
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
            store.connection = Some(Connection::open_with_flags(uri, flags).unwrap());
            store.read_only = true;
            store.check().unwrap();
            let mut header = [0; 48];
            index.read_exact_at(&mut header, 0).unwrap();
            Reader { store, index, header, _folder: folder }
        }

        /// Leaves the header as a writer that is killed while it writes it.
        fn write_half(&self) {
            self.index.write_all_at(&[7; 40], 0).unwrap();
        }

        fn write_whole(&self) {
            self.index.write_all_at(&self.header, 0).unwrap();
        }
    }

    #[test]
    fn who_meets_a_half_written_index_looks_again_and_not_for_ever() {
        let reader = Reader::new();
        let connection = reader.store.connection().unwrap();
        for (whole_at, answer) in [(2, Ok(0)), (5, Ok(0)), (100, Err(Some(ffi::SQLITE_READONLY_RECOVERY)))] {
            reader.write_half();
            let mut looks = 0;
            let counted = again(|| {
                looks += 1;
                if looks == whole_at {
                    reader.write_whole();
                }
                connection.query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, u32>(0))
            });
            assert_eq!(counted.map_err(|error| error.sqlite_extended_error_code()), answer);
            assert_eq!(looks, whole_at.min(7));
        }
    }

    #[test]
    fn a_look_at_a_key_and_a_transaction_look_again_too() {
        let reader = Reader::new();
        let (key, now) = (Key::generate().unwrap(), Timestamp::parse("2026-11-22T08:19:03.123Z").unwrap());
        let looks: [&dyn Fn() -> bool; 3] =
            [&|| reader.store.find(&key, now).is_ok(), &|| reader.store.check().is_ok(), &|| {
                reader.store.read(now, |snapshot| snapshot.pending()).is_ok()
            }];
        for look in looks {
            // The machine may stall for longer than it looks again, but not each time.
            assert!((0..5).any(|_| {
                reader.write_half();
                let (index, header) = (&reader.index, reader.header);
                thread::scope(|scope| {
                    scope.spawn(move || {
                        thread::sleep(Duration::from_millis(5));
                        index.write_all_at(&header, 0).unwrap();
                    });
                    look()
                })
            }));
        }
        reader.write_half();
        let error = reader.store.find(&key, now).unwrap_err();
        assert_eq!(error.code(), Code::Forbidden);
        assert!(error.to_string().contains("is to be made anew by who may write it"), "{error}");
    }
}
