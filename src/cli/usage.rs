//! What clap has to say, said this program's way.

use std::ffi::OsString;
use std::io::{self, ErrorKind::BrokenPipe, IsTerminal as _};
use std::process::ExitCode;

use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};

use super::output::Output;
use crate::error::{Code, Error};
use crate::key::Key;

/// Prints the help or the version that was asked for, or reports wrong usage.
pub fn report(error: &clap::Error, args: &[OsString]) -> ExitCode {
    // Whether to answer in JSON is to be known although the arguments could not be parsed.
    let json = args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let output = Output::new(json, false);
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

/// clap's text is a message, a blank line, and then tips and the usage.
fn usage(rendered: &str) -> Error {
    let rendered = without_keys(rendered);
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    Error::new(Code::Usage, on_one_line(message, " ")).hint(on_one_line(rest, "; "))
}

/// A key that was given as an argument, by mistake, need not get into a log of errors too.
fn without_keys(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(key) = text.as_bytes().windows(Key::LENGTH).find_map(Key::parse) {
        text = text.replace(key.expose(), &format!("{}…", key.prefix()));
    }
    text
}

fn on_one_line(text: &str, separator: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(separator)
}

fn unprinted(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot write to standard output: {error}"))
}
