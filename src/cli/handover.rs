//! What the program does with what the authority gives out.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::Global;
use super::output::Output;
use crate::authority::{Issued, Recipient, Shortfall};
use crate::delivery::Delivery;
use crate::error::{Code, Error, Result};
use crate::key::{Key, Prefix};
use crate::key_file::KeyFile;
use crate::name::Name;
use crate::store::{Held, Record, Status};
use crate::timestamp::Timestamp;

/// Writes the JSON of a command that issues: of what was issued, and of the key where it is shown.
pub type ToJson = fn(&mut dyn Write, &Issued, Option<&Key>) -> io::Result<()>;

/// Whoever runs the program: a key goes to standard output, everything else that is said to standard
/// error.
pub struct Caller<'a> {
    output: &'a Output,
    timeout: Duration,
    /// How long is left for what is said while others wait.
    patience: Duration,
    /// None where no key is taken.
    to_json: Option<ToJson>,
    /// Only what is over is told: about the rest somebody is told again before long.
    only_what_is_over: bool,
}

impl<'a> Caller<'a> {
    /// Who runs a command that issues.
    pub fn new(output: &'a Output, global: &Global, to_json: ToJson) -> Self {
        Caller { to_json: Some(to_json), ..Self::of_no_key(output, global) }
    }

    /// Who runs a command that gives out no key.
    pub fn of_no_key(output: &'a Output, global: &Global) -> Self {
        let (timeout, patience) = (global.timeout, global.timeout);
        Caller { output, timeout, patience, to_json: None, only_what_is_over: false }
    }

    /// Who hears of the rest by other means.
    pub fn of_what_is_over(output: &'a Output, global: &Global) -> Self {
        Caller { only_what_is_over: true, ..Self::of_no_key(output, global) }
    }

    /// Says what was issued, where that was not said with the key.
    pub fn tell(&self, issued: &Issued) -> Result<()> {
        let Record { prefix, user, expires_at, .. } = &issued.record;
        let mut end = expires_at.map(|end| format!(", accepted until {end}")).unwrap_or_default();
        if let Some(due_at) = issued.due_at {
            end.push_str(&format!(", renewed from {due_at} on"));
        }
        let done = if issued.was_waiting { "Finished the delivery of" } else { "Issued" };
        let place = match &issued.key_file {
            Some(key_file) => format!("The key is in {}.", key_file.path()),
            None => "The key is shown only once.".to_owned(),
        };
        if let Some(to_json) = self.to_json.filter(|_| issued.key_file.is_some() && self.output.is_json()) {
            self.output
                .data(|out| Ok(to_json(out, issued, None)?))
                .map_err(|error| error.after("the key is delivered"))?;
        }
        self.output.note(&format!("{done} {prefix} to {user}{end}. {place}"));
        self.tell_of_older_keys(issued);
        Ok(())
    }

    /// Names every older key: what ended, and what is accepted all the same.
    fn tell_of_older_keys(&self, issued: &Issued) {
        let ended = |prefix, what| self.output.note(&format!("{prefix} {what}."));
        for key in &issued.revoked_first {
            ended(
                key.prefix,
                match key.status.is_accepted() {
                    true if issued.shortfall.by_time => "is expired",
                    true => "is revoked",
                    false => "had expired",
                },
            );
        }
        shortcomings(&issued.shortfall).for_each(|sentence| self.output.note(sentence));
        let previous = issued.previous.as_ref().filter(|_| issued.revoked_first.is_empty());
        if let Some(previous) = previous.filter(|previous| !previous.status.is_accepted()) {
            let is_revoked = previous.status == Status::Revoked;
            ended(previous.prefix, if is_revoked { "is revoked" } else { "had expired" });
        }
        tell_of_accepted(self.output, &issued.still_accepted);
        if let Some(key_file) = &issued.previous_key_file {
            self.output.note(&format!("The last key went to {}: remove it there.", key_file.path()));
        }
    }
}

/// Names keys that are accepted, although another command ended or replaced one of that user.
pub fn tell_of_accepted(output: &Output, keys: &[Held]) {
    for key in keys {
        let until = key.until().map(|until| format!(" until {until}")).unwrap_or_default();
        output.note(&format!("{}, which is {}, is accepted{until}.", key.prefix, key.status.as_str()));
    }
}

