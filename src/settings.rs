//! What is kept of a user from one key to the next.

use std::time::Duration;

use crate::key_file::KeyFile;
use crate::name::Name;

/// What is kept of a user from one key to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    pub(crate) renew_after: Option<Duration>,
    /// How much longer the old key is accepted at a renewal.
    pub(crate) renew_grace: Option<Duration>,
}

/// How the reader of a key file is told of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// For `/bin/sh -c`.
    pub(crate) command: String,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
    /// On which machine it was set: the lowercase hex SHA-256 of its `/etc/machine-id`.
    pub(crate) machine: Option<String>,
}

impl Reload {
    /// A command for `/bin/sh -c`.
    pub fn new(command: impl Into<String>) -> Self {
        Reload { command: command.into(), timeout: None, machine: None }
    }
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

impl<T> Change<T> {
    /// A change to `value` where there is one, else none.
    pub fn set(value: Option<T>) -> Self {
        value.map_or(Change::Keep, Change::Set)
    }

    fn of(&self, kept: Option<T>) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Change::Keep => kept,
            Change::Set(value) => Some(value.clone()),
            Change::TakeAway => None,
        }
    }

    /// Whether it leaves `kept` as it is.
    pub(crate) fn is_met_by(&self, kept: Option<&T>) -> bool
    where
        T: PartialEq,
    {
        match self {
            Change::Keep => true,
            Change::Set(value) => kept == Some(value),
            Change::TakeAway => kept.is_none(),
        }
    }
}

/// What becomes of a user's settings.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The label.
    pub name: Change<Name>,
    /// How long a key is accepted; for none, until it is replaced or revoked.
    pub lifetime: Change<Duration>,
    /// Where a key goes; for none, to whoever asks for it.
    pub key_file: Change<KeyFile>,
    /// How the reader of the key file is told. A command that is kept is not run: it is run where it is
    /// said.
    pub reload: Change<Reload>,
}

impl Changes {
    /// What `kept` becomes by them.
    pub(crate) fn of(&self, kept: Settings) -> Settings {
        Settings {
            name: self.name.of(kept.name),
            lifetime: self.lifetime.of(kept.lifetime),
            key_file: self.key_file.of(kept.key_file),
            reload: self.reload.of(kept.reload),
            ..kept
        }
    }
}
