//! Finishing or undoing the deliveries that earlier runs left, when they were killed or the power
//! failed.

use super::forward::{complete, give_up, stored};
use super::state::{State, look};
use super::{Delivery, End};
use crate::error::{Code, Result};
use crate::store::{Pending, Status, Turn};
use crate::user::User;

/// Sees to what earlier runs left. What is wrong with one user's key is no reason to keep all others from
/// theirs; an error is the database's.
pub fn recover(turn: &mut Turn<'_>) -> Result<Vec<Delivery>> {
    recover_of(turn, |_| true)
}

/// The same, of those users alone.
pub fn recover_of(turn: &mut Turn<'_>, is_meant: impl Fn(&User) -> bool) -> Result<Vec<Delivery>> {
    let mut pending = turn.read(|snapshot| snapshot.pending())?;
    pending.retain(|pending| is_meant(&pending.key.user));
    let go_on = |pending: Pending| match go_on_with(turn, &pending) {
        Ok(end) => Some(Ok(Delivery { pending, end })),
        Err(error) => match error.code() {
            // Another run has ended it meanwhile: there is nothing to tell.
            Code::NoKey => None,
            // Something of that user's makes no sense. Where it is all of the database, a write will fail too.
            Code::DbError | Code::Usage | Code::DeliveryPending => {
                Some(Ok(Delivery { pending, end: End::Stuck(error.to_string()) }))
            }
            _ => Some(Err(error)),
        },
    };
    let mut left: Vec<Delivery> = pending.into_iter().filter_map(go_on).collect::<Result<_>>()?;
    // One may have been revoked since it was looked at.
    left.retain(|delivery| delivery.is_over() || is_on_its_way(turn, &delivery.pending));
    Ok(left)
}

/// Goes on with a delivery from wherever it is.
fn go_on_with(turn: &mut Turn<'_>, pending: &Pending) -> Result<End> {
    let (target, awaits_reload) = match look(turn.store(), pending, turn.now())? {
        State::Staged(target) => {
            if let Err(obstacle) = target.put_in_place(pending.key.prefix) {
                return Ok(End::Stuck(obstacle.reason));
            }
            (target, pending.reload_pending)
        }
        State::InPlace(target) => (target, false),
        State::AwaitsReload(target) => (target, true),
        State::Lost(target) => return give_up(turn, pending, target.as_ref(), true).map(|()| End::Undone),
        State::Stuck(obstacle) => return Ok(End::Stuck(obstacle.reason)),
    };
    if let Err(obstacle) = target.sync() {
        return Ok(End::Stuck(obstacle.reason));
    }
    if awaits_reload {
        return Ok(End::AwaitsReload(None));
    }
    complete(turn, pending, None).map(|_| End::Finished)
}

/// Whether the key is on its way yet, as far as that can be told.
fn is_on_its_way(turn: &Turn<'_>, pending: &Pending) -> bool {
    let found = turn.read(|snapshot| stored(snapshot, &pending.key));
    found.map_or(true, |stored| stored == Some(Status::Pending))
}
