//! Issuing a key, into a file: the overlap protocol.
//!
//! With exactly one accepted key, no order of 'commit' and 'replace the file' is without a moment
//! at which the file holds a key that nobody accepts. So for a moment two are accepted:
//!
//! 1. Under the lock, look at the file; refuse what may not be replaced. Stage the new key beside it.
//! 2. First transaction: the new key is pending, and accepted. The old one stays.
//! 3. Put the stage in the file's place; sync the folder.
//! 4. Run the reload command, where there is one: its reader takes the new key while both are good.
//! 5. Second transaction: the new key is active; the old one ends, or retires.
//!
//! | killed after | the file holds | accepted | the next run that writes (`recovery.rs`) |
//! | --- | --- | --- | --- |
//! | staging, whole or in part | old | old | removes the stage |
//! | the first transaction | old | old, new | goes on with 3; without a whole stage, revokes the new key |
//! | the replacement | new | old, new | syncs the folder and goes on with 5 |
//! | the second transaction | new | new | has nothing to do |
//!
//! Without a stage, and with neither of the two keys in the file, nothing is revoked: another file system
//! may be mounted there, or none. A key that waits for its reload goes on with 4 when that user is
//! refreshed again.

use std::process::{Command, Stdio};

use crate::agreed::check_agreed;
use crate::error::{Code, Error, Result};
use crate::issue::{
    Issued, Order, Previous, Replace, current, insert, later, replace, see_to_that, tell_its_reader,
    undeliverable,
};
use crate::key::Key;
use crate::key_file::{KeyFile, Target};
use crate::recovery::remove_stage;
use crate::store::{NewDelivery, Outcome, Record, Status};
use crate::trust::Obstacle;
use crate::user::User;
use crate::writer::Writer;

/// How the reader of a key file is told of a new key.
#[derive(Clone, Debug)]
pub struct Reload {
    /// For `/bin/sh -c`.
    pub command: String,
    /// What it says goes nowhere, not to standard error.
    pub silent: bool,
}

