//! `apikey revoke`

use clap::Args;
use serde::Serialize;

use super::confirm::confirmed;
use crate::authority::Authority;
use crate::cli::args::{Global, UserArg};
use crate::cli::handover::Caller;
use crate::cli::output::Output;
use crate::error::Result;
use crate::key::{Prefix, listed};

/// Stop accepting a user's key, at once and for good
///
/// Revokes the active key, and with it one that is on its way into a file and those that a refresh
/// left a grace period. Asks first where there is somebody to answer.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Revoke {
    #[command(flatten)]
    user: UserArg,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Serialize)]
struct RevokedJson<'a> {
    message: &'a str,
    user: &'a str,
    revoked_key_prefix: Option<Prefix>,
}

const EXAMPLES: &str = "\
Examples:
  No more key for bob, and no question:
      $ apikey revoke bob --yes";

pub fn run(args: Revoke, global: &Global, output: &Output) -> Result<()> {
    let user = args.user.or_caller()?;
    let ending =
        |authority: &Authority| Ok(authority.revocable(&user)?.iter().map(|key| key.prefix).collect());
    let (mut authority, agreed) = confirmed(&user, args.yes, "Revoke", output, || global.open(), ending)?;
    let revoked = authority.revoke(&user, agreed.as_deref(), &mut Caller::of_no_key(output))?;
    let prefixes: Vec<Prefix> = revoked.iter().map(|key| key.prefix).collect();
    let message = format!("Revoked {} of {user}.", listed(prefixes.iter().copied()));
    output.note(&message);
    if output.is_json() {
        let json = RevokedJson {
            message: &message,
            user: user.as_str(),
            revoked_key_prefix: prefixes.first().copied(),
        };
        output.object(&json).map_err(|error| error.after("it is revoked"))?;
    }
    Ok(())
}
