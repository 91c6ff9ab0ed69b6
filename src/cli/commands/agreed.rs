//! The question that commands which end a key ask first.

use crate::cli::args::Open;
use crate::cli::prompt;
use crate::error::{Code, Error, Result};
use crate::timestamp::Timestamp;
use crate::user::User;

/// Opens the database and, unless `yes` was said already, asks whether to end the user's key.
/// Returns the prefix of the key that the answer was about. Where there is none to end, nothing is
/// asked.
///
/// Fails with [`Code::Usage`] where nobody is there to answer, with [`Code::Cancelled`] on no.
pub fn agreed_to_end(
    user: &User,
    yes: bool,
    verb: &str,
    open: impl FnOnce() -> Result<Open>,
) -> Result<(Open, Option<String>)> {
    if yes {
        return Ok((open()?, None));
    }
    if !prompt::somebody_is_there() {
        return Err(Error::new(
            Code::Usage,
            format!("nobody is there to say whether the key of {user} may end"),
        )
        .hint("say so with --yes"));
    }
    let store = open()?;
    let Some(current) = store.show(user, Timestamp::now())? else { return Ok((store, None)) };
    prompt::confirm(&format!("{verb} {}, the key of {user}?", current.prefix))?;
    Ok((store, Some(current.prefix)))
}
