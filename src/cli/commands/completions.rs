//! `apikey completions`

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::complete::{SHELLS, script};
use crate::cli::output::Output;
use crate::error::{Code, Error, Result};

/// Print the script that makes a shell complete apikey's arguments
///
/// The package puts it where the shell finds it. Without the package, let the shell read it when it
/// starts, from the file that has its settings.
#[derive(Debug, Args)]
#[command(override_usage = "apikey completions <SHELL> [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Completions {
    /// The shell that is to complete
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(SHELLS))]
    shell: String,
}

const EXAMPLES: &str = "\
Examples:
  For bash, from its next start on:
      $ echo 'source <(apikey completions bash)' >> ~/.bashrc
  For zsh, where compinit has run before:
      $ echo 'source <(apikey completions zsh)' >> ~/.zshrc
  For fish:
      $ echo 'apikey completions fish | source' >> ~/.config/fish/config.fish";

pub fn run(args: &Completions, output: &Output) -> Result<()> {
    if output.is_json() {
        let message = "a completion script cannot be had as a JSON object";
        return Err(Error::new(Code::Usage, message).hint("leave --json out"));
    }
    let script = script(&args.shell)?;
    output.data(|out| Ok(out.write_all(&script)?))
}
