//! Opening a database: what is checked before SQLite reads a page of it, and how it is set up.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, FileControl, OpenFlags};

use super::boot::make_sure_of_index;
use super::failure::{self, again, failure, is_lock};
use super::header::Header;
use super::location::{Identity, Location};
use super::replica;
use super::versions::{self, Standing, Versions};
use crate::error::{Code, Error, Result};

/// A database that is open and, as far as its first bytes tell, one of ours.
pub struct Opened {
    pub connection: Connection,
    /// It may only be read.
    pub read_only: bool,
    /// It may only be read because somebody holds a lock.
    pub is_locked: bool,
    /// It is written through a log. One that was restored from `VACUUM INTO` is not.
    pub is_wal: bool,
}

/// Whether a database is opened for writing, where the operating system allows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is.
    Any,
    /// It never is.
    ReadOnly,
}

/// Opens the database at `location`; `timeout` is how long SQLite waits for another process.
pub fn open(location: &Location, access: Access, timeout: Duration, versions: Versions) -> Result<Opened> {
    let is_replica = replica::is_at(location)?;
    let Some(identity) = location.check()? else {
        return Err(if is_replica { replica::missing(location) } else { failure::missing(location) });
    };
    let failed = |error| failure(&error, location);
    let connect = |index| connect(location, identity, versions, index);
    let (connection, header) = connect(match access {
        _ if is_replica => Index::None,
        Access::ReadOnly => Index::SharedToRead,
        Access::Any => Index::Shared,
    })?;
    let read_only = connection.is_readonly(c"main").map_err(failed)?;
    if !read_only {
        make_sure_of_index(location, timeout)?;
    }
    let opened = match again(|| configure(&connection, timeout)) {
        Ok(()) => Opened { connection, read_only, is_locked: false, is_wal: header.is_wal },
        Err(error) if is_lock(&error) && !is_replica => {
            // As long as this connection is open, SQLite gives the next one the same index.
            drop(connection);
            let beside_lock = || {
                let (connection, header) = connect(Index::Private)?;
                again(|| configure(&connection, Duration::ZERO)).map_err(failed)?;
                set_timeout(&connection, timeout).map_err(failed)?;
                Ok(Opened { connection, read_only: true, is_locked: true, is_wal: header.is_wal })
            };
            beside_lock().map_err(|_: Error| failed(error))?
        }
        Err(error) => return Err(failed(error)),
    };
    if header.has_partial_page {
        let log = checkpoint(&opened.connection, Checkpoint::Noop).map_err(failed)?;
        // Otherwise the log may have that page, and the next to move it there mends it.
        if log.in_log <= log.moved {
            let message = format!("{} is damaged: its last page is cut off", location.path().display());
            return Err(Error::new(Code::DbError, message).hint("restore it from a backup"));
        }
    }
    Ok(opened)
}

/// Which index of the log a connection uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    /// None: a replica has no log.
    None,
    /// The one that all processes share.
    Shared,
    /// The same, and nothing of the database is written.
    SharedToRead,
    /// One of its own, which it makes from the log, unless somebody else has the shared one open; it reads
    /// only. <https://sqlite.org/wal.html>, "Read-Only Databases".
    Private,
}

