//! Who can change what a path names.
//!
//! A path is safe to open where every folder on it belongs to someone trusted and nobody else may
//! write it, but for the group that is the caller's alone, as many a user has one. Whether it is, `/etc/passwd`
//! and the list of its members say; a directory service may know of others whose own group it is, and is
//! not asked for all that it knows. Where a folder has an
//! access control list its group's permissions are those of whoever is on the list (acl(5)); so
//! nobody's group may write where root is to work. A sticky folder such as `/tmp` will do further up:
//! there, others can add names but not take one away. The last folder is held to more, since in it
//! the names themselves are made.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Group, User, getegid, geteuid};

pub const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
const PASSWD: &str = "/etc/passwd";
/// As many as Linux follows: path_resolution(7).
const MOST_LINKS: u32 = 40;

/// Whose files and folders are safe: root's, the caller's, those of up to three more, and those of a
/// group.
#[derive(Clone, Copy, Debug)]
pub struct Trusted {
    also: [Option<u32>; 3],
    group: Option<u32>,
}

/// What stands in the way of using a path, and what to do about it.
#[derive(Debug)]
pub struct Obstacle {
    /// What is wrong, with what.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl Trusted {
    /// Root, the caller, and the users with these uids.
    pub fn with(also: [Option<u32>; 3]) -> Self {
        Trusted { also, group: None }
    }

    /// The same, and whatever belongs to the group with this gid.
    pub fn and_group(self, group: Option<u32>) -> Self {
        Trusted { group, ..self }
    }

    /// Checks whose `found` is, which `path` names.
    pub fn check_owner(self, path: &Path, found: &Metadata) -> Result<(), Obstacle> {
        let uid = found.uid();
        let of_group = self.group == Some(found.gid());
        if uid == 0 || uid == geteuid().as_raw() || self.also.contains(&Some(uid)) || of_group {
            return Ok(());
        }
        Err(Obstacle {
            reason: format!("{} belongs to uid {uid}, who could swap it", path.display()),
            hint: "run apikey as that user, or give it and the folders above it to root".into(),
        })
    }

    /// Checks every folder above `folder`, an absolute path with no link in it.
    pub fn check_above(self, folder: &Path) -> Result<(), Obstacle> {
        folder.ancestors().skip(1).try_for_each(|above| self.check_way(above, &look_at(above)?))
    }

    /// Checks one folder that a path leads through.
    pub fn check_way(self, above: &Path, found: &Metadata) -> Result<(), Obstacle> {
        if found.mode() & STICKY != 0 {
            self.check_owner(above, found)
        } else {
            self.check_folder(above, found)
        }
    }

    /// Checks a folder in which names are made: nobody may write it but its owner, the group that is the
    /// caller's alone, and the one that was named.
    pub fn check_folder(self, folder: &Path, found: &Metadata) -> Result<(), Obstacle> {
        self.check_owner(folder, found)?;
        check_others_may_not_write(folder, found)?;
        check_group_may_not_write(folder, found).or_else(|obstacle| {
            let of_trusted = self.group == Some(found.gid()) || is_the_caller_s_alone(found.gid());
            if of_trusted { Ok(()) } else { Err(obstacle) }
        })
    }
}

/// Whether a group is the one that was made for the caller: it has the same name, nobody else was added to
/// it, and nobody else has it as their own. Root's own is no such group: it is made for more than that.
fn is_the_caller_s_alone(gid: u32) -> bool {
    if geteuid().is_root() || gid != getegid().as_raw() {
        return false;
    }
    match (User::from_uid(geteuid()), Group::from_gid(getegid()), fs::read(PASSWD)) {
        (Ok(Some(caller)), Ok(Some(group)), Ok(passwd)) => {
            is_alone_in(&group, &caller.name, caller.uid.as_raw(), &String::from_utf8_lossy(&passwd))
        }
        _ => false,
    }
}

/// Whether nobody but this user is in a group of the same name, where `passwd` is as passwd(5) says.
fn is_alone_in(group: &Group, user: &str, uid: u32, passwd: &str) -> bool {
    group.name == user
        && group.mem.iter().all(|member| member == user)
        && is_nobody_else_s(passwd, group.gid.as_raw(), uid)
}

/// Whether in `passwd` nobody but the user with this uid has the group as their own.
fn is_nobody_else_s(passwd: &str, gid: u32, uid: u32) -> bool {
    let ids = |line: &str| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    };
    passwd.lines().filter_map(ids).all(|(theirs, own)| own != gid || theirs == uid)
}

/// The folder of the file at `path`, and its name; `None` where `path` names a folder.
pub fn folder_and_name(path: &Path) -> Option<(&Path, &OsStr)> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"))?;
    let folder = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    Some((folder, name))
}

/// Whose links may be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Those of root and the caller, in folders that nobody else may write.
    OfTrusted,
    /// Any.
    OfAnybody,
}

/// Why a path could not be followed to its end.
#[derive(Debug)]
pub enum Unresolved {
    Io(io::Error),
    Obstacle(Obstacle),
}

/// What to do where a folder cannot be opened for this reason, other than to use another.
pub fn what_to_do(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "make the folder",
        ErrorKind::PermissionDenied => "give yourself permission to search the folders on the way to it",
        ErrorKind::NotADirectory => "move away what lies in the place of a folder",
        ErrorKind::InvalidFilename => "use shorter names",
        _ => "see to that",
    }
}

