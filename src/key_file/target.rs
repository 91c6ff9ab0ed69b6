//! The file system's side of a delivery.
//!
//! - The folder is opened once, checked, and everything goes through that handle: a link that
//!   somebody swaps afterwards redirects nothing.
//! - The new content is staged in the same folder: made 0600 and not there before (`O_EXCL`), then
//!   given owner and mode, and only then the key. A rename puts it in place, so that a reader sees
//!   the whole old key or the whole new one.
//! - Nothing is replaced but a key file, or an empty file: whatever else is there stays.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};

use super::{Content, KeyFile, Owner};
use crate::key::{Key, KeyHash};
use crate::trust::{Obstacle, Trusted};

type Result<T> = std::result::Result<T, Obstacle>;

/// A key file whose folder is open, and the stage of one delivery to it.
pub struct Target<'a> {
    key_file: &'a KeyFile,
    folder: File,
    /// Whose files may be replaced, besides the caller's.
    owners: [Option<u32>; 2],
    stage: PathBuf,
}

impl<'a> Target<'a> {
    /// Opens the folder of `key_file`, for the delivery of the key with this prefix. The file that
    /// is there may belong to `previous_owner` too.
    pub fn open(key_file: &'a KeyFile, prefix: &str, previous_owner: Option<Owner>) -> Result<Self> {
        let stage = stage_of(&key_file.path, prefix);
        let owners = [key_file.owner, previous_owner].map(|owner| owner.map(|owner| owner.uid));
        let path = stage.parent().unwrap_or(Path::new("/"));
        let trusted = Trusted::with(owners);
        let folder = open_folder(path, trusted)?;
        let found = folder
            .metadata()
            .map_err(|error| obstacle(format!("cannot look at the folder {}: {error}", path.display())))?;
        trusted.check_folder(path, &found)?;
        Ok(Target { key_file, folder, owners, stage })
    }

    /// The name of the key file in its folder.
    pub fn name(&self) -> &OsStr {
        name(&self.key_file.path)
    }

    /// Where the new key is staged.
    pub fn stage(&self) -> &Path {
        &self.stage
    }

