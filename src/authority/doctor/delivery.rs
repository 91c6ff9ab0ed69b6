//! Every delivery that is under way, and where it stands.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use super::{About, Check, Each, Health};
use crate::delivery::{Delivery, End, State, look};
use crate::error::{Error, Result};
use crate::patience::{A_WHILE, within};
use crate::store::{Pending, Store};
use crate::timestamp::Timestamp;
use crate::user::User;

const A_MOMENT: Duration = Duration::from_millis(20);

/// Tells of every delivery. Returns to whom there is one.
pub fn check_all(store: &Store, now: Timestamp, each: Each<'_>) -> Result<HashSet<User>> {
    let (pending, users) = store.read_beside_writers(now, |snapshot| {
        Ok::<_, Error>((snapshot.pending()?, snapshot.users_with_pending()?))
    })?;
    let is_known = |name: &String| pending.iter().any(|pending| pending.key.user.as_str() == name);
    for name in users.iter().filter(|name| !is_known(name)) {
        let message = "a key is on its way to its file, and the rest that is known of it makes no sense";
        let hint = match name.parse::<User>() {
            Ok(user) => format!("apikey revoke {user}, and then apikey create {user}"),
            Err(_) => "restore the database from a backup".to_owned(),
        };
        each(About("delivery", name).problem(message, hint));
    }
    let delivered_to = pending.iter().map(|pending| pending.key.user.clone()).collect();
    let mut is_silent = false;
    for pending in pending {
        let mut found = delivery(store, now, pending.clone(), &mut is_silent);
        for _ in 0..2 {
            if found.status == Health::Ok || is_silent {
                break;
            }
            // Who is delivering it may have gone on while it was looked at.
            thread::sleep(A_MOMENT);
            let still = store.read_beside_writers(now, |snapshot| snapshot.pending_of(&pending.key.user))?;
            if still.is_none_or(|still| still.key.prefix != pending.key.prefix) {
                found = About("delivery", pending.key.user.as_str()).ok("one that was under way is over");
                break;
            }
            found = delivery(store, now, pending.clone(), &mut is_silent);
        }
        each(found);
    }
    Ok(delivered_to)
}

/// Where a delivery stands. Its file system may not answer: then the others are not waited for either.
fn delivery(store: &Store, now: Timestamp, pending: Pending, is_silent: &mut bool) -> Check {
    let (user, prefix) = (pending.key.user.clone(), pending.key.prefix);
    let about = About("delivery", user.as_str());
    let (database, hint) = (store.location().path().to_owned(), format!("apikey ensure {user}"));
    let patience = if *is_silent { Duration::from_millis(100) } else { A_WHILE };
    let standing = within(patience, move || {
        let store = Store::open(&database, Duration::ZERO)?;
        let end = match look(&store, &pending, now)? {
            State::Staged(_) | State::InPlace(_) => End::Finished,
            State::AwaitsReload(_) => End::AwaitsReload(None),
            State::Lost(_) => End::Undone,
            State::Stuck(obstacle) => End::Stuck(obstacle.reason),
        };
        Ok::<_, Error>(Delivery::of(&pending, end))
    });
    let delivery = match standing {
        Ok(Some(Ok(delivery))) => delivery,
        Ok(Some(Err(error))) => return about.failed(&error),
        Ok(None) | Err(_) => {
            *is_silent = true;
            let message = format!("{prefix} is on its way to a file system that does not answer");
            return about.problem(message, format!("see to that, or: apikey revoke {user}"));
        }
    };
    let what_to_do = delivery.what_to_do().unwrap_or_default();
    match delivery.end {
        End::Finished => {
            about.warning(format!("{prefix} is under way to its file, or was interrupted there"), hint)
        }
        End::Undone => {
            about.warning(format!("{prefix} is lost on its way to its file, or has expired there"), hint)
        }
        End::AwaitsReload(_) => about.warning(delivery.to_string(), what_to_do),
        End::Stuck(_) => about.problem(delivery.to_string(), what_to_do),
    }
}
