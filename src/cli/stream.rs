//! The standard streams, past every buffer that would keep a copy of a key, and past Rust's own
//! handles on them, which say nothing where a stream may not be written.
//!
//! Who started the process may have made them non-blocking: then it waits here, as it does where they
//! block.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::patience::milliseconds;

/// Standard output. Each write is one of the kernel's.
pub struct Stdout;

/// Standard error likewise.
pub struct Stderr;

impl Write for Stdout {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        once(io::stdout(), PollFlags::POLLOUT, || unistd::write(io::stdout(), data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stderr {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        once(io::stderr(), PollFlags::POLLOUT, || unistd::write(io::stderr(), data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads once from standard input; 0 is its end.
pub fn read(buffer: &mut [u8]) -> io::Result<usize> {
    once(io::stdin(), PollFlags::POLLIN, || unistd::read(io::stdin(), buffer))
}

/// Whether `stream` takes more, or fails at once, before `timeout` is over.
pub fn takes_more(stream: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let timeout = milliseconds(timeout);
    loop {
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], timeout) {
            Err(Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

fn once(
    stream: impl AsFd,
    ready: PollFlags,
    mut transfer: impl FnMut() -> nix::Result<usize>,
) -> io::Result<usize> {
    loop {
        match transfer() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(stream.as_fd(), ready)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            },
            done => return Ok(done?),
        }
    }
}
