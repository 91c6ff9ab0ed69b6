//! `apikey create`

use std::time::Duration;

use clap::Args;

use crate::cli::args::{Global, UserArg, some_duration};
use crate::cli::handover::{self, Handover, IssuedJson};
use crate::cli::json;
use crate::cli::key_file_args::KeyFileArgs;
use crate::cli::output::Output;
use crate::error::Result;
use crate::issue::{Order, Replace};
use crate::name::Name;

/// Issue a user's key and print it, once
///
/// The key alone goes to standard output, so that KEY=$(apikey create alice) works; who it is for
/// goes to standard error. It can't be shown again: only its SHA-256 is stored. A user has one
/// active key; where there is one already, `refresh` replaces it.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    user: UserArg,

    /// Label the key, up to 100 characters
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// Stop accepting the key after DURATION, such as 90d or 12h
    #[arg(long, value_name = "DURATION", value_parser = some_duration)]
    expires_in: Option<Duration>,

    #[command(flatten)]
    key_file: KeyFileArgs,
}

pub fn run(args: Create, global: &Global, output: &Output) -> Result<()> {
    let order = Order {
        user: args.user.or_caller()?,
        name: args.name,
        expires_in: args.expires_in,
        replace: Replace::Nothing,
    };
    let key_file = args.key_file.key_file()?;
    if key_file.is_none() {
        output.check_takes_key()?;
    }
    let mut store = global.open_or_create()?;
    let mut writer = handover::begin(&mut store, output)?;
    let handover = Handover { key_file, reload: None };
    handover::issue(&mut writer, &order, handover, output, |out, issued, key| {
        json::write_line(out, &IssuedJson::new(issued, key))
    })?;
    Ok(())
}
