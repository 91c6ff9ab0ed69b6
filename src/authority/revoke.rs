//! Revoking what a user has.
//!
//! A revocation is one transaction that waits for nobody's delivery, and nothing about a file can stop it:
//! no file is looked at before it is done. Nor can damage, as far as any of the keys can be found.

use super::Shortfall;
use super::show::{no_key, no_such_key};
use crate::delivery::{check_is_not_the_database, discard};
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::key_file::{KeyFile, Target};
use crate::patience::{A_WHILE, within};
use crate::store::{Held, Location, Look, Snapshot, Status, Store, Transaction};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// What was revoked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Revoked {
    /// Whose.
    pub user: User,
    /// The keys, as they were before, the current one first.
    pub keys: Vec<Held>,
    /// The user's keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// The files that hold one of them, as far as that could be seen at once.
    pub key_files: Vec<KeyFile>,
    /// So many rows were damaged and had to be written anew, be they of `keys` or not: they are revoked.
    pub written_anew: usize,
    /// What damage, or a disk that is full, kept from being done.
    pub shortfall: Shortfall,
}

/// What was revoked, and the files to look at: the one that is kept, and those that a key was on its way to.
type Done = (Revoked, Option<KeyFile>, Vec<(Prefix, KeyFile)>);

/// What [`Authority::revoke`](super::Authority::revoke) does.
pub(super) fn revoke(
    store: &mut Store,
    clock: fn() -> Result<Timestamp>,
    subject: &Subject,
    agreed: Option<&[Prefix]>,
) -> Result<Revoked> {
    let mut known = Known::default();
    let end_by = |store: &mut Store, looks: &[Look], manner, known: &mut Known| {
        store.write_at_once(clock, |transaction| end(transaction, looks, manner, subject, agreed, known))
    };
    let is_damage = |done: &Result<Done>| done.as_ref().is_err_and(|error| error.code() == Code::DbError);
    let mut done = end_by(store, &Look::QUICK, Manner::Whole, &mut known);
    if is_damage(&done) {
        let looks = looks_past_damage(store, clock, subject)?;
        for manner in [Manner::Whole, Manner::Bare, Manner::Anew, Manner::BareAnew, Manner::ByTime] {
            let again = end_by(store, &looks, manner, &mut known);
            let is_none = |revoked: &Revoked| revoked.keys.is_empty() && revoked.written_anew == 0;
            let finds_none = again.as_ref().is_ok_and(|(revoked, ..)| is_none(revoked));
            if !known.keys.is_empty() && finds_none {
                // A commit that failed has revoked them all the same, and that may not last.
                break;
            }
            done = again;
            if !is_damage(&done) {
                break;
            }
        }
    }
    let (mut revoked, kept, under_way) = done?;
    let user = &revoked.user;
    if revoked.shortfall.left_out && revoked.keys.is_empty() {
        let message = format!("a key of {user} cannot be read, and could not be revoked");
        return Err(Error::new(Code::DbError, message)
            .hint("restore the database from a backup, and revoke it there"));
    }
    // What these may meet is not to undo what was done.
    let others = match subject {
        Subject::User(_) => Some(Vec::new()),
        Subject::Key(_) => accepted(store, clock, user),
    };
    let goes_on = |others: &Vec<Held>| others.iter().any(|key| key.stored == Status::Active);
    if revoked.shortfall.by_time && others.as_ref().is_some_and(|others| !goes_on(others)) {
        let done = store.write_at_once(clock, |transaction| transaction.renew_no_more(user));
        revoked.shortfall.still_renewed = done.is_err();
    }
    revoked.still_accepted = others.unwrap_or_default();
    Ok(with_key_files((revoked, kept, under_way), store.location().clone()))
}

/// What of the user's is accepted; `None` where that cannot be read.
fn accepted(store: &Store, clock: fn() -> Result<Timestamp>, user: &User) -> Option<Vec<Held>> {
    let by = |looks: &[Look]| store.read_beside_writers(clock()?, |snapshot| snapshot.held_by(looks, user));
    let (held, _) = by(&Look::QUICK).or_else(|_| by(&[Look::Through])).ok()?;
    Some(held.into_iter().filter(|key| key.status.is_accepted()).collect())
}

/// How much of a revocation is done: less, where damage or a full disk keeps more from being done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// All of it.
    Whole,
    /// The keys are revoked, and that is all; it is not written down either.
    Bare,
    /// All of it, and the rows of the keys are written anew.
    Anew,
    /// The rows of the keys are written anew, and that is all.
    BareAnew,
    /// The keys expire now, where not even their status can be written.
    ByTime,
}

/// What was found of the user's, whether or not it could be ended: to make the indexes anew may take the trace of it.
#[derive(Default)]
struct Known {
    keys: Vec<Prefix>,
    is_one_left_out: bool,
}

