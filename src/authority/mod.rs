//! The authority of a host: what can be done to keys, for whoever manages them.
//!
//! Each command is one call on it, with checked values in and what was done out; what a key is handed
//! over to, and who is told of what an earlier run left, is the [`Recipient`]. Every call that issues takes a
//! turn at writing, and finishes or undoes first what earlier runs left; a revocation comes before that.

mod backup;
mod doctor;
mod edit;
mod ensure;
mod issue;
mod list;
mod plan;
mod prune;
mod refresh;
mod renew;
mod revoke;
mod settled;
mod shortfall;
mod show;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

pub use self::backup::Backup;
pub use self::doctor::{Check, Health, Metrics};
pub use self::issue::{Issued, Order};
pub use self::list::{Filter, Keys};
pub use self::refresh::Refresh;
use self::refresh::{Ended, Kind};
pub use self::renew::{Due, DueCount, Renewal, Step};
pub use self::revoke::Revoked;
pub use self::settled::{Done, Settled};
pub use self::shortfall::Shortfall;
pub use self::show::Shown;
use crate::delivery::{Delivery, recover};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::patience::{A_WHILE, within};
use crate::store::{Event, Held, Record, Snapshot, Store, Turn};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// The authority of a host: an open database of keys, and the time.
#[derive(Debug)]
pub struct Authority {
    store: Store,
    clock: fn() -> Result<Timestamp>,
}

/// Who asked for a key, and what becomes of it where it goes to no file.
pub trait Recipient {
    /// Checks, before a key is issued, that [`take`](Recipient::take) would get it to somebody, and
    /// into none of the `database_files`.
    fn check(&self, database_files: &[PathBuf]) -> Result<()>;

    /// Takes a key that was issued. Where this fails, it is not issued after all; what it has given out
    /// before is no key.
    fn take(&mut self, key: &Key, issued: &Issued) -> Result<()>;

    /// Hears of a delivery that an earlier run left, and what has become of it.
    fn hear(&mut self, delivery: &Delivery) {
        let _ = delivery;
    }

    /// Where what a reload command says on its standard error goes.
    fn reload_stderr(&self) -> Stdio {
        Stdio::null()
    }
}

impl Authority {
    /// Opens the database at `path`, for writing where the operating system allows that. Whoever
    /// waits for another process does so for up to `timeout`. What time it is, `clock` says.
    ///
    /// Fails with [`Code::NoDatabase`](crate::Code::NoDatabase) where there is none, with
    /// [`Code::DbUnavailable`](crate::Code::DbUnavailable) where it is not one of ours or too new, with
    /// [`Code::Forbidden`](crate::Code::Forbidden) where it may not be read or others may write it, with
    /// [`Code::DbLocked`](crate::Code::DbLocked) when the time is over.
    pub fn open(path: &Path, timeout: Duration, clock: fn() -> Result<Timestamp>) -> Result<Self> {
        Ok(Self::of(Store::open(path, timeout)?, clock))
    }

    /// Opens the database at `path`, or makes it where there is none: all of it or, after a crash,
    /// nothing; readable by its owner alone.
    pub fn open_or_create(path: &Path, timeout: Duration, clock: fn() -> Result<Timestamp>) -> Result<Self> {
        Ok(Self::of(Store::open_or_create(path, timeout)?, clock))
    }

    fn of(store: Store, clock: fn() -> Result<Timestamp>) -> Self {
        // Where somebody is writing, or that fails, whatever comes next sees to it.
        let _ = store.publish(Duration::ZERO);
        Authority { store, clock }
    }

    /// Issues the first key of a user, or the next one of a user whose last has ended. What the order
    /// does not say is not set, whatever an earlier key had.
    ///
    /// Fails with [`Code::KeyExists`](crate::Code::KeyExists) where the user has an active key, and
    /// with [`Code::Undeliverable`](crate::Code::Undeliverable) where the key can't be handed over:
    /// then nothing has changed. Fails with [`Code::DeliveryPending`](crate::Code::DeliveryPending)
    /// where the key is accepted but not all is done: the next run goes on from there.
    pub fn create(&mut self, order: &Order, recipient: &mut dyn Recipient) -> Result<Issued> {
        let (mut turn, waiting) = self.turn_for(&order.user, recipient)?;
        issue::create(&mut turn, waiting.as_ref(), order, recipient)
    }

    /// Issues the next key of a user, who need not have one, in the place of the current one. What the
    /// order does not say stays as it is. A delivery that waits for its reader to be told is finished
    /// instead, where the order asks for nothing else.
    ///
    /// Fails as [`create`](Authority::create) does, but that the user may have a key, and that what was to
    /// be revoked first is revoked, which the message says; with
    /// [`Code::Cancelled`](crate::Code::Cancelled) where it would end a key that was not agreed on.
    pub fn refresh(&mut self, refresh: &Refresh, recipient: &mut dyn Recipient) -> Result<Issued> {
        let ended = match refresh.revoke_first {
            true => refresh::revoke_first(&mut self.store, self.clock, refresh, recipient)?,
            false => Ended::default(),
        };
        let prefixes: Vec<Prefix> = ended.keys.iter().map(|key| key.prefix).collect();
        let shortfall = ended.shortfall;
        let user = &refresh.order.user;
        let issued = self.turn_for(user, recipient).and_then(|(mut turn, waiting)| {
            refresh::refresh(&mut turn, waiting.as_ref(), refresh, Kind::Refresh, ended, recipient)
        });
        issued.map_err(|error| error.after_revoking(user, prefixes, &shortfall.how_ended()))
    }

