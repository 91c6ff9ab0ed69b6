//! Issue, show, refresh, revoke and verify API keys from one SQLite file, with no server.
//!
//! It has two faces. Who manages keys opens the [`Authority`] of the host, and each command is one
//! call on it: the program `apikey` is a thin face over that. Who checks keys opens a [`Verifier`],
//! which needs microseconds, no process, and nothing of the rest. Without the feature `cli`, which is
//! on unless it is turned off, none of what only the program needs is built.
//!
//! Data flows one way: arguments, checked values ([`User`], [`Name`], [`Key`]), a transaction, the
//! hand-over of the key, output. Imports point downward: `cli`, `authority` and `verifier`, `delivery`,
//! `store`, `key_file`, and at the bottom what a key, a user and a place to trust are.

#![deny(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod actor;
mod authority;
mod delivery;
mod error;
mod key;
mod key_file;
mod name;
mod patience;
mod random;
mod settings;
mod signals;
mod store;
mod subject;
mod syslog;
mod text;
mod timestamp;
mod trust;
mod user;
mod verifier;

#[cfg(feature = "cli")]
pub mod cli;

pub use uuid::Uuid;

pub use crate::authority::{
    Authority, Backup, Check, Done, Due, DueCount, Filter, Health, Issued, Keys, Metrics, Order, Recipient,
    Refresh, Renewal, Revoked, Settled, Shortfall, Shown, Step,
};
pub use crate::delivery::{Delivery, End};
pub use crate::error::{Code, Error, Result};
pub use crate::key::{Key, KeyHash, Prefix};
pub use crate::key_file::{EnvName, KeyFile, KeyFilePath, Mode, Owner};
pub use crate::name::Name;
pub use crate::settings::{Change, Changes, Reload, ReloadCommand, Settings};
pub use crate::store::{Event, Held, Listed, Pruned, Record, Status};
pub use crate::subject::Subject;
pub use crate::timestamp::Timestamp;
pub use crate::user::User;
pub use crate::verifier::{Verdict, Verifier};

/// The README's examples in Rust, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
