//! A key file that holds the right key already: whether its form, mode and owner are right too, and putting
//! the last two right in place.
//!
//! The folder may be the daemon's, who may put something else there at any moment. So nothing is changed but
//! through the handle of a file that was just seen, through that handle, to hold the key.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use nix::unistd::{Gid, Uid, fchown};
use zeroize::Zeroizing;

use super::target::{Target, cannot, obstacle};
use super::{LONGEST, Owner, key_in};
use crate::key::{KeyHash, Prefix};
use crate::trust::Obstacle;

/// A key file that is open, and holds a certain key, in the form that it should have.
#[derive(Debug)]
pub struct Holding {
    file: File,
    mode: u32,
    owner: Owner,
}

/// What of a key file is not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differs {
    /// Whose it is.
    pub owner: bool,
    /// Its permissions.
    pub mode: bool,
    /// More than the owner and the group that should could read it.
    pub was_open: bool,
}

impl Target {
    /// The key file, where it holds the key with this hash and nothing else, in its form. Fails where what is
    /// there is no file that could be replaced, whatever it held.
    pub fn holding(&self, hash: &KeyHash) -> Result<Option<Holding>, Obstacle> {
        if self.check_is_file()? { self.holding_in(self.name(), hash) } else { Ok(None) }
    }

    /// The same of the stage of the key with this prefix and hash.
    pub fn holding_in_stage(&self, prefix: Prefix, hash: &KeyHash) -> Result<Option<Holding>, Obstacle> {
        self.holding_in(&self.stage_name(prefix), hash)
    }

    fn holding_in(&self, name: &OsStr, hash: &KeyHash) -> Result<Option<Holding>, Obstacle> {
        let path = &self.key_file.path.with_file_name(name);
        let mut file = self.folder.read(name).map_err(cannot("open", path))?;
        let found = file.metadata().map_err(cannot("look at", path))?;
        if !found.is_file() || found.nlink() != 1 || !self.may_be(found.uid()) {
            return Err(obstacle(format!("{} was swapped for something else", path.display())));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
        file.by_ref().take(LONGEST as u64).read_to_end(&mut bytes).map_err(cannot("read", path))?;
        let key = key_in(&bytes).filter(|key| key.hash().matches(hash));
        let in_its_form = key.is_some_and(|key| *self.key_file.content(&key) == *bytes);
        let owner = Owner { uid: found.uid(), gid: found.gid() };
        Ok(in_its_form.then_some(Holding { file, mode: found.mode() & 0o7777, owner }))
    }

    /// What of `holding` is not as this key file should be.
    pub fn differs(&self, holding: &Holding) -> Differs {
        let mode = self.key_file.mode.bits();
        let owner = self.key_file.owner.is_some_and(|owner| owner != holding.owner);
        let was_open = holding.mode & 0o077 & !mode != 0 || self.was_another_s(holding);
        Differs { owner, mode: holding.mode != mode, was_open }
    }

    /// Whether another user, or with the group's permission another group, could read it.
    fn was_another_s(&self, holding: &Holding) -> bool {
        self.key_file.owner.is_some_and(|owner| {
            owner.uid != holding.owner.uid || owner.gid != holding.owner.gid && holding.mode & 0o040 != 0
        })
    }

    /// Gives `holding` the owner and the mode that this key file should have, on the disk.
    pub fn amend(&self, holding: &Holding) -> Result<(), Obstacle> {
        let path = &self.key_file.path;
        let (file, mode) = (&holding.file, self.key_file.mode.bits());
        let set_mode = |mode| file.set_permissions(Permissions::from_mode(mode));
        let amend = || {
            // Nobody reads it meanwhile who could not before, or should not then.
            set_mode(holding.mode & mode)?;
            if let Some(owner) = self.key_file.owner.filter(|owner| *owner != holding.owner) {
                fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            }
            set_mode(mode)?;
            file.sync_all()
        };
        amend().map_err(|error: io::Error| cannot("change the owner or the permissions of", path)(error))
    }
}
