//! `apikey ensure`

use clap::Args;

use crate::authority::{Order, Settled};
use crate::cli::args::{Global, UserArg};
use crate::cli::handover::Caller;
use crate::cli::output::Output;
use crate::cli::settings_args::{SettingsArgs, warn_of_short_age};
use crate::cli::settled;
use crate::error::{Code, Result};
use crate::settings::Change;

/// See to it that a user's key lies in its key file
///
/// With that mode, owner and format, and not due; and do no more than is needed for it. Issues a key where there is none, or where the file is gone,
/// empty, has another format or another key; puts owner and mode right where that is all that is wrong; and
/// does nothing where all is well: then nothing is written, and no lock is waited for. What is not said is kept
/// as it was. The old key is accepted for --renew-grace more.
#[derive(Debug, Args)]
#[command(override_usage = "apikey ensure [USER] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Ensure {
    #[command(flatten)]
    user: UserArg,

    /// Say what would be done, and do nothing
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

const EXAMPLES: &str = "\
Examples:
  A daemon's key, which the package's timer keeps fresh from then on:
      $ apikey ensure web --key-file /etc/web/web.key --renew-after 30d
  Is there anything to do?
      $ apikey ensure web --check --json";

pub fn run(args: Ensure, global: &Global, output: &Output) -> Result<()> {
    let user = args.user.or_caller()?;
    let order = Order { user: user.clone(), changes: args.settings.changes()? };
    let mut caller = Caller::of_no_key(output, global);
    let names_file = matches!(order.changes.key_file, Change::Set(_));
    let settled = match global.open() {
        Err(error) if names_file && error.code() == Code::NoDatabase && global.could_create()? => {
            let to_be = Settled::to_be_created(&order, global.place()?.as_ref())?;
            if args.check {
                to_be
            } else {
                global.open_or_create(output)?.ensure(&order, false, &mut caller)?
            }
        }
        opened => opened?.ensure(&order, args.check, &mut caller)?,
    };
    if !output.is_json() {
        settled.issued.iter().try_for_each(|issued| caller.tell(issued))?;
    }
    settled::tell(&user, &settled, args.check, output)?;
    warn_of_short_age(&order.changes, output);
    Ok(())
}