    /// Checks that what is there now, if anything, may be replaced.
    pub fn check_replaceable(&self) -> Result<()> {
        let path = &self.key_file.path;
        let shown = path.display();
        let Some(found) = self.status(path)? else { return Ok(()) };
        let kind = match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => None,
            SFlag::S_IFLNK => Some("a symbolic link"),
            SFlag::S_IFIFO => Some("a FIFO"),
            SFlag::S_IFDIR => Some("a folder"),
            SFlag::S_IFSOCK => Some("a socket"),
            _ => Some("a device"),
        };
        if let Some(kind) = kind {
            return Err(obstacle(format!("{shown} is {kind}, not a key file")));
        }
        if found.st_nlink != 1 {
            return Err(obstacle(format!("{shown} has {} hard links, a key file has one", found.st_nlink)));
        }
        let owner = found.st_uid;
        if owner != geteuid().as_raw() && !self.owners.contains(&Some(owner)) {
            return Err(obstacle(format!(
                "{shown} belongs to uid {owner}, not to you or the owner asked for"
            )));
        }
        if is_mount_point(path) {
            return Err(mounted(path));
        }
        match self.read(path)? {
            Content::Nothing | Content::Key(_) => Ok(()),
            Content::SomethingElse => Err(obstacle(format!("{shown} holds something else than a key"))),
        }
    }

    /// Stages `key`: when this returns, the stage is on the disk, whole, with its owner and mode.
    pub fn write_stage(&self, key: &Key) -> Result<()> {
        let failed = |doing: &str, error: io::Error| {
            obstacle(format!("cannot {doing} {}: {error}", self.stage.display()))
        };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, name(&self.stage), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| failed("make", error.into()))?;
        let mut file = File::from(file);
        if let Some(owner) = self.key_file.owner {
            fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
                .map_err(|error| failed("change the owner of", error.into()))?;
        }
        let mode = Permissions::from_mode(self.key_file.mode.bits());
        file.set_permissions(mode).map_err(|error| failed("set the permissions of", error))?;
        file.write_all(&self.key_file.content(key)).map_err(|error| failed("write", error))?;
        file.sync_all().map_err(|error| failed("sync", error))
    }

    /// Puts the stage in the place of the key file.
    pub fn replace(&self) -> Result<()> {
        let path = &self.key_file.path;
        renameat(&self.folder, name(&self.stage), &self.folder, name(path)).map_err(|error| match error {
            Errno::EBUSY => mounted(path),
            error => obstacle(format!("cannot replace {}: {}", path.display(), io::Error::from(error))),
        })
    }

    /// Makes the replacement last: when this returns, a power cut does not undo it.
    pub fn sync(&self) -> Result<()> {
        self.folder
            .sync_all()
            .map_err(|error| obstacle(format!("cannot sync the folder of {}: {error}", self.key_file.path())))
    }

    /// Whether the key file holds the key with this hash.
    pub fn holds(&self, hash: &str) -> Result<bool> {
        Ok(self.held()?.is_some_and(|held| held.matches(hash)))
    }

    /// The hash of the key that the key file holds.
    pub fn held(&self) -> Result<Option<KeyHash>> {
        self.key_in(&self.key_file.path)
    }

    /// Whether the stage is there, whole, and holds the key with this hash.
    pub fn is_staged(&self, hash: &str) -> Result<bool> {
        Ok(self.key_in(&self.stage)?.is_some_and(|staged| staged.matches(hash)))
    }

    /// Checks that a key that is neither in the file nor whole in its stage is lost: a part of the
    /// stage is there, or the file still holds the `current` one. Anything else proves nothing:
    /// perhaps another file system is mounted here, or none.
    pub fn check_is_lost(&self, current: Option<&str>) -> Result<()> {
        let holds_current = || current.map_or(Ok(false), |current| self.holds(current));
        if self.status(&self.stage)?.is_some() || holds_current()? {
            return Ok(());
        }
        let stage = self.stage.display();
        Err(obstacle(match self.status(&self.key_file.path)? {
            None => format!("neither it nor {stage} is there; is their file system mounted?"),
            Some(_) => {
                format!("it holds no current key, and {stage} is gone; is another file system mounted?")
            }
        }))
    }

    /// Whether its folder is the one at `path`, by whichever name.
    pub fn is_in(&self, path: &Path) -> Result<bool> {
        let failed = |error: io::Error| obstacle(format!("cannot look at {}: {error}", path.display()));
        let (folder, other) = (self.folder.metadata().map_err(failed)?, path.metadata().map_err(failed)?);
        Ok((folder.dev(), folder.ino()) == (other.dev(), other.ino()))
    }

    /// Removes the stage, where there is one.
    pub fn remove_stage(&self) -> Result<()> {
        match unlinkat(&self.folder, name(&self.stage), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => {
                Err(obstacle(format!("cannot remove {}: {}", self.stage.display(), io::Error::from(error))))
            }
        }
    }

    fn key_in(&self, path: &Path) -> Result<Option<KeyHash>> {
        match self.status(path)? {
            Some(found) if found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {
                match self.read(path)? {
                    Content::Key(key) => Ok(Some(key.hash())),
                    Content::Nothing | Content::SomethingElse => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn status(&self, path: &Path) -> Result<Option<FileStat>> {
        match fstatat(&self.folder, name(path), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => {
                Err(obstacle(format!("cannot look at {}: {}", path.display(), io::Error::from(error))))
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Content> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.folder, name(path), flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| Content::read(File::from(file)))
            .map_err(|error| obstacle(format!("cannot read {}: {error}", path.display())))
    }
}

/// The stage for a key that goes to the file at `path`: `.NAME.PREFIX`, beside it.
pub fn stage_of(path: &Path, prefix: &str) -> PathBuf {
    let file_name = name(path).to_string_lossy();
    path.with_file_name(format!(".{file_name}.{prefix}"))
}

/// Whether `path` has the form of a stage.
pub fn is_stage(path: &Path) -> bool {
    let name = name(path).to_string_lossy();
    let prefix = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).map(|(_, prefix)| prefix);
    path.is_absolute() && prefix.is_some_and(Key::is_prefix)
}

/// Opens the folder at `path`, absolute and with no link in it, one name at a time. Each folder is
/// checked through the handle in which the next one is opened: nobody can swap what was checked.
fn open_folder(path: &Path, trusted: Trusted) -> Result<File> {
    let failed = |error: io::Error| obstacle(format!("cannot open the folder {}: {error}", path.display()));
    let only = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &Path, flags| {
        openat(at, name, flags, Mode::empty()).map(File::from).map_err(|error| failed(error.into()))
    };
    let mut folder = open(AT_FDCWD, Path::new("/"), only | OFlag::O_PATH)?;
    let mut walked = PathBuf::from("/");
    for name in path.components().skip(1) {
        trusted.check_way(&walked, &folder.metadata().map_err(failed)?)?;
        folder = open(folder.as_fd(), name.as_ref(), only | OFlag::O_PATH)?;
        walked.push(name);
    }
    open(folder.as_fd(), Path::new("."), only | OFlag::O_RDONLY)
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Whether something is mounted at `path`, which cannot be replaced then. Where /proc does not say,
/// the rename will.
fn is_mount_point(path: &Path) -> bool {
    // proc_pid_mountinfo(5): the fifth field, with blanks and backslashes in octal.
    let escapes = [('\\', "\\134"), (' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")];
    let escaped =
        escapes.iter().fold(path.to_string_lossy().into_owned(), |path, (c, octal)| path.replace(*c, octal));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

fn mounted(path: &Path) -> Obstacle {
    Obstacle {
        reason: format!("{} is a mount point, and no mount point can be replaced", path.display()),
        hint: "mount its folder instead of the file".into(),
    }
}

fn obstacle(reason: String) -> Obstacle {
    Obstacle { reason, hint: "see to that, or name another file with --key-file".into() }
}
