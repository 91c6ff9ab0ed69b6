//! The command by which the reader of a key file is told.

use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::patience::milliseconds;
use crate::settings::Reload;
use crate::signals::{HeldOff, Woken};
use crate::store::Pending;

/// How long a command that is to end may take for it, before it is killed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs the command; where that fails, says why. Standard output is for data, so it has none. It is a
/// process group of its own: when its time is over, or a signal is to end this process, it ends with its
/// children, but for one that has left the group.
pub fn run(reload: &Reload, pending: &Pending, stderr: Stdio) -> Result<(), Failed> {
    let child = Command::new("/bin/sh")
        .args(["-c", reload.command.as_str()])
        .env("APIKEY_USER", pending.key.user.as_str())
        .env("APIKEY_PREFIX", pending.key.prefix.to_string())
        .env("APIKEY_KEY_FILE", pending.key_file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .spawn();
    let cannot = |error: io::Error| Failed::of(format!("the reload command could not be run: {error}"));
    wait(child.map_err(cannot)?, reload.timeout()).unwrap_or_else(|error| Err(cannot(error)))
}

/// Why the reader was not told.
pub struct Failed {
    pub why: String,
    /// A signal that was to end this process ended the command.
    pub interrupted: bool,
}

impl Failed {
    fn of(why: String) -> Self {
        Failed { why, interrupted: false }
    }
}

/// Waits for the end of `child`, or brings it about.
fn wait(mut child: Child, timeout: Duration) -> io::Result<Result<(), Failed>> {
    let group = Pid::from_raw(child.id().cast_signed());
    let woken = watch(group, timeout);
    if let Ok((Woken::Ready, _)) = woken {
        let status = child.wait()?;
        let failed = || Failed::of(format!("the reload command failed: {status}"));
        return Ok(if status.success() { Ok(()) } else { Err(failed()) });
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = killpg(group, signal);
        if let Ok((_, ended)) = &woken {
            let mut ended = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, milliseconds(LAST_WORDS));
        }
    }
    let _ = child.try_wait();
    Ok(Err(match woken?.0 {
        Woken::TimedOut => {
            Failed::of(format!("the reload command took longer than {timeout:?}, and was ended"))
        }
        _ => Failed { why: "the reload command was interrupted".to_owned(), interrupted: true },
    }))
}

/// Waits for the end of a process, or for a reason to bring it about. A signal is that, and is taken: what
/// became of the command is to be said before this process ends, too. Returns what can be read when the
/// process has ended.
fn watch(process: Pid, timeout: Duration) -> io::Result<(Woken, PipeReader)> {
    // Only now that it runs: it would inherit that they are held off.
    let signals = HeldOff::begin(&[Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM], &[])?;
    let (ended, end) = io::pipe()?;
    thread::Builder::new().spawn(move || {
        // Not reaped: its number stays its own for as long as its group may be sent a signal.
        let _ = waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        drop(end);
    })?;
    let woken = signals.wait(ended.as_fd(), milliseconds(timeout))?;
    signals.take(&woken)?;
    Ok((woken, ended))
}
