//! The file of a user's current key, and what lies beside it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::key::{KeyHash, Prefix};
use crate::key_file::{KeyFile, Stage, Target};
use crate::patience::{A_WHILE, within};
use crate::trust::Obstacle;

const A_LITTLE: Duration = Duration::from_secs(1);
/// A stage is in its place long before.
const OLD: Duration = Duration::from_secs(60 * 60);

/// How a key file is.
pub enum Found {
    /// As it should be.
    Right,
    /// It is not as it should be in this; `was_open` where more could read it than should.
    Differs { what: String, was_open: bool },
    /// It holds the key in another form.
    OtherForm,
    /// It holds no key, or is not there.
    Nothing,
    /// It holds the key with this prefix, and not that one.
    Other(Prefix),
    /// It could not be looked at, or is no key file.
    Obstructed(Obstacle),
}

/// The folders that key files are in.
#[derive(Default)]
pub struct Folders {
    /// Those in which it was looked for stages.
    listed: HashSet<PathBuf>,
    /// Those whose file system did not answer.
    silent: HashSet<PathBuf>,
}

impl Folders {
    /// How the key file is that is to hold the key with this hash; and, once for each folder, what was staged in it
    /// long ago. A file system that does not answer is waited for once.
    pub fn look_at(&mut self, key_file: &KeyFile, hash: KeyHash) -> (Found, Vec<Stage>) {
        let path = key_file.path().to_owned();
        let folder = Path::new(&path).parent().map(PathBuf::from).unwrap_or_default();
        let obstructed = |reason| {
            let hint = "see to the file system that it is on".to_owned();
            (Found::Obstructed(Obstacle { reason, hint }), Vec::new())
        };
        let is_silent = format!("the file system of {path} does not answer");
        if self.silent.contains(&folder) {
            return obstructed(is_silent);
        }
        let (key_file, lists) = (key_file.clone(), !self.listed.contains(&folder));
        let look = move || {
            let target = Target::open(&key_file, [None; 2])?;
            let stages = if lists { target.stages()? } else { Vec::new() };
            Ok((
                look(&target, &hash).unwrap_or_else(Found::Obstructed),
                stages.into_iter().filter(is_old).collect(),
            ))
        };
        // Where one did not, the others are not waited for as long.
        let patience = if self.silent.is_empty() { A_WHILE } else { A_LITTLE };
        match within(patience, look) {
            Ok(Some(Ok(found))) => {
                self.listed.insert(folder);
                found
            }
            Ok(Some(Err(obstacle))) => (Found::Obstructed(obstacle), Vec::new()),
            Ok(None) => {
                self.silent.insert(folder);
                obstructed(is_silent)
            }
            Err(error) => obstructed(format!("{path} cannot be looked at: {error}")),
        }
    }
}

fn is_old(stage: &Stage) -> bool {
    let found = fs::symlink_metadata(&stage.path).ok().filter(fs::Metadata::is_file);
    let age = found.and_then(|found| found.modified().ok()?.elapsed().ok());
    age.is_some_and(|age| age >= OLD)
}

fn look(target: &Target, hash: &KeyHash) -> Result<Found, Obstacle> {
    let Some(holding) = target.holding(hash)? else {
        return Ok(match target.check_replaceable()? {
            None => Found::Nothing,
            Some(key) if key.hash().matches(hash) => Found::OtherForm,
            Some(key) => Found::Other(key.prefix()),
        });
    };
    let differs = target.differs(&holding);
    let what = [("owner", differs.owner), ("mode", differs.mode)];
    let what: Vec<&str> = what.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect();
    Ok(match what.is_empty() {
        true => Found::Right,
        false => Found::Differs { what: what.join(" and "), was_open: differs.was_open },
    })
}
