//! What somebody was asked about before it ends.

use crate::error::{Code, Error, Result};
use crate::store::Record;

/// Checks that a key which is to end is one of those that somebody was asked about.
pub(crate) fn check_agreed(key: &Record, agreed: Option<&[String]>) -> Result<()> {
    if agreed.is_none_or(|agreed| agreed.contains(&key.prefix)) {
        return Ok(());
    }
    let message = format!("{} of {} is new: it was issued while you were asked", key.prefix, key.user);
    Err(Error::new(Code::Cancelled, message)
        .hint("nothing was done; run it again to be asked about that key too"))
}
