//! `apikey completions`

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::complete::{SHELLS, script};
use crate::cli::output::Output;
use crate::error::Result;

/// Print the script that makes a shell complete apikey's arguments
///
/// The package puts it where the shell finds it. Without the package, let the shell read it when it
/// starts; for bash, with this line in ~/.bashrc: source <(apikey completions bash)
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Completions {
    /// The shell that is to complete
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(SHELLS))]
    shell: String,
}

const EXAMPLES: &str = "\
Examples:
  For this shell, from now on:
      $ apikey completions bash > ~/.local/share/bash-completion/completions/apikey";

pub fn run(args: &Completions, output: &Output) -> Result<()> {
    let script = script(&args.shell)?;
    output.data(|out| Ok(out.write_all(&script)?))
}
