//! `apikey refresh`

use std::time::Duration;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::confirm::confirmed;
use crate::authority::{Authority, Issued, Order, Refresh as Request};
use crate::cli::args::{Global, UserArg, duration, lifetime};
use crate::cli::handover::{Caller, IssuedJson};
use crate::cli::json;
use crate::cli::key_file_args::KeyFileArgs;
use crate::cli::output::Output;
use crate::error::Result;
use crate::key::{Key, Prefix};
use crate::name::Name;
use crate::settings::{Change, Changes, Reload};
use crate::store::Status;
use crate::timestamp::Timestamp;

/// Replace a user's key and print the new one, once
///
/// The active key, if there is one, stops being accepted at the very moment the new one starts; or
/// later, with --grace. The new key keeps the name and the lifetime of the old one, unless it is
/// told otherwise. Asks first where there is somebody to answer.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Refresh {
    #[command(flatten)]
    user: UserArg,

    /// Label the new key [default: the old one's]
    ///
    /// Up to 100 printable characters.
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Stop accepting it after, say, 90d [default: the old one's]
    ///
    /// The new key lives as long as the old one was to live when it was issued. `never` ends that.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<Change<Duration>>,

    /// Accept the old key that much longer
    ///
    /// Until then it is retiring. It does not outlive its own expiry. Without this option it is
    /// revoked at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    key_file: KeyFileArgs,

    /// Run COMMAND before the old key ends
    ///
    /// When the new key is in its file, and both are accepted. /bin/sh runs it, with APIKEY_USER,
    /// APIKEY_PREFIX and APIKEY_KEY_FILE in its environment; never the key. What it says on standard
    /// error is heard, but not with --json. Other commands that write wait until it ends. Where it
    /// fails, both keys stay accepted, the exit status is 9, and the next refresh of that user goes
    /// on from there. For a service that reads its key only when it starts: --reload 'systemctl
    /// restart web'.
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    reload: Option<String>,

    /// End all keys first: for one that leaked
    ///
    /// That is, all keys of the user, in a transaction of their own, before the new one is issued. From
    /// then until the new key is in its file, the file's reader has no key that is accepted. Where the new
    /// key cannot be handed over, the message says what has ended all the same.
    #[arg(long, conflicts_with = "grace")]
    revoke_first: bool,
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
    let key_file = args.key_file.key_file()?;
    let ending = |authority: &Authority| -> Result<Vec<Prefix>> {
        Ok(match args.revoke_first {
            true => authority.revocable(&user)?.iter().map(|key| key.prefix).collect(),
            false => authority.current(&user)?.iter().map(|current| current.prefix).collect(),
        })
    };
    let (mut authority, agreed) =
        confirmed(&user, args.yes, "Replace", output, || global.open_or_create(), ending)?;
    let reload = args.reload.map(Reload::new);
    let changes = Changes {
        name: Change::set(args.name),
        lifetime: args.expires_in.unwrap_or_default(),
        key_file: Change::set(key_file),
        reload: reload.map_or(Change::TakeAway, Change::Set),
    };
    let request = Request {
        order: Order { user, changes },
        grace: args.grace,
        revoke_first: args.revoke_first,
        agreed,
    };
    let mut caller = Caller::new(output, write_json);
    let issued = authority.refresh(&request, &mut caller)?;
    caller.tell(&issued)?;
    for key in &issued.revoked_first {
        let what = if key.status == Status::Expired { "had expired" } else { "is revoked" };
        output.note(&format!("{} {what}.", key.prefix));
    }
    if let Some(previous) = issued.previous.filter(|_| issued.revoked_first.is_empty()) {
        output.note(&match previous.valid_until {
            Some(until) => format!("{} is accepted until {until}.", previous.prefix),
            None if previous.revoked => format!("{} is revoked.", previous.prefix),
            None => format!("{} had expired.", previous.prefix),
        });
    }
    Ok(())
}

#[derive(Serialize)]
struct RefreshedJson<'a> {
    #[serde(flatten)]
    issued: IssuedJson<'a>,
    previous_key_revoked: bool,
    previous_key_prefix: Option<Prefix>,
    previous_key_valid_until: Option<Timestamp>,
}

fn write_json(out: &mut dyn std::io::Write, issued: &Issued, key: Option<&Key>) -> std::io::Result<()> {
    let previous = issued.previous.as_ref();
    let refreshed = RefreshedJson {
        issued: IssuedJson::new(issued, key),
        previous_key_revoked: previous.is_some_and(|previous| previous.revoked),
        previous_key_prefix: previous.map(|previous| previous.prefix),
        previous_key_valid_until: previous.and_then(|previous| previous.valid_until),
    };
    json::write_line(out, &refreshed)
}
