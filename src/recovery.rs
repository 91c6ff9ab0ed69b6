//! Finishing or undoing the deliveries that earlier runs left, when they were killed or the power
//! failed. `delivery.rs` has the table of what can be found.

use std::io::ErrorKind::NotFound;
use std::path::PathBuf;

use crate::error::{Code, Result};
use crate::key_file::{Target, is_stage, stage_of};
use crate::store::Record;
use crate::trust::Obstacle;
use crate::writer::Writer;

/// A delivery that an earlier run left.
#[derive(Debug)]
pub struct Recovered {
    /// The key that was on its way.
    pub key: Record,
    /// What became of it.
    pub end: End,
}

/// What became of a delivery that an earlier run left.
#[derive(Debug)]
pub enum End {
    /// The key is in its file, and is the user's active one.
    Finished,
    /// The key is lost or has expired, and is revoked.
    Undone,
    /// The key is in its file, and its reader has not been told: only a refresh of that user can
    /// tell whether it has.
    AwaitsReload,
    /// The key can be neither delivered nor given up now, for this reason.
    Stuck(String),
}

/// Sees to what earlier runs left.
pub fn recover(writer: &mut Writer<'_>) -> Result<Vec<Recovered>> {
    let pending = writer.store.pending((writer.clock)())?;
    remove_noted_stage(writer, &pending);
    let recover = |key: Record| {
        let end = go_on_with(writer, &key)?;
        Ok(Recovered { key, end })
    };
    pending.into_iter().map(recover).collect()
}

/// Goes on with a delivery from wherever it is. An error is the database's.
fn go_on_with(writer: &mut Writer<'_>, key: &Record) -> Result<End> {
    // In the place of a key that is accepted it would be refused. The old one stays the current one.
    let is_delivered = if key.status.is_accepted() { deliver(writer, key)? } else { Ok(false) };
    match is_delivered {
        Err(obstacle) => Ok(End::Stuck(obstacle.reason)),
        Ok(false) => {
            writer.revoke_pending(key)?;
            remove_stage(key);
            Ok(End::Undone)
        }
        Ok(true) if key.reload_pending => Ok(End::AwaitsReload),
        Ok(true) => match writer.activate(key) {
            Ok(_) => Ok(End::Finished),
            // What is wrong with one user's key is no reason to keep all others from theirs.
            Err(error) if matches!(error.code(), Code::Usage | Code::DeliveryPending) => {
                Ok(End::Stuck(error.to_string()))
            }
            Err(error) => Err(error),
        },
    }
}

/// Puts a key in the place of its file, where it is not there yet. `false` where it is lost: its stage
/// is not whole, or is gone while the file still holds the current key. The outer error is the
/// database's.
fn deliver(writer: &Writer<'_>, key: &Record) -> Result<std::result::Result<bool, Obstacle>> {
    let Some(key_file) = &key.key_file else { return Ok(Ok(false)) };
    let now = (writer.clock)();
    let current = writer.store.read(|transaction| transaction.current(&key.user, now))?;
    let previous = current.as_ref().and_then(|current| current.key_file.as_ref());
    let previous_owner = previous.and_then(|key_file| key_file.owner);
    let deliver = || {
        let target = Target::open(key_file, &key.prefix, previous_owner)?;
        if !target.holds(&key.key_hash)? {
            if !target.is_staged(&key.key_hash)? {
                return target
                    .check_is_lost(current.as_ref().map(|current| &*current.key_hash))
                    .map(|()| false);
            }
            target.check_replaceable()?;
            writer.check_holds_no_key_of_another(&target, &key.user)?;
            target.replace()?;
        }
        target.sync().map(|()| true)
    };
    Ok(deliver())
}

/// Removes the stage of a key that is not to be delivered any more, where there is one. Nobody
/// accepts the key in it, so that it is not worth failing for.
pub fn remove_stage(key: &Record) {
    if let Some(key_file) = &key.key_file {
        let _ = std::fs::remove_file(stage_of(&key_file.path, &key.prefix));
    }
}

/// Removes the stage of a run that was killed before its key was in the database.
fn remove_noted_stage(writer: &Writer<'_>, pending: &[Record]) {
    let stages: Vec<PathBuf> = pending
        .iter()
        .filter_map(|key| key.key_file.as_ref().map(|key_file| stage_of(&key_file.path, &key.prefix)))
        .collect();
    // Neither the note nor the stage is worth failing for: nobody accepts the key in it.
    if let Ok(Some(noted)) = writer.lock.noted() {
        if is_stage(&noted) && !stages.contains(&noted) {
            match std::fs::remove_file(noted) {
                Err(error) if error.kind() != NotFound => return,
                _ => {}
            }
        }
        let _ = writer.lock.clear_note();
    }
}
