//! `apikey edit`

use clap::Args;

use crate::authority::Order;
use crate::cli::args::{Global, UserArg};
use crate::cli::handover::Caller;
use crate::cli::output::Output;
use crate::cli::settings_args::{EditableArgs, warn_of_short_age};
use crate::cli::settled;
use crate::error::{Code, Error, Result};
use crate::settings::Changes;

/// Change a key's label and end, and what is kept, with no new key
///
/// --expires-in counts from now on. Owner and mode are changed in the key file itself, at once, where that
/// holds the current key. A key that has expired, or is on its way into a file, cannot be edited.
#[derive(Debug, Args)]
#[command(override_usage = "apikey edit [USER] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Edit {
    #[command(flatten)]
    user: UserArg,

    #[command(flatten)]
    settings: EditableArgs,
}

const EXAMPLES: &str = "\
Examples:
  Another label, and 30 days more:
      $ apikey edit bob --name \"Bob's desk\" --expires-in 30d
  A key that is to be renewed from now on:
      $ apikey edit web --renew-after 30d";

pub fn run(args: Edit, global: &Global, output: &Output) -> Result<()> {
    let user = args.user.or_caller()?;
    let order = Order { user: user.clone(), changes: args.settings.changes() };
    if order.changes == Changes::default() {
        return Err(Error::new(Code::Usage, "there is nothing to change")
            .hint("say what: `apikey edit --help` lists it"));
    }
    let settled = global.open()?.edit(&order, &mut Caller::of_no_key(output, global))?;
    settled::tell(&user, &settled, false, output)?;
    warn_of_short_age(&order.changes, output);
    Ok(())
}
