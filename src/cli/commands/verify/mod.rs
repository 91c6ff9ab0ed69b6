//! `apikey verify`

mod stream;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::args::{Global, key_file_path};
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::KeyFile;
use crate::name::Name;
use crate::store::Record;
use crate::text::printable;
use crate::timestamp::Timestamp;
use crate::verifier::Verdict;

/// Say whose key standard input holds, or why it is refused
///
/// Reads one key, with or without a line's end, and never from an argument or a variable, where
/// others could see it. At a terminal it asks for the key without showing it. Exits 0 where the key
/// is accepted and 5 where it is not; with --quiet that is all the answer. Writes down, to the
/// minute, when the key was last used, where that needs no waiting.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Verify {
    /// Read the key from the key file at PATH
    ///
    /// In either of its forms: the key alone, or NAME=key.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = key_file_path())]
    key_file: Option<PathBuf>,

    /// Answer key after key: a line of JSON for each line of standard input, until that ends
    ///
    /// Each answer is the object of --json, with or without that, and comes as soon as no more input waits. A line
    /// that is no key is answered, too. What one read brings is looked up together: a revocation counts from
    /// the next read on. Ends with 0 whatever the answers were. An error of the database ends it where that
    /// lasts longer than --timeout.
    #[arg(long, conflicts_with_all = ["key_file", "quiet"])]
    stream: bool,
}

#[derive(Serialize)]
struct VerdictJson<'a> {
    valid: bool,
    status: &'a str,
    id: Option<String>,
    user: Option<&'a str>,
    prefix: Option<Prefix>,
    name: Option<&'a str>,
    expires_at: Option<Timestamp>,
}

const EXAMPLES: &str = r#"Examples:
  Whose key is it?
      $ echo "$KEY" | apikey verify
  Is the daemon's key accepted?
      $ apikey verify --key-file /etc/web/web.key
  Whose keys are these?
      $ apikey verify --stream <keys | jq -r '.user // "-"'"#;

pub fn run(args: &Verify, global: &Global, output: &Output) -> Result<()> {
    if args.stream {
        return stream::run(global, output);
    }
    // First of all, so that what writes the key may make the database: `apikey create | apikey verify`.
    let key = match &args.key_file {
        Some(path) => KeyFile::read(path)?,
        None => Key::parse(&read_line()?),
    };
    let verifier = global.open_verifier()?;
    let now = Timestamp::now()?;
    let verdict = match &key {
        Some(key) => verifier.verify_key(key, now)?,
        None => Verdict::Malformed,
    };
    if output.is_json() {
        output.object(&verdict_json(&verdict))?;
    }
    let record = accepted(verdict)?;
    if !output.is_json() && !output.is_quiet() {
        let line =
            format!("{} is accepted: the {} key of {}", record.prefix, record.status.as_str(), record.user);
        output.text(&format!("{}\n", printable(&line)))?;
    }
    // The answer is out. That the use could not be written down is no reason to take it back.
    verifier.write_uses();
    Ok(())
}

fn verdict_json(verdict: &Verdict) -> VerdictJson<'_> {
    let (status, record) = match verdict {
        Verdict::Accepted(record) | Verdict::Refused(record) => (record.status.as_str(), Some(record)),
        Verdict::Unknown => ("unknown", None),
        Verdict::Malformed => ("malformed", None),
    };
    VerdictJson {
        valid: matches!(verdict, Verdict::Accepted(_)),
        status,
        id: record.map(|record| record.id.to_string()),
        user: record.map(|record| record.user.as_str()),
        prefix: record.map(|record| record.prefix),
        name: record.and_then(|record| record.name.as_ref()).map(Name::as_str),
        expires_at: record.and_then(|record| record.expires_at),
    }
}

fn accepted(verdict: Verdict) -> Result<Record> {
    let why = match verdict {
        Verdict::Accepted(record) => return Ok(record),
        Verdict::Refused(record) => {
            format!("{}, a key of {}, is {}", record.prefix, record.user, record.status.as_str())
        }
        Verdict::Unknown => "no such key is known here".into(),
        Verdict::Malformed => "the input is not a well-formed key".into(),
    };
    Err(Error::new(Code::InvalidKey, format!("not accepted: {why}")))
}

/// As much as a key with a line's end, and one byte more: whatever is longer is no key.
const LONGEST: usize = Key::LENGTH + 3;

fn read_line() -> Result<Zeroizing<Vec<u8>>> {
    let mut input = Zeroizing::new(vec![0; LONGEST]);
    let length = if io::stdin().is_terminal() {
        prompt::read_hidden("Key (it is not shown): ", &mut input)?
    } else {
        read_all(&mut input)?
    };
    let length = without_end(&input[..length]).len();
    input.truncate(length);
    Ok(input)
}

/// A line without its end, be that `\n` or `\r\n`.
fn without_end(line: &[u8]) -> &[u8] {
    let Some(line) = line.strip_suffix(b"\n") else { return line };
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads until the end, or until `input` is full.
fn read_all(input: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < input.len() {
        match crate::cli::stream::read(&mut input[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) => {
                let message = format!("cannot read the key from standard input: {error}");
                return Err(Error::new(Code::InternalError, message));
            }
        }
    }
    Ok(length)
}
