//! The file a daemon reads its key from: where it is, whose, and what is in it.
//!
//! It holds the key and nothing else, so that a daemon that reads it whole is right; or one line
//! `NAME=key`, for systemd's `EnvironmentFile=` and for `--env-file`.

mod amend;
mod folder;
mod target;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

pub(crate) use self::amend::{Differs, Holding};
pub(crate) use self::folder::{Folder, Way};
pub(crate) use self::target::{Stage, Target};
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::trust::{Links, Unresolved, folder_and_name, resolve, what_to_do};

/// Where and how a key is delivered. A refresh delivers the next key to the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    pub(crate) path: PathBuf,
    /// The permissions.
    pub mode: Mode,
    /// Whose the file is to be; the caller's where there is none.
    pub owner: Option<Owner>,
    /// The variable's name in the line `NAME=key`; the key alone where there is none.
    pub env: Option<EnvName>,
}

/// The path of a key file: absolute, in UTF-8, with no link on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFilePath(PathBuf);

/// A key file's permissions: of owner and group only, to read and write only, and for the owner at
/// least to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u32);

/// A key file's owner and group, as the kernel knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

/// The name of a variable: `[A-Za-z_]`, then `[A-Za-z0-9_]`, up to 128 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvName(String);

/// The longest name of a key file, in bytes: NAME_MAX, but for what its stage is called beside it,
/// `.NAME.PREFIX`.
const LONGEST_NAME: usize = 255 - (2 + Prefix::LENGTH);
/// The longest path, in bytes: PATH_MAX, but for the NUL at its end.
const LONGEST_PATH: usize = 4095;

/// More than any key file holds.
const LONGEST: usize = 256;

impl KeyFilePath {
    /// The path of a key file. Its folder must be there; the links on the way to it are followed now, once.
    ///
    /// Fails with [`Code::Undeliverable`] where there is no such folder or `path` names one, with
    /// [`Code::Usage`] where it is not UTF-8, or too long.
    pub fn new(path: &Path) -> Result<Self> {
        let undeliverable = |reason: String| Error::new(Code::Undeliverable, reason);
        let shown = path.display();
        let (folder, name) = folder_and_name(path)
            .ok_or_else(|| undeliverable(format!("{shown} names a folder, not a key file")))?;
        check_length("name", name, LONGEST_NAME)?;
        // Before the kernel says no, without a number.
        check_length("path", path.as_os_str(), LONGEST_PATH)?;
        let folder = resolve(folder, Links::OfTrusted).map_err(|error| match error {
            Unresolved::Io(error) => undeliverable(format!("cannot open the folder of {shown}: {error}"))
                .hint(format!("{}, or name another file", what_to_do(&error))),
            Unresolved::Obstacle(obstacle) => undeliverable(obstacle.reason).hint(obstacle.hint),
        })?;
        let path = folder.join(name);
        check_length("path", path.as_os_str(), LONGEST_PATH)?;
        if path.to_str().is_none() {
            return Err(Error::new(
                Code::Usage,
                format!("{shown} is not UTF-8, as the path of a key file must be"),
            ));
        }
        Ok(KeyFilePath(path))
    }
}

impl KeyFile {
    /// The key file at `path`, with permissions 0600, the caller's, and the key alone in it.
    pub(crate) fn at(path: KeyFilePath) -> Self {
        KeyFile { path: path.0, mode: Mode(0o600), owner: None, env: None }
    }

    /// Whether `path` is as [`KeyFilePath::new`] leaves one.
    pub(crate) fn is_resolved(path: &Path) -> bool {
        let is_dots = |part| matches!(part, Component::ParentDir | Component::CurDir);
        path.is_absolute() && path.file_name().is_some() && !path.components().any(is_dots)
    }

    /// Where it is: absolute, in UTF-8.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// The key in the key file at `path`, of either form; `None` where there is something else in it.
    /// Fails with [`Code::NoKey`] where there is no such file.
    pub fn read(path: &Path) -> Result<Option<Key>> {
        let failed = |error: std::io::Error| match error.kind() {
            NotFound | NotADirectory => Error::io(&error, "read the key file", path, Code::NoKey)
                .hint("`apikey show` says where the key file of a user is"),
            _ => Error::io(&error, "read the key file", path, Code::Usage),
        };
        // A FIFO must not keep us waiting for somebody who writes.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::new(Code::Usage, format!("{} is not a regular file", path.display())));
        }
        Ok(match Content::read(file).map_err(failed)? {
            Content::Key(key) => Some(key),
            Content::Nothing | Content::SomethingElse => None,
        })
    }

    /// What the file holds when it holds `key`.
    fn content(&self, key: &Key) -> Zeroizing<Vec<u8>> {
        let mut content = Zeroizing::new(Vec::with_capacity(LONGEST));
        match &self.env {
            Some(name) => {
                for part in [name.as_str(), "=", key.expose(), "\n"] {
                    content.extend_from_slice(part.as_bytes());
                }
            }
            None => content.extend_from_slice(key.expose().as_bytes()),
        }
        content
    }
}

/// Checks that the `what` of a key file is no longer than the system takes.
fn check_length(what: &str, text: &OsStr, longest: usize) -> Result<()> {
    let length = text.len();
    if length <= longest {
        return Ok(());
    }
    let message = format!("the {what} of the key file is {length} bytes long, and may be {longest}");
    Err(Error::new(Code::Usage, message).hint("name another file"))
}

impl Mode {
    /// The permissions as chmod(2) takes them.
    pub fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        (bits & !0o660 == 0 && bits & 0o400 != 0).then_some(Mode(bits))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for Mode {
    type Err = Error;

    /// Reads three or four octal digits.
    fn from_str(text: &str) -> Result<Self> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        bits.and_then(Mode::from_bits).ok_or_else(|| {
            Error::new(
                Code::Usage,
                "a key file's mode is three or four octal digits, such as 0600 or 640: \
                 read and write for owner and group, nothing for others",
            )
        })
    }
}

impl EnvName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let goes_on = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if starts && goes_on && text.len() <= 128 {
            return Ok(EnvName(text.to_owned()));
        }
        Err(Error::new(Code::Usage, "a variable's name is letters, digits and _, with no digit first"))
    }
}

/// What a file that might be a key file holds.
enum Content {
    Nothing,
    Key(Key),
    SomethingElse,
}

impl Content {
    /// Reads `file`, but no more than a key file can hold.
    fn read(file: fs::File) -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
        file.take(LONGEST as u64).read_to_end(&mut bytes)?;
        Ok(match key_in(&bytes) {
            _ if bytes.is_empty() => Content::Nothing,
            Some(key) => Content::Key(key),
            None => Content::SomethingElse,
        })
    }
}

/// The key in a key file of either form, with or without a line's end.
fn key_in(bytes: &[u8]) -> Option<Key> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().position(|b| *b == b'=') {
        Some(at) => {
            str::from_utf8(&line[..at]).ok()?.parse::<EnvName>().ok()?;
            Key::parse(&line[at + 1..])
        }
        None => Key::parse(line),
    }
}
