//! A thread of another process whose system calls are watched, so that it can be stopped at one of them: what
//! strace does, by ptrace(2).

use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Whether the registers that a system call is made with are known here.
pub const IS_POSSIBLE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// A thread that is stopped whenever it makes a system call. It does one piece of work, from the read of a line
/// to the next read from standard input.
pub struct Traced {
    thread: Pid,
    is_in_call: bool,
    reads: u32,
    /// Whether of several such calls in a row each counts.
    counts_each: bool,
    last: c_long,
    /// Calls so far that change something, or at which others get a turn.
    pub calls: u32,
}

impl Traced {
    /// Begins to watch a thread that waits for a line, or is about to.
    pub fn seize(thread: Pid, counts_each: bool) -> Self {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
        ptrace::seize(thread, options).expect("ptrace(2) is allowed here");
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Traced { thread, is_in_call: false, reads: 0, counts_each, last: -1, calls: 0 }
    }

    /// Lets it go on until it is about to make the call with this number. `false` where its work is over before.
    pub fn goes_on_to(&mut self, number: u32) -> bool {
        let mut signal = None;
        loop {
            ptrace::syscall(self.thread, signal.take()).unwrap();
            match waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceSyscall(_) => {}
                WaitStatus::Stopped(_, other) => {
                    signal = Some(other);
                    continue;
                }
                WaitStatus::PtraceEvent(..) => continue,
                ended => panic!("{ended:?}"),
            }
            self.is_in_call = !self.is_in_call;
            if !self.is_in_call {
                continue;
            }
            let [call, first, _, third] = registers(self.thread);
            if call == libc::SYS_read && first == 0 {
                self.reads += 1;
                // The first is the one in which it was found.
                if self.reads == 2 {
                    return false;
                }
            }
            if is_of_interest(call, third) {
                let is_another = std::mem::replace(&mut self.last, call) != call;
                self.calls += u32::from(is_another || self.counts_each);
                if self.calls == number {
                    return true;
                }
            }
        }
    }

    /// Kills its process.
    pub fn kill(self, process: Pid) {
        kill(process, Signal::SIGKILL).unwrap();
        // A thread that is traced is gone when its tracer has seen it go.
        while waitpid(self.thread, Some(WaitPidFlag::__WALL)).is_ok_and(|status| !is_over(status)) {}
    }

    /// Lets it do as it likes.
    pub fn let_go(self) {
        ptrace::detach(self.thread, None).unwrap();
    }
}

fn is_over(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
}

/// The number of the call that it makes, and the first three of its arguments.
fn registers(thread: Pid) -> [c_long; 4] {
    #[cfg(target_arch = "x86_64")]
    let registers = ptrace::getregs(thread).map(|regs| [regs.orig_rax, regs.rdi, regs.rsi, regs.rdx]);
    #[cfg(target_arch = "aarch64")]
    let registers =
        ptrace::getregs(thread).map(|regs| [regs.regs[8], regs.regs[0], regs.regs[1], regs.regs[2]]);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let registers = Ok::<_, nix::Error>([u64::from(thread.as_raw().unsigned_abs()); 4]);
    registers.unwrap().map(u64::cast_signed)
}

/// Whether a call changes what others see, or waits, so that others may come in between.
fn is_of_interest(call: c_long, third: c_long) -> bool {
    #[cfg(target_arch = "x86_64")]
    if [libc::SYS_rename, libc::SYS_unlink, libc::SYS_poll].contains(&call) {
        return true;
    }
    match call {
        libc::SYS_openat => third & c_long::from(libc::O_CREAT) != 0,
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_ftruncate
        | libc::SYS_fchmod
        | libc::SYS_fchown
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlinkat
        | libc::SYS_flock
        | libc::SYS_ppoll => true,
        _ => false,
    }
}
