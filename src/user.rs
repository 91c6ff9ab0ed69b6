//! Whom a key belongs to.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::key::Prefix;

/// Whom a key belongs to: a person, a service, a daemon. A name, not an account:
/// `[A-Za-z0-9]` first, then `[A-Za-z0-9._@+:-]`, 1 to 128 bytes; but not what a key's prefix looks
/// like, so that a command can take either.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User(String);

impl User {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for a name that is damaged, so that it is none: one that says so.
    pub(crate) fn damaged(text: &[u8]) -> Self {
        let clean = |byte: &u8| if is_in_names(*byte) { char::from(*byte) } else { '_' };
        User(format!("damaged:{}", text.iter().take(100).map(clean).collect::<String>()))
    }
}

fn is_in_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._@+:-".contains(&byte)
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for User {
    type Err = Error;

    /// Fails with [`Code::Usage`] on anything that is not a user.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() == Prefix::LENGTH && text.to_ascii_lowercase().parse::<Prefix>().is_ok() {
            let message = "a user cannot be called what a key's prefix looks like, ak_ and 12 hex digits";
            return Err(Error::new(Code::Usage, message));
        }
        let mut bytes = text.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let goes_on = bytes.all(is_in_names);
        if starts && goes_on && text.len() <= 128 {
            return Ok(User(text.to_owned()));
        }
        Err(Error::new(
            Code::Usage,
            "a user is 1 to 128 of the characters A-Z a-z 0-9 . _ @ + : - and starts with a letter or digit",
        ))
    }
}
