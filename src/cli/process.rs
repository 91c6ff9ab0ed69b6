//! What the process does for the secrets it will hold, before it holds one.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Code, Error, Result};

/// Turns core dumps off, and keeps other processes of the same user from reading this one's memory
/// (prctl(2), `PR_SET_DUMPABLE`; ptrace(2)).
pub fn harden() -> Result<()> {
    // The hard limit stays, for the command that a refresh runs.
    let no_core =
        || getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    set_dumpable(false)
        .and_then(|()| no_core())
        .map_err(|error| Error::new(Code::InternalError, format!("cannot turn core dumps off: {error}")))
}
