//! The label that an admin gives a key.

use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::text::is_unprintable;

/// A label for a key: 1 to 100 characters, none of them a control, format or line-separator
/// character, and no blank at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    /// Fails with [`Code::Usage`] on anything that is not a name.
    fn from_str(text: &str) -> Result<Self> {
        let length = text.chars().take(101).count();
        if (1..=100).contains(&length) && text.trim() == text && !text.contains(is_unprintable) {
            return Ok(Name(text.to_owned()));
        }
        Err(Error::new(Code::Usage, "a name is 1 to 100 printable characters with no blank at either end"))
    }
}
