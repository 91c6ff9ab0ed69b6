//! `apikey prune`

use std::time::Duration;

use clap::Args;

use super::confirm::is_to_be_asked;
use crate::cli::args::{Global, duration};
use crate::cli::handover::Caller;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::prompt;
use crate::error::Result;
use crate::store::Pruned;

/// Forget keys that ended long ago, and what the log has of then
///
/// Keys that were revoked, were replaced or expired longer ago; the events of that time, but for those of a key
/// that is still known; and the settings of users who have no key left. A user's current key stays, also where it
/// has expired, and with it what is kept for the next. It goes step by step, and others write in between. What
/// verify says of a key that was forgotten is `unknown`. Where the log has an event that is still to come, the clock
/// is not believed, and nothing is forgotten. Asks first where there is somebody to answer.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Prune {
    /// How long ago they ended
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ended_for: Duration,

    /// Say how many there are, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  How much there is of more than a year ago:
      $ apikey prune --ended-for 1y --dry-run
  Away with it:
      $ apikey prune --ended-for 1y --yes";

pub fn run(args: &Prune, global: &Global, output: &Output) -> Result<()> {
    let ask = !args.dry_run && is_to_be_asked(args.yes, "prune")?;
    let mut authority = global.open()?;
    let there = authority.prunable(args.ended_for)?;
    if args.dry_run || there.is_nothing() {
        return tell(output, "Would forget", &there);
    }
    if ask {
        prompt::confirm(&format!("Forget {there}?"))?;
    }
    let hidden = output.is_quiet() || output.is_json();
    let mut progress = Progress::begin(Some(there.keys + there.events + there.users), hidden);
    let pruned = authority
        .prune(args.ended_for, |so_far| progress.reach(so_far.keys + so_far.events + so_far.users))?;
    drop(progress);
    tell(output, "Forgot", &pruned).map_err(|error| error.after("it is done"))?;
    authority.recover_in_passing(&mut Caller::of_what_is_over(output, global));
    Ok(())
}

fn tell(output: &Output, what: &str, pruned: &Pruned) -> Result<()> {
    if output.is_json() {
        return output.object(pruned);
    }
    output.note(&match pruned.is_nothing() {
        true => "Nothing ended that long ago.".to_owned(),
        false => format!("{what} {pruned}."),
    });
    Ok(())
}
