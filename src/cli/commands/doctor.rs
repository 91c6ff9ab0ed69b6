//! `apikey doctor`

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::authority::{Authority, Check, Health, Metrics};
use crate::cli::args::{Global, new_file};
use crate::cli::json;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::error::{Code, Error, Result};
use crate::text::printable;
use crate::timestamp::Timestamp;

/// Say what is wrong on this host, and what to do about it
///
/// Looks at the database and its side files (who may read them, damage, size, room on the disk), at the end and the
/// renewal of each current key, at each key file (there, whose, with which mode, in which form, with the current
/// key), at reload commands that would not run, at deliveries under way and what killed ones left, and at the timer
/// that renews. Problems come first, each with what to do about it, then warnings, then one line for what is well.
/// It changes no key, no setting and no key file, and finds all, not the first.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {
    /// Write what was found to a file for Prometheus, too
    ///
    /// For node_exporter's textfile collector, which reads files that end in .prom. A new file gets the mode 0640;
    /// one that doctor wrote is replaced, and keeps its mode and owner; any other stays.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = new_file())]
    metrics: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  Is everything well?
      $ apikey doctor
  What is not, for a script:
      $ apikey doctor --json | jq '.checks[] | select(.status != \"ok\")'

For Prometheus, by node_exporter as Debian has it, to which root leaves a link, since it may swap its own folder:
      # install -d -m 2750 -g prometheus /var/lib/apikey-prom
      # ln -s ../../apikey-prom/apikey.prom /var/lib/prometheus/node-exporter
      # apikey doctor --metrics /var/lib/apikey-prom/apikey.prom";

pub fn run(args: &Doctor, global: &Global, output: &Output) -> Result<()> {
    let (mut told, mut well, mut names) = (Vec::new(), 0_u64, BTreeSet::new());
    let (mut problems, mut metrics) = (0_u64, Metrics::default());
    let mut note = |check: &Check| {
        metrics.count(check);
        problems += u64::from(check.status == Health::Problem);
        match check.status {
            // That it is one is told, and how old.
            Health::Ok if check.check != "replica" => {
                well += 1;
                names.insert(check.check);
            }
            _ if !output.is_json() => told.push(check.clone()),
            _ => {}
        }
    };
    let metrics_written = |database: &Path, opened: Option<&Authority>, metrics: &Metrics| match &args.metrics
    {
        Some(path) => metrics.write(database, opened, Timestamp::now()?, path),
        None => Ok(()),
    };
    let written;
    if output.is_json() {
        let mut checks = Ok(());
        let mut opened = None;
        let printed = json::write_array(output, "checks", |each| {
            opened = Some(global.doctor(|check| {
                note(&check);
                if checks.is_ok() {
                    checks = each(check);
                }
            })?);
            checks
        });
        // Where it is not known which database is meant, nothing was looked at, and nothing is well.
        let Some((database, opened)) = opened else { return printed };
        written = metrics_written(&database, opened.as_deref(), &metrics);
        printed?;
    } else {
        let progress = Progress::begin(None, output.is_quiet());
        let (database, opened) = global.doctor(|check| note(&check))?;
        drop(progress);
        written = metrics_written(&database, opened.as_deref(), &metrics);
        told.sort_by_key(|check: &Check| Reverse(check.status));
        let mut text: String = told.iter().map(lines).collect();
        if well > 0 {
            let names: Vec<&str> = names.into_iter().collect();
            text.push_str(&format!("ok       {well} checks: {}\n", names.join(", ")));
        }
        output.text(&text)?;
    }
    let problems = match problems {
        0 => return written,
        1 => "there is a problem".to_owned(),
        more => format!("there are {more} problems"),
    };
    Err(match written {
        Ok(()) => Error::new(Code::Problems, problems),
        Err(error) => Error::new(Code::Problems, format!("{problems}; and {error}")),
    })
}

/// Two lines: what is wrong, with what; and what to do about it.
fn lines(check: &Check) -> String {
    let Check { check, subject, status, message, hint } = check;
    let line = format!("{:<8} {check}, {subject}: {message}", status.as_str());
    let hint = hint.as_deref().map(|hint| format!("         {}\n", printable(hint)));
    format!("{}\n{}", printable(&line), hint.unwrap_or_default())
}
