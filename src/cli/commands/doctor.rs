//! `apikey doctor`

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::authority::{Check, Health, Metrics};
use crate::cli::args::Global;
use crate::cli::json;
use crate::cli::output::Output;
use crate::error::{Code, Error, Result};
use crate::text::printable;
use crate::timestamp::Timestamp;

/// Say what is wrong on this host, and what to do about it
///
/// Looks at the database and its side files (who may read them, damage, size, room on the disk), at the end and the
/// renewal of each current key, at each key file (there, whose, with which mode, in which form, with the current
/// key), at reload commands that would not run, at deliveries under way and what killed ones left, and at the timer
/// that renews. Problems come first, each with what to do about it, then warnings, then one line for what is well.
/// It changes nothing, and finds all, not the first.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {
    /// Write what was found to a file for Prometheus, too
    ///
    /// For node_exporter's textfile collector, which reads files that end in .prom. A new file gets the mode 0640;
    /// one that doctor wrote is replaced, and keeps its mode and owner; any other stays.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    metrics: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  Is everything well?
      $ apikey doctor
  What is not, for a script:
      $ apikey doctor --json | jq '.checks[] | select(.status != \"ok\")'";

pub fn run(args: &Doctor, global: &Global, output: &Output) -> Result<()> {
    let (mut bad, mut well, mut names) = (Vec::new(), 0_u64, BTreeSet::new());
    let (mut problems, mut metrics) = (0_u64, Metrics::default());
    let mut note = |check: &Check| {
        metrics.count(check);
        problems += u64::from(check.status == Health::Problem);
        match check.status {
            Health::Ok => {
                well += 1;
                names.insert(check.check);
            }
            _ if !output.is_json() => bad.push(check.clone()),
            _ => {}
        }
    };
    if output.is_json() {
        json::write_array(output, "checks", |each| {
            let mut written = Ok(());
            global.doctor(|check| {
                note(&check);
                if written.is_ok() {
                    written = each(check);
                }
            })?;
            written
        })?;
    } else {
        global.doctor(|check| note(&check))?;
        bad.sort_by_key(|check: &Check| Reverse(check.status));
        let mut text: String = bad.iter().map(lines).collect();
        if well > 0 {
            let names: Vec<&str> = names.into_iter().collect();
            text.push_str(&format!("ok       {well} checks: {}\n", names.join(", ")));
        }
        output.text(&text)?;
    }
    if let Some(path) = &args.metrics {
        metrics.write(global.open().ok().as_deref(), Timestamp::now()?, path)?;
    }
    match problems {
        0 => Ok(()),
        1 => Err(Error::new(Code::Problems, "there is a problem")),
        more => Err(Error::new(Code::Problems, format!("there are {more} problems"))),
    }
}

/// Two lines: what is wrong, with what; and what to do about it.
fn lines(check: &Check) -> String {
    let Check { check, subject, status, message, hint } = check;
    let line = format!("{:<8} {check}, {subject}: {message}", status.as_str());
    let hint =
        hint.as_deref().filter(|hint| !hint.is_empty()).map(|hint| format!("         {}\n", printable(hint)));
    format!("{}\n{}", printable(&line), hint.unwrap_or_default())
}
