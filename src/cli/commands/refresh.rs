//! `apikey refresh`

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::confirm::is_to_be_asked;
use crate::authority::{Issued, Order, Refresh as Request};
use crate::cli::args::{Global, UserArg, duration};
use crate::cli::handover::{Caller, IssuedJson};
use crate::cli::output::Output;
use crate::cli::settings_args::{SettingsArgs, warn_of_short_age};
use crate::cli::{json, prompt};
use crate::error::{Code, Result};
use crate::key::{Key, Prefix, listed};
use crate::store::{Held, Status};
use crate::subject::Subject;
use crate::timestamp::Timestamp;
use crate::user::User;

/// Replace a user's key and print the new one, once
///
/// The active key, if there is one, stops being accepted at the very moment the new one starts; or
/// later, with --grace. What is not said stays as it was: the new key has the label of the old one and
/// lives as long, goes to the same file, and the same reader is told. Asks first where there is somebody to
/// answer.
#[derive(Debug, Args)]
#[command(override_usage = "apikey refresh [USER] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Refresh {
    #[command(flatten)]
    user: UserArg,

    /// Accept the old key that much longer
    ///
    /// Until then it is retiring. It does not outlive its own expiry. Without this option it is
    /// revoked at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,

    /// End all keys first: for one that leaked
    ///
    /// That is, all keys of the user, in a transaction of their own that waits for no delivery, before the
    /// new one is issued. From then until the new key is in its file, the file's reader has no key that is
    /// accepted. Where the new key cannot be handed over, the message says what has ended all the same.
    #[arg(long, conflicts_with = "grace")]
    revoke_first: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

const EXAMPLES: &str = "\
Examples:
  A new key for alice, and the old one ends:
      $ KEY=$(apikey refresh alice --yes)
  The old one ends an hour later:
      $ apikey refresh bob --yes --grace 1h
  To the file that the last one went to, for a daemon that reads it at start:
      $ apikey refresh web --yes --reload 'systemctl restart web'
  One that has leaked:
      $ apikey refresh web --yes --revoke-first";

pub fn run(args: Refresh, global: &Global, output: &Output) -> Result<()> {
    let user = args.user.or_caller()?;
    let changes = args.settings.changes()?;
    let ask = is_to_be_asked(args.yes, &format!("replace the key of {user}"))?;
    let agreed = if ask { Some(confirm(&user, args.revoke_first, global, output)?) } else { None };
    let mut authority = global.open_or_create(output)?;
    let request = Request {
        order: Order { user, changes },
        grace: args.grace,
        revoke_first: args.revoke_first,
        agreed,
    };
    let mut caller = Caller::new(output, global, write_json);
    let issued = authority.refresh(&request, &mut caller)?;
    caller.tell(&issued)?;
    if issued.previous.is_none() && issued.revoked_first.is_empty() {
        output.note(&format!("{} had no key.", issued.record.user));
    }
    warn_of_short_age(&request.order.changes, output);
    Ok(())
}

/// Asks whether to replace what the user has. Returns the keys that the answer was about.
fn confirm(user: &User, revoke_first: bool, global: &Global, output: &Output) -> Result<Vec<Prefix>> {
    let ending: Vec<Prefix> = match global.open() {
        // It is made when the answer is yes.
        Err(error) if error.code() == Code::NoDatabase => Vec::new(),
        Err(error) => return Err(error),
        Ok(authority) if revoke_first => {
            let (_, keys) = authority.revocable(&Subject::User(user.clone()))?;
            keys.iter().map(|key| key.prefix).collect()
        }
        Ok(mut authority) => {
            // The question is about what is there once that is done.
            authority.recover(&mut Caller::of_what_is_over(output, global))?;
            authority.current(user)?.iter().map(|current| current.prefix).collect()
        }
    };
    prompt::confirm(&match ending.as_slice() {
        [] => format!("{user} has no key. Issue one?"),
        [key] => format!("Replace {key}, the key of {user}?"),
        keys => format!("Replace {}, the keys of {user}?", listed(keys.iter().copied())),
    })?;
    Ok(ending)
}

/// The JSON of a refresh.
#[derive(Serialize)]
pub struct RefreshedJson<'a> {
    #[serde(flatten)]
    issued: IssuedJson<'a>,
    previous_key_revoked: bool,
    previous_key_prefix: Option<Prefix>,
    previous_key_valid_until: Option<Timestamp>,
}

impl<'a> RefreshedJson<'a> {
    /// The members for a key that is shown, or for one that is not.
    pub fn new(issued: &'a Issued, key: Option<&'a Key>) -> Self {
        let previous = issued.previous.as_ref();
        let valid = previous.filter(|previous| previous.status.is_accepted());
        RefreshedJson {
            issued: IssuedJson::new(issued, key),
            previous_key_revoked: previous.is_some_and(|previous| previous.status == Status::Revoked),
            previous_key_prefix: previous.map(|previous| previous.prefix),
            previous_key_valid_until: valid.and_then(Held::until),
        }
    }
}

fn write_json(out: &mut dyn std::io::Write, issued: &Issued, key: Option<&Key>) -> std::io::Result<()> {
    json::write_line(out, &RefreshedJson::new(issued, key))
}
