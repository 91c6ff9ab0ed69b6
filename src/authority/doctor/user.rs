//! What each user has: the end of the current key, its renewal, the reload command, the key file.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use super::key_file::{Folders, Found, Looked};
use super::{About, Check, Each, delivery, quoted};
use crate::error::{Code, Error, Result};
use crate::key::{KeyHash, Prefix};
use crate::key_file::{KeyFile, Stage};
use crate::settings::Reload;
use crate::store::{Kept, Snapshot, Store};
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;
use crate::user::User;

/// Users whose keys are looked up at a time.
const AT_A_TIME: u32 = 500;
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The package's timer comes each hour.
const LATE: Duration = Duration::from_secs(60 * 60);
/// Looks at a file beside somebody who replaces it again and again.
const LOOKS: u32 = 5;

/// Checks every delivery, and every user who has a current key. Returns how many users are renewed, where that can be
/// told.
pub fn check_all(store: &Store, now: Timestamp, each: Each<'_>) -> Option<u64> {
    let database = store.location().path().display().to_string();
    let delivered_to = delivery::check_all(store, now, each).unwrap_or_else(|error| {
        each(About("delivery", &database).failed(&error));
        HashSet::new()
    });
    let (mut renewed, mut replaced) = (Some(0), Vec::new());
    let mut folders = Folders::beside(store.location().clone());
    let mut page = next_page(store, now, None);
    while let Some(Page { users, last }) = page.unwrap_or_else(|error| {
        each(About("key", &database).failed(&error));
        renewed = None;
        None
    }) {
        let mut known = Vec::new();
        for (name, kept) in users {
            match kept {
                Ok(kept) => known.extend(kept),
                Err(error) => each(About("key", &String::from_utf8_lossy(&name)).failed(&error)),
            }
        }
        for kept in &known {
            renewed = renewed.map(|renewed| renewed + u64::from(kept.settings.renew_after.is_some()));
            check(store, now, kept, each);
        }
        let (users, files) = with_key_file(known, &delivered_to, each);
        let looked;
        // The next ones are looked up meanwhile.
        (looked, page) = thread::scope(|scope| {
            let looking = scope.spawn(|| folders.look_at(&files));
            let next = next_page(store, now, Some(&last));
            (looking.join().unwrap_or_else(|panic| resume_unwind(panic)), next)
        });
        replaced.extend(tell(store, now, users.into_iter().zip(looked), true, each));
    }
    for looks_left in (0..LOOKS).rev() {
        let (users, files) = with_key_file(replaced, &delivered_to, each);
        let looked = folders.look_at(&files);
        replaced = tell(store, now, users.into_iter().zip(looked), looks_left > 0, each);
    }
    renewed
}

/// Users who have a current key by what is stored as their name, and the last of these.
struct Page {
    users: Vec<(Vec<u8>, Result<Option<Kept>>)>,
    last: Vec<u8>,
}

fn next_page(store: &Store, now: Timestamp, after: Option<&Vec<u8>>) -> Result<Option<Page>> {
    let users: Vec<_> = store.read_beside_writers(now, |snapshot| {
        let names = snapshot.users_after(after.map(Vec::as_slice), AT_A_TIME)?;
        let with_kept = |name: Vec<u8>| {
            let kept = kept(snapshot, &String::from_utf8_lossy(&name));
            (name, kept)
        };
        Ok::<_, Error>(names.into_iter().map(with_kept).collect())
    })?;
    // An index that is damaged can lead back to where it began.
    let last = users.last().map(|(name, _)| name.clone()).filter(|last| Some(last) > after);
    Ok(last.map(|last| Page { users, last }))
}

fn kept(snapshot: &Snapshot<'_>, name: &str) -> Result<Option<Kept>> {
    let user: User = name.parse().map_err(|_| {
        let message = "there is a current key whose user is none: the row makes no sense";
        Error::new(Code::DbError, message).hint("restore the database from a backup")
    })?;
    snapshot.kept(&user)
}

fn check(store: &Store, now: Timestamp, kept: &Kept, each: Each<'_>) {
    each(end(now, kept));
    if kept.settings.renew_after.is_some() {
        each(renewal(now, kept));
    }
    if let Some(reload) = &kept.settings.reload {
        each(reload_runs(store, &kept.key.user, reload));
    }
}

/// Those of these users who have a key file, and whose key it is to hold. What is in it while a delivery is under
/// way, the delivery says.
fn with_key_file(
    known: Vec<Kept>,
    delivered_to: &HashSet<User>,
    each: Each<'_>,
) -> (Vec<Kept>, Vec<(KeyFile, KeyHash)>) {
    let with_file = |kept: Kept| {
        let user = &kept.key.user;
        if kept.is_delivered_to {
            if !delivered_to.contains(user) {
                each(About("delivery", user.as_str()).ok("one has begun"));
            }
            return None;
        }
        let of_user = (kept.settings.key_file.clone()?, kept.key.key_hash);
        Some((kept, of_user))
    };
    known.into_iter().filter_map(with_file).unzip()
}

