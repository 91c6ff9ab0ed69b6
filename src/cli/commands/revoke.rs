//! `apikey revoke`

use clap::Args;
use serde::Serialize;

use super::confirm::is_to_be_asked;
use crate::authority::Revoked;
use crate::cli::args::{Global, SubjectArg};
use crate::cli::handover::{AcceptedJson, Caller, shortcomings, tell_of_accepted};
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::error::Result;
use crate::key::{Prefix, listed};
use crate::subject::Subject;
use crate::text::count;

/// Stop accepting a user's keys, or one key, at once and for good
///
/// Of a user, revokes the active key, and with it one that is on its way into a file and those that a
/// refresh left a grace period; by its prefix, that one key. It waits for no delivery. Asks first where
/// there is somebody to answer.
#[derive(Debug, Args)]
#[command(override_usage = "apikey revoke [USER|PREFIX] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Revoke {
    #[command(flatten)]
    subject: SubjectArg,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Serialize)]
struct RevokedJson<'a> {
    message: &'a str,
    user: &'a str,
    revoked_key_prefix: Option<Prefix>,
    revoked_key_prefixes: Vec<Prefix>,
    still_accepted: Vec<AcceptedJson>,
}

const EXAMPLES: &str = "\
Examples:
  No more key for bob, and no question:
      $ apikey revoke bob --yes";

pub fn run(args: Revoke, global: &Global, output: &Output) -> Result<()> {
    let subject = args.subject.or_caller()?;
    let ask = is_to_be_asked(args.yes, &format!("revoke {subject}"))?;
    let mut authority = global.open()?;
    let mut agreed = None;
    if ask {
        let (user, keys) = authority.revocable(&subject)?;
        let prefixes: Vec<Prefix> = keys.iter().map(|key| key.prefix).collect();
        match prefixes.as_slice() {
            [] => {}
            [key] => prompt::confirm(&format!("Revoke {key}, {} key of {user}?", article(&subject)))?,
            keys => {
                prompt::confirm(&format!("Revoke {}, the keys of {user}?", listed(keys.iter().copied())))?;
            }
        }
        agreed = Some(prefixes);
    }
    let revoked = authority.revoke(&subject, agreed.as_deref())?;
    let message = message(&revoked);
    output.note(&message);
    tell_of_accepted(output, &revoked.still_accepted);
    if output.is_json() {
        let prefixes: Vec<Prefix> = revoked.keys.iter().map(|key| key.prefix).collect();
        let json = RevokedJson {
            message: &message,
            user: revoked.user.as_str(),
            revoked_key_prefix: prefixes.first().copied(),
            revoked_key_prefixes: prefixes,
            still_accepted: AcceptedJson::of(&revoked.still_accepted),
        };
        output.object(&json).map_err(|error| error.after("it is revoked"))?;
    }
    authority.recover_in_passing(&mut Caller::of_what_is_over(output, global));
    Ok(())
}

fn article(subject: &Subject) -> &'static str {
    match subject {
        Subject::User(_) => "the",
        Subject::Key(_) => "a",
    }
}

fn message(revoked: &Revoked) -> String {
    let written_anew = revoked.written_anew as u64;
    let what = match revoked.keys.as_slice() {
        [] => count(written_anew, "unreadable key"),
        keys => listed(keys.iter().map(|key| key.prefix)),
    };
    let mut message = format!("Revoked {what} of {}.", revoked.user);
    for key_file in &revoked.key_files {
        message.push_str(&format!(" {} holds a key that is no longer accepted.", key_file.path()));
    }
    if written_anew > 0 {
        let rows = count(written_anew, "damaged row");
        message.push_str(&format!(
            " The database is damaged: {rows} had to be written anew. `apikey doctor` says what else is wrong."
        ));
    }
    for sentence in shortcomings(&revoked.shortfall) {
        message.push_str(&format!(" {sentence}"));
    }
    message
}
