//! Questions to the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use dialoguer::Confirm;
use dialoguer::console::Term;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};

/// Whether somebody is there to answer.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and fails with [`Code::Cancelled`] on anything but yes.
pub fn confirm(question: &str) -> Result<()> {
    // The terminal is in raw mode and Ctrl-C arrives as a character, which dialoguer turns back
    // into SIGINT. Held off, that leaves an error, the terminal as it was, and an exit status.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block().map_err(|error| unanswered(&error.into()))?;
    let answer = Confirm::new().with_prompt(question).default(false).interact_opt();
    let yes = match answer {
        Ok(answer) => answer.unwrap_or(false),
        Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => false,
        Err(dialoguer::Error::IO(error)) => return Err(unanswered(&error)),
    };
    if !yes {
        let term = Term::stderr();
        drop(term.show_cursor().and_then(|()| term.clear_line()));
        return Err(Error::new(Code::Cancelled, "cancelled; nothing changed"));
    }
    interrupt.thread_unblock().map_err(|error| unanswered(&error.into()))
}

/// Reads up to a line's end from the terminal without showing it, into `line`; returns how long it
/// is. A line that does not fit fills all of `line`.
pub fn read_hidden(prompt: &str, line: &mut [u8]) -> Result<usize> {
    // In this order: what is typed at the prompt is neither shown nor thrown away.
    let hidden = Hidden::new().map_err(|error| unanswered(&error.into()))?;
    drop(io::stderr().write_all(prompt.as_bytes()));
    let read = read_line(line);
    drop(hidden);
    drop(io::stderr().write_all(b"\n"));
    read
}

fn read_line(line: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    let mut byte = Zeroizing::new([0]);
    while length < line.len() {
        match unistd::read(io::stdin(), &mut *byte) {
            Ok(0) => break,
            Ok(_) => match byte[0] {
                b'\r' | b'\n' | CTRL_D => break,
                CTRL_C => return Err(Error::new(Code::Cancelled, "cancelled; nothing changed")),
                BACKSPACE | DELETE => length = length.saturating_sub(1),
                other => {
                    line[length] = other;
                    length += 1;
                }
            },
            Err(Errno::EINTR) => {}
            Err(error) => return Err(unanswered(&error.into())),
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
    fn new() -> nix::Result<Self> {
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