/// Opens the file that was found to be safe, and looks at its first bytes.
fn connect(
    location: &Location,
    identity: Identity,
    versions: Versions,
    index: Index,
) -> Result<(Connection, Header)> {
    let failed = |error| failure(&error, location);
    let access = match index {
        Index::None | Index::SharedToRead => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Index::Shared | Index::Private => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let flags = access
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = match index {
        Index::None | Index::Shared | Index::SharedToRead => {
            Connection::open_with_flags(location.path(), flags)
        }
        Index::Private => {
            let uri = format!("file:{}?readonly_shm=1", percent_encoded(location.path()));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
    };
    let connection = connection.map_err(failed)?;
    let mut moved = 0;
    connection.file_control(Some(c"main"), FileControl::HasMoved(&mut moved)).map_err(failed)?;
    if moved != 0 || location.identity()? != Some(identity) {
        let message = format!("{} was replaced while it was being opened", location.path().display());
        return Err(Error::new(Code::DbUnavailable, message).hint("try again"));
    }
    let header = Header::read(&connection)
        .map_err(|code| failed(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)))?;
    let application_id = if header.is_sqlite { header.application_id } else { 0 };
    check_standing(location, versions::standing(versions, application_id, header.user_version), versions)?;
    if index == Index::None {
        replica::check(location, &header)?;
    }
    Ok((connection, header))
}

/// A path as a URI writes it (RFC 3986, section 2.1), so that SQLite reads no more into it.
fn percent_encoded(path: &Path) -> String {
    let encoded = path.as_os_str().as_bytes().iter().map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// Checks that a database which stands there so is one of ours, and can be read.
pub fn check_standing(location: &Location, standing: Standing, versions: Versions) -> Result<()> {
    let database = location.path().display();
    match standing {
        Standing::Newest | Standing::Older { .. } | Standing::Newer => Ok(()),
        Standing::Unreadable(version) => {
            let message =
                format!("{database} has schema {version}; this apikey knows none past {}", versions.len());
            Err(Error::new(Code::DbUnavailable, message).hint("use the newer apikey that wrote it"))
        }
        Standing::Foreign => {
            Err(Error::new(Code::DbUnavailable, format!("{database} is not an apikey database"))
                .hint("name another with --db"))
        }
    }
}

/// Sets up a connection as this module's parent says. What is SQLite's default is not set again, but
/// tested below.
pub fn configure(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    set_timeout(connection, timeout)?;
    // What a close does comes first: where the rest fails, it is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.file_control(Some(c"main"), FileControl::PersistWal(&mut 1))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A stranger's table may refer to one of ours, and is not to keep anything of ours from its end.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // `Store::begin_checked` does that.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// How long SQLite waits for another process: 24 days at the most, in its 32 bits of milliseconds.
pub fn set_timeout(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(timeout.min(Duration::from_millis(i32::MAX as u64)))
}

/// Whether pages are moved from the log to the database.
#[derive(Clone, Copy)]
pub enum Checkpoint {
    /// None are.
    Noop,
    /// As many as nobody is reading from the log.
    Passive,
    /// All, once nobody is reading from the log, which is empty then.
    Truncate,
}

/// How many pages the log has, and how many of them are in the database.
pub struct Log {
    pub in_log: i64,
    pub moved: i64,
}

/// Moves pages, or none. <https://sqlite.org/pragma.html#pragma_wal_checkpoint>
pub fn checkpoint(connection: &Connection, mode: Checkpoint) -> rusqlite::Result<Log> {
    let sql = match mode {
        Checkpoint::Noop => "PRAGMA wal_checkpoint(NOOP)",
        Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], |row| Ok(Log { in_log: row.get(1)?, moved: row.get(2)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_what_sqlite_does_by_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = Connection::open(file.path()).unwrap();
        configure(&connection, Duration::ZERO).unwrap();
        let value = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        assert_eq!(value("synchronous"), Ok(2), "FULL");
        assert_eq!(value("foreign_keys"), Ok(0));
        assert_eq!(value("cell_size_check"), Ok(1));
        assert_eq!(value("trusted_schema"), Ok(0));
        assert_eq!(value("wal_autocheckpoint"), Ok(0));
        assert_eq!(value("mmap_size"), Ok(0));
    }

    #[test]
    fn what_lies_there_by_now_is_not_opened_in_the_place_of_what_was_checked() {
        let folder = crate::store::tests::folder();
        let (path, other) = (folder.path().join("keys.db"), folder.path().join("other.db"));
        for path in [&path, &other] {
            crate::store::make(&Location::new(path).unwrap(), versions::VERSIONS).unwrap();
        }
        let location = Location::new(&path).unwrap();
        let checked = location.check().unwrap().unwrap();
        let refusal = || {
            let opened = connect(&location, checked, versions::VERSIONS, Index::Shared);
            opened.map(drop).unwrap_err().to_string()
        };
        std::fs::rename(&path, folder.path().join("away.db")).unwrap();
        std::os::unix::fs::symlink("away.db", &path).unwrap();
        assert!(refusal().contains("cannot open"), "{}", refusal());
        std::fs::rename(&other, &path).unwrap();
        assert!(refusal().contains("was replaced while it was being opened"), "{}", refusal());
    }
}
