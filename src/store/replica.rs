//! Litestream: a replica that it keeps up on another host, and the database that it replicates.
//!
//! A replica (`litestream restore -f`) is known by the file in which Litestream notes how far it is,
//! `keys.db-txid`. Whoever runs this program, nothing of a replica is written or made: it would not be the
//! authority's any more, and Litestream cannot know. So:
//!
//! - It is opened `O_RDONLY`, and every write is refused before a lock is taken.
//! - Litestream writes whole transactions of the authority's, each under the exclusive lock of SQLite's rollback
//!   mode (<https://sqlite.org/lockingv3.html>): who reads in that mode sees what is before or after, and
//!   waits meanwhile. But Litestream waits for who reads, and whoever comes then for Litestream: so a look that may take
//!   long is at a copy in memory.
//! - A replica that was just restored says of itself that it has a log (WAL), until Litestream writes page 1. SQLite
//!   would make that log and its index, even for who only reads; and who has it open keeps Litestream waiting. So
//!   it is refused by its header, before SQLite has looked at it. So is one beside which a log lies: somebody wrote it.
//! - A connection that stays open keeps the pages that it has read until the counter in page 1 is another one.
//!   Litestream makes it another one whenever it writes page 1, and few writes in a log change that page. So on the
//!   authority each write does: [`touch_first_page`].
//! - Litestream reads the log itself, and so what a writer that was killed has left there: `unpublished.rs`.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use rusqlite::Connection;

use super::Location;
use super::header::Header;
use super::location::metadata;
use crate::error::{Code, Error, Result};
use crate::timestamp::Timestamp;

/// What Litestream keeps beside a replica.
const TXID: &str = "-txid";
/// What it makes in the database that it replicates.
pub const TABLE: &str = "_litestream_seq";
const IS_REPLICATED: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";

/// Whether what lies, or is to lie, at `location` is a replica.
pub fn is_at(location: &Location) -> Result<bool> {
    Ok(metadata(&location.side_file(TXID))?.is_some())
}

/// When Litestream last wrote the replica at `location`, as its file system has it.
pub fn written_at(location: &Location) -> Result<Option<Timestamp>> {
    let millis = |found: Metadata| u64::try_from(found.mtime() * 1000 + found.mtime_nsec() / 1_000_000).ok();
    Ok(metadata(location.path())?.and_then(millis).and_then(Timestamp::from_unix_millis))
}

/// Checks that the replica at `location`, which has this header, can be read.
pub fn check(location: &Location, header: &Header) -> Result<()> {
    let path = location.path().display();
    let log = location.side_file("-wal");
    if metadata(&log)?.is_some_and(|found| found.len() > 0) {
        let message = format!("{path} is a replica that was written here: {} lies beside it", log.display());
        return Err(Error::new(Code::DbUnavailable, message)
            .hint("remove both, and start Litestream again, which restores it"));
    }
    if header.is_wal {
        let message = format!("{path} is a replica that was just restored, and cannot be read yet");
        return Err(Error::new(Code::DbUnavailable, message).hint(format!(
            "it can be from the next change to the original on, or see apikey(5), Replicas; \
             where it is to be the original, remove {path}{TXID}"
        )));
    }
    Ok(())
}

/// There is no replica at that place.
pub fn missing(location: &Location) -> Error {
    Error::new(Code::NoDatabase, format!("there is no replica at {} yet", location.path().display()))
        .hint("see that `litestream restore -f` runs, which makes it")
}

/// Checks that what lies, or is to lie, at `location` is no replica, which may not be written.
pub fn refuse(location: &Location) -> Result<()> {
    if !is_at(location)? {
        return Ok(());
    }
    let path = location.path().display();
    Err(Error::new(Code::DbUnavailable, format!("{path} is a replica that may not be written")).hint(
        format!(
            "run this on the host of the original; where this is to be the original, stop Litestream and \
         remove {path}{TXID}"
        ),
    ))
}

/// The database in memory, as it is now: Litestream does not wait for who goes through that, nor everybody else for
/// Litestream.
pub fn into_memory(mut file: Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    let bytes = file.serialize(c"main")?;
    copy.deserialize_read_exact(c"main", &*bytes, bytes.len(), true)?;
    Ok(copy)
}

/// Whether Litestream replicates the database.
pub fn is_replicated(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached(IS_REPLICATED)?.exists([TABLE])
}

/// Writes the first page as it is, in the transaction that is open, where Litestream replicates the database: what
/// else that writes, connections to replicas notice by it.
pub fn touch_first_page(connection: &Connection) -> rusqlite::Result<()> {
    match is_replicated(connection)? {
        true => write_first_page(connection),
        false => Ok(()),
    }
}

/// Writes in the header the number that is there already.
pub fn write_first_page(connection: &Connection) -> rusqlite::Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
}
