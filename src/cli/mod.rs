//! The command line: arguments in, output and an exit status out.

mod args;
mod commands;
mod complete;
mod database;
mod details;
mod handover;
mod json;
mod output;
mod process;
mod progress;
mod prompt;
mod settings_args;
mod settled;
mod stream;
mod table;
mod usage;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser};

use self::args::Global;
use self::commands::Command;
use self::output::Output;
use crate::error::Result;

/// Issue, show, refresh, revoke and verify API keys from one SQLite file
///
/// Each user has one current key. It is shown or written to a file once, and stored as its SHA-256 only. A change is
/// done whole or not at all, whatever is killed meanwhile; there is no server. `create` issues a key and makes the
/// database where there is none, `refresh` replaces it, `revoke` ends it; `ensure` keeps it in a file for a daemon,
/// and `renew`, run each hour, keeps it fresh. `show`, `list`, `log` and `doctor` say how things are. A service checks
/// a key with `verify`, or with one query.
#[derive(Debug, Parser)]
#[command(name = "apikey", bin_name = "apikey", version, term_width = 80, after_long_help = AFTER_HELP)]
#[command(arg_required_else_help = false, disable_version_flag = true, help_template = TEMPLATE)]
struct Cli {
    /// Print version
    #[arg(short = 'V', long, action = ArgAction::Version, hide_short_help = true, long_help = "Print version")]
    #[arg(display_order = args::LAST)]
    version: Option<bool>,

    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// A line shorter than clap's own, so that the short help fits a terminal.
const TEMPLATE: &str = "\
{about-with-newline}{usage-heading} {usage}

{all-args}{after-help}";

const AFTER_HELP: &str = "\
Exit status:
  0 done                 4 the user has no key      8 key not handed over
  1 fault, I/O error     5 key not accepted         9 delivery not finished
  2 wrong usage          6 no usable database      10 answered no, or Ctrl-C
  3 user has a key       7 not permitted           11 problems are left

Examples:
  A key for alice, which nobody can have shown again:
      $ KEY=$(apikey create alice --expires-in 90d)
  Whose key is it?
      $ echo \"$KEY\" | apikey verify
  A key for a daemon, in a file that is kept fresh:
      $ apikey ensure web --key-file /etc/web/web.key --renew-after 30d

The manual: man apikey, man apikey-create and so on; man 5 apikey for the
database, the key file, the JSON and what services need.";

/// What [`command`] returns.
pub use clap::Command as ClapCommand;

/// The definitions of the command line: what completion and the manual are made from. Those of a
/// command are complete once [`ClapCommand::build`] was called.
pub fn command() -> ClapCommand {
    Cli::command()
}

/// Runs the program with `args`, the first of which is its name, and returns its exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let output = Output::new(usage::wants_json(&args), false);
    if complete::answer(&args) {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = usage::refuse_key(&args) {
        return output.failure(&error);
    }
    // Not worth taking apart when the process is about to end.
    let mut command = ManuallyDrop::new(Cli::command());
    let found = command.try_get_matches_from_mut(&args);
    let cli = match found.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => return usage::report(error, &mut command, &output),
    };
    let output = Output::new(cli.global.json, cli.global.quiet);
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(&error),
    }
}

fn run(cli: Cli, output: &Output) -> Result<()> {
    process::harden()?;
    cli.command.run(&cli.global, output)
}
