//! The authority of a host: what can be done to keys, for whoever manages them.
//!
//! Each command is one call on it, with checked values in and what was done out; what a key is handed
//! over to, and who is told of what an earlier run left, is the [`Recipient`]. Every call that changes
//! something takes a turn at writing, and finishes or undoes first what earlier runs left.

mod issue;
mod refresh;
mod revoke;
mod show;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

pub use self::issue::{Issued, Order};
pub use self::refresh::Refresh;
use crate::delivery::{Delivery, recover};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::store::{Listed, Record, Snapshot, Store, Turn};
use crate::timestamp::Timestamp;
use crate::user::User;

/// The authority of a host: an open database of keys, and the time.
#[derive(Debug)]
pub struct Authority {
    store: Store,
    clock: fn() -> Timestamp,
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
    /// Fails with [`Code::DbUnavailable`](crate::Code::DbUnavailable) where there is none, it is not
    /// one of ours, or it is too new; with [`Code::Forbidden`](crate::Code::Forbidden) where it may not
    /// be read or others may write it.
    pub fn open(path: &Path, timeout: Duration, clock: fn() -> Timestamp) -> Result<Self> {
        Ok(Authority { store: Store::open(path, timeout)?, clock })
    }

    /// Opens the database at `path`, or makes it where there is none: all of it or, after a crash,
    /// nothing; readable by its owner alone.
    pub fn open_or_create(path: &Path, timeout: Duration, clock: fn() -> Timestamp) -> Result<Self> {
        Ok(Authority { store: Store::open_or_create(path, timeout)?, clock })
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
        let (mut turn, waiting) = self.turn_for(&refresh.order.user, recipient)?;
        refresh::refresh(&mut turn, waiting.as_ref(), refresh, recipient)
    }

    /// Revokes the active, the pending and each retiring key of `user`, at once and for good, and
    /// returns them as they were before, the current one first.
    ///
    /// `agreed` are those that somebody was asked about: if there is another by now, nothing is
    /// revoked. Fails with [`Code::NoKey`](crate::Code::NoKey) where there is nothing to revoke.
    pub fn revoke(
        &mut self,
        user: &User,
        agreed: Option<&[Prefix]>,
        recipient: &mut dyn Recipient,
    ) -> Result<Vec<Record>> {
        let (mut turn, waiting) = self.turn_for(user, recipient)?;
        revoke::revoke(&mut turn, waiting.as_ref(), user, agreed)
    }

    /// Finishes or undoes what earlier runs left, as every call that changes something does first.
    pub fn recover(&mut self, recipient: &mut dyn Recipient) -> Result<()> {
        self.turn(recipient).map(drop)
    }

    /// The user's current key: the active one, or the one that was until it expired. Fails with
    /// [`Code::NoKey`](crate::Code::NoKey) where there is none.
    pub fn show(&self, user: &User) -> Result<Listed> {
        self.read(|snapshot| show::show(snapshot, user))
    }

    /// The user's current key, where there is one: what a refresh would replace.
    pub fn current(&self, user: &User) -> Result<Option<Record>> {
        self.read(|snapshot| snapshot.current(user))
    }

    /// What [`revoke`](Authority::revoke) would revoke.
    pub fn revocable(&self, user: &User) -> Result<Vec<Record>> {
        self.read(|snapshot| revoke::revocable(snapshot, user))
    }

    /// Lets `look` go through the keys as they are now, as often as it likes; it is in nobody's way
    /// however long that takes.
    pub fn list<T, E: From<Error>>(
        &self,
        look: impl FnOnce(&Keys<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.store.read_beside_writers((self.clock)(), |snapshot| look(&Keys(snapshot)))
    }

    /// Up to `most` of the users who have an active key and whose names begin with `start`, in
    /// order.
    pub fn users(&self, start: &str, most: u32) -> Result<Vec<User>> {
        self.store.read_beside_writers((self.clock)(), |snapshot| snapshot.users(start, most))
    }

    fn read<T>(&self, look: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        self.store.read((self.clock)(), look)
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

/// The keys, as they stand at one moment.
pub struct Keys<'a>(&'a Snapshot<'a>);

impl Keys<'_> {
    /// Calls `each` with every key of `user` (of everyone, where that is `None`) that is accepted, or
    /// with `all` of them; by user, oldest first. Keeps one in memory at a time.
    pub fn for_each<E: From<Error>>(
        &self,
        user: Option<&User>,
        all: bool,
        each: impl FnMut(Listed) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.0.for_each(user, all, each)
    }
}
