//! The arguments that commands share, and how they become checked values.

use std::fs::DirBuilder;
use std::mem::ManuallyDrop;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueHint};
use clap_complete::ArgValueCompleter;
use humantime::DurationError;
use nix::unistd::{Uid, User as Account, getuid};

use super::complete::users_with_a_key;
use super::database::Database;
use super::output::Output;
use crate::authority::{Authority, Check};
use crate::error::{Code, Error, Result};
use crate::settings::Change;
use crate::store::Location;
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;
use crate::verifier::Verifier;

/// Where the help puts the options that every command takes.
pub const LAST: usize = 100;

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Use the database at PATH
    ///
    /// Without it: /var/lib/apikey/keys.db for root, and keys.db in the user's local data folder
    /// (~/.local/share/apikey) for anyone else. `create`, `refresh` and `ensure` make the database
    /// where there is none.
    #[arg(long, global = true, value_name = "PATH", env = "APIKEY_DB", hide_env_values = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    #[arg(display_order = LAST)]
    db: Option<PathBuf>,

    /// Print one JSON object instead of text
    ///
    /// It has the same members every time, and a failure is an object on standard error, with the
    /// members `code`, `message` and `hint`.
    #[arg(long, global = true)]
    #[arg(display_order = LAST)]
    pub json: bool,

    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    #[arg(display_order = LAST, hide_short_help = true, long_help = "Say nothing on standard error but errors")]
    pub quiet: bool,

    /// Wait this long for another writer
    ///
    /// And, while others wait in turn, for whoever reads the output. Durations read 90d, 12h, 30m or 1h 30m.
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    #[arg(display_order = LAST, hide_short_help = true)]
    pub timeout: Duration,
}

impl Global {
    /// Opens the database, to verify keys.
    pub fn open_verifier(&self) -> Result<ManuallyDrop<Verifier>> {
        Verifier::open(&self.database()?.path, self.timeout).map(ManuallyDrop::new)
    }

    /// Opens the database, to manage keys.
    pub fn open(&self) -> Result<Open> {
        Authority::open(&self.database()?.path, self.timeout, Timestamp::now).map(Open::new)
    }

    /// Looks after the host, as [`Authority::doctor`] does. Returns where the database is to be, too.
    pub fn doctor(&self, each: impl FnMut(Check)) -> Result<(PathBuf, Option<Open>)> {
        let path = self.database()?.path;
        let opened = Authority::doctor(&path, self.timeout, Timestamp::now, each);
        Ok((path, opened.map(Open::new)))
    }

    /// Where the database is, or would be, if there is a folder for it.
    pub fn place(&self) -> Result<Option<Location>> {
        Ok(Location::new(&self.database()?.path).ok())
    }

    /// Whether there is a folder to make a database in, or one that would be made for it.
    pub fn could_create(&self) -> Result<bool> {
        let Database { path, default_folder } = self.database()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(default_folder.is_some() || folder.is_none_or(|folder| folder.is_dir()))
    }

    /// Opens the database, or makes it, and says so: whoever forgot sudo sees where. Makes the default
    /// folder too, but no other.
    pub fn open_or_create(&self, output: &Output) -> Result<Open> {
        let database = self.database()?;
        if let Some(folder) = &database.default_folder {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Error::io(&error, "make the folder", folder, Code::DbUnavailable))?;
        }
        let authority = Authority::open_or_create(&database.path, self.timeout, Timestamp::now)?;
        if authority.is_new() {
            output.note(&format!("Made the database {}.", authority.path().display()));
        }
        Ok(Open::new(authority))
    }

    fn database(&self) -> Result<Database> {
        match &self.db {
            Some(path) => Ok(Database { path: path.clone(), default_folder: None }),
            None => Database::default(),
        }
    }
}

/// A database that is open until the process ends. Closing it would write nothing, and give back
/// piece by piece what the kernel takes back at once.
pub type Open = ManuallyDrop<Authority>;

