//! The question that commands which end keys ask first.

use crate::cli::prompt;
use crate::error::{Code, Error, Result};

/// Whether there is somebody to ask, where `yes` was not said already. Fails with [`Code::Usage`] where
/// nobody is there to answer: then nothing is to be done.
pub fn is_to_be_asked(yes: bool, what: &str) -> Result<bool> {
    if yes {
        return Ok(false);
    }
    if prompt::somebody_is_there() {
        return Ok(true);
    }
    Err(Error::new(Code::Usage, format!("there is no terminal to ask whether to {what}"))
        .hint("confirm with --yes"))
}
