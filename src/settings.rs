//! What is kept of a user from one key to the next.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::{Code, Error, Result};
use crate::key_file::{EnvName, KeyFile, KeyFilePath, Mode, Owner};
use crate::name::Name;
use crate::timestamp::Timestamp;

/// What is kept of a user from one key to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The label of the next key.
    pub name: Option<Name>,
    /// How long a key is accepted; until it is replaced or revoked, where there is none.
    pub lifetime: Option<Duration>,
    /// Where a key goes; to whoever asked for it, where there is none.
    pub key_file: Option<KeyFile>,
    /// How the reader of the key file is told.
    pub reload: Option<Reload>,
    /// From which age on a key is replaced by a renewal; never, where there is none.
    pub renew_after: Option<Duration>,
    /// How much longer the old key is accepted at a renewal; [`Settings::DEFAULT_RENEW_GRACE`] where
    /// nothing else was said.
    pub renew_grace: Option<Duration>,
}

impl Settings {
    /// How much longer the old key is accepted at a renewal where nothing else was said.
    pub const DEFAULT_RENEW_GRACE: Duration = Duration::from_secs(86_400);

    /// How much longer the old key is accepted at a renewal.
    pub fn renew_grace(&self) -> Duration {
        self.renew_grace.unwrap_or(Self::DEFAULT_RENEW_GRACE)
    }

    /// From when on a key that was issued then is renewed; `None` for never.
    pub fn due_at(&self, created_at: Timestamp) -> Option<Timestamp> {
        // Past the year 9999 is never.
        self.renew_after.and_then(|age| created_at.checked_add(age))
    }
}

/// How the reader of a key file is told of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reload {
    /// What is run.
    pub command: ReloadCommand,
    /// How long it may take; [`Reload::DEFAULT_TIMEOUT`] where nothing else was said.
    pub timeout: Option<Duration>,
    /// On which machine it was set, as [`this_machine`] has it.
    pub(crate) machine: Option<String>,
}

impl Reload {
    /// How long a command may take where nothing else was said.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Self::DEFAULT_TIMEOUT)
    }

    /// Whether it was set on this machine: in a copy that was restored elsewhere it was not.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        self.machine.is_some() && self.machine == this_machine()
    }
}

/// A command for `/bin/sh -c`: 1 to 4096 bytes, none of them zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadCommand(String);

impl ReloadCommand {
    /// The command as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReloadCommand {
    type Err = Error;

    /// Fails with [`Code::Usage`] on anything else.
    fn from_str(text: &str) -> Result<Self> {
        if (1..=4096).contains(&text.len()) && !text.contains('\0') {
            return Ok(ReloadCommand(text.to_owned()));
        }
        Err(Error::new(Code::Usage, "a reload command is 1 to 4096 bytes for /bin/sh -c"))
    }
}

/// Which machine this is: the lowercase hex SHA-256 of its machine-id(5), which is not to be told as it is;
/// where it has none, as many a container, of its hostname.
fn this_machine() -> Option<String> {
    let read = |path| fs::read_to_string(path).ok().filter(|text| !text.trim_end().is_empty());
    let id = read("/etc/machine-id").or_else(|| read("/proc/sys/kernel/hostname"))?;
    Some(hex::encode(Sha256::digest(id.trim_end())))
}

/// What becomes of one of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes this.
    Set(T),
    /// There is none from now on.
    TakeAway,
}

impl<T: Clone> Change<T> {
    fn of(&self, kept: Option<T>) -> Option<T> {
        match self {
            Change::Keep => kept,
            Change::Set(value) => Some(value.clone()),
            Change::TakeAway => None,
        }
    }
}

/// What becomes of a user's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The label.
    pub name: Change<Name>,
    /// How long a key is accepted; for none, until it is replaced or revoked.
    pub lifetime: Change<Duration>,
    /// Where a key goes; for none, to whoever asks for it. What is kept of the file and of its reader
    /// goes with it.
    pub key_file: Change<KeyFilePath>,
    /// The file's permissions.
    pub key_file_mode: Option<Mode>,
    /// Whose the file is.
    pub key_file_owner: Option<Owner>,
    /// The variable's name in the line `NAME=key`; for none, the file holds the key alone.
    pub key_file_env: Change<EnvName>,
    /// How the reader of the key file is told.
    pub reload: Change<ReloadCommand>,
    /// How long that may take.
    pub reload_timeout: Option<Duration>,
    /// From which age on a key is replaced by a renewal; for none, never.
    pub renew_after: Change<Duration>,
    /// How much longer the old key is accepted then.
    pub renew_grace: Option<Duration>,
}