impl Writer<'_> {
    /// Where the user's last key was delivered to, or is on its way to.
    pub fn remembered(&self, user: &User) -> Result<Option<KeyFile>> {
        let now = (self.clock)();
        if let Some(unfinished) = self.unfinished(user) {
            return Ok(unfinished.key.key_file.clone());
        }
        match self.store.show(user, now)? {
            Some(current) => Ok(current.key_file),
            None => self.store.last_key_file(user, now),
        }
    }

    /// Issues a key into `key_file`. What is there now may also belong to the owner of the
    /// `remembered` one. `reload` is run when the key is in the file and before the one it replaces
    /// ends.
    ///
    /// Fails with [`Code::Undeliverable`] where the file may not be replaced: nothing has changed
    /// then. Fails with [`Code::DeliveryPending`] where the new key is accepted but not all is
    /// done: the next run goes on from there.
    pub fn issue_to_file(
        &mut self,
        order: &Order,
        key_file: &KeyFile,
        remembered: Option<&KeyFile>,
        reload: Option<&Reload>,
    ) -> Result<Issued> {
        let superseded = self.superseded(order)?;
        let previous_owner = remembered.and_then(|key_file| key_file.owner);
        let key = self.new_key()?;
        let target = Target::open(key_file, key.prefix(), previous_owner).map_err(none_issued)?;
        let location = self.store.location();
        if target.is_in(location.folder()).map_err(none_issued)? && location.owns(target.name()) {
            return Err(undeliverable(&format!("{} belongs to the database", key_file.path())));
        }
        target.check_replaceable().map_err(none_issued)?;
        self.check_holds_no_key_of_another(&target, order.user.as_str()).map_err(none_issued)?;
        self.stage(&target, &key)?;
        let delivery = NewDelivery { key_file, grace: order.grace(), reload_pending: reload.is_some() };
        let (pending, ended) = self.insert_pending(order, &key, delivery, superseded.as_ref(), &target)?;
        superseded.iter().for_each(remove_stage);
        self.put_in_place(&pending, &target, ended.is_some() || superseded.is_some())?;
        let issued = self.tell_and_activate(&pending, reload)?;
        let previous = ended.or(issued.previous);
        Ok(Issued { previous, superseded: superseded.map(|key| key.prefix), ..issued })
    }

    /// Goes on with a key that was delivered and whose reader was not told. Fails with
    /// [`Code::Cancelled`] where the current key is not the one that somebody `agreed` to end.
    pub fn finish_delivery(
        &mut self,
        pending: &Record,
        agreed: Option<&[String]>,
        reload: Option<&Reload>,
    ) -> Result<Issued> {
        let now = (self.clock)();
        let current = self.store.read(|transaction| transaction.current(&pending.user, now))?;
        current.iter().try_for_each(|current| check_agreed(current, agreed))?;
        self.tell_and_activate(pending, reload)
    }

    /// Runs the reload command, where there is one, and makes a delivered key the active one.
    fn tell_and_activate(&mut self, pending: &Record, reload: Option<&Reload>) -> Result<Issued> {
        if let Some(reload) = reload {
            run(reload, pending)?;
        }
        self.activate(pending).map_err(|error| match error.code() {
            Code::DeliveryPending => error,
            _ => delivery_pending(
                pending,
                &format!("it is in place, but the old key could not be ended: {error}"),
            ),
        })
    }

    /// Checks that nobody else's key is in the file: its only copy would be lost.
    pub(crate) fn check_holds_no_key_of_another(
        &self,
        target: &Target<'_>,
        user: &str,
    ) -> std::result::Result<(), Obstacle> {
        let Some(held) = target.held()? else { return Ok(()) };
        let unknown = |error: Error| Obstacle {
            reason: format!("whose key the file holds is unknown: {error}"),
            hint: error.what_to_do().unwrap_or("try again").to_owned(),
        };
        match self.store.find(&held, (self.clock)()).map_err(unknown)? {
            Some(other) if other.status.is_accepted() && other.user != user => Err(Obstacle {
                reason: format!("the file holds {} of {}, which is accepted", other.prefix, other.user),
                hint: format!(
                    "name another file, or end the keys of {0} with `apikey revoke {0}`",
                    other.user
                ),
            }),
            _ => Ok(()),
        }
    }

    fn stage(&self, target: &Target<'_>, key: &Key) -> Result<()> {
        self.lock
            .note(target.stage())
            .map_err(|error| undeliverable(&format!("cannot write to the lock of the database: {error}")))?;
        target.write_stage(key).map_err(|obstacle| {
            self.unstage(target);
            none_issued(obstacle)
        })
    }

    /// The first transaction. Returns the pending key, and the old one where that was ended first.
    fn insert_pending(
        &mut self,
        order: &Order,
        key: &Key,
        delivery: NewDelivery<'_>,
        superseded: Option<&Record>,
        target: &Target<'_>,
    ) -> Result<(Record, Option<Previous>)> {
        let clock = self.clock;
        let inserted = self.store.write(&self.lock, |transaction| {
            let now = clock();
            // The second transaction must not fail for it.
            later(now, order.grace())?;
            superseded.into_iter().try_for_each(|pending| transaction.revoke(pending, now))?;
            let old = current(transaction, order, now)?;
            let ended = match (&old, &order.replace) {
                (Some(old), Replace::Current { revoke_first: true, .. }) => {
                    Some(replace(transaction, old, order.grace(), now)?)
                }
                _ => None,
            };
            let pending = insert(transaction, order, key, old.as_ref(), Some(delivery), now)?;
            let outcome = Outcome { key_hash: pending.key_hash.clone(), status: Status::Pending };
            Ok(((pending, ended), outcome))
        });
        // The stage may go only where the database says that its key was not issued.
        if inserted.is_err() && matches!(self.store.find(&key.hash(), clock()), Ok(None)) {
            self.unstage(target);
        }
        inserted
    }

    fn put_in_place(&mut self, pending: &Record, target: &Target<'_>, old_is_ended: bool) -> Result<()> {
        if let Err(obstacle) = target.replace() {
            // What a file system reports is not always what it did: what the file holds counts. With
            // the old key gone, the new one is all there is, and it stays where it is staged.
            match target.holds(&pending.key_hash) {
                Ok(true) => {}
                Ok(false) if !old_is_ended && self.undo_delivery(pending, target).is_ok() => {
                    return Err(none_issued(obstacle));
                }
                _ => {
                    let why = format!("it lies in {}: {}", target.stage().display(), obstacle.reason);
                    return Err(delivery_pending(pending, &why));
                }
            }
        }
        let _ = self.lock.clear_note();
        target.sync().map_err(|obstacle| delivery_pending(pending, &obstacle.reason))
    }

    /// Revokes a pending key, and only then removes its stage.
    fn undo_delivery(&mut self, pending: &Record, target: &Target<'_>) -> Result<()> {
        self.revoke_pending(pending)?;
        self.unstage(target);
        Ok(())
    }

    pub(crate) fn revoke_pending(&mut self, pending: &Record) -> Result<()> {
        let clock = self.clock;
        self.store.write(&self.lock, |transaction| {
            transaction.revoke(pending, clock())?;
            Ok(((), Outcome { key_hash: pending.key_hash.clone(), status: Status::Revoked }))
        })
    }

    /// What can't be removed now is noted, and nobody accepts the key in it.
    fn unstage(&self, target: &Target<'_>) {
        if target.remove_stage().is_ok() {
            let _ = self.lock.clear_note();
        }
    }

    /// The second transaction.
    pub(crate) fn activate(&mut self, pending: &Record) -> Result<Issued> {
        let clock = self.clock;
        self.store.write(&self.lock, |transaction| {
            let now = clock();
            if pending.expires_at.is_some_and(|expiry| expiry <= now) {
                let message = format!(
                    "{} of {} has expired before its delivery was done",
                    pending.prefix, pending.user
                );
                return Err(Error::new(Code::DeliveryPending, message)
                    .hint(format!("run `apikey refresh {}` again", pending.user)));
            }
            let old = transaction.current(&pending.user, now)?;
            let replace = |old| replace(transaction, old, pending.grace, now);
            let previous = old.as_ref().map(replace).transpose()?;
            transaction.activate(pending)?;
            let record = Record { status: Status::Active, ..pending.clone() };
            Ok((
                Issued { record, previous, superseded: None },
                Outcome { key_hash: pending.key_hash.clone(), status: Status::Active },
            ))
        })
    }
}

/// Standard output is for data, so the command has none.
fn run(reload: &Reload, pending: &Record) -> Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", &reload.command])
        .env("APIKEY_USER", &pending.user)
        .env("APIKEY_PREFIX", &pending.prefix)
        .env("APIKEY_KEY_FILE", pending.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if reload.silent { Stdio::null() } else { Stdio::inherit() })
        .status();
    let why = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("the reload command failed: {status}"),
        Err(error) => format!("the reload command could not be run: {error}"),
    };
    let failed = delivery_pending(pending, &format!("it is in place, but {why}"));
    Err(failed.hint(tell_its_reader(&pending.user)))
}

fn none_issued(obstacle: Obstacle) -> Error {
    undeliverable(&obstacle.reason).hint(obstacle.hint)
}

fn delivery_pending(pending: &Record, why: &str) -> Error {
    let Record { prefix, user, .. } = pending;
    let message =
        format!("{prefix} of {user} is accepted, but its delivery to {} is not done: {why}", pending.path());
    Error::new(Code::DeliveryPending, message).hint(see_to_that(user))
}
