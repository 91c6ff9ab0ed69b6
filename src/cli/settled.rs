//! What ensure and edit say of how a user stands.

use serde::Serialize;

use super::handover::{AcceptedJson, tell_of_accepted};
use super::output::Output;
use crate::authority::{Done, Settled};
use crate::error::Result;
use crate::key::Prefix;
use crate::key_file::KeyFile;
use crate::name::Name;
use crate::settings::Settings;
use crate::store::Status;
use crate::timestamp::Timestamp;
use crate::user::User;

/// The members of `show`, and what was done. All of the first are null where there is no key yet, but the
/// user.
#[derive(Serialize)]
struct SettledJson<'a> {
    id: Option<String>,
    user: &'a str,
    prefix: Option<Prefix>,
    name: Option<&'a str>,
    status: Option<Status>,
    created_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    key_file: Option<&'a str>,
    due_at: Option<Timestamp>,
    settings: Settings,
    changed: bool,
    done: &'a [Done],
    still_accepted: Vec<AcceptedJson>,
}

/// Says what was done, or with `check` what is to be done.
pub fn tell(user: &User, settled: &Settled, check: bool, output: &Output) -> Result<()> {
    if output.is_json() {
        return output.object(&json(user, settled)).map_err(|error| error.after("it is done"));
    }
    let done: Vec<&str> = settled.done.iter().map(|done| done.as_str()).collect();
    let file = settled.shown.as_ref().and_then(|shown| shown.listed.key_file.as_ref()).map(KeyFile::path);
    output.note(&match (done.as_slice(), check) {
        ([], _) => format!("{user} is as it should be."),
        (done, true) => format!("{user} is to be changed: {}.", done.join(", ")),
        (done, false) => format!("{user} was changed: {}.", done.join(", ")),
    });
    if settled.was_open && !check {
        output.note(&format!(
            "Until now more could read {} than should: `apikey refresh {user} --revoke-first` replaces the key.",
            file.unwrap_or("the key file")
        ));
    }
    if settled.issued.is_empty() && !settled.done.is_empty() {
        tell_of_accepted(output, &settled.still_accepted);
    }
    Ok(())
}

fn json<'a>(user: &'a User, settled: &'a Settled) -> SettledJson<'a> {
    let listed = settled.shown.as_ref().map(|shown| &shown.listed);
    let key = listed.map(|listed| &listed.key);
    SettledJson {
        id: key.map(|key| key.id.to_string()),
        user: user.as_str(),
        prefix: key.map(|key| key.prefix),
        name: key.and_then(|key| key.name.as_ref()).map(Name::as_str),
        status: key.map(|key| key.status),
        created_at: key.map(|key| key.created_at),
        last_used_at: key.and_then(|key| key.last_used_at),
        expires_at: key.and_then(|key| key.expires_at),
        revoked_at: key.and_then(|key| key.revoked_at),
        key_file: listed.and_then(|listed| listed.key_file.as_ref()).map(KeyFile::path),
        due_at: listed.and_then(|listed| listed.due_at),
        settings: settled.shown.as_ref().map(|shown| shown.settings.clone()).unwrap_or_default(),
        changed: !settled.done.is_empty(),
        done: &settled.done,
        still_accepted: AcceptedJson::of(&settled.still_accepted),
    }
}
