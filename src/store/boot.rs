//! The log's index (`-shm`) is believed only where it was made in this boot of the host.
//!
//! It is memory that processes share, and reaches the disk whenever the kernel likes. SQLite makes it anew
//! where nobody else has the database open, which byte 128 of it says: but a lock on that byte can be
//! taken by whoever may read. After a power cut the index on the disk may be an old one, and with such a
//! lock it would be believed: a key that was revoked since would be accepted again, and the next write
//! would make that last. So:
//!
//! - Which boot it was made in is noted in the file of the lock, which who may only read cannot write. A
//!   note that is not there, or not on the disk, costs no more than doing it again.
//! - Where the boot is another one, both copies of the index's header are overwritten with zeros, before
//!   SQLite has looked at it (`index.rs`). Whoever looks at it next reads the log instead, and makes it anew.
//! - A kill between that and the next look leaves a header that only who may write can mend. A reader that
//!   may not is refused until then, where somebody else has the database open: once a boot, if ever.
//! - Where byte 120 is held for longer than the caller would wait, the database is not opened: what is in
//!   the index may be old.
//!
//! Who may only read cannot do it. What asks by SQL alone can be deceived until the first run of whoever
//! may write; so can everybody where there is no `/proc` to tell the boot.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::holder::Waited;
use super::index::Index;
use super::lock::{open_file, share_with_writers};
use super::{Location, failure};
use crate::error::{Code, Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A UUID and a line's end.
type BootId = [u8; 37];

/// Makes sure that the index of the database at `location`, which the caller may write, is of this boot.
/// Fails with [`Code::DbLocked`] when the time is over.
pub fn make_sure_of_index(location: &Location, timeout: Duration) -> Result<()> {
    let Some(boot) = read_id(BOOT_ID.as_ref()) else { return Ok(()) };
    if read_id(&location.side_file("-lock")) == Some(boot) {
        return Ok(());
    }
    if forget_index(location, timeout)? {
        // Where that fails, the next run does it again.
        drop(note(location, &boot));
    }
    Ok(())
}

fn read_id(path: &Path) -> Option<BootId> {
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).ok()?;
    let mut id = [0; 37];
    file.read_exact(&mut id).ok().map(|()| id)
}

fn note(location: &Location, boot: &BootId) -> Result<()> {
    let path = location.side_file("-lock");
    let failed = |error: io::Error| Error::io(&error, "write", &path, Code::DbError);
    let file = open_file(&path).map_err(failed)?;
    share_with_writers(&file, location.path())?;
    file.write_all_at(boot, 0).and_then(|()| file.set_len(boot.len() as u64)).map_err(failed)
}

/// Makes the header of the index invalid, where there is an index. `false` where it may only be read.
fn forget_index(location: &Location, timeout: Duration) -> Result<bool> {
    let path = location.side_file("-shm");
    let failed = |error: io::Error| Error::io(&error, "make anew", &path, Code::DbError);
    let index = match Index::open(&path) {
        Ok(index) => index,
        // Whoever makes one makes it in this boot.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            return Ok(false);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut is_of_this_boot = index.is_of_this_boot.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_of_this_boot {
        if !index.forget(timeout).map_err(failed)? {
            return Err(failure::locked(location, Waited::ForDatabase));
        }
        *is_of_this_boot = true;
    }
    Ok(true)
}
