//! Revoking all that a user has.

use crate::agreed::check_agreed;
use crate::error::{Code, Error, Result};
use crate::recovery::remove_stage;
use crate::store::{Outcome, Record, Status, Store};
use crate::timestamp::Timestamp;
use crate::user::User;
use crate::writer::Writer;

impl Writer<'_> {
    /// Revokes the active, the pending and each retiring key of `user`, at once and for good, and
    /// returns them as they were before, the current one first.
    ///
    /// `agreed` are the prefixes of those that somebody was asked about: if there is another by
    /// now, nothing is revoked. Fails with [`Code::NoKey`] where there is nothing to revoke.
    pub fn revoke(&mut self, user: &User, agreed: Option<&[String]>) -> Result<Vec<Record>> {
        let clock = self.clock;
        let revoked = self.store.write(&self.lock, |transaction| {
            let now = clock();
            let held = transaction.held(user, now)?;
            // Those whose time is over too: by the clock alone they are not revoked for good.
            held.iter().try_for_each(|key| transaction.revoke(key, now))?;
            let revoked = still_to_revoke(held);
            let first = revoked.first().ok_or_else(|| no_key(user))?;
            let outcome = Outcome { key_hash: first.key_hash.clone(), status: Status::Revoked };
            revoked.iter().try_for_each(|key| check_agreed(key, agreed))?;
            Ok((revoked, outcome))
        })?;
        revoked.iter().filter(|key| key.status == Status::Pending).for_each(remove_stage);
        Ok(revoked)
    }
}

impl Store {
    /// The user's current key. Fails with [`Code::NoKey`] where there is none.
    pub fn current(&self, user: &User, now: Timestamp) -> Result<Record> {
        self.read(|transaction| {
            if let Some(current) = transaction.current(user.as_str(), now)? {
                return Ok(current);
            }
            let accepted = transaction.held(user, now)?.into_iter().find(|key| key.status.is_accepted());
            Err(accepted.map_or_else(|| no_key(user), |accepted| no_active_key_but(&accepted)))
        })
    }

    /// What [`Writer::revoke`] would revoke.
    pub fn revocable(&self, user: &User, now: Timestamp) -> Result<Vec<Record>> {
        self.read(|transaction| transaction.held(user, now)).map(still_to_revoke)
    }
}

fn still_to_revoke(held: Vec<Record>) -> Vec<Record> {
    held.into_iter().filter(|key| key.status != Status::Revoked).collect()
}

/// The user has no key that the command could be about.
pub fn no_key(user: &User) -> Error {
    Error::new(Code::NoKey, format!("{user} has no active key"))
        .hint(format!("`apikey create {user}` issues one"))
}

fn no_active_key_but(accepted: &Record) -> Error {
    let Record { prefix, user, status, .. } = accepted;
    let message = format!("{user} has no active key, but {prefix}, which is {}", status.as_str());
    Error::new(Code::NoKey, message).hint(format!("`apikey list {user}` shows it"))
}
