//! `apikey list`

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::args::Global;
use crate::cli::complete::users_with_a_key;
use crate::cli::output::{Output, Stopped};
use crate::cli::{json, table};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;
use crate::user::User;

/// List the accepted keys of a user, or of everyone
///
/// By user, oldest first. With --json they are written one by one, however many there are.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct List {
    /// Whose keys [default: everyone's]
    #[arg(value_name = "USER", add = ArgValueCompleter::new(users_with_a_key))]
    user: Option<User>,

    /// List the expired and revoked ones too
    #[arg(short, long)]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  Who has a key:
      $ apikey list
  All that were ever issued, for a script:
      $ apikey list --all --json";

pub fn run(args: &List, global: &Global, output: &Output) -> Result<()> {
    let store = global.open()?;
    let now = Timestamp::now();
    if output.is_json() {
        return output.data(|out| {
            out.write_all(b"{\"keys\":[")?;
            let mut separator: &[u8] = b"";
            store.list(args.user.as_ref(), args.all, now, |key| {
                out.write_all(separator)?;
                separator = b",";
                Ok::<_, Stopped>(json::write(out, &key)?)
            })?;
            Ok(out.write_all(b"]}\n")?)
        });
    }
    let mut keys = Vec::new();
    store.list(args.user.as_ref(), args.all, now, |key| {
        keys.push(key);
        Ok::<_, Error>(())
    })?;
    if keys.is_empty() {
        output.note("There are no keys to list.");
        return Ok(());
    }
    output.text(&table::many(&keys))
}
