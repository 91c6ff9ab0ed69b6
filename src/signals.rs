//! Signals that would end the process, held off for as long as something is to be put right first.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that are held off until this is dropped: those that came act then, but for one that was taken.
pub struct HeldOff {
    interrupt: SignalFd,
    ending: SignalFd,
    before: SigSet,
}

/// What there was to wait for, the first that is so.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// Ctrl-C came.
    ByInterrupt,
    /// One of the signals that end the process came.
    ByEnding,
    /// There is something to be read.
    Ready,
    /// The time is over.
    TimedOut,
}

impl HeldOff {
    /// Holds off Ctrl-C, and these: `ending` ones wake whoever waits, `stopping` ones do not.
    pub fn begin(ending: &[Signal], stopping: &[Signal]) -> io::Result<Self> {
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

    /// Holds off those that end the process, for who must not leave behind what is half done.
    pub fn those_that_end() -> io::Result<Self> {
        // One more that is written past a limit is an error then: setrlimit(2).
        Self::begin(&[Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM], &[Signal::SIGTSTP, Signal::SIGXFSZ])
    }

    /// Whether one of those that wake has come.
    pub fn has_come(&self) -> bool {
        let mut ready =
            [&self.interrupt, &self.ending].map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Waits until `file` can be read, up to `timeout`, or until a signal comes.
    pub fn wait(&self, file: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<Woken> {
        let waited_for = [self.interrupt.as_fd(), self.ending.as_fd(), file];
        let mut ready = waited_for.map(|file| PollFd::new(file, PollFlags::POLLIN));
        loop {
            match poll(&mut ready, timeout) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) => break,
            }
        }
        let came = |at: usize| ready[at].any() == Some(true);
        Ok(if came(0) {
            Woken::ByInterrupt
        } else if came(1) {
            Woken::ByEnding
        } else {
            Woken::Ready
        })
    }

    /// Takes the signal that woke: it does nothing any more.
    pub fn take(&self, woken: &Woken) -> io::Result<()> {
        match woken {
            Woken::ByInterrupt => self.interrupt.read_signal().map(drop)?,
            Woken::ByEnding => self.ending.read_signal().map(drop)?,
            Woken::Ready | Woken::TimedOut => {}
        }
        Ok(())
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
