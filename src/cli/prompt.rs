//! Questions to the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::thread;

use dialoguer::Confirm;
use dialoguer::console::Term;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::stream;
use crate::error::{Code, Error, Result};

/// Whether somebody is there to answer.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and fails with [`Code::Cancelled`] on anything but yes.
pub fn confirm(question: &str) -> Result<()> {
    let signals = HeldSignals::hold().map_err(|error| unanswered(&error))?;
    let answer = Confirm::new().with_prompt(question).default(false).interact_opt();
    let yes = match answer {
        Ok(answer) => answer.unwrap_or(false),
        Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => false,
        Err(dialoguer::Error::IO(error)) => return Err(unanswered(&error)),
    };
    if !yes {
        let term = Term::stderr();
        drop(term.show_cursor().and_then(|()| term.clear_line()));
        // Held on to: the terminal is in raw mode, Ctrl-C arrives as a character, and dialoguer has
        // turned it back into a SIGINT.
        return Err(Error::new(Code::Cancelled, "cancelled; nothing changed"));
    }
    signals.release().map_err(|error| unanswered(&error))
}

/// Reads up to a line's end from the terminal without showing it, into `line`; returns how long it
/// is. A line that does not fit fills all of `line`.
pub fn read_hidden(prompt: &str, line: &mut [u8]) -> Result<usize> {
    let failed = |error| unanswered(&error);
    let signals = HeldSignals::hold().map_err(failed)?;
    // In this order: what is typed at the prompt is neither shown nor thrown away.
    let hidden = Hidden::new().map_err(failed)?;
    drop(io::stderr().write_all(prompt.as_bytes()));
    let read = read_line(line);
    drop(hidden);
    drop(io::stderr().write_all(b"\n"));
    signals.release().map_err(failed)?;
    read
}

/// The signals that end a process from outside, while a question is open: they end it, but first the
/// terminal is put back as it was.
struct HeldSignals(SigSet);

impl HeldSignals {
    fn hold() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let ending: SigSet =
            [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect();
        let mask = ending.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        thread::Builder::new().spawn(move || {
            if let Ok(signal) = ending.wait() {
                let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
                drop(Term::stderr().show_cursor());
                let _ = ending.thread_unblock().and_then(|()| raise(signal));
            }
        })?;
        Ok(HeldSignals(mask))
    }

    fn release(self) -> io::Result<()> {
        Ok(self.0.thread_set_mask()?)
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

/// A terminal that neither shows what is typed nor acts on it, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags -= LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // TCSAFLUSH: what was typed past the end must not be shown either.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

fn unanswered(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot ask at the terminal: {error}"))
}
