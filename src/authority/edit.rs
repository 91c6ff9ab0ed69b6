//! Changing what is known of a user's key, with no new key.

use super::issue::check_none_waits;
use super::plan::Plan;
use super::show::no_key;
use super::{Authority, Order, Recipient, Settled};
use crate::error::{Code, Error, Result};
use crate::settings::Change;
use crate::store::{Turn, later};

impl Authority {
    /// Changes the label, the end, what is kept, and owner and mode of the key file, of a user who has a
    /// current key. A lifetime counts from now on.
    ///
    /// Fails with [`Code::NoKey`] where the user has none, or it has expired; with [`Code::DeliveryPending`]
    /// where another is on its way; with [`Code::Undeliverable`] where the key file is to be changed, and does
    /// not hold the current key.
    pub fn edit(&mut self, order: &Order, recipient: &mut dyn Recipient) -> Result<Settled> {
        let (mut turn, waiting) = self.turn_for(&order.user, recipient)?;
        check_none_waits(&turn, waiting.as_ref())?;
        let plan = plan(&turn, order)?;
        let done = plan.done();
        let was_open = plan.carry_out(&mut turn)?;
        let as_it_is = turn.read(|snapshot| Plan::read(snapshot, &order.user))?;
        Ok(Settled { was_open, ..as_it_is.settled(done) })
    }
}

fn plan(turn: &Turn<'_>, order: &Order) -> Result<Plan> {
    let Order { user, changes } = order;
    let now = turn.now();
    let mut plan = turn.read(|snapshot| Plan::read(snapshot, user))?;
    let current = match plan.current.clone() {
        Some(current) if current.status.is_accepted() => current,
        Some(expired) => {
            let message = format!("{} of {user} has expired", expired.prefix);
            return Err(
                Error::new(Code::NoKey, message).hint(format!("`apikey refresh {user}` issues the next one"))
            );
        }
        None => return Err(turn.read(|snapshot| no_key(snapshot, user))?),
    };
    plan.settings = changes.of(plan.kept.clone())?;
    match changes.lifetime {
        Change::Keep => {}
        Change::Set(lifetime) => plan.expires_at = Some(later(now, lifetime)?),
        Change::TakeAway => plan.expires_at = None,
    }
    let is_about_file = changes.key_file_mode.is_some() || changes.key_file_owner.is_some();
    if let Some(key_file) = plan.settings.key_file.as_ref().filter(|_| is_about_file) {
        plan.file = plan.look_at(turn.store(), user, key_file, now)?.ok();
        if plan.file.is_none() {
            let message = format!("{} does not hold {}, the current key", key_file.path(), current.prefix);
            return Err(Error::new(Code::Undeliverable, message)
                .hint(format!("`apikey ensure {user}` delivers one with that owner and mode")));
        }
    }
    Ok(plan)
}
