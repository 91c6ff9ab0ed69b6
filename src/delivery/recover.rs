//! Finishing or undoing the deliveries that earlier runs left, when they were killed or the power
//! failed.

use super::forward::{complete, give_up};
use super::state::{State, look};
use super::{Delivery, End};
use crate::error::{Code, Error, Result};
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
        // Another run has ended it meanwhile: there is nothing to tell.
        Ok(End::Stuck(_)) if is_over(turn, &pending) => None,
        Err(error) if error.code() == Code::NoKey => None,
        Ok(end) => Some(Ok(Delivery { pending, end })),
        Err(error) => Some(Err(error)),
    };
    pending.into_iter().filter_map(go_on).collect()
}

/// Goes on with a delivery from wherever it is. An error is the database's, or [`Code::NoKey`].
fn go_on_with(turn: &mut Turn<'_>, pending: &Pending) -> Result<End> {
    let state = match look(turn.store(), pending, turn.now()) {
        // Something of that user's makes no sense. Where it is all of the database, a write will fail too.
        Err(error) if error.code() == Code::DbError => return Ok(stuck(&error)),
        state => state?,
    };
    let (target, awaits_reload) = match state {
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
    match complete(turn, pending, None) {
        Ok(_) => Ok(End::Finished),
        Err(error) if matches!(error.code(), Code::Usage | Code::DeliveryPending) => Ok(stuck(&error)),
        Err(error) => Err(error),
    }
}

fn stuck(error: &Error) -> End {
    End::Stuck(error.to_string())
}

/// Whether the key is on its way no more, whatever became of it.
fn is_over(turn: &Turn<'_>, pending: &Pending) -> bool {
    let found = turn.read(|snapshot| snapshot.held_with_prefix(pending.key.prefix));
    found.is_ok_and(|found| found.is_none_or(|(_, key)| key.stored != Status::Pending))
}