/// Tells how the key file of each user is. Returns those whose key was replaced since it was looked up, where
/// they `may` be looked at again.
fn tell(
    store: &Store,
    now: Timestamp,
    looked: impl Iterator<Item = (Kept, Looked)>,
    may: bool,
    each: Each<'_>,
) -> Vec<Kept> {
    let mut replaced = Vec::new();
    for (Kept { key, settings, .. }, (found, stages)) in looked {
        stages.iter().for_each(|stage| left_behind(store, now, stage, each));
        if !matches!(found, Found::Right) && may {
            match store.read_beside_writers(now, |snapshot| snapshot.kept(&key.user)) {
                Ok(Some(latest)) if latest.key.prefix == key.prefix && !latest.is_delivered_to => {}
                Ok(latest) => {
                    replaced.extend(latest);
                    continue;
                }
                Err(error) => each(About("key", key.user.as_str()).failed(&error)),
            }
        }
        if let Some(file) = settings.key_file {
            each(key_file(store, now, &key.user, &file, found));
        }
    }
    replaced
}

fn left_behind(store: &Store, now: Timestamp, stage: &Stage, each: Each<'_>) {
    let looked = store.read_beside_writers(now, |snapshot| snapshot.is_key_file(&stage.key_file));
    let is_pending = store.read_beside_writers(now, |snapshot| {
        Ok::<_, Error>(snapshot.pending()?.iter().any(|pending| pending.key.prefix == stage.prefix))
    });
    if let (Ok(true), Ok(false)) = (looked, is_pending) {
        let subject = stage.path.display().to_string();
        let message =
            "a delivery that was killed has left it; none that is under way in this database is its";
        let hint = format!("the next delivery to that file removes it; or: rm {}", quoted(&stage.path));
        each(About("stage", &subject).warning(message, hint));
    }
}

fn end(now: Timestamp, kept: &Kept) -> Check {
    let Kept { key, due_at, .. } = kept;
    let user = &key.user;
    let about = About("end", user.as_str());
    let Some(end) = key.expires_at else { return about.ok("its key does not end by itself") };
    let (message, hint) = (format!("{} ends on {end}", key.prefix), format!("apikey refresh {user}"));
    if end <= now {
        about.problem(format!("{} has expired on {end}", key.prefix), hint)
    } else if due_at.is_some_and(|due_at| due_at < end) {
        about.ok(format!("{message}, and is renewed before"))
    } else if end.since(now).is_some_and(|left| left <= SOON) {
        about.warning(message, hint)
    } else {
        about.ok(message)
    }
}

fn renewal(now: Timestamp, kept: &Kept) -> Check {
    let Kept { key, due_at, .. } = kept;
    let user = &key.user;
    let about = About("renewal", user.as_str());
    match due_at {
        Some(due_at) if now.since(*due_at).is_some_and(|late| late >= LATE) => {
            let message = format!("{} was due on {due_at}, and was not renewed", key.prefix);
            about.problem(message, format!("apikey renew {user}"))
        }
        Some(due_at) => about.ok(format!("{} is renewed from {due_at} on", key.prefix)),
        None => {
            let message = format!("it has a renewal age, and nothing says when {} is due", key.prefix);
            about.problem(message, format!("apikey refresh {user}"))
        }
    }
}

fn reload_runs(store: &Store, user: &User, reload: &Reload) -> Check {
    let about = About("reload", user.as_str());
    match store.location().is_shared() {
        Err(error) => about.failed(&error),
        Ok(true) => {
            let message = "its reload command is not run: others may write the database";
            about.problem(message, "give the database to who runs apikey, and let nobody else write it")
        }
        Ok(false) if !reload.is_of_this_machine() => {
            let message = "its reload command is not run: it was set on another machine";
            about.problem(message, format!("say it again: apikey edit {user} --reload COMMAND"))
        }
        Ok(false) => about.ok("its reload command was set on this machine"),
    }
}

fn key_file(store: &Store, now: Timestamp, user: &User, file: &KeyFile, found: Found) -> Check {
    let about = About("key file", file.path());
    let ensure = format!("apikey ensure {user}");
    match found {
        Found::Right => about.ok(format!("it holds the key of {user}")),
        Found::Differs { what, was_open: true } => {
            let hint = format!("{ensure}; or, with a new key, apikey refresh {user} --revoke-first");
            about.problem(format!("its {what} let more read the key of {user} than should"), hint)
        }
        Found::Differs { what, .. } => about.warning(format!("its {what} is not as kept"), ensure),
        Found::OtherForm => {
            about.problem(format!("it holds the key of {user} in another form than is kept"), ensure)
        }
        Found::Nothing => about.problem(format!("there is no key of {user} in it"), ensure),
        Found::Other(prefix) => match other_s(store, now, user, prefix) {
            Some(other) => about.problem(
                format!("it holds {prefix} of {other}, and is to hold the key of {user}"),
                format!("say where one of them goes: apikey ensure {user} --key-file PATH"),
            ),
            None => {
                about.problem(format!("it holds {prefix}, which is not the current key of {user}"), ensure)
            }
        },
        Found::Obstructed(Obstacle { reason, hint }) => about.problem(reason, hint),
    }
}

/// Whose accepted key it is, where that is another's.
fn other_s(store: &Store, now: Timestamp, user: &User, prefix: Prefix) -> Option<User> {
    let key = store.with_prefix(prefix, now).ok()??;
    (key.status.is_accepted() && key.user != *user).then_some(key.user)
}
