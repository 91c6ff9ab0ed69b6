//! Revoking all that a user has.

use super::show::no_key;
use crate::delivery::{Delivery, discard};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::store::{Pending, Record, Snapshot, Status, Turn};
use crate::user::User;

/// What [`Authority::revoke`](super::Authority::revoke) does.
pub(super) fn revoke(
    turn: &mut Turn<'_>,
    waiting: Option<&Delivery>,
    user: &User,
    agreed: Option<&[Prefix]>,
) -> Result<Vec<Record>> {
    let (revoked, under_way) = turn.write(|transaction| {
        let held = transaction.held(user)?;
        // Where that can't be read, a stage may stay; it is no reason not to revoke.
        let under_way: Vec<Pending> =
            held.iter().filter_map(|key| transaction.delivery_of(key.clone()).ok().flatten()).collect();
        // Whose file was delivered already, its settings are those of the file.
        if let Some(in_place) = waiting.filter(|waiting| waiting.is_in_place()) {
            transaction.keep_in_place(in_place.key())?;
        }
        // Those whose time is over too: by the clock alone they are not revoked for good.
        held.iter().try_for_each(|key| transaction.revoke(key))?;
        let revoked = still_to_revoke(held);
        if revoked.is_empty() {
            return Err(no_key(user));
        }
        revoked.iter().try_for_each(|key| check_agreed(key, agreed))?;
        Ok((revoked, under_way))
    })?;
    under_way.iter().for_each(discard);
    Ok(revoked)
}

/// What it would revoke.
pub(super) fn revocable(snapshot: &Snapshot<'_>, user: &User) -> Result<Vec<Record>> {
    snapshot.held(user).map(still_to_revoke)
}

/// Checks that a key which is to end is one of those that somebody was asked about.
pub(super) fn check_agreed(key: &Record, agreed: Option<&[Prefix]>) -> Result<()> {
    if agreed.is_none_or(|agreed| agreed.contains(&key.prefix)) {
        return Ok(());
    }
    let message = format!("{} of {} is new: it was issued while you were asked", key.prefix, key.user);
    Err(Error::new(Code::Cancelled, message)
        .hint("nothing was done; run it again to be asked about that key too"))
}

fn still_to_revoke(held: Vec<Record>) -> Vec<Record> {
    held.into_iter().filter(|key| key.status != Status::Revoked).collect()
}