/// What there is to know of a revocation that could not be done as it should, and to do about it.
pub fn shortcomings(shortfall: &Shortfall) -> impl Iterator<Item = &'static str> {
    let by_time = "They could only be made to expire, since the database is damaged or its disk is full: make room, or \
                   restore it from a backup, and revoke them again, each by its prefix.";
    let renewed = "Until then `apikey renew` may issue the next one.";
    let logged =
        "The log does not say so, since the database is damaged or its disk is full: see `apikey doctor`.";
    let left_out = "Another key, which cannot be read, is left as it was, and may be accepted: restore the database \
                    from a backup, and revoke again.";
    let all = [
        (shortfall.by_time, by_time),
        (shortfall.still_renewed, renewed),
        // Who revokes again has that written down.
        (shortfall.not_logged && !shortfall.by_time, logged),
        (shortfall.left_out, left_out),
    ];
    all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, sentence)| sentence)
}

impl Recipient for Caller<'_> {
    fn check(&self, database_files: &[PathBuf]) -> Result<()> {
        if self.to_json.is_none() {
            return Err(Error::undeliverable("there is no key file for it"));
        }
        self.output.check_takes_key()?;
        self.output.check_is_none_of(database_files)
    }

    /// Prints the key: in one write, from one buffer, which is wiped.
    fn take(&mut self, key: &Key, issued: &Issued) -> Result<()> {
        // Long enough from the start: a buffer that grows leaves copies behind.
        let mut buffer = Zeroizing::new(vec![0; longest_json(issued)]);
        let mut rest = buffer.as_mut_slice();
        let written = match self.to_json {
            Some(to_json) if self.output.is_json() => to_json(&mut rest, issued, Some(key)),
            _ => rest.write_all(key.expose().as_bytes()).and_then(|()| rest.write_all(b"\n")),
        };
        written.map_err(|error| Error::new(Code::InternalError, format!("cannot write the key: {error}")))?;
        let unused = rest.len();
        let length = buffer.len() - unused;
        buffer.truncate(length);
        self.output.secret(buffer, self.timeout)
    }

    fn hear(&mut self, delivery: &Delivery) {
        let note = match delivery.is_over() {
            true => format!("{delivery}."),
            false if self.only_what_is_over => return,
            false => delivery.to_string(),
        };
        let began = Instant::now();
        self.output.note_within(self.patience, &note);
        self.patience = self.patience.saturating_sub(began.elapsed());
    }

    /// With JSON there is nothing else anywhere.
    fn reload_stderr(&self) -> Stdio {
        if self.output.is_json() { Stdio::null() } else { Stdio::inherit() }
    }
}

/// How long the JSON can be: a byte of text makes at the most the six of `\u001b`.
fn longest_json(issued: &Issued) -> usize {
    let record = &issued.record;
    let name = record.name.as_ref().map_or(0, |name| name.as_str().len());
    let key_file = issued.key_file.as_ref().map_or(0, |key_file| key_file.path().len());
    1024 + 6 * (record.user.as_str().len() + name + key_file) + 128 * issued.still_accepted.len()
}

/// The JSON of `create`, and of `refresh` but for its last three members.
#[derive(Serialize)]
pub struct IssuedJson<'a> {
    id: String,
    user: &'a str,
    key: Option<&'a str>,
    prefix: Prefix,
    name: Option<&'a str>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    key_file: Option<&'a str>,
    still_accepted: Vec<AcceptedJson>,
}

/// One of `still_accepted`.
#[derive(Serialize)]
pub struct AcceptedJson {
    prefix: Prefix,
    status: Status,
    until: Option<Timestamp>,
}

impl AcceptedJson {
    pub fn of(keys: &[Held]) -> Vec<Self> {
        let json = |key: &Held| AcceptedJson { prefix: key.prefix, status: key.status, until: key.until() };
        keys.iter().map(json).collect()
    }
}

impl<'a> IssuedJson<'a> {
    /// The members for a key that is shown, or for one that is not.
    pub fn new(issued: &'a Issued, key: Option<&'a Key>) -> Self {
        let record = &issued.record;
        IssuedJson {
            id: record.id.to_string(),
            user: record.user.as_str(),
            key: key.map(Key::expose),
            prefix: record.prefix,
            name: record.name.as_ref().map(Name::as_str),
            created_at: record.created_at,
            expires_at: record.expires_at,
            key_file: issued.key_file.as_ref().map(KeyFile::path),
            still_accepted: AcceptedJson::of(&issued.still_accepted),
        }
    }
}
