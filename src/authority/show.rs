//! What is known of a key, and of what is kept of its user.

use serde::Serialize;

use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::settings::Settings;
use crate::store::{Listed, Record, Snapshot};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// A key, and what is kept of its user from one key to the next. Serialized, it is the JSON of `show`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// The key.
    #[serde(flatten)]
    pub listed: Listed,
    /// What is kept of its user.
    pub settings: Settings,
}

/// What [`Authority::show`](super::Authority::show) does.
pub(super) fn show(snapshot: &Snapshot<'_>, subject: &Subject) -> Result<Shown> {
    match subject {
        Subject::Key(prefix) => {
            let listed = snapshot.listed(*prefix)?.ok_or_else(|| no_such_key(*prefix))?;
            let settings = snapshot.settings(&listed.key.user)?;
            Ok(Shown { listed, settings })
        }
        Subject::User(user) => {
            let Some(key) = snapshot.current(user)? else { return Err(no_current_key(snapshot, user)?) };
            let (settings, due_at) = snapshot.settings_and_due(user)?;
            Ok(shown(key, settings, due_at))
        }
    }
}

/// A user's current key, and what is kept.
pub(super) fn shown(key: Record, settings: Settings, due_at: Option<Timestamp>) -> Shown {
    let key_file = settings.key_file.clone();
    Shown { listed: Listed { key, key_file, due_at }, settings }
}

/// The user has no key that is accepted.
pub(super) fn no_key(snapshot: &Snapshot<'_>, user: &User) -> Result<Error> {
    let error = Error::new(Code::NoKey, format!("{user} has no key"));
    Ok(match snapshot.knows_a_key(Some(user))? {
        true => error.hint(format!("`apikey list {user} --all` lists those that ended")),
        false => error,
    })
}

/// There is no key with this prefix.
pub(super) fn no_such_key(prefix: Prefix) -> Error {
    Error::new(Code::NoKey, format!("no key with the prefix {prefix} is known"))
}

fn no_current_key(snapshot: &Snapshot<'_>, user: &User) -> Result<Error> {
    let accepted = snapshot.held(user)?.into_iter().find(|key| key.status.is_accepted());
    Ok(match accepted {
        Some(key) => {
            let status = key.status.as_str();
            let message = format!("{user} has no active key, but {}, which is {status}", key.prefix);
            Error::new(Code::NoKey, message).hint(format!("`apikey list {user}` shows it"))
        }
        None => no_key(snapshot, user)?,
    })
}
