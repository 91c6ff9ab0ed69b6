//! Whoever changes keys: alone, and after what an earlier run left has been seen to.

use std::path::PathBuf;

use crate::error::Result;
use crate::recovery::{End, Recovered, recover};
use crate::store::{Store, WriteLock};
use crate::timestamp::Timestamp;
use crate::user::User;

/// The one process that changes keys, until it is dropped.
pub struct Writer<'store> {
    pub(crate) store: &'store mut Store,
    pub(crate) lock: WriteLock,
    pub(crate) clock: fn() -> Timestamp,
    unfinished: Vec<Recovered>,
}

impl<'store> Writer<'store> {
    /// Waits for the right to write, and finishes or undoes the deliveries that earlier runs left.
    /// `tell` hears of each.
    pub fn begin(
        store: &'store mut Store,
        clock: fn() -> Timestamp,
        mut tell: impl FnMut(&Recovered),
    ) -> Result<Self> {
        let lock = store.lock()?;
        let mut writer = Writer { store, lock, clock, unfinished: Vec::new() };
        for recovered in recover(&mut writer)? {
            tell(&recovered);
            if matches!(recovered.end, End::AwaitsReload | End::Stuck(_)) {
                writer.unfinished.push(recovered);
            }
        }
        Ok(writer)
    }

    /// The user's delivery that is not at its end, after what could be finished has been.
    pub fn unfinished(&self, user: &User) -> Option<&Recovered> {
        self.unfinished.iter().find(|recovered| recovered.key.user == user.as_str())
    }

    /// The files of the database: no place for a key.
    pub fn database_files(&self) -> [PathBuf; 5] {
        self.store.location().files()
    }
}
