//! SQLite's errors in this program's terms. <https://sqlite.org/rescode.html>

use rusqlite::ErrorCode::{
    CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, FileLockingProtocolFailed, NotADatabase,
    PermissionDenied, ReadOnly, Unknown,
};

use super::Location;
use super::holder::holder;
use crate::error::{Code, Error};

/// What `error` means for the database at `location`.
pub fn failure(error: &rusqlite::Error, location: &Location) -> Error {
    let database = location.path().display();
    match error.sqlite_error_code() {
        _ if is_lock(error) => locked(location),
        Some(CannotOpen) => location
            .forbidden_file()
            .unwrap_or_else(|| Error::new(Code::DbUnavailable, format!("cannot open {database}: {error}"))),
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
        None | Some(DatabaseCorrupt) => Error::new(Code::DbError, format!("{database} is damaged: {error}"))
            .hint("restore it from a backup"),
        Some(_) => Error::new(Code::DbError, format!("{database}: {error}")),
    }
}

/// Whether what kept SQLite from it is a lock. It says so of its protocol where the lock is on a byte that
/// nobody is to hold for long.
pub fn is_lock(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
}

/// Another process held the database for longer than the caller would wait.
pub fn locked(location: &Location) -> Error {
    let holder = holder(location);
    let holder = holder.as_deref().unwrap_or("another process");
    Error::new(Code::DbLocked, format!("{} is locked by {holder}", location.path().display()))
        .hint("try again, or wait longer with --timeout")
}

/// There is no database at that place.
pub fn missing(location: &Location) -> Error {
    Error::new(Code::NoDatabase, format!("there is no database at {}", location.path().display()))
        .hint("`apikey create` makes it, --db names another")
}
