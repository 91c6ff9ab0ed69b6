//! A copy of the database, while others write.
//!
//! It is made under a name of its own beside the path, `.NAME.` and a number, and gets its own name when all of it
//! is on the disk, and only where nothing has that name. A run that is ended by a signal takes it away first; one
//! that was killed leaves no more than that, and perhaps SQLite's journal of it.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::key_file::Folder;
use crate::signals::HeldOff;
use crate::store::{Location, Store};

/// What the name gets more until the copy is whole, in bytes: two dots and a number, and where SQLite has a journal of
/// it that is at the end of its own.
const MARK: usize = 14;

/// A copy that was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// Where it is: absolute, and with no link on the way.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// How many keys are in it, the ended ones too.
    pub keys: u64,
}

/// What [`Authority::backup`](super::Authority::backup) does.
pub(super) fn backup(store: &Store, path: &Path) -> Result<Backup> {
    let (folder, path) = Folder::of(path)?;
    let name = path.file_name().unwrap_or_default();
    let usage = |why| Error::new(Code::Usage, format!("{} {why}", path.display()));
    if path.to_str().is_none() {
        return Err(usage("is not UTF-8").hint("name another file"));
    }
    let longer = path.as_os_str().len() + MARK;
    if name.len() + MARK > Location::LONGEST_NAME || longer > Location::LONGEST_PATH {
        return Err(usage("is too long for a database").hint("name a shorter one"));
    }
    let failed = |error: io::Error| Error::io(&error, "make the backup", &path, Code::DbError);
    if store.location().owns_in(&folder, name).map_err(failed)? {
        return Err(usage("belongs to the database, or would").hint("name another file"));
    }
    let already_there = || usage("is there already").hint("name a new file: a backup takes no other's place");
    if folder.status(name).map_err(failed)?.is_some() {
        return Err(already_there());
    }
    let stage = Folder::unused_name(name)?;
    let mut journal = stage.clone();
    journal.push("-journal");
    // Who is ended by one leaves nothing.
    let signals = HeldOff::those_that_end().map_err(failed)?;
    let file = folder.create(&stage).map_err(failed)?;
    let copy = || {
        let keys = store.copy_into(&path.with_file_name(&stage), &path, &signals)?;
        let (made, found) = (file.metadata().map_err(failed)?, folder.status(&stage).map_err(failed)?);
        if found.is_none_or(|found| (found.st_dev, found.st_ino) != (made.dev(), made.ino())) {
            let message = format!("the copy was swapped while it was made beside {}", path.display());
            return Err(Error::new(Code::Forbidden, message));
        }
        file.sync_all().map_err(failed)?;
        if signals.has_come() {
            return Err(Error::new(Code::Cancelled, "no copy was made"));
        }
        folder.rename_new(&stage, name).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => already_there(),
            _ => failed(error),
        })?;
        folder.sync().map_err(failed)?;
        Ok(Backup { path: path.clone(), bytes: made.len(), keys })
    };
    copy().inspect_err(|_| [&stage, &journal].into_iter().for_each(|name| drop(folder.remove(name))))
}
