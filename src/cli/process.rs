//! What the process does for the secrets it will hold, before it holds one.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

use crate::error::{Code, Error, Result};

/// Turns core dumps off, and keeps other processes of the same user from reading this one's memory
/// (prctl(2), `PR_SET_DUMPABLE`; ptrace(2)).
pub fn harden() -> Result<()> {
    set_dumpable(false)
        .and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .map_err(|error| Error::new(Code::InternalError, format!("cannot turn core dumps off: {error}")))
}
