//! The question that commands which end keys ask first.

use crate::cli::args::Open;
use crate::cli::handover;
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::error::{Code, Error, Result};
use crate::store::{Record, Store};
use crate::user::User;

/// Opens the database and, unless `yes` was said already, asks whether to end the keys that `ending`
/// finds. Returns the prefixes that the answer was about. Where there is none to end, nothing is
/// asked.
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
    ending: impl FnOnce(&Store) -> Result<Vec<Record>>,
) -> Result<(Open, Option<Vec<String>>)> {
    if yes {
        return Ok((open()?, None));
    }
    if !prompt::somebody_is_there() {
        let message =
            format!("there is no terminal to ask whether to {} the key of {user}", verb.to_lowercase());
        return Err(Error::new(Code::Usage, message).hint("confirm with --yes"));
    }
    let mut store = open()?;
    handover::recover(&mut store, output)?;
    let prefixes: Vec<String> = ending(&store)?.into_iter().map(|key| key.prefix).collect();
    match prefixes.as_slice() {
        [] => {}
        [key] => prompt::confirm(&format!("{verb} {key}, the key of {user}?"))?,
        keys => prompt::confirm(&format!("{verb} {}, the keys of {user}?", keys.join(", ")))?,
    }
    Ok((store, Some(prefixes)))
}
