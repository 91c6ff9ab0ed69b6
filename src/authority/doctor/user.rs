//! What each user has: the end of the current key, its renewal, the reload command, the key file; and every delivery
//! that is under way.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::key_file::{Found, look_at};
use super::{Check, Each};
use crate::delivery::{Delivery, End, State, look};
use crate::error::{Error, Result};
use crate::key_file::KeyFile;
use crate::patience::{A_WHILE, within};
use crate::settings::{Reload, Settings};
use crate::store::{Pending, Record, Status, Store};
use crate::timestamp::Timestamp;
use crate::user::User;

/// Users whose keys are looked up at a time.
const AT_A_TIME: u32 = 500;
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The package's timer comes each hour.
const LATE: Duration = Duration::from_secs(60 * 60);

/// What is known of a user who has a current key.
struct Known {
    user: User,
    key: Record,
    settings: Settings,
    due_at: Option<Timestamp>,
    is_delivered_to: bool,
}

/// Checks every user who has a current key, and every delivery. Returns how many users are renewed.
pub fn check_all(store: &Store, now: Timestamp, each: Each<'_>) -> u64 {
    let database = store.location().path().display().to_string();
    let (mut renewed, mut last, mut folders) = (0, String::new(), HashSet::new());
    loop {
        let users = match store.read_beside_writers(now, |snapshot| snapshot.users_after(&last, AT_A_TIME)) {
            Ok(users) => users,
            Err(error) => {
                each(Check::failed("key", &database, &error));
                break;
            }
        };
        let Some(newest) = users.last() else { break };
        for name in &users {
            match known(store, now, name) {
                Ok(None) => {}
                Ok(Some(known)) => {
                    renewed += u64::from(known.settings.renew_after.is_some());
                    check(store, now, &known, &mut folders, each);
                }
                Err(error) => each(Check::failed("key", name, &error)),
            }
        }
        last = newest.clone();
    }
    match store.read_beside_writers(now, |snapshot| snapshot.pending()) {
        Ok(pending) => pending.into_iter().for_each(|pending| each(delivery(store, now, pending))),
        Err(error) => each(Check::failed("delivery", &database, &error)),
    }
    renewed
}

fn known(store: &Store, now: Timestamp, name: &str) -> Result<Option<Known>> {
    let user: User = name.parse()?;
    store.read_beside_writers(now, |snapshot| {
        let Some(key) = snapshot.current(&user)? else { return Ok(None) };
        let (settings, due_at) = snapshot.settings_and_due(&user)?;
        let is_delivered_to = snapshot.holdings(&user)?.pending.is_some();
        Ok(Some(Known { user: user.clone(), key, settings, due_at, is_delivered_to }))
    })
}

fn check(store: &Store, now: Timestamp, known: &Known, folders: &mut HashSet<PathBuf>, each: Each<'_>) {
    let Known { user, settings, .. } = known;
    each(end(now, known));
    if settings.renew_after.is_some() {
        each(renewal(now, known));
    }
    if let Some(reload) = &settings.reload {
        each(told_by(store, user, reload));
    }
    let Some(file) = &settings.key_file else { return };
    let folder = PathBuf::from(file.path()).parent().map(PathBuf::from).unwrap_or_default();
    let (found, stages) = look_at(file, known.key.key_hash, folders.insert(folder));
    // What is in it while a delivery is under way, that says.
    if !known.is_delivered_to {
        each(key_file(user, file, found));
    }
    for stage in stages {
        let key = store.with_prefix(stage.prefix, now);
        if key.is_ok_and(|key| key.is_none_or(|key| key.stored != Status::Pending)) {
            let subject = stage.path.display().to_string();
            let message = format!(
                "a delivery that was killed has left it, with a key that is not accepted as {}",
                stage.prefix
            );
            each(Check::warning("stage", &subject, message, format!("rm {subject}")));
        }
    }
}

