//! Random bytes, from nowhere but the operating system.

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::error::{Code, Error, Result};

/// Fills `bytes` from the operating system's generator. Fails where that fails.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    SysRng.try_fill_bytes(bytes).map_err(|error| {
        Error::new(Code::InternalError, format!("the system's random generator failed: {error}"))
    })
}
