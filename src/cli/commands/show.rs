//! `apikey show`

use clap::Args;

use crate::cli::args::{Global, UserArg};
use crate::cli::output::Output;
use crate::cli::table;
use crate::error::{Code, Error, Result};
use crate::revoke::no_key;
use crate::store::Record;
use crate::timestamp::Timestamp;

/// Show what is known of a user's current key; never the key
///
/// Its prefix, name and status, and when it was issued, last used, and expires.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Show {
    #[command(flatten)]
    user: UserArg,
}

const EXAMPLES: &str = "\
Examples:
  What is known of alice's key:
      $ apikey show alice
  The same for a script:
      $ apikey show alice --json";

pub fn run(args: Show, global: &Global, output: &Output) -> Result<()> {
    let user = args.user.or_caller()?;
    let (store, now) = (global.open()?, Timestamp::now());
    let Some(key) = store.show(&user, now)? else {
        let other = store.revocable(&user, now)?.into_iter().next();
        return Err(other.map_or_else(|| no_key(&user), |other| no_active_key_but(&other)));
    };
    if output.is_json() { output.object(&key) } else { output.text(&table::one(&key)) }
}

fn no_active_key_but(other: &Record) -> Error {
    let Record { prefix, user, status, .. } = other;
    let message = format!("{user} has no active key, but {prefix}, which is {}", status.as_str());
    Error::new(Code::NoKey, message).hint(format!("`apikey list {user}` shows it"))
}
