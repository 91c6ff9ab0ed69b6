//! The file system's side of a delivery.
//!
//! - The new content is staged beside the key file, as `.NAME.PREFIX`: given owner and mode, and only
//!   then the key. A rename puts it in place.
//! - Nothing is replaced but a key file, or an empty file: whatever else is there stays. Nothing is
//!   removed but a regular file that is named as a stage of this file, and not where it holds the whole
//!   of another key than the one it is named after.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Uid, fchown, geteuid};

use super::{Content, Folder, KeyFile, Owner, Way};
use crate::key::{Key, KeyHash, Prefix};
use crate::trust::{Obstacle, Trusted};

type Result<T> = std::result::Result<T, Obstacle>;

/// A key file whose folder is open.
#[derive(Debug)]
pub struct Target {
    pub(super) key_file: KeyFile,
    pub(super) folder: Folder,
    /// Whose files may be replaced, besides the caller's.
    owners: [Option<u32>; 3],
}

/// A file in which a key is staged, as its name says.
#[derive(Debug)]
pub struct Stage {
    pub path: PathBuf,
    pub prefix: Prefix,
    /// Which file it is for.
    pub key_file: PathBuf,
}

impl Target {
    /// Opens the folder of `key_file`. The file that is there may belong to one of the
    /// `previous_owners` too.
    pub fn open(key_file: &KeyFile, previous_owners: [Option<Owner>; 2]) -> Result<Self> {
        Self::open_by(&mut Way::default(), key_file, previous_owners)
    }

    /// The same, for who opens many.
    pub fn open_by(way: &mut Way, key_file: &KeyFile, previous_owners: [Option<Owner>; 2]) -> Result<Self> {
        let [one, other] = previous_owners;
        let owners = [key_file.owner, one, other].map(|owner| owner.map(|owner| owner.uid));
        let folder = key_file.path.parent().unwrap_or(Path::new("/"));
        let folder = way.open(folder, Trusted::with(owners))?;
        Ok(Target { key_file: key_file.clone(), folder, owners })
    }

    /// Whether a file of this user's may be replaced.
    pub(super) fn may_be(&self, uid: u32) -> bool {
        uid == geteuid().as_raw() || self.owners.contains(&Some(uid))
    }

    /// Where the key file is.
    pub fn path(&self) -> &Path {
        &self.key_file.path
    }

    /// The name of the key file in its folder.
    pub fn name(&self) -> &OsStr {
        self.key_file.path.file_name().unwrap_or_default()
    }

    /// Where the key with this prefix is staged.
    pub fn stage(&self, prefix: Prefix) -> PathBuf {
        self.key_file.path.with_file_name(self.stage_name(prefix))
    }

    pub(super) fn stage_name(&self, prefix: Prefix) -> OsString {
        let mut name = OsString::from_vec(self.stage_start());
        name.push(prefix.to_string());
        name
    }

    /// What the name of every stage of this file begins with.
    fn stage_start(&self) -> Vec<u8> {
        [b".", self.name().as_bytes(), b"."].concat()
    }

    /// Checks that what is there now, if anything, may be replaced. Returns the key in it.
    pub fn check_replaceable(&self) -> Result<Option<Key>> {
        if !self.check_is_file()? {
            return Ok(None);
        }
        match self.content(self.name())? {
            Content::Nothing => Ok(None),
            Content::Key(key) => Ok(Some(key)),
            Content::SomethingElse => {
                Err(obstacle(format!("{} holds something else than a key", self.key_file.path.display())))
            }
        }
    }

    /// Checks that what is there now, if anything, is a file that may be replaced for all but its content.
    pub(super) fn check_is_file(&self) -> Result<bool> {
        let path = &self.key_file.path;
        let shown = path.display();
        let Some(found) = self.folder.status(self.name()).map_err(cannot("look at", path))? else {
            return Ok(false);
        };
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
        if !self.may_be(owner) {
            return Err(obstacle(format!(
                "{shown} belongs to uid {owner}, not to you or the owner asked for"
            )));
        }
        if self.folder.is_mount_point(self.name()) {
            return Err(mounted(path));
        }
        Ok(true)
    }

    /// Stages `key`: when this returns, the stage is on the disk, whole, with its owner and mode.
    pub fn write_stage(&self, key: &Key) -> Result<()> {
        let stage = self.stage(key.prefix());
        let mut file = self.folder.create(&self.stage_name(key.prefix())).map_err(cannot("make", &stage))?;
        if let Some(owner) = self.key_file.owner {
            fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
                .map_err(|error| cannot("change the owner of", &stage)(error.into()))?;
        }
        let mode = Permissions::from_mode(self.key_file.mode.bits());
        file.set_permissions(mode).map_err(cannot("set the permissions of", &stage))?;
        file.write_all(&self.key_file.content(key)).map_err(cannot("write", &stage))?;
        file.sync_all().map_err(cannot("sync", &stage))
    }

