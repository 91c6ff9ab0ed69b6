//! A folder in which files are replaced whole or not at all.
//!
//! The folder is opened once, checked, and everything goes through that handle: a link that somebody
//! swaps afterwards redirects nothing. A new file is made 0600 and not there before (`O_EXCL`), and a
//! rename puts it in place, so that a reader sees the whole old content or the whole new one.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat, renameat2,
};
use nix::sys::stat::{FileStat, Mode, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::error::{Code, Error};
use crate::random;
use crate::trust::{Links, Obstacle, Trusted, Unresolved, folder_and_name, resolve, what_to_do};

const ONLY_A_FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A folder that is open, and that nobody but those who are trusted may write.
#[derive(Debug)]
pub struct Folder(File);

/// The folders above the one that was opened last, from the root down: who opens many goes through each once.
#[derive(Debug, Default)]
pub struct Way(Vec<(PathBuf, File, Metadata)>);

impl Way {
    /// Opens the folder at `path`, absolute and with no link in it, one name at a time. Each folder is
    /// checked through the handle in which the next one is opened: nobody can swap what was checked.
    pub fn open(&mut self, path: &Path, trusted: Trusted) -> Result<Folder, Obstacle> {
        let failed = |error: io::Error| Obstacle {
            reason: format!("cannot open the folder {}: {error}", path.display()),
            hint: format!("{}, or use another folder", what_to_do(&error)),
        };
        let open = |walked: &[(PathBuf, File, Metadata)], at: &Path, flags| {
            let opened = match (walked.last(), at.file_name()) {
                (Some((_, above, _)), Some(name)) => {
                    openat(above, name, ONLY_A_FOLDER | flags, Mode::empty())
                }
                _ => openat(AT_FDCWD, at, ONLY_A_FOLDER | flags, Mode::empty()),
            };
            opened.map(File::from).map_err(|error| failed(error.into()))
        };
        let Way(walked) = self;
        walked.truncate(walked.iter().take_while(|(at, ..)| path != at && path.starts_with(at)).count());
        for (at, _, found) in &*walked {
            trusted.check_way(at, found)?;
        }
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for at in above.into_iter().rev().skip(walked.len()) {
            let folder = open(walked, at, OFlag::O_PATH)?;
            let found = folder.metadata().map_err(failed)?;
            trusted.check_way(at, &found)?;
            walked.push((at.to_owned(), folder, found));
        }
        let folder = open(walked, path, OFlag::O_RDONLY)?;
        trusted.check_folder(path, &folder.metadata().map_err(failed)?)?;
        Ok(Folder(folder))
    }
}

impl Folder {
    /// Opens the folder at `path`, absolute and with no link in it, likewise.
    pub fn open(path: &Path, trusted: Trusted) -> Result<Self, Obstacle> {
        Way::default().open(path, trusted)
    }

    /// The folder of a file that is to be written at `path`, and that path, absolute and with no link in it: they
    /// are followed now, once. Nobody but root and the caller may write there.
    ///
    /// Fails with [`Code::Usage`] where `path` names a folder or there is none for it, with [`Code::Forbidden`]
    /// where others may write it.
    pub fn of(path: &Path) -> crate::error::Result<(Self, PathBuf)> {
        let forbidden = |obstacle: Obstacle| Error::new(Code::Forbidden, obstacle.reason).hint(obstacle.hint);
        let (folder, name) = folder_and_name(path)
            .ok_or_else(|| Error::new(Code::Usage, format!("{} names a folder", path.display())))?;
        let resolved = resolve(folder, Links::OfTrusted).map_err(|error| match error {
            Unresolved::Io(error) => {
                Error::io(&error, "open the folder", folder, Code::Usage).hint(what_to_do(&error))
            }
            Unresolved::Obstacle(obstacle) => forbidden(obstacle),
        })?;
        let opened = Folder::open(&resolved, Trusted::with([None; 3])).map_err(forbidden)?;
        Ok((opened, resolved.join(name)))
    }

    /// A name beside `name` that nothing has: `.NAME.` and 12 hex digits that are drawn.
    pub fn unused_name(name: &OsStr) -> crate::error::Result<OsString> {
        let mut number = [0; 6];
        random::fill(&mut number)?;
        Ok(format!(".{}.{}", name.display(), hex::encode(number)).into())
    }

    /// Whether it is the one at `path`, by whichever name.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (own, other) = (self.0.metadata()?, path.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// What is there by this name, a link for itself; `None` where there is nothing.
    pub fn status(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether something is mounted in this place, which cannot be replaced then: openat2(2) does not go there.
    /// Where the kernel is older than that call, the rename will say so.
    pub fn is_mount_point(&self, name: &OsStr) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV);
        matches!(openat2(&self.0, name, how), Err(Errno::EXDEV))
    }

    /// Opens a file to read it; no link is followed, and no FIFO waited for.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes a file that was not there before, 0600 whatever the umask.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Puts one file in the place of another, or of none.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Gives a file another name, which nothing has yet.
    pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match renameat2(&self.0, from, &self.0, to, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems have no such call, NFS among them, but the same in two.
            Err(Errno::EINVAL) => {
                linkat(&self.0, from, &self.0, to, AtFlags::empty())?;
                self.remove(from)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Removes a file, where there is one.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what was renamed or removed last: when this returns, a power cut does not undo it.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// The names in it.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut opened = Dir::openat(&self.0, ".", ONLY_A_FOLDER, Mode::empty())?;
        let names =
            opened.iter().map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()));
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::DirBuilder;
    use std::os::unix::fs::{DirBuilderExt as _, symlink};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::stat::mkdirat;
    use tempfile::TempDir;

    use super::*;

    /// One that nobody else may write, whatever the umask is.
    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    fn opened(path: &Path) -> Result<Folder, Obstacle> {
        Folder::open(path, Trusted::with([None; 3]))
    }

    /// How a file was opened, and what becomes of it in another program.
    fn flags_of(file: &File) -> (OFlag, FdFlag) {
        let of_file = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap());
        (of_file, FdFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFD).unwrap()))
    }

    #[test]
    fn a_file_is_opened_with_no_link_followed_and_without_waiting_and_kept_from_other_programs() {
        let (_folder, path) = folder();
        std::fs::write(path.join("file"), "").unwrap();
        symlink("file", path.join("link")).unwrap();
        let folder = opened(&path).unwrap();
        assert_eq!(folder.read("link".as_ref()).unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        let (of_file, of_handle) = flags_of(&folder.read("file".as_ref()).unwrap());
        assert!(of_file.contains(OFlag::O_NONBLOCK) && of_handle.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn a_file_is_made_where_nothing_is_and_kept_from_other_programs() {
        let (_folder, path) = folder();
        symlink("nothing", path.join("link")).unwrap();
        let folder = opened(&path).unwrap();
        let (_, of_handle) = flags_of(&folder.create("file".as_ref()).unwrap());
        assert!(of_handle.contains(FdFlag::FD_CLOEXEC));
        for name in ["file", "link"] {
            let error = folder.create(name.as_ref()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
    }

    #[test]
    fn a_mount_point_is_one_and_a_link_to_another_file_system_is_none() {
        assert!(opened(Path::new("/")).unwrap().is_mount_point("proc".as_ref()));
        let (_folder, path) = folder();
        symlink("/proc/version", path.join("link")).unwrap();
        nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
        let folder = opened(&path).unwrap();
        for name in ["link", "fifo", "nothing"] {
            assert!(!folder.is_mount_point(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_folder_is_opened_one_name_at_a_time_so_that_none_above_it_can_be_swapped() {
        let (_folder, mut path) = folder();
        let mut above = File::open(&path).unwrap();
        let name = "n".repeat(250);
        // No call takes so long a path at once.
        while path.as_os_str().len() < 5000 {
            mkdirat(&above, name.as_str(), Mode::S_IRWXU).unwrap();
            above = openat(&above, name.as_str(), ONLY_A_FOLDER, Mode::empty()).unwrap().into();
            path.push(&name);
        }
        assert!(opened(&path).is_ok());
    }

    #[test]
    fn a_link_on_the_way_to_a_folder_is_not_followed() {
        let (_folder, path) = folder();
        DirBuilder::new().mode(0o700).recursive(true).create(path.join("real/below")).unwrap();
        symlink("real", path.join("link")).unwrap();
        for (way, opens) in [("real", true), ("real/below", true), ("link", false), ("link/below", false)] {
            assert_eq!(opened(&path.join(way)).is_ok(), opens, "{way}");
        }
        std::fs::write(path.join("file"), "").unwrap();
        assert!(opened(&path.join("file")).unwrap_err().reason.contains("Not a directory"));
    }
}
