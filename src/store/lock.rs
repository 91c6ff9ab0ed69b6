//! The queue of writers.
//!
//! SQLite's busy handler sleeps and tries again, so under contention some writer waits for
//! seconds. An advisory lock (flock(2)) on a file beside the database is a queue instead. It also
//! covers what SQLite's own lock can't: the replacement of a key file between two transactions.
//! The kernel lets go of it when the process ends, however it ends; its file stays.
//!
//! The lock is the file at its path, or none: one that was removed while somebody waited for it keeps
//! nobody out who came later. In the file is the boot of the host that was last noted (`boot.rs`).

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::holder::Waited;
use super::{Location, failure};
use crate::error::{Code, Error, Result};
use crate::patience::within;
use crate::trust::WRITABLE_BY_GROUP;

/// The lock: whoever holds it is the one writer. Let go of when dropped.
#[derive(Debug)]
pub struct WriteLock {
    file: File,
}

impl WriteLock {
    /// The lock of the database at `location`. Fails with [`Code::DbLocked`] when the time is over.
    pub fn wait(location: &Location, timeout: Duration) -> Result<Self> {
        Self::take(location, timeout)?.ok_or_else(|| failure::locked(location, Waited::ForTurn))
    }

    /// The same; `None` when the time is over.
    pub fn take(location: &Location, timeout: Duration) -> Result<Option<Self>> {
        let path = location.side_file("-lock");
        let failed = |error: io::Error| {
            let failed = Error::io(&error, "lock", &path, Code::DbError);
            match error.kind() {
                PermissionDenied if path.exists() => {
                    failed.hint("give it the group and the mode of the database")
                }
                PermissionDenied => failed.hint("run apikey as a user who may write the folder"),
                _ => failed,
            }
        };
        let start = Instant::now();
        loop {
            let file = open_file(&path).map_err(failed)?;
            let left = timeout.saturating_sub(start.elapsed());
            let Some(lock) = Self::acquire(file, left).map_err(failed)? else { return Ok(None) };
            if lock.is_at(&path).map_err(failed)? {
                share_with_writers(&lock.file, location.path())?;
                return Ok(Some(lock));
            }
            if start.elapsed() >= timeout {
                return Ok(None);
            }
        }
    }

    /// Waits up to `timeout` for the lock on `file`. `None` where the time is over.
    fn acquire(file: File, timeout: Duration) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(WriteLock { file })),
            Err(TryLockError::WouldBlock) if timeout.is_zero() => Ok(None),
            // When the time is over first, the thread that waits gets it later, and lets go of it.
            Err(TryLockError::WouldBlock) => {
                within(timeout, move || file.lock().map(|()| WriteLock { file }))?.transpose()
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether the file that is locked is the one at `path`, and was not removed or replaced meanwhile.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let locked = self.file.metadata()?;
        match path.symlink_metadata() {
            Ok(found) => Ok((found.dev(), found.ino()) == (locked.dev(), locked.ino())),
            Err(error) if error.kind() == NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Opens the file of the lock, which is made 0600 where it is missing.
pub fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// Lets whoever may write the database take the lock on `file`, and nobody who may only read it: a lock
/// held for ever would keep every writer out. Whatever the umask left of a new file, too.
pub fn share_with_writers(file: &File, database: &Path) -> Result<()> {
    let failed =
        |error: io::Error| Error::io(&error, "share the lock with the writers of", database, Code::DbError);
    let group_writes = match database.symlink_metadata() {
        Ok(found) => found.mode() & WRITABLE_BY_GROUP != 0,
        Err(error) if error.kind() == NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    let wanted = if group_writes { 0o660 } else { 0o600 };
    let found = file.metadata().map_err(failed)?;
    if found.mode() & 0o777 != wanted && found.uid() == geteuid().as_raw() {
        file.set_permissions(Permissions::from_mode(wanted)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is_not_known_who_may_write_the_database_the_lock_is_not_shared() {
        let folder = crate::store::tests::folder();
        let lock = open_file(&folder.path().join("lock")).unwrap();
        // No database yet: it is made next.
        share_with_writers(&lock, &folder.path().join("keys.db")).unwrap();
        let error = share_with_writers(&lock, &folder.path().join("lock/keys.db")).unwrap_err();
        assert!(error.to_string().contains("share the lock with the writers of"), "{error}");
    }
}