    /// Puts the stage of the key with this prefix in the place of the key file.
    pub fn put_in_place(&self, prefix: Prefix) -> Result<()> {
        let path = &self.key_file.path;
        self.folder.rename(&self.stage_name(prefix), self.name()).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBUSY) => mounted(path),
                _ => cannot("replace", path)(error),
            }
        })
    }

    /// Makes the replacement last: when this returns, a power cut does not undo it.
    pub fn sync(&self) -> Result<()> {
        self.folder.sync().map_err(cannot("sync the folder of", &self.key_file.path))
    }

    /// Whether the key file holds the key with this hash.
    pub fn holds(&self, hash: &KeyHash) -> Result<bool> {
        self.is_key_in(self.name(), hash)
    }

    /// Whether the stage of the key with this prefix and hash is there, whole.
    pub fn is_staged(&self, prefix: Prefix, hash: &KeyHash) -> Result<bool> {
        self.is_key_in(&self.stage_name(prefix), hash)
    }

    /// Checks that a key that is neither in the file nor whole in its stage is lost: a part of the
    /// stage is there, or the file still holds the `current` one. Anything else proves nothing:
    /// perhaps another file system is mounted here, or none.
    pub fn check_is_lost(&self, prefix: Prefix, current: Option<&KeyHash>) -> Result<()> {
        let stage = self.stage(prefix);
        let staged = self.folder.status(&self.stage_name(prefix)).map_err(cannot("look at", &stage))?;
        if staged.is_some() || current.map_or(Ok(false), |current| self.holds(current))? {
            return Ok(());
        }
        let (stage, path) = (stage.display(), &self.key_file.path);
        Err(obstacle(match self.folder.status(self.name()).map_err(cannot("look at", path))? {
            None => format!("neither it nor {stage} is there; is their file system mounted?"),
            Some(_) => {
                format!("it holds no current key, and {stage} is gone; is another file system mounted?")
            }
        }))
    }

    /// Whether its folder is the one at `path`, by whichever name.
    pub fn is_in(&self, path: &Path) -> Result<bool> {
        self.folder.is_at(path).map_err(cannot("look at", path))
    }

    /// The device and the inode of what is there now, a link for itself.
    pub fn device_and_inode(&self) -> Result<Option<(u64, u64)>> {
        let found = self.folder.status(self.name()).map_err(cannot("look at", &self.key_file.path))?;
        Ok(found.map(|found| (found.st_dev, found.st_ino)))
    }

    /// Removes the stage of the key with this prefix, where there is one: but not what holds a whole
    /// key and not that one.
    pub fn remove_stage(&self, prefix: Prefix) -> Result<()> {
        let (name, stage) = (self.stage_name(prefix), self.stage(prefix));
        match self.folder.status(&name).map_err(cannot("look at", &stage))? {
            Some(found) if is_regular(found.st_mode) => {}
            _ => return Ok(()),
        }
        match self.content(&name)? {
            Content::Key(key) if key.prefix() != prefix => Ok(()),
            _ => self.folder.remove(&name).map_err(cannot("remove", &stage)),
        }
    }

    /// The prefixes of the keys of which a stage of this file is there.
    pub fn staged(&self) -> Result<Vec<Prefix>> {
        let start = self.stage_start();
        let prefix_in = |name: &OsString| {
            str::from_utf8(name.as_bytes().strip_prefix(start.as_slice())?).ok()?.parse().ok()
        };
        let names = self.folder.names().map_err(cannot("list the folder of", &self.key_file.path))?;
        Ok(names.iter().filter_map(prefix_in).collect())
    }

    /// What is staged in the folder of the key file, for whichever file there.
    pub fn stages(&self) -> Result<Vec<Stage>> {
        let path = &self.key_file.path;
        let names = self.folder.names().map_err(cannot("list the folder of", path))?;
        let stage = |name: OsString| {
            let (start, end) = name.to_str()?.rsplit_once('.')?;
            let (key_file, prefix) = (start.strip_prefix('.')?, end.parse().ok()?);
            let at = |name: &str| path.with_file_name(name);
            Some(Stage { path: at(name.to_str()?), prefix, key_file: at(key_file) })
        };
        Ok(names.into_iter().filter_map(stage).collect())
    }

    fn is_key_in(&self, name: &OsStr, hash: &KeyHash) -> Result<bool> {
        let path = self.key_file.path.with_file_name(name);
        match self.folder.status(name).map_err(cannot("look at", &path))? {
            Some(found) if is_regular(found.st_mode) => {
                Ok(matches!(self.content(name)?, Content::Key(key) if key.hash().matches(hash)))
            }
            _ => Ok(false),
        }
    }

    fn content(&self, name: &OsStr) -> Result<Content> {
        let path = self.key_file.path.with_file_name(name);
        self.folder.read(name).and_then(Content::read).map_err(cannot("read", &path))
    }
}

fn is_regular(mode: u32) -> bool {
    mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()
}

fn mounted(path: &Path) -> Obstacle {
    Obstacle {
        reason: format!("{} is a mount point, and no mount point can be replaced", path.display()),
        hint: "mount its folder instead of the file".into(),
    }
}

pub(super) fn cannot<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Obstacle + Copy + 'a {
    move |error| obstacle(format!("cannot {doing} {}: {error}", path.display()))
}

pub(super) fn obstacle(reason: String) -> Obstacle {
    Obstacle { reason, hint: "see to that, or name another file with --key-file".into() }
}
