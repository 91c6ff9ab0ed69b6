//! `apikey list`

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::args::Global;
use crate::cli::complete::users_with_a_key;
use crate::cli::json;
use crate::cli::output::{Output, Stopped};
use crate::cli::table::Widths;
use crate::error::Result;
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
    let authority = global.open()?;
    let (user, all) = (args.user.as_ref(), args.all);
    if output.is_json() {
        return output.data(|out| {
            out.write_all(b"{\"keys\":[")?;
            let mut separator: &[u8] = b"";
            authority.list(|keys| {
                keys.for_each(user, all, |key| {
                    out.write_all(separator)?;
                    separator = b",";
                    Ok::<_, Stopped>(json::write(out, &key)?)
                })
            })?;
            Ok(out.write_all(b"]}\n")?)
        });
    }
    let mut found = false;
    output.data(|out| {
        authority.list(|keys| {
            // Once to see how wide they are, and once to print some at a time: there may be many.
            let mut widths = Widths::new();
            keys.for_each(user, all, |key| {
                widths.make_room_for(&key);
                Ok::<_, Stopped>(())
            })?;
            let mut some = Vec::with_capacity(AT_A_TIME);
            keys.for_each(user, all, |key| {
                some.push(key);
                if some.len() < AT_A_TIME {
                    return Ok(());
                }
                let rows = widths.rows(&some, !found);
                found = true;
                some.clear();
                Ok::<_, Stopped>(out.write_all(rows.as_bytes())?)
            })?;
            if !some.is_empty() {
                let rows = widths.rows(&some, !found);
                found = true;
                out.write_all(rows.as_bytes())?;
            }
            Ok(())
        })
    })?;
    if !found {
        output.note("There are no keys to list.");
    }
    Ok(())
}

/// Keys that are kept in memory to be printed.
const AT_A_TIME: usize = 1000;
