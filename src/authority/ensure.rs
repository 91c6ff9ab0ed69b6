//! Making it so, and no more than is needed: a user's key in its key file, as its settings say.
//!
//! What is to be done is found out by looking, with no lock and no write. Where that is something, it is
//! found out once more in the turn that does it.

use super::issue::write_down_refusal;
use super::plan::Plan;
use super::refresh::{Ended, Kind, Refresh, refresh};
use super::{Authority, Done, Order, Recipient, Settled};
use crate::delivery::End;
use crate::error::{Code, Result};
use crate::store::Turn;

impl Authority {
    /// Makes it so that the user's key lies in its key file, as the order and what is kept say, and does no
    /// more than is needed for it; with `check` it says what, and does nothing.
    ///
    /// Fails with [`Code::Usage`] where no path is given or kept, and as [`refresh`](Authority::refresh) does.
    pub fn ensure(&mut self, order: &Order, check: bool, recipient: &mut dyn Recipient) -> Result<Settled> {
        let plan = Plan::make(&self.store, order, (self.clock)()?);
        let plan = plan.inspect_err(|error| {
            let is_refused = !check && error.code() == Code::Undeliverable;
            if is_refused && let Ok(mut turn) = Turn::begin(&mut self.store, self.clock) {
                write_down_refusal(&mut turn, &order.user, error.why());
            }
        })?;
        let planned = plan.done();
        if check || (planned.is_empty() && !plan.undoes) {
            return Ok(plan.settled(planned));
        }
        let (mut turn, left) = self.turn(recipient)?;
        let mut of_user = left.iter().filter(|delivery| delivery.key().user == order.user);
        let was_finished = of_user.clone().any(|delivery| matches!(delivery.end, End::Finished));
        let mut done = Vec::from_iter(was_finished.then_some(Done::Delivered));
        let as_kept = Refresh::as_kept(order.clone());
        let mut issued = Vec::new();
        if let Some(waiting) = of_user.find(|delivery| !delivery.is_over()) {
            let planned = Plan::make(turn.store(), order, turn.now())?.done();
            let (kind, ended) = (Kind::Ensure, Ended::default());
            issued.push(refresh(&mut turn, Some(waiting), &as_kept, kind, ended, recipient)?);
            // With it has come what was said now of how its reader is told.
            let with_it = [Done::Delivered, Done::Settings];
            done.extend(with_it.into_iter().filter(|done| planned.contains(done)));
        }
        let plan = Plan::make(turn.store(), order, turn.now())?;
        done.extend(plan.done());
        done.sort_unstable();
        done.dedup();
        let mut was_open = false;
        if plan.needs_key {
            issued.push(refresh(&mut turn, None, &as_kept, Kind::Ensure, Ended::default(), recipient)?);
        } else {
            was_open = plan.carry_out(&mut turn)?;
        }
        let as_it_is = turn.read(|snapshot| Plan::read(snapshot, &order.user))?;
        Ok(Settled { issued, was_open, ..as_it_is.settled(done) })
    }
}
