//! The system's log, as syslog(3) writes it: what was done to keys, with the facility authpriv, as useradd(8) and
//! sudo(8) write theirs.
//!
//! Nobody waits for it, and nothing fails for it: where no log is there, or it does not take more at once, there is
//! none. What is to last is in the database.

use std::os::unix::net::UnixDatagram;
use std::process;

use crate::text::{printable, without_keys};

const SOCKET: &str = "/dev/log";
/// Facility 10, severity 6 (informational): RFC 5424, section 6.2.1.
const PRIORITY: u8 = 10 * 8 + 6;
/// Every log takes a line of so many bytes: RFC 5424, section 6.1.
const LONGEST: usize = 2048;

/// Writes each message as a line. Whoever keeps the log writes the time to it.
pub fn write(messages: impl IntoIterator<Item = String>) {
    let mut messages = messages.into_iter().peekable();
    if messages.peek().is_none() {
        return;
    }
    let connected = || {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(SOCKET).map(|()| socket)
    };
    let Ok(socket) = connected() else { return };
    for message in messages {
        let safe = without_keys(&printable(&message));
        let line = format!("<{PRIORITY}>apikey[{}]: {safe}", process::id());
        let end = (0..=line.len().min(LONGEST)).rev().find(|at| line.is_char_boundary(*at));
        let _ = socket.send(&line.as_bytes()[..end.unwrap_or(0)]);
    }
}
