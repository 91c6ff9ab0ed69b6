//! `apikey log`

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::args::{Global, Since, since};
use crate::cli::complete::users_with_a_key;
use crate::cli::json;
use crate::cli::output::{Output, Stopped};
use crate::error::Result;
use crate::store::Event;
use crate::subject::Subject;
use crate::text::printable;
use crate::timestamp::Timestamp;
use crate::user::User;

/// Say what was done to whose key, when, and by whom
///
/// What every change has written down, oldest first: when (UTC), what, to which key, whose it is, by whom, and
/// what more there is to say: by which command and in whose place a key was issued, to which file it was
/// delivered, until when one that was replaced is accepted, what was changed, why a key could not be delivered to
/// its file. By whom is the login name of the calling uid, who called sudo by its own word, and the uid that had logged in,
/// where that is another. With --json they are written one by one, however many there are.
#[derive(Debug, Args)]
#[command(override_usage = "apikey log [USER|PREFIX] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Log {
    /// Whose, or about which key [default: everyone's]
    ///
    /// A user, or the prefix of a key: `ak_` and 12 hex digits.
    #[arg(value_name = "USER|PREFIX", add = ArgValueCompleter::new(users_with_a_key))]
    subject: Option<Subject>,

    /// Only what was done since then
    ///
    /// How long ago (7d, 12h), or when: 2026-11-22, which begins in UTC, or 2026-11-22T08:19:03Z.
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<Since>,
}

const EXAMPLES: &str = "\
Examples:
  What was done to web's keys:
      $ apikey log web
  What was done in the last week, for a script:
      $ apikey log --since 7d --json";

pub fn run(args: &Log, global: &Global, output: &Output) -> Result<()> {
    let authority = global.open()?;
    let subject = args.subject.as_ref();
    let since = args.since.map(|since| since.moment(Timestamp::now)).transpose()?;
    if output.is_json() {
        return json::write_array(output, "events", |each| authority.log(subject, since, each));
    }
    let mut is_empty = true;
    output.data(|out| {
        authority.log(subject, since, |event| {
            is_empty = false;
            Ok::<_, Stopped>(writeln!(out, "{}", line(&event))?)
        })
    })?;
    if is_empty {
        let about = subject.map(|subject| format!(" about {subject}")).unwrap_or_default();
        let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
        output.note(&format!("Nothing is written down{about}{since}."));
    }
    Ok(())
}

/// `2026-11-22 08:19:03  issued     ak_0123456789ab  web  by root: create`
fn line(event: &Event) -> String {
    let prefix = event.prefix.map_or("-".to_owned(), |prefix| prefix.to_string());
    let user = event.user.as_ref().map_or("-", User::as_str);
    let (at, by) = (event.at.to_string()[..19].replace('T', " "), event.by_whom());
    let details = event.details().map(|details| format!(": {details}")).unwrap_or_default();
    let line = format!("{at}  {:<9}  {prefix:<15}  {user:<12}  by {by}{details}", event.event);
    printable(&line).into_owned()
}
