//! `apikey create`

use std::time::Duration;

use clap::Args;

use crate::authority::Order;
use crate::cli::args::{Global, lifetime, user_or_caller};
use crate::cli::handover::{Caller, IssuedJson};
use crate::cli::json;
use crate::cli::key_file_args::KeyFileArgs;
use crate::cli::output::Output;
use crate::error::Result;
use crate::name::Name;
use crate::settings::{Change, Changes};
use crate::user::User;

/// Issue a user's key and print it, once
///
/// The key alone goes to standard output, so that KEY=$(apikey create alice) works; who it is for
/// goes to standard error. It can't be shown again: only its SHA-256 is stored. A user has one
/// active key; where there is one already, `refresh` replaces it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Create {
    /// Whom the key is for [default: your login name]
    ///
    /// A person, a service, a daemon: a letter or digit, then any of A-Z a-z 0-9 . _ @ + : - up to
    /// 128 characters. Without it, the login name of the calling uid in the password database.
    #[arg(value_name = "USER")]
    user: Option<User>,

    /// Label the key
    ///
    /// Up to 100 printable characters. Labels need not differ.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Stop accepting it after, say, 90d or 12h
    ///
    /// The keys that follow it live as long. `never` is what it is without this option.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<Change<Duration>>,

    #[command(flatten)]
    key_file: KeyFileArgs,
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
    let key_file = args.key_file.key_file()?;
    if key_file.is_none() {
        output.check_takes_key()?;
    }
    let changes = Changes {
        name: Change::set(args.name),
        lifetime: args.expires_in.unwrap_or_default(),
        key_file: Change::set(key_file),
        ..Changes::default()
    };
    let mut caller =
        Caller::new(output, |out, issued, key| json::write_line(out, &IssuedJson::new(issued, key)));
    let issued = global.open_or_create()?.create(&Order { user, changes }, &mut caller)?;
    caller.tell(&issued)
}
