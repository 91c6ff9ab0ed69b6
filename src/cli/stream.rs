//! Standard input and output, past every buffer that would keep a copy of a key.
//!
//! Who started the process may have made them non-blocking: then it waits here, as it does where they
//! block.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

/// Reads once from standard input; 0 is its end.
pub fn read(buffer: &mut [u8]) -> io::Result<usize> {
    once(io::stdin(), PollFlags::POLLIN, || unistd::read(io::stdin(), buffer))
}

/// Writes once to standard output; returns how much of `data` it took.
pub fn write(data: &[u8]) -> io::Result<usize> {
    once(io::stdout(), PollFlags::POLLOUT, || unistd::write(io::stdout(), data))
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
