//! A new database, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rusqlite::Connection;

use super::{Location, failure, schema};
use crate::error::{Code, Error, Result};

/// Makes an empty database at `location`, which the caller has locked and found empty: in memory
/// first, then in a file of another name, and under its own name only when all of it is on the disk.
pub fn make(location: &Location) -> Result<()> {
    location.check_no_leftovers()?;
    let image = image().map_err(|error| failure(&error, location))?;
    let new = location.side_file("-new");
    let made = write(&new, &image).and_then(|()| {
        fs::rename(&new, location.path())?;
        File::open(location.folder())?.sync_all()
    });
    made.map_err(|error| {
        drop(remove_if_there(&new));
        Error::io(&error, "make", location.path(), Code::DbError)
    })
}

/// An empty database as the bytes of its file.
fn image() -> rusqlite::Result<Vec<u8>> {
    let mut connection = Connection::open_in_memory()?;
    schema::create(&connection)?;
    let mut image = connection.serialize(c"main")?.to_vec();
    // The file format's versions for writing and reading: 2 is a write-ahead log
    // (https://sqlite.org/fileformat2.html, section 1.3.3).
    image[18..20].copy_from_slice(&[2, 2]);
    Ok(image)
}

fn write(path: &Path, image: &[u8]) -> io::Result<()> {
    // What a run that was killed left; the lock says that it is nobody else's.
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(image)?;
    file.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
