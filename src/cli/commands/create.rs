//! `apikey create`

use clap::Args;

use crate::authority::Order;
use crate::cli::args::{Global, user_or_caller};
use crate::cli::handover::{Caller, IssuedJson};
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::settings_args::{SettingsArgs, warn_of_short_age};
use crate::error::Result;
use crate::settings::Change;
use crate::user::User;

/// Issue a user's key and print it, once
///
/// The key alone goes to standard output, so that KEY=$(apikey create alice) works; who it is for
/// goes to standard error. It can't be shown again: only its SHA-256 is stored. A user has one
/// active key; where there is one already, `refresh` replaces it. What is said here is kept for the keys
/// that follow; what is not said is not set, whatever an earlier key had.
#[derive(Debug, Args)]
#[command(override_usage = "apikey create [USER] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Create {
    /// Whom the key is for [default: your login name]
    ///
    /// A person, a service, a daemon: a letter or digit, then any of A-Z a-z 0-9 . _ @ + : - up to
    /// 128 characters. Without it, the login name of the calling uid in the password database.
    #[arg(value_name = "USER")]
    user: Option<User>,

    #[command(flatten)]
    settings: SettingsArgs,
}

const EXAMPLES: &str = r#"Examples:
  A key for alice, kept in a variable:
      $ KEY=$(apikey create alice)
  A key with a label that ends by itself:
      $ apikey create bob --name "Bob's laptop" --expires-in 90d
  A daemon's key, in a file that is the daemon's:
      $ apikey create web --key-file /etc/web/web.key --key-file-owner web"#;

pub fn run(args: Create, global: &Global, output: &Output) -> Result<()> {
    let user = user_or_caller(args.user)?;
    let changes = args.settings.changes()?;
    if !matches!(changes.key_file, Change::Set(_)) {
        output.check_takes_key()?;
    }
    let mut caller =
        Caller::new(output, global, |out, issued, key| json::write_line(out, &IssuedJson::new(issued, key)));
    let order = Order { user, changes };
    let issued = global.open_or_create(output)?.create(&order, &mut caller)?;
    caller.tell(&issued)?;
    warn_of_short_age(&order.changes, output);
    Ok(())
}