/// Which keys the command is about.
#[derive(Debug, Args)]
pub struct SubjectArg {
    /// Whose keys, or which one [default: your login name's]
    ///
    /// A user, or the prefix of a key: `ak_` and 12 hex digits. Without it, the login name of the calling
    /// uid in the password database.
    #[arg(value_name = "USER|PREFIX", add = ArgValueCompleter::new(users_with_a_key))]
    subject: Option<Subject>,
}

impl SubjectArg {
    /// What was named, else the caller's login name.
    pub fn or_caller(self) -> Result<Subject> {
        self.subject.map_or_else(|| login_name(getuid()).map(Subject::User), Ok)
    }
}

/// Whose key the command is about.
#[derive(Debug, Args)]
pub struct UserArg {
    /// Whose key [default: your login name]
    ///
    /// A person, a service, a daemon: a letter or digit, then any of A-Z a-z 0-9 . _ @ + : - up to
    /// 128 characters. Without it, the login name of the calling uid in the password database.
    #[arg(value_name = "USER", add = ArgValueCompleter::new(users_with_a_key))]
    user: Option<User>,
}

impl UserArg {
    /// The user that was named, else the caller's login name.
    pub fn or_caller(self) -> Result<User> {
        user_or_caller(self.user)
    }
}

/// The user that was named, else the caller's login name.
pub fn user_or_caller(user: Option<User>) -> Result<User> {
    user.map_or_else(|| login_name(getuid()), Ok)
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

/// The path of a key file: `-` is none, since a file of that name is hardly what is meant.
pub fn key_file_path() -> impl TypedValueParser<Value = PathBuf> {
    no_dash("leave --key-file out for the standard streams, or write ./- for a file of that name")
}

/// The path of a file that is to be made, and no stream.
pub fn new_file() -> impl TypedValueParser<Value = PathBuf> {
    no_dash("it goes to a file only: write ./- for one of that name")
}

fn no_dash(what_to_do: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new()
        .try_map(move |path| if path.as_os_str() == "-" { Err(what_to_do) } else { Ok(path) })
}

/// The longest duration that is taken, 1000 years of 365.25 days: it keeps every moment inside the
/// years that can be written.
const LONGEST: Duration = Duration::from_secs(1000 * 31_557_600);

/// A duration such as `90d`, `12h` or `1h 30m`, to the millisecond.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    let mut units = text.split(|c: char| !c.is_alphabetic());
    if units.any(|unit| unit == "M" || ["month", "months"].contains(&unit.to_lowercase().as_str())) {
        return Err("a month is not always as long: write 30d, or 1m for a minute".into());
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(Duration::from_millis(duration.as_millis() as u64)),
        Ok(_) => Err("it is longer than 1000 years".into()),
        // Its own message goes on to name months.
        Err(DurationError::UnknownUnit { unit, .. }) if !unit.is_empty() => {
            Err(format!("there is no unit {unit:?}; write it like 90d, 12h, 30m or 1h 30m"))
        }
        Err(error) => Err(format!("{error}; write it like 90d, 12h, 30m or 1h 30m")),
    }
}

/// A lifetime, or `never` for none.
pub fn lifetime(text: &str) -> std::result::Result<Change<Duration>, String> {
    match text {
        "never" => Ok(Change::TakeAway),
        text => some_duration(text).map(Change::Set),
    }
}

/// A duration of a millisecond at the least.
pub fn some_duration(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        none if none < Duration::from_millis(1) => Err("it must be at least 1ms".into()),
        some => Ok(some),
    }
}

/// A moment, said as such or by how long ago it was.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// The moment that is meant.
    pub fn moment(self, clock: fn() -> Result<Timestamp>) -> Result<Timestamp> {
        match self {
            Since::Ago(ago) => clock().map(|now| now.before(ago)),
            Since::At(time) => Ok(time),
        }
    }
}

/// `7d`, `2026-11-22` or `2026-11-22T08:19:03Z`.
pub fn since(text: &str) -> std::result::Result<Since, String> {
    match Timestamp::from_rfc3339(text) {
        Some(time) => Ok(Since::At(time)),
        None if text.contains('-') => Err("write a time like 2026-11-22 or 2026-11-22T08:19:03Z".into()),
        None => duration(text).map(Since::Ago),
    }
}
