//! What a command is about: all that a user has, or one key.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::key::Prefix;
use crate::user::User;

/// What a command is about. No user can be called what a prefix looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What the user has.
    User(User),
    /// The key with this prefix.
    Key(Prefix),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(user) => user.fmt(f),
            Subject::Key(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for Subject {
    type Err = Error;

    /// Fails with [`Code::Usage`](crate::Code::Usage) on anything that is neither a prefix nor a user.
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Subject::Key).or_else(|_| text.parse().map(Subject::User))
    }
}
