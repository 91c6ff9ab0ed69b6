//! Finishing or undoing the deliveries that earlier runs left, when they were killed or the power
//! failed. `delivery.rs` has the table of what can be found.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::key::Key;
use crate::key_file::{Target, stage_of};
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
    /// The key was nowhere to be found, and is revoked.
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
        let end = go_on_with(writer, &key)?.unwrap_or_else(|obstacle| End::Stuck(obstacle.reason));
        Ok(Recovered { key, end })
    };
    pending.into_iter().map(recover).collect()
}

/// Goes on with a delivery from wherever it is. The outer error is the database's.
fn go_on_with(writer: &mut Writer<'_>, key: &Record) -> Result<std::result::Result<End, Obstacle>> {
    let Some(key_file) = &key.key_file else {
        return Ok(Err(Obstacle {
            reason: "the database does not say where to".into(),
            hint: String::new(),
        }));
    };
    let previous_owner = writer.remembered(&key.user.parse()?)?.and_then(|key_file| key_file.owner);
    let place = || {
        let target = Target::open(key_file, &key.prefix, previous_owner)?;
        if target.holds(&key.key_hash)? {
            target.sync()?;
            return Ok((target, true));
        }
        if !target.is_staged(&key.key_hash)? {
            return Ok((target, false));
        }
        target.check_replaceable()?;
        target.replace()?;
        target.sync()?;
        Ok((target, true))
    };
    match place() {
        Err(obstacle) => Ok(Err(obstacle)),
        Ok((target, false)) => writer.undo_delivery(key, &target).map(|()| Ok(End::Undone)),
        Ok((_, true)) if key.reload_pending => Ok(Ok(End::AwaitsReload)),
        Ok((_, true)) => writer.finish_delivery(key, None, None).map(|_| Ok(End::Finished)),
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
            let _ = std::fs::remove_file(noted);
        }
        let _ = writer.lock.clear_note();
    }
}

/// Whether `path` has the form of a stage: nothing else is removed, whatever the note says.
fn is_stage(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let prefix = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).map(|(_, prefix)| prefix);
    path.is_absolute() && prefix.is_some_and(Key::is_prefix)
}
