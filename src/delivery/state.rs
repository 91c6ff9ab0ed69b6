//! Where a delivery stands, and what follows from it. Nothing is changed here.

use crate::error::{Error, Result};
use crate::key_file::Target;
use crate::store::{Location, Pending, Record, Store};
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;
use crate::user::User;

/// Where a delivery stands.
#[derive(Debug)]
pub enum State {
    /// The key is whole in its stage: it is to be put in the file's place.
    Staged(Target),
    /// The key is in the file: the folder is to be synced, and the key to be made the active one.
    InPlace(Target),
    /// The key is in the file, and its reader is to be told first.
    AwaitsReload(Target),
    /// The key has expired, its stage is not whole, or is gone while the file still holds the current
    /// key: it is to be revoked.
    Lost(Option<Target>),
    /// It can be neither finished nor given up, because of this.
    Stuck(Obstacle),
}

/// What a key file holds.
#[derive(Debug)]
pub enum InFile {
    Nothing,
    /// A key, and what is known of it, where it was ever issued.
    Key(Option<Box<Record>>),
}

/// Looks where the delivery of `pending` stands. An error is the database's.
pub fn look(store: &Store, pending: &Pending, now: Timestamp) -> Result<State> {
    let user = &pending.key.user;
    let (current, kept) =
        store.read_beside_writers(now, |snapshot| Ok((snapshot.current(user)?, snapshot.key_file(user)?)))?;
    let kept_owner = kept.and_then(|key_file| key_file.owner);
    let target = Target::open(&pending.key_file, [kept_owner, None]);
    // In the place of a key that is accepted it would be refused. The old one stays the current one.
    if !pending.key.status.is_accepted() {
        return Ok(State::Lost(target.ok()));
    }
    let current = current.map(|current| current.key_hash);
    let key = &pending.key;
    let state = target.and_then(|target| {
        check_is_not_the_database(store.location(), &target)?;
        if target.holds(&key.key_hash)? {
            return Ok(if pending.reload_pending {
                State::AwaitsReload(target)
            } else {
                State::InPlace(target)
            });
        }
        if target.is_staged(key.prefix, &key.key_hash)? {
            check_may_replace(store, &target, user, now)?;
            return Ok(State::Staged(target));
        }
        target.check_is_lost(key.prefix, current.as_ref()).map(|()| State::Lost(Some(target)))
    });
    Ok(state.unwrap_or_else(State::Stuck))
}

/// Checks that a key of `user` may take the place of what the file holds now: it is a key file, or
/// nothing, and neither the database's nor the only copy of a key that somebody else has. Returns what is
/// known of the key in it.
pub fn check_may_replace(
    store: &Store,
    target: &Target,
    user: &User,
    now: Timestamp,
) -> std::result::Result<InFile, Obstacle> {
    check_is_not_the_database(store.location(), target)?;
    let Some(held) = target.check_replaceable()? else { return Ok(InFile::Nothing) };
    let unknown = |error: Error| Obstacle {
        reason: format!("whose key the file holds is unknown: {error}"),
        hint: error.what_to_do().unwrap_or("try again").to_owned(),
    };
    match store.find(&held, now).map_err(unknown)? {
        Some(other) if other.status.is_accepted() && other.user != *user => Err(Obstacle {
            reason: format!("the file holds {} of {}, which is accepted", other.prefix, other.user),
            hint: format!("name another file, or end the keys of {0} with `apikey revoke {0}`", other.user),
        }),
        found => Ok(InFile::Key(found.map(Box::new))),
    }
}

/// Checks that the file is none of the database's, by whichever name, before anything opens it: to close such a file
/// again would let go of SQLite's locks on it (<https://sqlite.org/howtocorrupt.html>, section 2.2).
pub fn check_is_not_the_database(location: &Location, target: &Target) -> std::result::Result<(), Obstacle> {
    let is_named_so = target.is_in(location.folder())? && location.owns(target.name());
    if is_named_so || target.device_and_inode()?.is_some_and(|(device, inode)| location.has(device, inode)) {
        return Err(Obstacle {
            reason: format!("{} belongs to the database", target.path().display()),
            hint: "name another file with --key-file".into(),
        });
    }
    Ok(())
}
