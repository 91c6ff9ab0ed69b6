//! Whoever changes keys: alone, and after what an earlier run left has been seen to.

use std::path::PathBuf;

use crate::error::Result;
use crate::recovery::{Recovered, recover};
use crate::store::{Store, WriteLock};
use crate::timestamp::Timestamp;

/// The one process that changes keys, until it is dropped.
pub struct Writer<'store> {
    pub(crate) store: &'store mut Store,
    pub(crate) lock: WriteLock,
    pub(crate) clock: fn() -> Timestamp,
}

impl<'store> Writer<'store> {
    /// Waits for the right to write, and finishes or undoes the deliveries that earlier runs left.
    /// `tell` hears of each.
    pub fn begin(
        store: &'store mut Store,
        clock: fn() -> Timestamp,
        tell: impl FnMut(&Recovered),
    ) -> Result<Self> {
        let lock = store.lock()?;
        let mut writer = Writer { store, lock, clock };
        recover(&mut writer, tell)?;
        Ok(writer)
    }

    /// The files of the database: no place for a key.
    pub fn database_files(&self) -> [PathBuf; 4] {
        self.store.location().files()
    }
}
