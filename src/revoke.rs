//! Revoking all that a user has.

use crate::error::{Code, Error, Result};
use crate::store::{Outcome, Record, Status};
use crate::user::User;
use crate::writer::Writer;

impl Writer<'_> {
    /// Revokes the active, the pending and each retiring key of `user`, at once and for good, and
    /// returns them as they were before, the current one first.
    ///
    /// `agreed` is the prefix of the current key where somebody was asked about it: if another has
    /// taken its place since, nothing is revoked. Fails with [`Code::NoKey`] where there is nothing
    /// to revoke.
    pub fn revoke(&mut self, user: &User, agreed: Option<&str>) -> Result<Vec<Record>> {
        let clock = self.clock;
        self.store.write(&self.lock, |transaction| {
            let now = clock();
            transaction.current(user, agreed, now)?;
            let held = transaction.held(user, now)?;
            // Those whose time is over too: by the clock alone they are not revoked for good.
            held.iter().try_for_each(|key| transaction.revoke(key, now))?;
            let revoked: Vec<Record> = held.into_iter().filter(|key| key.status != Status::Revoked).collect();
            let first = revoked.first().ok_or_else(|| no_key(user))?;
            let outcome = Outcome { key_hash: first.key_hash.clone(), status: Status::Revoked };
            Ok((revoked, outcome))
        })
    }
}

/// The user has no key that the command could be about.
pub fn no_key(user: &User) -> Error {
    Error::new(Code::NoKey, format!("{user} has no active key"))
        .hint(format!("`apikey create {user}` issues one"))
}
