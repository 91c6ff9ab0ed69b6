//! `apikey refresh`

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::agreed::agreed_to_end;
use crate::cli::args::{Global, UserArg, duration, some_duration};
use crate::cli::handover::{IssuedJson, issue_and_print};
use crate::cli::json;
use crate::cli::output::Output;
use crate::error::Result;
use crate::issue::{Issued, Order, Replace};
use crate::key::Key;
use crate::name::Name;
use crate::timestamp::Timestamp;

/// Replace a user's key by a new one, and print that, once
///
/// The active key, if there is one, stops being accepted at the very moment the new one starts; or
/// later, with --grace. The new key keeps the name of the old one unless --name gives it another.
/// Asks first where there is somebody to answer.
#[derive(Debug, Args)]
pub struct Refresh {
    #[command(flatten)]
    user: UserArg,

    /// Label the new key, up to 100 characters [default: the old one's]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Stop accepting the new key after DURATION, such as 90d or 12h
    #[arg(long, value_name = "DURATION", value_parser = some_duration)]
    expires_in: Option<Duration>,

    /// Go on accepting the old key for DURATION, but not past its own expiry
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    grace: Duration,

    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

pub fn run(args: Refresh, global: &Global, output: &Output) -> Result<()> {
    output.check_takes_key()?;
    let user = args.user.or_caller()?;
    let (mut store, agreed) = agreed_to_end(&user, args.yes, "Replace", || global.open_or_create())?;
    let order = Order {
        user,
        name: args.name,
        expires_in: args.expires_in,
        replace: Replace::Current { grace: args.grace, agreed },
    };
    let issued = issue_and_print(&mut store, &order, output, write_json)?;
    if let Some(previous) = &issued.previous {
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
    previous_key_prefix: Option<&'a str>,
    previous_key_valid_until: Option<Timestamp>,
}

fn write_json(out: &mut dyn std::io::Write, issued: &Issued, key: Option<&Key>) -> std::io::Result<()> {
    let previous = issued.previous.as_ref();
    let refreshed = RefreshedJson {
        issued: IssuedJson::new(issued, key),
        previous_key_revoked: previous.is_some_and(|previous| previous.revoked),
        previous_key_prefix: previous.map(|previous| previous.prefix.as_str()),
        previous_key_valid_until: previous.and_then(|previous| previous.valid_until),
    };
    json::write_line(out, &refreshed)
}
