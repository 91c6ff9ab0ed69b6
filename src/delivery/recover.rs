//! Finishing or undoing the deliveries that earlier runs left, when they were killed or the power
//! failed.

use super::forward::{complete, give_up};
use super::state::{State, look};
use super::{Delivery, End};
use crate::error::{Code, Result};
use crate::store::{Pending, Turn};

/// Sees to what earlier runs left. An error is the database's.
pub fn recover(turn: &mut Turn<'_>) -> Result<Vec<Delivery>> {
    let pending = turn.read(|snapshot| snapshot.pending())?;
    let go_on = |pending: Pending| {
        let end = go_on_with(turn, &pending)?;
        Ok(end.map(|end| Delivery { pending, end }))
    };
    pending.into_iter().map(go_on).filter_map(Result::transpose).collect()
}

/// `None` where another run has revoked it meanwhile.
fn go_on_with(turn: &mut Turn<'_>, pending: &Pending) -> Result<Option<End>> {
    let (target, awaits_reload) = match look(turn.store(), pending, turn.now())? {
        State::Staged(target) => {
            if let Err(obstacle) = target.put_in_place(pending.key.prefix) {
                return Ok(Some(End::Stuck(obstacle.reason)));
            }
            (target, pending.reload_pending)
        }
        State::InPlace(target) => (target, false),
        State::AwaitsReload(target) => (target, true),
        State::Lost(target) => {
            return match give_up(turn, pending, target.as_ref(), true) {
                Ok(()) => Ok(Some(End::Undone)),
                Err(error) if error.code() == Code::NoKey => Ok(None),
                Err(error) => Err(error),
            };
        }
        State::Stuck(obstacle) => return Ok(Some(End::Stuck(obstacle.reason))),
    };
    if let Err(obstacle) = target.sync() {
        return Ok(Some(End::Stuck(obstacle.reason)));
    }
    if awaits_reload {
        return Ok(Some(End::AwaitsReload(None)));
    }
    match complete(turn, pending) {
        Ok(_) => Ok(Some(End::Finished)),
        Err(error) if error.code() == Code::NoKey => Ok(None),
        // What is wrong with one user's key is no reason to keep all others from theirs.
        Err(error) if matches!(error.code(), Code::Usage | Code::DeliveryPending) => {
            Ok(Some(End::Stuck(error.to_string())))
        }
        Err(error) => Err(error),
    }
}
