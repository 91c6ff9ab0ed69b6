//! Where a database lies, and whether it is safe to open there.
//!
//! SQLite opens its files by name, several of them, and more than once. So a name is handed to it
//! only where nobody but the caller and those who own the data anyway can change what it names:
//!
//! - every folder above belongs to root, to the caller or (unless the caller is root) to the
//!   database's owner, and nobody else may write it (`trust.rs`);
//! - the database and each of its side files is a regular file with one link, belongs to one of
//!   those three, and others may not write it;
//! - where the database's group may write it, whoever is in that group is trusted like its owner,
//!   but not by root.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::io::ErrorKind::NotFound;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::error::{Code, Error, Result};
use crate::key_file::Folder;
use crate::trust::{
    Links, Obstacle, Trusted, Unresolved, WRITABLE_BY_GROUP, check_group_may_not_write,
    check_others_may_not_write, folder_and_name, look_at, resolve, what_to_do,
};

/// The folder a database lies in and its path, absolute and with no link on the way.
#[derive(Clone, Debug)]
pub struct Location {
    folder: PathBuf,
    path: PathBuf,
}

/// Which file an open path named when it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        Identity { device: found.dev(), inode: found.ino() }
    }
}

impl Location {
    /// The longest path of a database, absolute and with no link on the way, in bytes: SQLite takes 512 with its
    /// longest suffix, `-journal`.
    pub const LONGEST_PATH: usize = 504;
    /// The longest name: a file system takes 255 bytes, with that suffix.
    pub const LONGEST_NAME: usize = 247;

    /// Where `path` is. Its folder must be there; the database itself need not.
    pub fn new(path: &Path) -> Result<Self> {
        let (folder, name) = folder_and_name(path).ok_or_else(|| {
            Error::new(Code::DbUnavailable, format!("{} names a folder, not a database", path.display()))
        })?;
        if name.len() > Self::LONGEST_NAME {
            return Err(too_long(path));
        }
        // What others may do to the database's owner, they may not do to root.
        let links = if geteuid().is_root() { Links::OfTrusted } else { Links::OfAnybody };
        let folder = resolve(folder, links).map_err(|error| match error {
            Unresolved::Io(_) if path.as_os_str().len() > Location::LONGEST_PATH => too_long(path),
            Unresolved::Io(error) => {
                let code = if error.kind() == NotFound { Code::NoDatabase } else { Code::DbUnavailable };
                Error::io(&error, "open the folder", folder, code)
                    .hint(format!("{}, or name another database with --db", what_to_do(&error)))
            }
            Unresolved::Obstacle(obstacle) => forbidden(obstacle),
        })?;
        let resolved = folder.join(name);
        if resolved.as_os_str().len() > Location::LONGEST_PATH {
            return Err(too_long(&resolved));
        }
        Ok(Location { path: resolved, folder })
    }

