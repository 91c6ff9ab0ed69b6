//! The file of a user's current key, and what lies beside it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::delivery::check_is_not_the_database;
use crate::key::{KeyHash, Prefix};
use crate::key_file::{KeyFile, Stage, Target, Way};
use crate::patience::{A_WHILE, each_within};
use crate::store::Location;
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
pub struct Folders {
    /// The database that is open.
    database: Location,
    /// Those in which it was looked for stages.
    listed: Arc<Mutex<HashSet<PathBuf>>>,
    /// Where file systems are mounted, once one did not answer; and those that did not.
    mounts: Vec<PathBuf>,
    silent: HashSet<PathBuf>,
}

/// How a key file is, and what was staged long ago in its folder, which is told once.
pub type Looked = (Found, Vec<Stage>);

impl Folders {
    pub fn beside(database: Location) -> Self {
        Folders { database, listed: Arc::default(), mounts: Vec::new(), silent: HashSet::new() }
    }

    /// How each of these key files is that is to hold the key with this hash. A file system that does not answer
    /// is waited for once.
    pub fn look_at(&mut self, files: &[(KeyFile, KeyHash)]) -> Vec<Looked> {
        let mut looked: Vec<Option<Looked>> = files.iter().map(|_| None).collect();
        loop {
            let is_left = |(file, looked): &(&(KeyFile, KeyHash), &mut Option<Looked>)| {
                looked.is_none() && (self.silent.is_empty() || !self.silent.contains(self.mount_of(&file.0)))
            };
            let mut left: Vec<_> = files.iter().zip(&mut looked).filter(is_left).collect();
            if left.is_empty() {
                break;
            }
            let to_do: Vec<(KeyFile, KeyHash)> = left.iter().map(|(file, _)| (*file).clone()).collect();
            let (database, listed) = (self.database.clone(), Arc::clone(&self.listed));
            let mut looks = Looks { database, way: Way::default(), listed };
            // Where one file system did not answer, the others are not waited for as long.
            let patience = if self.silent.is_empty() { A_WHILE } else { A_LITTLE };
            match each_within(patience, to_do, move |(file, hash)| looks.look_at(&file, &hash)) {
                Ok(done) => {
                    let silent = left.get(done.len()).map(|((file, _), _)| file);
                    left.into_iter().zip(done).for_each(|((_, looked), done)| *looked = Some(done));
                    if let Some(file) = silent {
                        self.mounts = mounts();
                        self.silent.insert(self.mount_of(file).to_owned());
                    }
                }
                Err(error) => left.iter_mut().for_each(|((file, _), looked)| {
                    **looked = Some(obstructed(format!("{} cannot be looked at: {error}", file.path())));
                }),
            }
        }
        let silent =
            |file: &KeyFile| obstructed(format!("the file system of {} does not answer", file.path()));
        let each = files.iter().zip(looked);
        each.map(|((file, _), looked)| looked.unwrap_or_else(|| silent(file))).collect()
    }
}

impl Folders {
    /// Where the file system of this file is mounted; its folder where that is not known.
    fn mount_of<'a>(&'a self, file: &'a KeyFile) -> &'a Path {
        let folder = folder_of(file);
        let mounts = self.mounts.iter().map(PathBuf::as_path).filter(|mount| folder.starts_with(mount));
        mounts.max_by_key(|mount| mount.as_os_str().len()).unwrap_or(folder)
    }
}

/// Where something is mounted: proc_pid_mountinfo(5), the fifth field, with blanks and backslashes in octal.
fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let plain = |field: &str| {
        escapes.iter().fold(field.to_owned(), |field, (octal, c)| field.replace(octal, c)).into()
    };
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(plain).collect()
}

fn folder_of(file: &KeyFile) -> &Path {
    Path::new(file.path()).parent().unwrap_or(Path::new("/"))
}

fn obstructed(reason: String) -> Looked {
    let hint = "see to the file system that it is on".to_owned();
    (Found::Obstructed(Obstacle { reason, hint }), Vec::new())
}

/// One look after the other.
struct Looks {
    database: Location,
    way: Way,
    listed: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Looks {
    fn look_at(&mut self, file: &KeyFile, hash: &KeyHash) -> Looked {
        let mut look = || {
            let target = Target::open_by(&mut self.way, file, [None; 2])?;
            check_is_not_the_database(&self.database, &target)?;
            let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            let lists = listed.insert(folder_of(file).to_owned());
            drop(listed);
            let stages = if lists { target.stages()? } else { Vec::new() };
            let found = look(&target, hash).unwrap_or_else(Found::Obstructed);
            Ok((found, stages.into_iter().filter(is_old).collect()))
        };
        look().unwrap_or_else(|obstacle| (Found::Obstructed(obstacle), Vec::new()))
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
