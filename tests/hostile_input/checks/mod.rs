//! What must hold whatever the input is. The tests beside this draw some, and the targets of fuzz/ call the same.

#![allow(dead_code, reason = "each target of fuzz/ uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

pub mod cell;
pub mod delivery;
pub mod duration;
pub mod header;
pub mod key;
pub mod key_file;
pub mod rows;
pub mod schema;
pub mod scratch;
pub mod settings;
pub mod stream;
pub mod time;

use apikey::{Code, Error};

/// What a user's input may end in: a code that is no fault of the program, and a message for a person.
#[track_caller]
pub fn is_documented(error: &Error) {
    assert_ne!(error.code(), Code::InternalError, "{error}");
    let message = error.to_string();
    assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
}

/// The same of what may have succeeded.
#[track_caller]
pub fn ends_as_documented<T>(result: apikey::Result<T>) -> Option<T> {
    result.inspect_err(is_documented).ok()
}