/// Ends in one `manner` what these looks find, and what is `known` of those before.
fn end(
    transaction: &Transaction<'_>,
    looks: &[Look],
    manner: Manner,
    subject: &Subject,
    agreed: Option<&[Prefix]>,
    known: &mut Known,
) -> Result<Done> {
    let (user, mut held, is_one_left_out) = find(transaction, looks, subject)?;
    known.is_one_left_out |= is_one_left_out;
    for &prefix in &known.keys {
        if held.iter().all(|key| key.prefix != prefix) {
            // Its row says that it is another's, and the index that said whose it is was made anew.
            let key = transaction.unless_damaged(transaction.held_with_prefix(prefix))?;
            held.extend(key.map(|(_, key)| key).filter(|key| key.stored.is_accepted()));
        }
    }
    held.sort_by_key(|key| key.stored != Status::Active);
    let keys = still_to_revoke(held.clone());
    known.keys.extend(keys.iter().map(|key| key.prefix));
    // Those whose time is over too: by the clock alone they are not revoked for good.
    match manner {
        Manner::Whole | Manner::Bare => transaction.end(&held)?,
        Manner::Anew | Manner::BareAnew => transaction.end_anew(&held)?,
        Manner::ByTime => transaction.end_by_time(&held)?,
    }
    keys.iter().try_for_each(|key| check_agreed(&user, key, agreed))?;
    let by_time = manner == Manner::ByTime;
    let unreadable =
        if known.is_one_left_out && !by_time { transaction.revoke_unreadable(&user)? } else { Vec::new() };
    let shortfall = Shortfall {
        by_time,
        not_logged: matches!(manner, Manner::Bare | Manner::BareAnew | Manner::ByTime),
        left_out: known.is_one_left_out && unreadable.is_empty(),
        still_renewed: false,
    };
    let is_anew = matches!(manner, Manner::Anew | Manner::BareAnew);
    let written_anew = unreadable.len() + if is_anew { held.len() } else { 0 };
    let (still_accepted, key_files) = (Vec::new(), Vec::new());
    let revoked = Revoked { user, keys, still_accepted, key_files, written_anew, shortfall };
    if shortfall.not_logged {
        return Ok((revoked, None, Vec::new()));
    }
    let user = &revoked.user;
    // From here on nothing that makes no sense is a reason not to revoke.
    let kept = transaction.unless_damaged(transaction.key_file(user))?;
    let pending = held.iter().filter(|key| key.stored == Status::Pending).map(|key| key.prefix);
    let file_of = |key| {
        let file = transaction.unless_damaged(transaction.key_file_of_pending(user, key))?;
        Ok(file.map(|file| (key, file)))
    };
    let under_way = pending.clone().filter_map(|key| file_of(key).transpose()).collect::<Result<Vec<_>>>()?;
    if let Subject::User(_) = subject {
        for key in pending {
            transaction.unless_damaged(transaction.keep_where_delivered(user, key))?;
        }
    }
    held.extend(unreadable.into_iter().flatten());
    transaction.ended(user, &held)?;
    Ok((revoked, kept, under_way))
}

/// The looks that can be had where something is damaged: each is tried by itself, since SQLite does nothing
/// more in a transaction that has met damage.
fn looks_past_damage(
    store: &mut Store,
    clock: fn() -> Result<Timestamp>,
    subject: &Subject,
) -> Result<Vec<Look>> {
    let mut looks = vec![Look::Through];
    if let Subject::User(user) = subject {
        for look in Look::QUICK {
            if store.read_beside_writers(clock()?, |snapshot| snapshot.held_by(&[look], user)).is_ok() {
                looks.push(look);
            }
        }
    }
    // An index in which the change of a status is to be written may be the one. Where that fails, the
    // revocation says so.
    let _ = store.write_at_once(clock, |transaction| transaction.remake_indexes());
    Ok(looks)
}

/// Removes what was staged, and looks which files hold a key that was revoked.
fn with_key_files((revoked, kept, under_way): Done, location: Location) -> Revoked {
    let prefixes: Vec<Prefix> = revoked.keys.iter().map(|key| key.prefix).collect();
    let look = move || {
        under_way.iter().for_each(|(prefix, key_file)| discard(*prefix, key_file));
        let files = kept.into_iter().chain(under_way.into_iter().map(|(_, key_file)| key_file));
        let mut holding: Vec<KeyFile> = Vec::new();
        for file in files.filter(|file| holds_one_of(file, &prefixes, &location)) {
            if holding.iter().all(|known| known.path() != file.path()) {
                holding.push(file);
            }
        }
        holding
    };
    // A file system that does not answer is not to keep what is done from being said.
    let key_files = within(A_WHILE, look).ok().flatten().unwrap_or_default();
    Revoked { key_files, ..revoked }
}

fn holds_one_of(key_file: &KeyFile, prefixes: &[Prefix], location: &Location) -> bool {
    // Whose file it is could have put a link in its place: to a device, which does something when it is opened, or to
    // the database, whose locks SQLite would lose when that is closed.
    let look = || {
        let target = Target::open(key_file, [None; 2])?;
        check_is_not_the_database(location, &target)?;
        target.check_replaceable()
    };
    look().is_ok_and(|key| key.is_some_and(|key| prefixes.contains(&key.prefix())))
}

/// What it would revoke.
pub(super) fn revocable(snapshot: &Snapshot<'_>, subject: &Subject) -> Result<(User, Vec<Held>)> {
    find(snapshot, &Look::QUICK, subject).map(|(user, held, _)| (user, still_to_revoke(held)))
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

/// Whose it is about, what of that is not revoked for good, and whether a row was left out that makes no
/// sense.
fn find(snapshot: &Snapshot<'_>, looks: &[Look], subject: &Subject) -> Result<(User, Vec<Held>, bool)> {
    match subject {
        Subject::User(user) => {
            let (held, is_one_left_out) = snapshot.held_by(looks, user)?;
            Ok((user.clone(), held, is_one_left_out))
        }
        Subject::Key(prefix) => {
            let (user, key) = snapshot.held_with_prefix(*prefix)?.ok_or_else(|| no_such_key(*prefix))?;
            let held = if key.stored.is_accepted() { vec![key] } else { Vec::new() };
            Ok((user, held, false))
        }
    }
}

fn still_to_revoke(held: Vec<Held>) -> Vec<Held> {
    held.into_iter().filter(|key| key.status != Status::Revoked).collect()
}
