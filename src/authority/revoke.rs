//! Revoking what a user has.
//!
//! A revocation is one transaction that waits for nobody's delivery, and nothing about a file can stop it:
//! no file is looked at before it is done.

use super::show::{no_key, no_such_key};
use crate::delivery::discard;
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::key_file::KeyFile;
use crate::store::{Held, Snapshot, Status, Store};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// What was revoked.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Whose.
    pub user: User,
    /// The keys, as they were before, the current one first.
    pub keys: Vec<Held>,
    /// The user's keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// The file that the current key was in, or that a pending one was on its way to.
    pub key_file: Option<KeyFile>,
}

/// What [`Authority::revoke`](super::Authority::revoke) does.
pub(super) fn revoke(
    store: &mut Store,
    clock: fn() -> Result<Timestamp>,
    subject: &Subject,
    agreed: Option<&[Prefix]>,
) -> Result<Revoked> {
    let (revoked, under_way) = store.write_at_once(clock, |transaction| {
        let (user, held) = find(transaction, subject)?;
        let pending: Vec<Prefix> =
            held.iter().filter(|key| key.stored == Status::Pending).map(|key| key.prefix).collect();
        let file_of = |prefix: &Prefix| Some((*prefix, transaction.key_file_of_pending(&user, *prefix)?));
        let under_way: Vec<(Prefix, KeyFile)> = pending.iter().filter_map(file_of).collect();
        if matches!(subject, Subject::User(_)) {
            pending.iter().try_for_each(|key| transaction.keep_where_delivered(&user, *key))?;
        }
        let of_pending = under_way.first().map(|(_, key_file)| key_file.clone());
        let of_current = || transaction.key_file(&user).ok().flatten();
        let had_current = held.iter().any(|key| key.stored == Status::Active);
        let key_file = of_pending.or_else(|| of_current().filter(|_| had_current));
        // Those whose time is over too: by the clock alone they are not revoked for good.
        held.iter().try_for_each(|key| transaction.revoke(&user, key))?;
        let keys = still_to_revoke(held);
        keys.iter().try_for_each(|key| check_agreed(&user, key, agreed))?;
        let still_accepted = match subject {
            Subject::User(_) => Vec::new(),
            Subject::Key(_) => {
                transaction.held(&user)?.into_iter().filter(|key| key.status.is_accepted()).collect()
            }
        };
        Ok((Revoked { user, keys, still_accepted, key_file }, under_way))
    })?;
    for (prefix, key_file) in under_way {
        discard(prefix, key_file);
    }
    Ok(revoked)
}

/// What it would revoke.
pub(super) fn revocable(snapshot: &Snapshot<'_>, subject: &Subject) -> Result<(User, Vec<Held>)> {
    find(snapshot, subject).map(|(user, held)| (user, still_to_revoke(held)))
}

/// That there was nothing to revoke.
pub(super) fn nothing_to_revoke(snapshot: &Snapshot<'_>, subject: &Subject) -> Result<Error> {
    Ok(match subject {
        Subject::User(user) => no_key(snapshot, user)?,
        Subject::Key(prefix) => match snapshot.held_with_prefix(*prefix)? {
            Some((user, key)) => {
                let message = format!("{prefix} of {user} is {} already", key.status.as_str());
                Error::new(Code::NoKey, message)
            }
            None => no_such_key(*prefix),
        },
    })
}

/// Checks that a key which is to end is one of those that somebody was asked about.
pub(super) fn check_agreed(user: &User, key: &Held, agreed: Option<&[Prefix]>) -> Result<()> {
    if agreed.is_none_or(|agreed| agreed.contains(&key.prefix)) {
        return Ok(());
    }
    let message = format!("{} of {user} is new: it was issued while you were asked", key.prefix);
    Err(Error::new(Code::Cancelled, message)
        .hint("nothing was done; run it again to be asked about that key too"))
}

/// Whose it is about, and what of that is not revoked for good.
fn find(snapshot: &Snapshot<'_>, subject: &Subject) -> Result<(User, Vec<Held>)> {
    match subject {
        Subject::User(user) => Ok((user.clone(), snapshot.held_by_any_index(user)?)),
        Subject::Key(prefix) => {
            let (user, key) = snapshot.held_with_prefix(*prefix)?.ok_or_else(|| no_such_key(*prefix))?;
            let held = if key.stored.is_accepted() { vec![key] } else { Vec::new() };
            Ok((user, held))
        }
    }
}

fn still_to_revoke(held: Vec<Held>) -> Vec<Held> {
    held.into_iter().filter(|key| key.status != Status::Revoked).collect()
}
