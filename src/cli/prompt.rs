//! Questions to the person at the terminal.
//!
//! A line is read in the terminal's own mode, with whatever editing that has. Ctrl-C is an answer; a
//! signal that ends the process acts when the terminal is as it was.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, tcflush, tcgetattr, tcsetattr};

use super::stream::{self, Stderr};
use crate::error::{Code, Error, Result};

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
        let length = signals.read_line(&mut line)?;
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
        let read = signals.read_line(line);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &before)?;
        drop(Stderr.write_all(b"\n"));
        read
    };
    let length = read().map_err(|error| unanswered(&error))?.ok_or_else(cancelled)?;
    Ok(length - usize::from(line[..length].ends_with(b"\n")))
}

/// Signals that are held off until this is dropped: those that came act then, but for Ctrl-C, which is
/// taken. Where the terminal is not as it was, Ctrl-Z is, too: nobody is to be left with it like that.
struct HeldOff {
    interrupt: SignalFd,
    ending: SignalFd,
    before: SigSet,
}

impl HeldOff {
    fn begin(ending: &[Signal], stopping: &[Signal]) -> io::Result<Self> {
        // One that is ignored would come all the same where it is held off.
        let ignored = ignored_signals();
        let heeded = |signals: &[Signal]| -> SigSet {
            signals.iter().copied().filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0).collect()
        };
        let (interrupt, ending) = (heeded(&[Signal::SIGINT]), heeded(ending));
        let seen = |signals: &SigSet| SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC);
        let (interrupt_came, ending_came) = (seen(&interrupt)?, seen(&ending)?);
        let all: SigSet = interrupt.iter().chain(ending.iter()).chain(stopping.iter().copied()).collect();
        let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(HeldOff { interrupt: interrupt_came, ending: ending_came, before })
    }

    /// Reads a line with its end from standard input; `None` where a signal came first.
    fn read_line(&self, line: &mut [u8]) -> io::Result<Option<usize>> {
        let stdin = io::stdin();
        let mut length = 0;
        while length < line.len() {
            let waited_for = [self.interrupt.as_fd(), self.ending.as_fd(), stdin.as_fd()];
            let mut ready = waited_for.map(|file| PollFd::new(file, PollFlags::POLLIN));
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            if ready[0].any() == Some(true) {
                self.interrupt.read_signal()?;
                return Ok(None);
            }
            if ready[1].any() == Some(true) {
                return Ok(None);
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
}

impl Drop for HeldOff {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// The signals that are ignored, a bit each, the lowest for signal 1: proc_pid_status(5), SigIgn.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "cancelled; nothing changed")
}

fn unanswered(error: &io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot ask at the terminal: {error}"))
}
