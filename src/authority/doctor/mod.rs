//! What is wrong on a host, and what to do about it.
//!
//! Each check is told by itself, as it comes about; one that cannot be done is a problem, and no reason to leave
//! out another. Nothing is changed: of a key file it is read what it holds, and no more.

mod database;
mod delivery;
mod key_file;
mod metrics;
mod timer;
mod user;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

pub use self::metrics::Metrics;
use super::Authority;
use crate::error::{Error, Result};
use crate::store::{Location, Store};
use crate::timestamp::Timestamp;

/// What a check has found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Which check it is: a word or two.
    pub check: &'static str,
    /// What was looked at: a path, a user, a unit.
    pub subject: String,
    /// Whether that is as it should be.
    pub status: Health,
    /// How it is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// It is.
    Ok,
    /// It works, and somebody should know of it.
    Warning,
    /// It does not work, or will not be safe.
    Problem,
}

impl Health {
    /// The word for it, as in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Problem => "problem",
        }
    }
}

/// Who hears of each check.
type Each<'a> = &'a mut dyn FnMut(Check);

impl Authority {
    /// Looks at all of the host that has to do with the database at `path`: at that and its side files, at the keys
    /// and the key files of each user, at the deliveries that are under way, and at the timer that renews. Tells
    /// `each` what every check has found. Returns the database, where it could be opened.
    pub fn doctor(
        path: &Path,
        timeout: Duration,
        clock: fn() -> Result<Timestamp>,
        mut each: impl FnMut(Check),
    ) -> Option<Self> {
        let subject = path.display().to_string();
        let about = About("database", &subject);
        let location = match Location::new(path) {
            Ok(location) => location,
            Err(error) => {
                each(about.failed(&error));
                return None;
            }
        };
        let opened = Store::open(path, timeout).and_then(|store| {
            store.keep_statements()?;
            Ok((store, clock()?))
        });
        let opened = opened.map_err(|error| each(about.failed(&error))).ok();
        database::check_files(&location, opened.as_ref().map(|(store, _)| store), &mut each);
        let (store, now) = opened?;
        database::check(&store, now, clock, &mut each);
        let is_replica = store.is_replica().unwrap_or_else(|error| {
            each(about.failed(&error));
            false
        });
        if is_replica {
            // Keys, key files and the timer are looked after where the original is.
            database::replica(&store, now, &mut each);
        } else {
            let renewed = user::check_all(&store, now, &mut each);
            timer::check(&location, renewed, &mut each);
        }
        Some(Authority { store, clock })
    }
}

/// A check, and what it looks at.
#[derive(Clone, Copy)]
struct About<'a>(&'static str, &'a str);

impl About<'_> {
    fn ok(self, message: impl Into<String>) -> Check {
        let About(check, subject) = self;
        Check { check, subject: subject.to_owned(), status: Health::Ok, message: message.into(), hint: None }
    }

    fn warning(self, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { status: Health::Warning, hint: Some(hint.into()), ..self.ok(message) }
    }

    fn problem(self, message: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { status: Health::Problem, ..self.warning(message, hint) }
    }

    /// That it could not be done.
    fn failed(self, error: &Error) -> Check {
        let hint = error.what_to_do().map(str::to_owned);
        Check { status: Health::Problem, hint, ..self.ok(error.to_string()) }
    }

    /// What `look` has found, or that it could not be done.
    fn by(self, look: impl FnOnce(Self) -> Result<Check>) -> Check {
        look(self).unwrap_or_else(|error| self.failed(&error))
    }
}

/// `path` as a shell reads it as one word.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=,".contains(c);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
