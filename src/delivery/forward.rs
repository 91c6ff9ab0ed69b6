//! A delivery from its beginning to its end.

use std::process::Stdio;

use super::state::{InFile, check_may_replace};
use super::{Delivery, End, reload};
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::{KeyFile, Owner, Target};
use crate::settings::Reload;
use crate::store::{Held, Holdings, Pending, Record, Snapshot, Status, Store, Transaction, Turn};
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;
use crate::user::User;

/// A key that is to go into a file.
pub struct NewParcel<'a> {
    pub key: &'a Key,
    pub user: &'a User,
    pub key_file: &'a KeyFile,
    /// Whose the file that is replaced may be, too.
    pub previous_owners: [Option<Owner>; 2],
    pub replaces: Replaces,
}

/// What a key may take the place of, in a file.
#[derive(Clone, Copy, Debug)]
pub enum Replaces {
    /// A key, or nothing.
    Anything,
    /// A key: the path is the word of somebody who need not be trusted.
    AKey,
    /// The user's current key, which was issued then, or one that was issued after it and so was on its
    /// way there: nobody says that the file belongs there.
    OwnKeySince(Timestamp),
}

impl Replaces {
    /// Checks that a key of `user` may take the place of what `key_file` holds.
    pub fn check(
        self,
        store: &Store,
        key_file: &KeyFile,
        user: &User,
        held: &InFile,
    ) -> std::result::Result<(), Obstacle> {
        let path = key_file.path();
        let refused = |reason, hint| Err(Obstacle { reason, hint });
        let somebody_s_word = format!("see to that, or deliver a new one there: `apikey refresh {user}`");
        match (self, held) {
            (Replaces::AKey, InFile::Nothing) => {
                let database = store.location().path().display();
                refused(
                    format!(
                        "there is no key in {path}, and others may write {database}, which says to go there"
                    ),
                    "name the file with --key-file".into(),
                )
            }
            (Replaces::OwnKeySince(_), InFile::Nothing) => {
                refused(format!("there is no key in {path}; is its file system mounted?"), somebody_s_word)
            }
            (Replaces::OwnKeySince(issued), InFile::Key(key)) => match key {
                Some(key) if key.user == *user && key.created_at >= issued => Ok(()),
                _ => refused(
                    format!("{path} holds no current key of {user}; is another file system mounted?"),
                    somebody_s_word,
                ),
            },
            _ => Ok(()),
        }
    }
}

/// A key that became the active one.
pub struct Activated {
    pub record: Record,
    /// The key that it replaced, as it is now.
    pub previous: Option<Held>,
    /// The user's older keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// A signal that was to end this process ended the reload command; another run has told the reader.
    pub interrupted: bool,
}

