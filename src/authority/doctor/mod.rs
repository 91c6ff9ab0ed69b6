//! What is wrong on a host, and what to do about it.
//!
//! Each check is told by itself, as it comes about; one that cannot be done is a problem, and no reason to leave
//! out another. Nothing is changed: of a key file it is read what it holds, and no more.

mod database;
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
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::trust::Obstacle;

/// What a check has found.
#[derive(Clone, Debug, Serialize)]
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
    /// `each` what every check has found.
    pub fn doctor(
        path: &Path,
        timeout: Duration,
        clock: fn() -> Result<Timestamp>,
        mut each: impl FnMut(Check),
    ) {
        let opened = clock().and_then(|now| {
            let store = Store::open(path, timeout)?;
            store.keep_statements().map(|()| (store, now))
        });
        let (store, now) = match opened {
            Ok(opened) => opened,
            Err(error) => return each(Check::failed("database", &path.display().to_string(), &error)),
        };
        database::check(&store, now, &mut each);
        let renews = user::check_all(&store, now, &mut each);
        timer::check(store.location(), renews, &mut each);
    }
}

impl Check {
    fn ok(check: &'static str, subject: &str, message: impl Into<String>) -> Self {
        Check { check, subject: subject.to_owned(), status: Health::Ok, message: message.into(), hint: None }
    }

    fn warning(
        check: &'static str,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Check { status: Health::Warning, hint, ..Check::ok(check, subject, message) }
    }

    fn problem(
        check: &'static str,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Check { status: Health::Problem, ..Check::warning(check, subject, message, hint) }
    }

    /// That it could not be done.
    fn failed(check: &'static str, subject: &str, error: &Error) -> Self {
        let hint = error.what_to_do().map(str::to_owned);
        Check { hint, ..Check::problem(check, subject, error.to_string(), "") }
    }

    fn obstructed(check: &'static str, subject: &str, obstacle: Obstacle) -> Self {
        Check::problem(check, subject, obstacle.reason, obstacle.hint)
    }
}

/// What was found, or that it could not be.
fn told(check: &'static str, subject: &str, found: Result<Check>) -> Check {
    found.unwrap_or_else(|error| Check::failed(check, subject, &error))
}
