//! A new database, whole or not at all.

use std::ffi::OsString;
use std::io::{self, Write as _};

use rusqlite::Connection;

use super::versions::{self, Versions};
use super::{Location, failure};
use crate::error::{Code, Error, Result};
use crate::key_file::Folder;
use crate::trust::Trusted;

/// Makes an empty database at `location`, which the caller has locked and found empty: in memory
/// first, then in a file of another name, and under its own name only when all of it is on the disk.
pub fn make(location: &Location, versions: Versions) -> Result<()> {
    location.check_no_leftovers()?;
    let image = image(versions).map_err(|error| failure(&error, location))?;
    let folder = Folder::open(location.folder(), Trusted::with([None; 3]))
        .map_err(|obstacle| Error::new(Code::Forbidden, obstacle.reason).hint(obstacle.hint))?;
    let new: OsString = location.side_file("-new").file_name().unwrap_or_default().to_owned();
    let write = || {
        // What a run that was killed left; the lock says that it is nobody else's.
        folder.remove(&new)?;
        let mut file = folder.create(&new)?;
        file.write_all(&image)?;
        file.sync_all()?;
        folder.rename(&new, location.name())?;
        folder.sync()
    };
    write().map_err(|error: io::Error| {
        drop(folder.remove(&new));
        Error::io(&error, "make", location.path(), Code::DbError)
    })
}

/// An empty database as the bytes of its file.
fn image(versions: Versions) -> rusqlite::Result<Vec<u8>> {
    let mut connection = Connection::open_in_memory()?;
    versions::create(&connection, versions)?;
    let mut image = connection.serialize(c"main")?.to_vec();
    // The file format's versions for writing and reading: 2 is a write-ahead log
    // (https://sqlite.org/fileformat2.html, section 1.3.3).
    image[18..20].copy_from_slice(&[2, 2]);
    Ok(image)
}
