//! What is known of a user's current key.

use crate::error::{Code, Error, Result};
use crate::store::{Listed, Record, Snapshot};
use crate::user::User;

/// What [`Authority::show`](super::Authority::show) does.
pub(super) fn show(snapshot: &Snapshot<'_>, user: &User) -> Result<Listed> {
    if let Some(key) = snapshot.current(user)? {
        return Ok(Listed { key, key_file: snapshot.key_file(user)? });
    }
    let accepted = snapshot.held(user)?.into_iter().find(|key| key.status.is_accepted());
    Err(accepted.map_or_else(|| no_key(user), |accepted| no_active_key_but(&accepted)))
}

/// The user has no key that the command could be about.
pub(super) fn no_key(user: &User) -> Error {
    Error::new(Code::NoKey, format!("{user} has no active key"))
        .hint(format!("`apikey create {user}` issues one"))
}

fn no_active_key_but(accepted: &Record) -> Error {
    let Record { prefix, user, status, .. } = accepted;
    let message = format!("{user} has no active key, but {prefix}, which is {}", status.as_str());
    Error::new(Code::NoKey, message).hint(format!("`apikey list {user}` shows it"))
}
