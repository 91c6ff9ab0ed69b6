//! The question that commands which end keys ask first.

use crate::authority::Authority;
use crate::cli::args::Open;
use crate::cli::handover::Caller;
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::error::{Code, Error, Result};
use crate::key::{Prefix, listed};
use crate::user::User;

/// Opens the database and, unless `yes` was said already, asks whether to end the keys that `ending`
/// finds. Returns those that the answer was about. Where there is none to end, nothing is asked.
///
/// What earlier runs left is seen to first: the question is about what is there then.
///
/// Fails with [`Code::Usage`] where nobody is there to answer, with [`Code::Cancelled`] on no.
pub fn confirmed(
    user: &User,
    yes: bool,
    verb: &str,
    output: &Output,
    open: impl FnOnce() -> Result<Open>,
    ending: impl FnOnce(&Authority) -> Result<Vec<Prefix>>,
) -> Result<(Open, Option<Vec<Prefix>>)> {
    if yes {
        return Ok((open()?, None));
    }
    if !prompt::somebody_is_there() {
        let message =
            format!("there is no terminal to ask whether to {} the key of {user}", verb.to_lowercase());
        return Err(Error::new(Code::Usage, message).hint("confirm with --yes"));
    }
    let mut authority = open()?;
    authority.recover(&mut Caller::asked(output))?;
    let prefixes = ending(&authority)?;
    match prefixes.as_slice() {
        [] => {}
        [key] => prompt::confirm(&format!("{verb} {key}, the key of {user}?"))?,
        keys => prompt::confirm(&format!("{verb} {}, the keys of {user}?", listed(keys.iter().copied())))?,
    }
    Ok((authority, Some(prefixes)))
}
