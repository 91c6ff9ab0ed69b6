//! `apikey list`

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::authority::Filter;
use crate::cli::args::{Global, duration};
use crate::cli::complete::users_with_a_key;
use crate::cli::json;
use crate::cli::output::{Output, Stopped};
use crate::cli::table::Widths;
use crate::error::Result;
use crate::subject::Subject;
use crate::timestamp::Timestamp;

/// List the accepted keys of a user, or of everyone
///
/// The current key of each user, also where it has expired, and whatever else is accepted. By user, oldest
/// first. Times are UTC; a moment within two days of now is shown to the minute. A terminal gets a line a
/// key: where it is too narrow, long users and names are cut in the middle, and then columns are left out.
/// What narrows it, together narrows it further.
/// With --json they are written one by one, however many there are.
#[derive(Debug, Args)]
#[command(override_usage = "apikey list [USER|PREFIX] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct List {
    /// Whose keys, or which one [default: everyone's]
    ///
    /// A user, or the prefix of a key: `ak_` and 12 hex digits.
    #[arg(value_name = "USER|PREFIX", add = ArgValueCompleter::new(users_with_a_key))]
    subject: Option<Subject>,

    /// List those that ended too
    #[arg(short, long)]
    all: bool,

    /// Only those that end within this time
    ///
    /// Or have ended: a current key that has expired is one.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expiring_within: Option<Duration>,

    /// Only those issued longer ago
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,

    /// Only those with no recorded use for so long
    ///
    /// One with no recorded use counts from its issue. Recorded is what `apikey verify` and the library checked:
    /// a service that asks by SQL leaves no trace.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    unused_for: Option<Duration>,

    /// Only those that `apikey renew` would replace
    #[arg(long)]
    due: bool,
}

const EXAMPLES: &str = "\
Examples:
  Who has a key:
      $ apikey list
  Whose key ends within two weeks:
      $ apikey list --expiring-within 14d
  All that were ever issued, for a script:
      $ apikey list --all --json";

pub fn run(args: &List, global: &Global, output: &Output) -> Result<()> {
    let authority = global.open()?;
    let subject = args.subject.as_ref();
    let &List { all, expiring_within, older_than, unused_for, due, .. } = args;
    let filter = Filter { all, expiring_within, older_than, unused_for, due };
    if output.is_json() {
        return json::write_array(output, "keys", |each| {
            authority.list(|keys| keys.for_each(subject, &filter, each))
        });
    }
    let mut found = false;
    output.data(|out| {
        authority.list(|keys| {
            // Once to see how wide they are, and once to print some at a time: there may be many.
            let mut widths = Widths::new(Timestamp::now()?);
            keys.for_each(subject, &filter, |key| {
                widths.make_room_for(&key);
                Ok::<_, Stopped>(())
            })?;
            let mut some = Vec::with_capacity(AT_A_TIME);
            keys.for_each(subject, &filter, |key| {
                some.push(key);
                if some.len() < AT_A_TIME {
                    return Ok(());
                }
                let rows = widths.rows(&some, !found);
                found = true;
                some.clear();
                Ok::<_, Stopped>(out.write_all(rows.as_bytes())?)
            })?;
            if !some.is_empty() {
                let rows = widths.rows(&some, !found);
                found = true;
                out.write_all(rows.as_bytes())?;
            }
            Ok(())
        })
    })?;
    if !found && (due || [expiring_within, older_than, unused_for].iter().any(Option::is_some)) {
        output.note("There is no such key.");
    } else if !found {
        let ended = !all && authority.list(|keys| keys.any(subject))?;
        output.note(&nothing(subject, ended));
    }
    Ok(())
}

/// Says why nothing was listed; `ended` where `--all` would list something.
fn nothing(subject: Option<&Subject>, ended: bool) -> String {
    match (subject, ended) {
        (None, false) => "There are no keys yet.".to_owned(),
        (None, true) => "No key is accepted; `apikey list --all` lists those that ended.".to_owned(),
        (Some(Subject::User(user)), false) => format!("{user} has no key."),
        (Some(Subject::User(user)), true) => {
            format!("{user} has no key that is accepted; `apikey list {user} --all` lists those that ended.")
        }
        (Some(Subject::Key(prefix)), false) => format!("No key with the prefix {prefix} is known."),
        (Some(Subject::Key(prefix)), true) => {
            format!("{prefix} is not accepted; `apikey list {prefix} --all` lists it.")
        }
    }
}

/// Keys that are kept in memory to be printed.
const AT_A_TIME: usize = 1000;