impl Changes {
    /// What `kept` becomes by them.
    ///
    /// Fails with [`Code::Usage`] where what results does not fit together.
    pub(crate) fn of(&self, kept: Settings) -> Result<Settings> {
        let key_file = self.key_file_of(kept.key_file)?;
        let reload = self.reload_of(kept.reload.filter(|_| key_file.is_some()), key_file.as_ref())?;
        let settings = Settings {
            name: self.name.of(kept.name),
            lifetime: self.lifetime.of(kept.lifetime),
            key_file,
            reload,
            renew_after: self.renew_after.of(kept.renew_after),
            renew_grace: self.renew_grace.or(kept.renew_grace),
        };
        check_renewal(&settings)?;
        Ok(settings)
    }

    fn key_file_of(&self, kept: Option<KeyFile>) -> Result<Option<KeyFile>> {
        let key_file = match &self.key_file {
            Change::Keep => kept,
            Change::Set(path) => {
                let new = KeyFile::at(path.clone());
                Some(match kept {
                    Some(kept) => KeyFile { path: new.path, ..kept },
                    None => new,
                })
            }
            Change::TakeAway => None,
        };
        let says_how = self.key_file_mode.is_some()
            || self.key_file_owner.is_some()
            || matches!(self.key_file_env, Change::Set(_));
        match key_file {
            Some(kept) => Ok(Some(KeyFile {
                mode: self.key_file_mode.unwrap_or(kept.mode),
                owner: self.key_file_owner.or(kept.owner),
                env: self.key_file_env.of(kept.env),
                path: kept.path,
            })),
            None if says_how => {
                Err(no_key_file("there is no key file to have a mode, an owner or a variable"))
            }
            None => Ok(None),
        }
    }

    fn reload_of(&self, kept: Option<Reload>, key_file: Option<&KeyFile>) -> Result<Option<Reload>> {
        let timeout = self.reload_timeout.or(kept.as_ref().and_then(|kept| kept.timeout));
        let reload = match &self.reload {
            Change::Set(_) if key_file.is_none() => {
                return Err(no_key_file("there is no key file whose reader could be told"));
            }
            Change::Set(command) => {
                Some(Reload { command: command.clone(), timeout, machine: this_machine() })
            }
            Change::Keep => kept.map(|kept| Reload { timeout, ..kept }),
            Change::TakeAway => None,
        };
        if reload.is_none() && self.reload_timeout.is_some() {
            return Err(Error::new(Code::Usage, "there is no reload command to have a time limit")
                .hint("--reload-timeout goes with --reload, or with one that is kept"));
        }
        Ok(reload)
    }
}

/// A renewal replaces what is in a file, and comes before the end.
fn check_renewal(settings: &Settings) -> Result<()> {
    let Some(age) = settings.renew_after else { return Ok(()) };
    let wrong = |why: &str, hint: &str| {
        Err(Error::new(Code::Usage, why).hint(format!("{hint}, or renew it never: --renew-after never")))
    };
    if settings.key_file.is_none() {
        return wrong("there is no key file to renew the key in", "name the file with --key-file");
    }
    match settings.lifetime {
        Some(lifetime) if age >= lifetime => {
            wrong("the key would end before it is renewed", "let --renew-after be shorter than --expires-in")
        }
        _ => Ok(()),
    }
}

fn no_key_file(why: &str) -> Error {
    Error::new(Code::Usage, why).hint("name the file with --key-file")
}

/// The members of `settings` in the JSON of `show`.
#[derive(Serialize)]
struct Members<'a> {
    lifetime_ms: Option<u64>,
    key_file: Option<&'a str>,
    key_file_mode: Option<String>,
    key_file_owner: Option<String>,
    key_file_env: Option<&'a str>,
    reload: Option<&'a str>,
    reload_timeout_ms: Option<u64>,
    renew_after_ms: Option<u64>,
    renew_grace_ms: Option<u64>,
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        let (key_file, reload) = (self.key_file.as_ref(), self.reload.as_ref());
        Members {
            lifetime_ms: self.lifetime.map(ms),
            key_file: key_file.map(KeyFile::path),
            key_file_mode: key_file.map(|key_file| key_file.mode.to_string()),
            key_file_owner: key_file.and_then(|key_file| key_file.owner).map(|owner| owner.to_string()),
            key_file_env: key_file.and_then(|key_file| key_file.env.as_ref()).map(EnvName::as_str),
            reload: reload.map(|reload| reload.command.as_str()),
            reload_timeout_ms: reload.map(|reload| ms(reload.timeout())),
            renew_after_ms: self.renew_after.map(ms),
            renew_grace_ms: self.renew_after.map(|_| ms(self.renew_grace())).or(self.renew_grace.map(ms)),
        }
        .serialize(serializer)
    }
}
