//! What clap has to say, said this program's way.

use std::ffi::OsString;
use std::io::{self, ErrorKind::BrokenPipe, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};

use super::output::Output;
use crate::error::{Code, Error, Result};
use crate::key::Key;

/// Prints the help or the version that was asked for, or reports wrong usage.
pub fn report(error: &clap::Error, output: &Output) -> ExitCode {
    if !matches!(error.kind(), DisplayHelp | DisplayVersion) {
        return output.failure(&usage(&error.render().to_string()));
    }
    if !io::stdout().is_terminal() {
        // Where CLICOLOR_FORCE is set, clap would colour a file too.
        let printed = output.text(&error.render().to_string());
        return printed.map_or_else(|failed| output.failure(&failed), |()| ExitCode::SUCCESS);
    }
    match error.print() {
        Err(failed) if failed.kind() != BrokenPipe => output.failure(&unprinted(&failed)),
        _ => ExitCode::SUCCESS,
    }
}

/// A key that was given as an argument, where everybody on the host can read it: as a user or a name
/// it would go into the database, and with a message into a log.
pub fn refuse_key(args: &[OsString]) -> Result<()> {
    let key = args.iter().find_map(|arg| arg.as_bytes().windows(Key::LENGTH).find_map(Key::parse));
    let Some(key) = key else { return Ok(()) };
    let message =
        format!("an argument holds the key {}…, and everybody here can read it there", key.prefix());
    Err(Error::new(Code::Usage, message).hint("revoke it; give a key to `apikey verify` on standard input"))
}

/// Whether to answer in JSON, to be known although the arguments may be wrong.
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// clap's text is a message, a blank line, and then tips and the usage.
fn usage(rendered: &str) -> Error {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    Error::new(Code::Usage, on_one_line(message, " ")).hint(on_one_line(rest, "; "))
}

fn on_one_line(text: &str, separator: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(separator)
}

fn unprinted(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot write to standard output: {error}"))
}
