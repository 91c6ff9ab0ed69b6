//! `apikey renew`

use std::io::{self, Write};

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::refresh::RefreshedJson;
use crate::authority::{Authority, Due, DueCount, Renewal, Step};
use crate::cli::args::Global;
use crate::cli::complete::users_with_a_key;
use crate::cli::handover::Caller;
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::error::{Code, Error, Result};
use crate::key::Prefix;
use crate::user::User;

/// Replace every key that is due, as its settings say
///
/// A key is due that is older than its renewal age, or whose reader is still to be told. The old one is
/// accepted for --renew-grace more. One that cannot be renewed does not keep the others from theirs. Only a
/// file that holds a key of that user, the current one or one on its way there, is replaced. A user who was
/// revoked stays revoked. The package's timer runs it each hour.
#[derive(Debug, Args)]
#[command(override_usage = "apikey renew [USER] [OPTIONS]", after_long_help = EXAMPLES)]
pub struct Renew {
    /// Whose key [default: everyone's]
    #[arg(value_name = "USER", add = ArgValueCompleter::new(users_with_a_key))]
    user: Option<User>,

    /// Say what is due and why, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  All that is due, as the timer does it:
      $ apikey renew
  What is due, and why:
      $ apikey renew --dry-run";

/// One of `failed`.
#[derive(Serialize)]
struct FailedJson {
    user: String,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

/// One of `due`.
#[derive(Serialize)]
struct DueJson<'a> {
    user: &'a str,
    prefix: Prefix,
    why: &'a str,
}

pub fn run(args: &Renew, global: &Global, output: &Output) -> Result<()> {
    let mut authority = global.open()?;
    let user = args.user.as_ref();
    let count = authority.count_due(user)?;
    let mut report = Report::new(output);
    let failed = if args.dry_run {
        let (mut failed, told) = (0, Caller::of_no_key(output, global));
        let say = |_: &mut Authority, user: &User, due: Result<Due>| {
            match due {
                Ok(due) => report.due(&due),
                Err(error) => {
                    failed += 1;
                    report.renewal(&Renewal::Failed(user.clone(), error), &told);
                }
            }
            Ok(())
        };
        authority.each_due(user, say).map(|()| failed)
    } else {
        renew(&mut authority, user, count, global, output, &mut report)
    };
    if failed.is_ok() || report.begun || !report.failed.is_empty() {
        // What was begun is to be one object all the same.
        report.end(count);
    }
    match failed? {
        0 => Ok(()),
        failed => {
            let message =
                format!("{failed} of {} keys that are due could not be renewed", count.due.max(failed));
            Err(Error::new(Code::Problems, message).hint("see to what each message says, and run it again"))
        }
    }
}

fn renew(
    authority: &mut Authority,
    user: Option<&User>,
    count: DueCount,
    global: &Global,
    output: &Output,
    report: &mut Report<'_>,
) -> Result<u64> {
    let mut progress = Progress::begin(Some(count.due), output.is_quiet() || output.is_json());
    let mut caller = Caller::of_what_is_over(output, global);
    let told = Caller::of_no_key(output, global);
    let mut failed = 0;
    authority.renew(user, &mut caller, |step| match step {
        Step::Begins(due) => progress.at(due.user.as_str()),
        Step::Passed => progress.aside(|| {}),
        Step::Ends(renewal) => progress.aside(|| {
            failed += u64::from(matches!(renewal, Renewal::Failed(..)));
            report.renewal(&renewal, &told);
        }),
    })?;
    Ok(failed)
}

/// What is said of a renewal: in JSON one object, which is written as it comes about.
struct Report<'a> {
    output: &'a Output,
    /// The object's first part is out. Where its reader has gone the rest is not, but the work goes on.
    begun: bool,
    separator: &'static str,
    failed: Vec<FailedJson>,
    due: String,
}

impl<'a> Report<'a> {
    fn new(output: &'a Output) -> Self {
        Report { output, begun: false, separator: "", failed: Vec::new(), due: String::new() }
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let begin = if self.begun { "" } else { "{\"renewed\":[" };
        self.begun = true;
        let _ = self.output.data(|out| {
            out.write_all(begin.as_bytes())?;
            Ok(write(out)?)
        });
    }

    fn renewal(&mut self, renewal: &Renewal, caller: &Caller<'_>) {
        match renewal {
            Renewal::Renewed(issued) if self.output.is_json() => {
                let separator = std::mem::replace(&mut self.separator, ",");
                self.write(|out| {
                    out.write_all(separator.as_bytes())?;
                    json::write(out, &RefreshedJson::new(issued, None))
                });
            }
            Renewal::Renewed(issued) => drop(caller.tell(issued)),
            Renewal::Failed(user, error) if self.output.is_json() => self.failed.push(FailedJson {
                user: user.to_string(),
                code: error.code().as_str(),
                message: error.to_string(),
                hint: error.what_to_do().map(str::to_owned),
            }),
            Renewal::Failed(user, error) => self.output.problem(user, error),
        }
    }

    fn due(&mut self, due: &Due) {
        let Due { user, prefix, why } = due;
        if self.output.is_json() {
            if !self.due.is_empty() {
                self.due.push(',');
            }
            self.due.push_str(&json::to_string(&DueJson { user: user.as_str(), prefix: *prefix, why }));
        } else {
            self.output.note(&format!("{prefix} of {user} is due: {why}."));
        }
    }

    fn end(&mut self, count: DueCount) {
        let DueCount { due, later } = count;
        if self.output.is_json() {
            let (failed, due) = (std::mem::take(&mut self.failed), std::mem::take(&mut self.due));
            self.write(|out| {
                out.write_all(b"],\"failed\":")?;
                json::write(out, &failed)?;
                out.write_all(format!(",\"due\":[{due}],\"not_due\":{later}}}\n").as_bytes())
            });
        } else if due == 0 {
            self.output.note(&format!("No key is due; {later} will be."));
        }
    }
}
