//! `apikey backup`

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

use crate::cli::args::{Global, new_file};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::text::count;

/// Copy the database into a new file, while others write
///
/// As it stands at one moment, packed, in a file that is readable by its owner alone and on the disk when this
/// ends. The copy is a database itself: put in the place of the one that was lost, it is gone on with. A file that
/// is there already stays, and a folder that others may write is refused. It holds no key, but the hash of each,
/// and who has it.
#[derive(Debug, Args)]
#[command(override_usage = "apikey backup <PATH> [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Backup {
    /// The file to make
    #[arg(value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = new_file())]
    path: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  A copy for each day:
      $ apikey backup \"keys-$(date +%F).db\"";

/// What is written with `--json`.
#[derive(Serialize)]
struct BackupJson<'a> {
    path: &'a str,
    bytes: u64,
    keys: u64,
}

pub fn run(args: &Backup, global: &Global, output: &Output) -> Result<()> {
    let authority = global.open()?;
    let progress = Progress::begin(None, output.is_quiet() || output.is_json());
    let made = authority.backup(&args.path)?;
    drop(progress);
    let path = made.path.display().to_string();
    if output.is_json() {
        let json = BackupJson { path: &path, bytes: made.bytes, keys: made.keys };
        return output.object(&json).map_err(|error| error.after("it is done"));
    }
    let (keys, bytes) = (count(made.keys, "key"), count(made.bytes, "byte"));
    output.note(&format!("Copied the database into {path}: {keys}, {bytes}."));
    Ok(())
}
