//! SQLite's errors in this program's terms. <https://sqlite.org/rescode.html>

use rusqlite::ErrorCode::{
    CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase, PermissionDenied, ReadOnly,
    Unknown,
};

use super::Location;
use crate::error::{Code, Error};

/// What `error` means for the database at `location`.
pub fn failure(error: &rusqlite::Error, location: &Location) -> Error {
    let database = location.path().display();
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => locked(location),
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

/// Another process held the database for longer than the caller would wait.
pub fn locked(location: &Location) -> Error {
    let message = format!("{} is locked by another process", location.path().display());
    Error::new(Code::DbUnavailable, message).hint("try again, or wait longer with --timeout")
}
