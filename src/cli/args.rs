//! The arguments that commands share, and how they become checked values.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use directories::ProjectDirs;
use nix::unistd::{Uid, User as Account, geteuid, getuid};

use crate::error::{Code, Error, Result};
use crate::store::Store;
use crate::user::User;

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use the database at PATH
    ///
    /// Without it: /var/lib/apikey/keys.db for root, and keys.db in the user's local data folder
    /// (~/.local/share/apikey) for anyone else. `create` and `refresh` make the database where
    /// there is none.
    #[arg(long, global = true, value_name = "PATH", env = "APIKEY_DB")]
    db: Option<PathBuf>,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Wait up to DURATION for another process that writes
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    timeout: Duration,
}

impl Global {
    /// Opens the database.
    pub fn open(&self) -> Result<Store> {
        Store::open(&self.database()?.path, self.timeout)
    }

    /// Opens the database, or makes it. Makes the default folder too, but no other.
    pub fn open_or_create(&self) -> Result<Store> {
        let database = self.database()?;
        if let Some(folder) = &database.default_folder {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Error::io(&error, "make the folder", folder, Code::DbUnavailable))?;
        }
        Store::open_or_create(&database.path, self.timeout)
    }

    fn database(&self) -> Result<Database> {
        if let Some(path) = &self.db {
            return Ok(Database { path: path.clone(), default_folder: None });
        }
        let folder = if geteuid().is_root() {
            PathBuf::from("/var/lib/apikey")
        } else {
            let folders = ProjectDirs::from("", "", "apikey").ok_or_else(|| {
                Error::new(Code::Usage, "there is no home folder to keep the database in")
                    .hint("name the database with --db")
            })?;
            folders.data_local_dir().to_owned()
        };
        Ok(Database { path: folder.join("keys.db"), default_folder: Some(folder) })
    }
}

struct Database {
    path: PathBuf,
    default_folder: Option<PathBuf>,
}

/// Whom the command is about.
#[derive(Debug, Args)]
pub struct UserArg {
    /// Whom the key belongs to: a person, a service, a daemon [default: your login name]
    ///
    /// A letter or digit, then any of A-Z a-z 0-9 . _ @ + : - up to 128 characters. Without it: the
    /// login name of the calling uid, from the password database.
    #[arg(value_name = "USER")]
    user: Option<User>,
}

impl UserArg {
    /// The user that was named, else the caller's login name.
    pub fn or_caller(&self) -> Result<User> {
        self.user.clone().map_or_else(|| login_name(getuid()), Ok)
    }
}

fn login_name(uid: Uid) -> Result<User> {
    let unnamed = |why: String| {
        Error::new(Code::Usage, format!("uid {uid} has no login name to issue keys to: {why}"))
            .hint("name the user on the command line")
    };
    match Account::from_uid(uid) {
        Ok(Some(account)) => account.name.parse().map_err(|error: Error| unnamed(error.to_string())),
        Ok(None) => Err(unnamed("the password database does not know it".into())),
        Err(error) => Err(unnamed(error.to_string())),
    }
}

/// The longest duration that is taken: it keeps every moment inside the years that can be written.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// A duration such as `90d`, `12h` or `1h 30m`.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("it is longer than 1000 years".into()),
        Err(error) => Err(format!("{error}; write it like 90d, 12h, 30m or 1h 30m")),
    }
}

/// A duration of a millisecond at the least.
pub fn some_duration(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        none if none < Duration::from_millis(1) => Err("it is no time at all".into()),
        some => Ok(some),
    }
}