fn end(now: Timestamp, known: &Known) -> Check {
    let Known { user, key, due_at, .. } = known;
    let subject = user.as_str();
    let Some(end) = key.expires_at else {
        return Check::ok("end", subject, "its key does not end by itself");
    };
    let (message, hint) = (format!("{} ends on {end}", key.prefix), format!("apikey refresh {user}"));
    if end <= now {
        Check::problem("end", subject, format!("{} has expired on {end}", key.prefix), hint)
    } else if due_at.is_some_and(|due_at| due_at < end) {
        Check::ok("end", subject, format!("{message}, and is renewed before"))
    } else if end.since(now).is_some_and(|left| left <= SOON) {
        Check::warning("end", subject, message, hint)
    } else {
        Check::ok("end", subject, message)
    }
}

fn renewal(now: Timestamp, known: &Known) -> Check {
    let Known { user, key, due_at, .. } = known;
    let subject = user.as_str();
    match due_at {
        Some(due_at) if now.since(*due_at).is_some_and(|late| late >= LATE) => {
            let message = format!("{} was due on {due_at}, and was not renewed", key.prefix);
            Check::problem("renewal", subject, message, format!("apikey renew {user}"))
        }
        Some(due_at) => Check::ok("renewal", subject, format!("{} is renewed from {due_at} on", key.prefix)),
        None => {
            let message = format!("it has a renewal age, and nothing says when {} is due", key.prefix);
            Check::problem("renewal", subject, message, format!("apikey ensure {user}"))
        }
    }
}

fn told_by(store: &Store, user: &User, reload: &Reload) -> Check {
    let (check, subject) = ("reload", user.as_str());
    let hint = format!("say it again: apikey edit {user} --reload COMMAND");
    match store.location().is_shared() {
        Err(error) => Check::failed(check, subject, &error),
        Ok(true) => {
            let message = "its reload command is not run: others may write the database";
            Check::problem(check, subject, message, hint)
        }
        Ok(false) if !reload.is_of_this_machine() => {
            let message = "its reload command is not run: it was set on another machine";
            Check::problem(check, subject, message, hint)
        }
        Ok(false) => Check::ok(check, subject, "its reload command was set on this machine"),
    }
}

fn key_file(user: &User, file: &KeyFile, found: Found) -> Check {
    let (check, subject) = ("key file", file.path());
    let ensure = format!("apikey ensure {user}");
    let problem = |message: &str, hint: String| Check::problem(check, subject, message, hint);
    match found {
        Found::Right => Check::ok(check, subject, format!("it holds the key of {user}")),
        Found::Differs { what, was_open: true } => {
            let hint = format!("{ensure}; or, with a new key, apikey refresh {user} --revoke-first");
            problem(&format!("its {what} let more read the key of {user} than should"), hint)
        }
        Found::Differs { what, .. } => {
            Check::warning(check, subject, format!("its {what} is not as kept"), ensure)
        }
        Found::OtherForm => {
            problem(&format!("it holds the key of {user} in another form than is kept"), ensure)
        }
        Found::Nothing => problem(&format!("there is no key of {user} in it"), ensure),
        Found::OtherKey => problem(&format!("it holds another key than the current one of {user}"), ensure),
        Found::Obstructed(obstacle) => Check::obstructed(check, subject, obstacle),
    }
}

/// Where a delivery stands. Its file system may not answer.
fn delivery(store: &Store, now: Timestamp, pending: Pending) -> Check {
    let (user, prefix) = (pending.key.user.clone(), pending.key.prefix);
    let subject = user.to_string();
    let unanswered = format!("{prefix} is on its way to a file system that does not answer");
    let (database, hint) = (store.location().path().to_owned(), format!("apikey ensure {user}"));
    let interrupted = |what: String| Check::warning("delivery", &subject, what, hint.clone());
    let standing = within(A_WHILE, move || {
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
        Ok(Some(Err(error))) => return Check::failed("delivery", &subject, &error),
        Ok(None) | Err(_) => {
            let hint = format!("see to that, or apikey revoke {user}");
            return Check::problem("delivery", &subject, unanswered, hint);
        }
    };
    let what_to_do = delivery.what_to_do().unwrap_or_default();
    match delivery.end {
        End::Finished => interrupted(format!("{prefix} is under way to its file, or was interrupted there")),
        End::Undone => interrupted(format!("{prefix} is lost on its way to its file, or has expired there")),
        End::AwaitsReload(_) => Check::warning("delivery", &subject, delivery.to_string(), what_to_do),
        End::Stuck(_) => Check::problem("delivery", &subject, delivery.to_string(), what_to_do),
    }
}
