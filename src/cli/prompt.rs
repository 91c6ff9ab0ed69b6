//! Questions to the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

use dialoguer::Confirm;
use dialoguer::console::Term;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use zeroize::Zeroizing;

use super::stream::{self, Stderr};
use crate::error::{Code, Error, Result};

/// Whether somebody is there to answer.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and fails with [`Code::Cancelled`] on anything but yes.
pub fn confirm(question: &str) -> Result<()> {
    // Ctrl-C is to arrive as a character, which dialoguer turns back into a SIGINT and an error; from
    // before the question on, since dialoguer's own raw mode begins only after it.
    let asking = Asking::begin(LocalFlags::ISIG, SetArg::TCSANOW).map_err(|error| unanswered(&error))?;
    let answer = Confirm::new().with_prompt(question).default(false).interact_opt();
    let yes = match answer {
        Ok(answer) => answer.unwrap_or(false),
        Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => false,
        Err(dialoguer::Error::IO(error)) => return Err(unanswered(&error)),
    };
    if !yes {
        let term = Term::stderr();
        drop(term.show_cursor().and_then(|()| term.clear_line()));
        // dialoguer's SIGINT stays held off: the exit status says it.
        return Err(Error::new(Code::Cancelled, "cancelled; nothing changed"));
    }
    asking.end().map_err(|error| unanswered(&error))
}

/// Reads up to a line's end from the terminal without showing it, into `line`; returns how long it
/// is. A line that does not fit fills all of `line`.
pub fn read_hidden(prompt: &str, line: &mut [u8]) -> Result<usize> {
    // What is typed at the prompt is neither shown nor thrown away, but what was typed before it is,
    // and what is typed past the end: that must not be shown either.
    let hidden = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
    let asking = Asking::begin(hidden, SetArg::TCSAFLUSH).map_err(|error| unanswered(&error))?;
    drop(Stderr.write_all(prompt.as_bytes()));
    let read = read_line(line);
    let ended = asking.end().map_err(|error| unanswered(&error));
    drop(Stderr.write_all(b"\n"));
    ended.and(read)
}

/// A terminal at which a question is open, put back as it was when this is dropped. A signal that ends
/// the process from outside does that, too, before it ends it; where the signal is ignored, the
/// question stays.
struct Asking {
    before: Termios,
    when: SetArg,
    mask: SigSet,
}

impl Asking {
    /// Takes `flags` from the terminal.
    fn begin(flags: LocalFlags, when: SetArg) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        // In the background this stops it, while a signal can still end it.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &before)?;
        let ending: SigSet =
            [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect();
        let mask = ending.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let as_it_was = before.clone();
        thread::Builder::new().spawn(move || {
            while let Ok(signal) = ending.wait() {
                let asking = tcgetattr(io::stdin());
                put_back(&as_it_was);
                // A question that is just being opened may have changed the terminal once more.
                thread::sleep(Duration::from_millis(20));
                put_back(&as_it_was);
                if io::stderr().is_terminal() {
                    drop(Term::stderr().show_cursor());
                }
                let _ = ending.thread_unblock().and_then(|()| raise(signal));
                let _ = ending.thread_block();
                asking.iter().for_each(put_back);
            }
        })?;
        let mut changed = before.clone();
        changed.local_flags -= flags;
        tcsetattr(io::stdin(), when, &changed)?;
        Ok(Asking { before, when, mask })
    }

    /// Goes on after it: first the terminal, then the signals are as they were.
    fn end(self) -> io::Result<()> {
        let mask = self.mask;
        drop(self);
        Ok(mask.thread_set_mask()?)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), self.when, &self.before);
    }
}

fn read_line(line: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    let mut byte = Zeroizing::new([0]);
    while length < line.len() {
        if stream::read(&mut *byte).map_err(|error| unanswered(&error))? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' | CTRL_D => break,
            CTRL_C => return Err(Error::new(Code::Cancelled, "cancelled; nothing changed")),
            BACKSPACE | DELETE => length = length.saturating_sub(1),
            other => {
                line[length] = other;
                length += 1;
            }
        }
    }
    Ok(length)
}

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

fn put_back(terminal: &Termios) {
    // In the background it is somebody else's, and who changes it is stopped: tcsetattr(3).
    if tcgetpgrp(io::stdin()) == Ok(getpgrp()) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, terminal);
    }
}

fn unanswered(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot ask at the terminal: {error}"))
}