/// Puts a key into its file: steps 1 to 3. `issue` is the first transaction.
///
/// Fails with [`Code::Undeliverable`] where the file may not be replaced: nothing has changed then.
/// Fails with [`Code::DeliveryPending`] where the new key is accepted but not all is done: the next
/// run goes on from there.
pub fn send(
    turn: &mut Turn<'_>,
    parcel: &NewParcel<'_>,
    issue: impl FnOnce(&Transaction<'_>) -> Result<Pending>,
) -> Result<Pending> {
    let prefix = parcel.key.prefix();
    let target = open(turn, parcel).map_err(none_issued)?;
    let unstage = |target: &Target| drop(target.remove_stage(prefix));
    target.write_stage(parcel.key).map_err(|obstacle| {
        unstage(&target);
        none_issued(obstacle)
    })?;
    let pending = turn.write(issue).inspect_err(|_| {
        // The stage may go only where the database says that its key was not issued.
        if matches!(turn.store().find(parcel.key, turn.now()), Ok(None)) {
            unstage(&target);
        }
    })?;
    if let Err(obstacle) = target.put_in_place(prefix) {
        // What a file system reports is not always what it did: what the file holds counts.
        let is_in_place = target.holds(&pending.key.key_hash);
        if matches!(is_in_place, Ok(false)) {
            match give_up(turn, &pending, Some(&target), false) {
                Ok(()) => return Err(none_issued(obstacle)),
                Err(error) if error.code() == Code::NoKey => return Err(error),
                Err(_) => {}
            }
        }
        if !matches!(is_in_place, Ok(true)) {
            let why = format!("it lies in {}: {}", target.stage(prefix).display(), obstacle.reason);
            return Err(stuck(turn, &pending, why));
        }
    }
    target.sync().map_err(|obstacle| stuck(turn, &pending, obstacle.reason))?;
    Ok(pending)
}

/// Opens the file's folder, and removes from it the stages of this file whose keys nobody accepts: a run
/// that made one was killed before its key was issued, or its key has ended since.
fn open(turn: &Turn<'_>, parcel: &NewParcel<'_>) -> std::result::Result<Target, Obstacle> {
    let target = Target::open(parcel.key_file, parcel.previous_owners)?;
    let held = check_may_replace(turn.store(), &target, parcel.user, turn.now())?;
    parcel.replaces.check(turn.store(), parcel.key_file, parcel.user, &held)?;
    for prefix in target.staged()? {
        // Where that is not known, or it can't be removed, it stays: that is not worth failing for.
        let Ok(key) = turn.store().with_prefix(prefix, turn.now()) else { continue };
        if !key.is_some_and(|key| key.status.is_accepted()) {
            let _ = target.remove_stage(prefix);
        }
    }
    Ok(target)
}

/// Tells the reader of a key that is in its file, where there is a command for that, and makes the key
/// the active one: steps 4 and 5. `replaced` is the key in whose place it was issued.
pub fn tell_and_activate(
    turn: &mut Turn<'_>,
    pending: &Pending,
    replaced: Option<Prefix>,
    tell_by: Option<&Reload>,
    stderr: Stdio,
) -> Result<Activated> {
    let (told, interrupted) = match tell_by {
        Some(command) => tell(turn, pending, command, stderr),
        None => (Ok(()), false),
    };
    let activated = told.and_then(|()| {
        complete(turn, pending, replaced).map_err(|error| match error.code() {
            Code::DeliveryPending | Code::NoKey => error,
            _ => stuck(turn, pending, not_activated(&error)),
        })
    });
    match activated {
        Ok(activated) => Ok(Activated { interrupted, ..activated }),
        Err(error) => Err(if interrupted { error.interrupted() } else { error }),
    }
}

/// Tells the reader, and whether a signal that was to end this process ended the command.
fn tell(turn: &mut Turn<'_>, pending: &Pending, command: &Reload, stderr: Stdio) -> (Result<()>, bool) {
    let (told, turn_again) = turn.let_others_go_first(|| reload::run(command, pending, stderr));
    let interrupted = told.as_ref().is_err_and(|failed| failed.interrupted);
    let end = match (told, turn_again) {
        (Ok(()), Ok(())) => return (Ok(()), false),
        (Ok(()), Err(error)) => End::Stuck(not_activated(&error)),
        (Err(failed), Ok(())) => End::AwaitsReload(Some(failed.why)),
        (Err(failed), Err(error)) => End::AwaitsReload(Some(format!("{}, and {error}", failed.why))),
    };
    // Where another run has told the reader meanwhile, it is done.
    let found = turn.store().read_beside_writers(turn.now(), |snapshot| stored(snapshot, &pending.key));
    let told = match found {
        Ok(Some(Status::Active)) => Ok(()),
        _ => Err(Delivery::of(pending, end).error(turn.store(), turn.now())),
    };
    (told, interrupted)
}

fn not_activated(error: &Error) -> String {
    format!("it is in place, but could not be made the active key: {error}")
}

fn stuck(turn: &Turn<'_>, pending: &Pending, why: String) -> Error {
    Delivery::of(pending, End::Stuck(why)).error(turn.store(), turn.now())
}

/// The status of the key as it is stored by now. `None` where it was forgotten.
pub fn stored(snapshot: &Snapshot<'_>, key: &Record) -> Result<Option<Status>> {
    Ok(snapshot.held_with_prefix(key.prefix)?.map(|(_, key)| key.stored))
}

/// The second transaction. Where another run has done it, there is nothing to do.
pub fn complete(turn: &mut Turn<'_>, pending: &Pending, replaced: Option<Prefix>) -> Result<Activated> {
    let Record { prefix, user, .. } = &pending.key;
    turn.write(|transaction| {
        let Holdings { current, mut older, .. } = transaction.holdings(user)?;
        let is_done = current.is_some_and(|current| current.prefix == *prefix);
        let mut previous = None;
        if !is_done {
            previous = activate(transaction, pending, current.as_ref())?;
            older.extend(previous.filter(|previous| previous.status.is_accepted()));
        }
        if let (None, Some(replaced)) = (previous, replaced) {
            // Another run ended it.
            previous = transaction.held_with_prefix(replaced)?.map(|(_, key)| key);
        }
        let (status, stored) = (Status::Active, Status::Active);
        let record = Record { status, stored, ..pending.key.clone() };
        Ok(Activated { record, previous, still_accepted: older, interrupted: false })
    })
}

/// Makes the pending key the active one in the place of the `current` one. Returns that as it is then.
fn activate(
    transaction: &Transaction<'_>,
    pending: &Pending,
    current: Option<&Held>,
) -> Result<Option<Held>> {
    let Record { prefix, user, .. } = &pending.key;
    if pending.key.expires_at.is_some_and(|expiry| expiry <= transaction.now()) {
        let message = format!("{prefix} of {user} has expired before its delivery was done");
        return Err(
            Error::new(Code::DeliveryPending, message).hint(format!("run `apikey refresh {user}` again"))
        );
    }
    let previous = current.map(|current| transaction.retire(user, current, pending.grace)).transpose()?;
    match transaction.activate(pending)? {
        true => Ok(previous),
        false => Err(not_pending(&pending.key, stored(transaction, &pending.key)?)),
    }
}

/// Revokes a pending key, and only then removes its stage, where that can be reached. What it was to bring
/// is kept where it was `issued` and nothing else is kept.
pub fn give_up(turn: &mut Turn<'_>, pending: &Pending, target: Option<&Target>, issued: bool) -> Result<()> {
    turn.write(|transaction| {
        if issued {
            transaction.keep_where_nothing_is(&pending.key.user, pending.key.prefix)?;
            // Its file may hold the key that is given up.
            transaction.make_due(&pending.key.user, transaction.now())?;
        }
        match transaction.undo(&pending.key)? {
            true => Ok(()),
            false => Err(not_pending(&pending.key, stored(transaction, &pending.key)?)),
        }
    })?;
    let _ = target.map(|target| target.remove_stage(pending.key.prefix));
    Ok(())
}

/// Another run has `ended` it so.
pub fn not_pending(key: &Record, ended: Option<Status>) -> Error {
    let Record { prefix, user, .. } = key;
    let (what, hint) = match ended {
        None | Some(Status::Revoked) => {
            ("revoked before its delivery was done", format!("`apikey refresh {user}` issues another"))
        }
        _ => ("replaced meanwhile", format!("`apikey show {user}` shows the current one")),
    };
    Error::new(Code::NoKey, format!("{prefix} of {user} was {what}")).hint(hint)
}

/// Removes the stage of a key that was revoked on its way, where that can be reached. Nobody accepts the key
/// in it, so that it is not worth failing for: the next delivery to this file removes it.
pub fn discard(prefix: Prefix, key_file: &KeyFile) {
    let _ = Target::open(key_file, [None; 2]).map(|target| target.remove_stage(prefix));
}

fn none_issued(obstacle: Obstacle) -> Error {
    Error::undeliverable(obstacle.reason).hint(obstacle.hint)
}
