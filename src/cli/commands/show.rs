//! `apikey show`

use clap::Args;

use crate::cli::args::{Global, SubjectArg};
use crate::cli::details;
use crate::cli::output::Output;
use crate::error::Result;

/// Show what is known of a user's current key; never the key
///
/// Its prefix, name and status, and when it was issued, last used, and expires; and what is kept for the
/// keys that follow it. By its prefix, the same of any key.
#[derive(Debug, Args)]
#[command(override_usage = "apikey show [USER|PREFIX] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Show {
    #[command(flatten)]
    subject: SubjectArg,
}

const EXAMPLES: &str = "\
Examples:
  What is known of alice's key:
      $ apikey show alice
  The same for a script:
      $ apikey show alice --json";

pub fn run(args: Show, global: &Global, output: &Output) -> Result<()> {
    let subject = args.subject.or_caller()?;
    let shown = global.open()?.show(&subject)?;
    if output.is_json() { output.object(&shown) } else { output.text(&details::of(&shown)) }
}
