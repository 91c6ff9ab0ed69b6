//! What clap has to say, said this program's way.

use std::ffi::OsString;
use std::io::{self, ErrorKind::BrokenPipe, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingSubcommand};
use clap::error::{ContextKind, ContextValue};

use super::output::Output;
use super::stream::Stderr;
use crate::error::{Code, Error, Result};
use crate::key::Key;
use crate::text::printable;

/// What others call the commands.
const OTHER_NAMES: [(&[&str], &str); 6] = [
    (&["rm", "remove", "delete", "del"], "revoke"),
    (&["rotate", "regenerate", "roll"], "refresh"),
    (&["new", "add", "issue", "generate"], "create"),
    (&["ls"], "list"),
    (&["check", "validate"], "verify"),
    (&["get", "info"], "show"),
];

/// Prints the help or the version that was asked for, or reports wrong usage of `command`.
pub fn report(error: clap::Error, command: &mut clap::Command, output: &Output) -> ExitCode {
    if error.kind() == MissingSubcommand && !output.is_json() {
        return no_command(command);
    }
    if !matches!(error.kind(), DisplayHelp | DisplayVersion) {
        return output.failure(&usage(error));
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

/// Whoever says no command at all is shown which there are.
fn no_command(command: &mut clap::Command) -> ExitCode {
    let help = command.render_help();
    let coloured = io::stderr().is_terminal() && console::colors_enabled_stderr();
    let text = if coloured { help.ansi().to_string() } else { help.to_string() };
    // As any other error: where nothing can be said, nothing need be.
    drop(Stderr.write_all(text.as_bytes()));
    ExitCode::from(Code::Usage.exit_status())
}

/// clap's text is a message, a blank line, and then tips and the usage, a line each.
fn usage(mut error: clap::Error) -> Error {
    suggest_by_other_name(&mut error);
    keep_to_its_lines(&mut error);
    let rendered = error.render().to_string();
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let lines = |text| str::lines(text).map(str::trim).filter(|line| !line.is_empty());
    let message: Vec<&str> = lines(message).collect();
    Error::new(Code::Usage, message.join(" ")).hints(lines(rest))
}

fn suggest_by_other_name(error: &mut clap::Error) {
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidSubcommand) else { return };
    let known = OTHER_NAMES.iter().find(|(others, _)| others.contains(&said.as_str()));
    if let Some((_, name)) = known {
        let tip = StyledStr::from(format!("the command is '{name}'"));
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// Keeps a line's end in what was said from being one in the message.
fn keep_to_its_lines(error: &mut clap::Error) {
    let escaped = |(kind, value): (ContextKind, &ContextValue)| {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(printable(text).into_owned()),
            ContextValue::Strings(texts) => {
                ContextValue::Strings(texts.iter().map(|text| printable(text).into_owned()).collect())
            }
            ContextValue::StyledStrs(texts) => {
                let escaped = |text: &StyledStr| printable(&text.to_string()).into_owned().into();
                ContextValue::StyledStrs(texts.iter().map(escaped).collect())
            }
            _ => return None,
        };
        Some((kind, value))
    };
    let all: Vec<_> = error.context().filter_map(escaped).collect();
    for (kind, value) in all {
        error.insert(kind, value);
    }
}

fn unprinted(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot write to standard output: {error}"))
}
