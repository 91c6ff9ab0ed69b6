//! Questions to the person at the terminal.
//!
//! A line is read in the terminal's own mode, with whatever editing that has. Ctrl-C is an answer; a
//! signal that ends the process acts when the terminal is as it was.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, tcflush, tcgetattr, tcsetattr};

use super::stream::{self, Stderr};
use crate::error::{Code, Error, Result};
use crate::signals::{HeldOff, Woken};

/// Whether somebody is there to answer.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and fails with [`Code::Cancelled`] on anything but a line with `y` or `yes`. What was typed
/// before the question is no answer to it.
pub fn confirm(question: &str) -> Result<()> {
    let mut line = [0; 16];
    let mut ask = || {
        // In the background this stops it, while a signal can still end it.
        tcflush(io::stdin(), FlushArg::TCIFLUSH)?;
        let signals = HeldOff::begin(&[], &[])?;
        drop(Stderr.write_all(format!("{question} [y/N] ").as_bytes()));
        let length = read_line(&signals, &mut line)?;
        if length == Some(line.len()) {
            // Of a longer line nothing is left for the shell.
            tcflush(io::stdin(), FlushArg::TCIFLUSH)?;
        }
        Ok(length)
    };
    match ask().map_err(|error| unanswered(&error))? {
        // With Enter: the end of the input says nothing.
        Some(length) => match line[..length].strip_suffix(b"\n").map(|line| line.trim_ascii()) {
            Some(answer) if answer.eq_ignore_ascii_case(b"y") || answer.eq_ignore_ascii_case(b"yes") => {
                Ok(())
            }
            _ => Err(cancelled()),
        },
        None => {
            drop(Stderr.write_all(b"\n"));
            Err(cancelled())
        }
    }
}

/// Reads a line from the terminal without showing it, into `line`, and returns how long it is without
/// its end. A line that does not fit fills all of `line`.
pub fn read_hidden(prompt: &str, line: &mut [u8]) -> Result<usize> {
    let ending = [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM];
    let mut read = || {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags -= LocalFlags::ECHO;
        // In the background this stops it, while a signal can still end it.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &before)?;
        let signals = HeldOff::begin(&ending, &[Signal::SIGTSTP])?;
        // What is typed at the prompt is neither shown nor thrown away, but what was typed before it is,
        // and what is typed past the end: that must not be shown either.
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
        drop(Stderr.write_all(prompt.as_bytes()));
        let read = read_line(&signals, line);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &before)?;
        drop(Stderr.write_all(b"\n"));
        read
    };
    let length = read().map_err(|error| unanswered(&error))?.ok_or_else(cancelled)?;
    Ok(length - usize::from(line[..length].ends_with(b"\n")))
}

/// Reads a line with its end from standard input; `None` where a signal came first. Where that is Ctrl-C
/// it is an answer, and does nothing else.
fn read_line(signals: &HeldOff, line: &mut [u8]) -> io::Result<Option<usize>> {
    let mut length = 0;
    while length < line.len() {
        match signals.wait(io::stdin().as_fd(), PollTimeout::NONE)? {
            woken @ Woken::ByInterrupt => return signals.take(&woken).map(|()| None),
            Woken::ByEnding | Woken::TimedOut => return Ok(None),
            Woken::Ready => {}
        }
        let read = stream::read(&mut line[length..])?;
        let end = line[length..length + read].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        if let Some(end) = end {
            line[length + end] = b'\n';
            return Ok(Some(length + end + 1));
        }
        length += read;
        if read == 0 {
            break;
        }
    }
    Ok(Some(length))
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "cancelled; nothing changed")
}

fn unanswered(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot ask at the terminal: {error}"))
}