/// `folder` as an absolute path with no link in it. What is a link on the way can't be swapped by
/// anybody but those whose links are followed; the rest of the way is for who opens it to check.
pub fn resolve(folder: &Path, links: Links) -> Result<PathBuf, Unresolved> {
    let trusted = Trusted::with([None; 3]);
    let absolute = std::path::absolute(folder).map_err(Unresolved::Io)?;
    let mut names: Vec<OsString> = parts(&absolute);
    let mut resolved = PathBuf::from("/");
    let mut followed = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let found = fs::symlink_metadata(&next).map_err(Unresolved::Io)?;
        if !found.is_symlink() {
            resolved = next;
            continue;
        }
        if links == Links::OfTrusted {
            let within = look_at(&resolved).and_then(|above| trusted.check_way(&resolved, &above));
            within.and_then(|()| trusted.check_owner(&next, &found)).map_err(Unresolved::Obstacle)?;
        }
        followed += 1;
        if followed > MOST_LINKS {
            return Err(Unresolved::Io(io::Error::from_raw_os_error(Errno::ELOOP as i32)));
        }
        let target = fs::read_link(&next).map_err(Unresolved::Io)?;
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        names.extend(parts(&target));
    }
    Ok(resolved)
}

/// The names in a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(named).map(|part| part.as_os_str().to_owned()).collect()
}

/// Checks that others may not write `found`, which `path` names.
pub fn check_others_may_not_write(path: &Path, found: &Metadata) -> Result<(), Obstacle> {
    check_not_writable(path, found, WRITABLE_BY_OTHERS, "others", "o")
}

/// Checks that the group may not write `found`, which `path` names.
pub fn check_group_may_not_write(path: &Path, found: &Metadata) -> Result<(), Obstacle> {
    check_not_writable(path, found, WRITABLE_BY_GROUP, "its group", "g")
}

/// What `path` itself is, not what it links to.
pub fn look_at(path: &Path) -> Result<Metadata, Obstacle> {
    fs::symlink_metadata(path).map_err(|error| Obstacle {
        reason: format!("cannot look at {}: {error}", path.display()),
        hint: what_to_do(&error).into(),
    })
}

fn check_not_writable(
    path: &Path,
    found: &Metadata,
    bit: u32,
    who: &str,
    class: &str,
) -> Result<(), Obstacle> {
    if found.mode() & bit == 0 {
        return Ok(());
    }
    let path = path.display();
    let hint = if found.is_dir() && bit == WRITABLE_BY_OTHERS {
        "use a folder that nobody else may write".into()
    } else {
        format!("chmod {class}-w {path}")
    };
    Err(Obstacle { reason: format!("{who} may write {path}"), hint })
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    fn folder(mode: u32) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn as_many_links_are_followed_as_linux_follows() {
        let (_folder, path) = folder(0o700);
        let mut end = path.clone();
        for number in 1..=MOST_LINKS + 1 {
            let link = path.join(number.to_string());
            symlink(&end, &link).unwrap();
            assert_eq!(resolve(&link, Links::OfAnybody).ok(), (number <= MOST_LINKS).then(|| path.clone()));
            assert_eq!(link.canonicalize().is_ok(), number <= MOST_LINKS);
            end = link;
        }
    }

    #[test]
    fn a_link_in_a_folder_that_others_may_write_is_followed_only_where_any_is() {
        let (_folder, path) = folder(0o777);
        let link = path.join("link");
        symlink("/", &link).unwrap();
        assert!(matches!(resolve(&link, Links::OfTrusted), Err(Unresolved::Obstacle(_))));
        assert_eq!(resolve(&link, Links::OfAnybody).unwrap(), Path::new("/"));
    }

    #[test]
    fn a_folder_that_the_group_which_was_named_may_write_will_do() {
        let (_folder, path) = folder(0o770);
        let found = look_at(&path).unwrap();
        let trusted = Trusted::with([None; 3]).and_group(Some(found.gid()));
        assert!(trusted.check_folder(&path, &found).is_ok());
    }

    #[test]
    fn a_group_is_the_caller_s_alone_where_it_has_their_name_and_nobody_else_is_in_it() {
        let is_alone = |name: &str, members: &[&str], passwd: &str| {
            let mem = members.iter().map(|&member| member.into()).collect();
            let group = Group { name: name.into(), passwd: CString::default(), gid: 1000.into(), mem };
            is_alone_in(&group, "alice", 1000, passwd)
        };
        const PASSWD: &str = "alice:x:1000:1000:::\n";
        assert!(is_alone("alice", &[], PASSWD));
        assert!(is_alone("alice", &["alice"], PASSWD));
        assert!(!is_alone("users", &[], PASSWD));
        assert!(!is_alone("alice", &["bob"], PASSWD));
        assert!(!is_alone("alice", &["alice", "bob"], PASSWD));
        assert!(!is_alone("alice", &[], "bob:x:1001:1000:::\n"));
    }

    #[test]
    fn a_group_is_the_caller_s_alone_where_nobody_else_has_it_as_their_own() {
        const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a remark\n\nalice:x:1000:1000:::\n\
            alice2:x:1000:1000:a second name:/home/alice:/bin/sh\nbob:x:1001:100::/home/bob:\n+::::::\nbad:x:y:1000\n";
        assert!(is_nobody_else_s(PASSWD, 1000, 1000));
        assert!(is_nobody_else_s(PASSWD, 1002, 1002));
        assert!(!is_nobody_else_s(PASSWD, 100, 1000));
        assert!(!is_nobody_else_s(PASSWD, 1000, 1001));
        assert!(!is_nobody_else_s(&format!("{PASSWD}carol:x:1002:1000:::"), 1000, 1000));
    }
}
