//! The one place that owns the streams. Standard output is data, standard error is everything that
//! is said to a person.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use nix::unistd::fsync;
use serde::Serialize;
use zeroize::Zeroizing;

use super::json;
use super::stream::{self, Stderr, Stdout};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::patience::{A_WHILE, within};
use crate::text::printable;
use crate::user::User;

/// As many bytes as a pipe that is ready takes without waiting: pipe(7).
const PIPE_BUF: usize = 4096;

/// Where output goes, and in which form.
#[derive(Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// Output as the caller asked for it.
    pub fn new(json: bool, quiet: bool) -> Self {
        Output { json, quiet }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nothing is to be said but errors.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says a line to a person, who may have asked for quiet.
    pub fn note(&self, line: &str) {
        if !self.json && !self.quiet {
            say(&printable(line));
        }
    }

    /// The same from inside a turn at writing: who does not read it keeps nobody waiting for longer than
    /// `timeout`.
    pub fn note_within(&self, timeout: Duration, line: &str) {
        if self.json || self.quiet || !stream::takes_more(io::stderr(), timeout).unwrap_or(true) {
            return;
        }
        let line = printable(line).into_owned();
        if line.len() < PIPE_BUF {
            say(&line);
        } else {
            let _ = within(timeout, move || say(&line));
        }
    }

    /// Says why something failed of a user's, where that is not the end.
    pub fn problem(&self, user: &User, error: &Error) {
        say(&format!("apikey: {user}: {}", with_hint(error)));
    }

    /// Says why the program failed, and returns the exit status that says so too. That a key is not
    /// accepted is an answer, and the status is all that who asked for quiet wants of it.
    pub fn failure(&self, error: &Error) -> ExitCode {
        let code = error.code();
        if self.quiet && code == Code::InvalidKey {
            return ExitCode::from(code.exit_status());
        }
        if self.json {
            say(&json::to_string(&Failure {
                code: code.as_str(),
                message: error.to_string(),
                hint: error.what_to_do(),
                revoked_key_prefixes: error.revoked(),
            }));
        } else {
            say(&format!("apikey: {}", with_hint(error)));
        }
        ExitCode::from(code.exit_status())
    }

    /// Writes `record` as the one JSON object on standard output.
    pub fn object(&self, record: &impl Serialize) -> Result<()> {
        self.data(|out| Ok(json::write_line(out, record)?))
    }

    /// Writes text that is made to be printed, lines and all, to standard output.
    pub fn text(&self, text: &str) -> Result<()> {
        self.data(|out| Ok(out.write_all(text.as_bytes())?))
    }

    /// Lets `write` write data to standard output. A reader that closes the pipe ends it quietly;
    /// where `write` fails, what is not out yet stays in.
    pub fn data(&self, write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), Stopped>) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, Stdout);
        match write(&mut out).and_then(|()| Ok(out.flush()?)) {
            Ok(()) => Ok(()),
            Err(stopped) => {
                drop(out.into_parts());
                stopped.into_result()
            }
        }
    }

    /// Checks that a key written to standard output would reach somebody.
    pub fn check_takes_key(&self) -> Result<()> {
        let stdout = stdout_status()?;
        // Rust opens a closed standard output as /dev/null.
        if SFlag::from_bits_truncate(stdout.st_mode).contains(SFlag::S_IFCHR)
            && stdout.st_rdev == makedev(1, 3)
        {
            return Err(undeliverable("standard output is closed or /dev/null"));
        }
        Ok(())
    }

    /// Checks that standard output is none of `files`: the database must never hold a key.
    pub fn check_is_none_of(&self, files: &[PathBuf]) -> Result<()> {
        let stdout = stdout_status()?;
        let same = |path: &&PathBuf| {
            path.symlink_metadata()
                .is_ok_and(|file| (file.dev(), file.ino()) == (stdout.st_dev, stdout.st_ino))
        };
        match files.iter().find(same) {
            Some(path) => Err(undeliverable(&format!("standard output is {}", path.display()))),
            None => Ok(()),
        }
    }

    /// Writes a secret to standard output in one write, past every buffer that would keep a copy; into a
    /// regular file so that a power cut does not undo it. Who does not read it is waited for as long as
    /// `timeout`.
    pub fn secret(&self, secret: Zeroizing<Vec<u8>>, timeout: Duration) -> Result<()> {
        let cannot = |error: io::Error| undeliverable(&format!("cannot write to standard output: {error}"));
        let is_unread = || undeliverable("nobody reads standard output");
        if !stream::takes_more(io::stdout(), timeout).map_err(cannot)? {
            return Err(is_unread());
        }
        let kind = SFlag::from_bits_truncate(stdout_status()?.st_mode & SFlag::S_IFMT.bits());
        let is_short = secret.len() <= PIPE_BUF;
        let write = move || match Stdout.write(&secret)? {
            written if written < secret.len() => Err(io::Error::other("only a part of the key was taken")),
            _ if kind == SFlag::S_IFREG => Ok(fsync(io::stdout())?),
            _ => Ok(()),
        };
        let written = match kind {
            SFlag::S_IFREG => within(timeout.max(A_WHILE), write).map_err(cannot)?,
            _ if is_short => Some(write()),
            _ => within(timeout, write).map_err(cannot)?,
        };
        written.ok_or_else(is_unread)?.map_err(cannot)
    }
}

/// Why data did not get out.
pub enum Stopped {
    /// Standard output did not take it.
    Output(io::Error),
    /// There was no more to be had.
    Source(Error),
}

impl Stopped {
    fn into_result(self) -> Result<()> {
        match self {
            Stopped::Output(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Stopped::Output(error) => {
                Err(Error::new(Code::InternalError, format!("cannot write to standard output: {error}")))
            }
            Stopped::Source(error) => Err(error),
        }
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Stopped::Output(error)
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Source(error)
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'static str,
    message: String,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Prefix]>::is_empty")]
    revoked_key_prefixes: &'a [Prefix],
}

fn with_hint(error: &Error) -> String {
    let hint = error.what_to_do().map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

fn stdout_status() -> Result<FileStat> {
    fstat(io::stdout())
        .map_err(|error| undeliverable(&format!("standard output cannot be looked at: {error}")))
}

fn undeliverable(why: &str) -> Error {
    Error::undeliverable(why)
        .hint("send standard output to where the key is to go, or name a file with --key-file")
}

/// Nothing can be said where standard error is gone, and nothing need be: the exit status tells.
fn say(line: &str) {
    drop(Stderr.write_all(format!("{line}\n").as_bytes()));
}
