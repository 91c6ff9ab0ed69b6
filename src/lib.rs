//! Issue, show, refresh, revoke and verify API keys from one SQLite file, with no server.
//!
//! The program `apikey` is a thin face over this library. A service uses the library to verify a
//! key in microseconds, with no process: see [`Store::verify`]. Without the feature `cli`, which is
//! on unless it is turned off, none of what only the program needs is built.
//!
//! Data flows one way: arguments, checked values ([`User`], [`Name`], [`Key`]), a transaction of
//! the [`Store`], the hand-over of the key, output.

mod agreed;
mod delivery;
mod error;
mod issue;
mod key;
mod key_file;
mod name;
mod random;
mod recovery;
mod revoke;
mod store;
mod text;
mod timestamp;
mod trust;
mod user;
mod verify;
mod writer;

#[cfg(feature = "cli")]
pub mod cli;

pub use crate::delivery::Reload;
pub use crate::error::{Code, Error, Result};
pub use crate::issue::{Issued, Order, Previous, Replace};
pub use crate::key::{Key, KeyHash};
pub use crate::key_file::{EnvName, KeyFile, Mode, Owner};
pub use crate::name::Name;
pub use crate::recovery::{End, Recovered};
pub use crate::store::{Record, Status, Store};
pub use crate::timestamp::Timestamp;
pub use crate::user::User;
pub use crate::verify::Verdict;
pub use crate::writer::Writer;

/// The README's examples in Rust, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