    /// Revokes at once and for good what the subject is: the active, the pending and each retiring key of a
    /// user, or one key. Waits for nobody's delivery, and looks at no file before it is done.
    ///
    /// `agreed` are those that somebody was asked about: if there is another by now, nothing is
    /// revoked. Fails with [`Code::NoKey`](crate::Code::NoKey) where there is nothing to revoke.
    pub fn revoke(&mut self, subject: &Subject, agreed: Option<&[Prefix]>) -> Result<Revoked> {
        let revoked = revoke::revoke(&mut self.store, self.clock, subject, agreed)?;
        match revoked.keys.as_slice() {
            [] if revoked.written_anew == 0 => {
                Err(self.read_beside_writers(|snapshot| revoke::nothing_to_revoke(snapshot, subject))?)
            }
            _ => Ok(revoked),
        }
    }

    /// Finishes or undoes what earlier runs left, as every call that issues does first.
    pub fn recover(&mut self, recipient: &mut dyn Recipient) -> Result<()> {
        self.turn(recipient).map(drop)
    }

    /// The same, where there is something left and nobody else is writing, and for no longer than a few
    /// seconds, whatever a file system does. What fails is for the next run.
    pub fn recover_in_passing(&self, recipient: &mut dyn Recipient) {
        let left = self.read_beside_writers(|snapshot| snapshot.pending());
        if left.is_err() || left.is_ok_and(|left| left.is_empty()) {
            return;
        }
        let (path, clock) = (self.store.location().path().to_owned(), self.clock);
        let recover = move || {
            let mut store = Store::open(&path, Duration::ZERO)?;
            recover(&mut Turn::begin(&mut store, clock)?)
        };
        if let Ok(Some(Ok(left))) = within(A_WHILE, recover) {
            left.iter().for_each(|delivery| recipient.hear(delivery));
        }
    }

    /// Whether the database was made when it was opened.
    pub fn is_new(&self) -> bool {
        self.store.is_new()
    }

    /// Where the database is: absolute, and with no link on the way.
    pub fn path(&self) -> &Path {
        self.store.location().path()
    }

    /// The key that the subject is, or a user's current one: the active one, or the one that was until it
    /// expired. Fails with [`Code::NoKey`](crate::Code::NoKey) where there is none.
    pub fn show(&self, subject: &Subject) -> Result<Shown> {
        self.store.read((self.clock)()?, |snapshot| show::show(snapshot, subject))
    }

    /// The user's current key, where there is one: what a refresh would replace.
    pub fn current(&self, user: &User) -> Result<Option<Record>> {
        self.read_beside_writers(|snapshot| snapshot.current(user))
    }

    /// What [`revoke`](Authority::revoke) would revoke, and whose it is.
    pub fn revocable(&self, subject: &Subject) -> Result<(User, Vec<Held>)> {
        self.read_beside_writers(|snapshot| revoke::revocable(snapshot, subject))
    }

    /// Lets `look` go through the keys as they are now, as often as it likes. Nobody waits for it, however
    /// long that takes, but what is written meanwhile makes the log grow until it is over.
    pub fn list<T, E: From<Error>>(
        &self,
        look: impl FnOnce(&Keys<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.store.read_at_length((self.clock)()?, |snapshot| look(&Keys(snapshot)))
    }

    /// Calls `each` with every event that was written down about the subject (about anybody, where that is
    /// `None`), from `since` on, oldest first. Keeps one in memory at a time, and nobody waits for it.
    pub fn log<E: From<Error>>(
        &self,
        subject: Option<&Subject>,
        since: Option<Timestamp>,
        each: impl FnMut(Event) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let now = (self.clock)()?;
        self.store.read_at_length(now, |snapshot| snapshot.for_each_event(subject, since, each))
    }

    /// When a key was last renewed, where one was.
    pub(crate) fn last_renewal(&self) -> Result<Option<Timestamp>> {
        self.read_beside_writers(|snapshot| snapshot.last_renewal())
    }

    /// Makes a copy of the database at `path`, as it stands at one moment, while others write: a new file,
    /// readable by its owner alone, that is a database itself.
    ///
    /// Fails with [`Code::Usage`](crate::Code::Usage) where something is there already, with
    /// [`Code::Forbidden`](crate::Code::Forbidden) where others may write its folder.
    pub fn backup(&self, path: &Path) -> Result<Backup> {
        backup::backup(&self.store, path)
    }

    /// Up to `most` of the users who have an active key and whose names begin with `start`, in
    /// order.
    pub fn users(&self, start: &str, most: u32) -> Result<Vec<User>> {
        self.store.read_beside_writers((self.clock)()?, |snapshot| snapshot.users(start, most))
    }

    fn read_beside_writers<T>(&self, look: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        self.store.read_beside_writers((self.clock)()?, look)
    }

    /// Begins a turn; returns what earlier runs left, and what has become of it.
    fn turn(&mut self, recipient: &mut dyn Recipient) -> Result<(Turn<'_>, Vec<Delivery>)> {
        let mut turn = Turn::begin(&mut self.store, self.clock)?;
        let left = recover(&mut turn)?;
        left.iter().for_each(|delivery| recipient.hear(delivery));
        Ok((turn, left))
    }

    /// The same, and of what was left the one delivery to `user` that is not over.
    fn turn_for(
        &mut self,
        user: &User,
        recipient: &mut dyn Recipient,
    ) -> Result<(Turn<'_>, Option<Delivery>)> {
        let (turn, left) = self.turn(recipient)?;
        let waiting = left.into_iter().find(|delivery| !delivery.is_over() && delivery.key().user == *user);
        Ok((turn, waiting))
    }
}