    /// The database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The database's name in its folder.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The file beside the database whose name is the database's with `suffix` at its end.
    pub fn side_file(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// The files that belong to the database: itself, the log, its index, the lock of writers, and a
    /// new database that is being made.
    pub fn files(&self) -> [PathBuf; 5] {
        let side_file = |suffix| self.side_file(suffix);
        [self.path.clone(), side_file("-wal"), side_file("-shm"), side_file("-lock"), side_file("-new")]
    }

    /// Whether a file of this name in the database's folder is the database or beside it one that is or
    /// could be its own.
    pub fn owns(&self, name: &OsStr) -> bool {
        let rest = name.as_bytes().strip_prefix(self.name().as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
    }

    /// Whether the file that has this device and inode is the database or one of its side files, by whichever name.
    pub fn has(&self, device: u64, inode: u64) -> bool {
        let is_it = |path: PathBuf| {
            metadata(&path).is_ok_and(|found| {
                found.is_some_and(|found| Identity::of(&found) == Identity { device, inode })
            })
        };
        self.files().into_iter().any(is_it)
    }

    /// Whether this name in this folder, whichever that is, is one that it [`owns`](Location::owns).
    pub fn owns_in(&self, folder: &Folder, name: &OsStr) -> io::Result<bool> {
        Ok(folder.is_at(&self.folder)? && self.owns(name))
    }

    /// Checks folders, database and side files as this module's page says; `None` where there is
    /// no database.
    pub fn check(&self) -> Result<Option<Identity>> {
        let database = metadata(&self.path)?;
        // Root trusts root alone: anyone else could swap what root is about to write.
        let shared = database.as_ref().filter(|_| !geteuid().is_root());
        let group = shared.filter(|found| found.mode() & WRITABLE_BY_GROUP != 0).map(Metadata::gid);
        let trusted = Trusted::with([shared.map(Metadata::uid), None, None]).and_group(group);
        self.check_folders(trusted).map_err(forbidden)?;
        // The last, a new one, is made over whatever lies there.
        for path in &self.files()[..4] {
            if let Some(found) = metadata(path)? {
                check_file(path, &found, trusted)?;
            }
        }
        self.check_no_journal()?;
        Ok(database.map(|found| Identity::of(&found)))
    }

    /// Which file the database is now; `None` where there is none.
    pub fn identity(&self) -> Result<Option<Identity>> {
        Ok(metadata(&self.path)?.map(|found| Identity::of(&found)))
    }

    /// Whether others than the caller and root may write the database. It then says nothing that is to be
    /// done without a word of the caller's.
    pub fn is_shared(&self) -> Result<bool> {
        let own = |found: &Metadata| found.uid() == 0 || found.uid() == geteuid().as_raw();
        for path in &self.files()[..3] {
            let found = metadata(path)?;
            if found.is_some_and(|found| !own(&found) || found.mode() & WRITABLE_BY_GROUP != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that no log of another database lies where a new one would go: SQLite would play it
    /// into the new one.
    pub fn check_no_leftovers(&self) -> Result<()> {
        let log = self.side_file("-wal");
        if metadata(&log)?.is_some_and(|found| found.len() > 0) {
            return Err(left_behind(&log));
        }
        Ok(())
    }

    /// An `apikey` database never has a rollback journal; SQLite would play one into it.
    fn check_no_journal(&self) -> Result<()> {
        let journal = self.side_file("-journal");
        match metadata(&journal)? {
            Some(_) => Err(left_behind(&journal)),
            None => Ok(()),
        }
    }

    fn check_folders(&self, trusted: Trusted) -> std::result::Result<(), Obstacle> {
        trusted.check_folder(&self.folder, &look_at(&self.folder)?)?;
        trusted.check_above(&self.folder)
    }

    /// Names the file that the operating system keeps from the caller, where that is why SQLite
    /// could not open the database.
    pub fn forbidden_file(&self) -> Option<Error> {
        let denied = self.files().into_iter().find(|path| {
            metadata(path).is_ok_and(|found| found.is_some()) && access(path, AccessFlags::R_OK).is_err()
        })?;
        Some(
            Error::new(Code::Forbidden, format!("{} may not be read", denied.display()))
                .hint("who verifies keys needs read permission for the database, its -wal and its -shm"),
        )
    }
}

fn check_file(path: &Path, found: &Metadata, trusted: Trusted) -> Result<()> {
    let shown = path.display();
    if !found.is_file() {
        return Err(Error::new(Code::DbUnavailable, format!("{shown} is not a regular file")));
    }
    if found.nlink() != 1 {
        let message = format!("{shown} has {} hard links", found.nlink());
        return Err(Error::new(Code::DbUnavailable, message)
            .hint("a database has exactly one name; remove the others"));
    }
    trusted.check_owner(path, found).map_err(forbidden)?;
    check_others_may_not_write(path, found).map_err(forbidden)?;
    if geteuid().is_root() {
        check_group_may_not_write(path, found).map_err(forbidden)?;
    }
    Ok(())
}

fn forbidden(obstacle: Obstacle) -> Error {
    Error::new(Code::Forbidden, obstacle.reason).hint(obstacle.hint)
}

fn too_long(path: &Path) -> Error {
    let message = format!(
        "{} is too long for a database: a path takes {} bytes, a name {}",
        path.display(),
        Location::LONGEST_PATH,
        Location::LONGEST_NAME,
    );
    Error::new(Code::DbUnavailable, message).hint("name a shorter one with --db")
}

fn left_behind(path: &Path) -> Error {
    Error::new(
        Code::DbUnavailable,
        format!("{} was left by another program or another database", path.display()),
    )
    .hint("find out whose it is, and move it away")
}

pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == NotFound => Ok(None),
        Err(error) => Err(Error::io(&error, "look at", path, Code::DbUnavailable)),
    }
}
