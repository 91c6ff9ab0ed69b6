//! A delivery from its beginning to its end.

use std::process::{Command, Stdio};

use super::state::check_may_replace;
use super::{Delivery, End};
use crate::error::{Code, Error, Result};
use crate::key::Key;
use crate::key_file::{KeyFile, Owner, Target};
use crate::settings::Reload;
use crate::store::{Pending, Previous, Record, Status, Transaction, Turn};
use crate::trust::Obstacle;
use crate::user::User;

/// A key that is to go into a file.
pub struct NewParcel<'a> {
    pub key: &'a Key,
    pub user: &'a User,
    pub key_file: &'a KeyFile,
    /// Whose the file that is replaced may be, too.
    pub previous_owners: [Option<Owner>; 2],
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
        match target.holds(&pending.key.key_hash) {
            Ok(true) => {}
            Ok(false) if give_up(turn, &pending, Some(&target), false).is_ok() => {
                return Err(none_issued(obstacle));
            }
            _ => {
                let why = format!("it lies in {}: {}", target.stage(prefix).display(), obstacle.reason);
                return Err(Delivery::of(&pending, End::Stuck(why)).error());
            }
        }
    }
    target.sync().map_err(|obstacle| Delivery::of(&pending, End::Stuck(obstacle.reason)).error())?;
    Ok(pending)
}

/// Opens the file's folder, and removes from it the stages of this file whose keys nobody accepts: a run
/// that made one was killed before its key was issued, or its key has ended since.
fn open(turn: &Turn<'_>, parcel: &NewParcel<'_>) -> std::result::Result<Target, Obstacle> {
    let target = Target::open(parcel.key_file, parcel.previous_owners)?;
    check_may_replace(turn.store(), &target, parcel.user, turn.now())?;
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
/// the active one: steps 4 and 5.
pub fn tell_and_activate(
    turn: &mut Turn<'_>,
    pending: &Pending,
    reload: Option<&Reload>,
    reload_stderr: Stdio,
) -> Result<(Record, Option<Previous>)> {
    if let Some(reload) = reload
        && let Err(failed) = run(reload, pending, reload_stderr)
    {
        // Where another run has told the reader meanwhile, it is done.
        let current = turn.read(|snapshot| snapshot.current(&pending.key.user))?;
        let done = current.filter(|current| current.prefix == pending.key.prefix);
        return done.map(|done| (done, None)).ok_or(failed);
    }
    complete(turn, pending).map_err(|error| match error.code() {
        Code::DeliveryPending | Code::NoKey => error,
        _ => {
            let why = format!("it is in place, but the old key could not be ended: {error}");
            Delivery::of(pending, End::Stuck(why)).error()
        }
    })
}

/// Standard output is for data, so the command has none.
fn run(reload: &Reload, pending: &Pending, stderr: Stdio) -> Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", &reload.command])
        .env("APIKEY_USER", pending.key.user.as_str())
        .env("APIKEY_PREFIX", pending.key.prefix.to_string())
        .env("APIKEY_KEY_FILE", pending.key_file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .status();
    let why = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("the reload command failed: {status}"),
        Err(error) => format!("the reload command could not be run: {error}"),
    };
    Err(Delivery::of(pending, End::AwaitsReload(Some(why))).error())
}

/// The second transaction. Where another run has done it, there is nothing to do.
pub fn complete(turn: &mut Turn<'_>, pending: &Pending) -> Result<(Record, Option<Previous>)> {
    let Record { prefix, user, .. } = &pending.key;
    turn.write(|transaction| {
        let current = transaction.current(user)?;
        if let Some(done) = current.as_ref().filter(|current| current.prefix == *prefix) {
            return Ok((done.clone(), None));
        }
        if pending.key.expires_at.is_some_and(|expiry| expiry <= transaction.now()) {
            let message = format!("{prefix} of {user} has expired before its delivery was done");
            return Err(
                Error::new(Code::DeliveryPending, message).hint(format!("run `apikey refresh {user}` again"))
            );
        }
        let retire = |current| transaction.retire(current, pending.grace);
        let previous = current.as_ref().map(retire).transpose()?;
        if !transaction.activate(pending)? {
            return Err(not_pending(&pending.key));
        }
        Ok((Record { status: Status::Active, ..pending.key.clone() }, previous))
    })
}

/// Revokes a pending key, and only then removes its stage, where that can be reached. What it was to bring
/// is kept where it was `issued` and nothing else is kept.
pub fn give_up(turn: &mut Turn<'_>, pending: &Pending, target: Option<&Target>, issued: bool) -> Result<()> {
    turn.write(|transaction| {
        if issued {
            transaction.keep_where_nothing_is(&pending.key)?;
        }
        if transaction.undo(pending)? { Ok(()) } else { Err(not_pending(&pending.key)) }
    })?;
    let _ = target.map(|target| target.remove_stage(pending.key.prefix));
    Ok(())
}

/// Another run has ended it.
fn not_pending(key: &Record) -> Error {
    let Record { prefix, user, .. } = key;
    Error::new(Code::NoKey, format!("{prefix} of {user} was revoked before its delivery was done"))
        .hint(format!("`apikey refresh {user}` issues another"))
}

/// Removes the stage of a key that was revoked on its way, where that can be reached. Nobody accepts
/// the key in it, so that it is not worth failing for: the next delivery to this file removes it.
pub fn discard(pending: &Pending) {
    let _ = Target::open(&pending.key_file, [None; 2]).map(|target| target.remove_stage(pending.key.prefix));
}

fn none_issued(obstacle: Obstacle) -> Error {
    Error::undeliverable(obstacle.reason).hint(obstacle.hint)
}
