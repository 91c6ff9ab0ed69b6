//! `apikey show`

use clap::Args;

use crate::cli::args::{Global, UserArg};
use crate::cli::output::Output;
use crate::cli::table;
use crate::error::Result;

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
    let key = global.open()?.show(&user)?;
    if output.is_json() { output.object(&key) } else { output.text(&table::one(&key)) }
}
