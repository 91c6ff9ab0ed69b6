//! How a user stands after an ensure or an edit, and what was done for it.

use serde::Serialize;

use super::{Issued, Shown};
use crate::store::Held;

/// How a user stands after an ensure or an edit.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Settled {
    /// The current key, and what is kept; none where one is still to be issued.
    pub shown: Option<Shown>,
    /// What was done, or is to be done; nothing where all was as it should be.
    pub done: Vec<Done>,
    /// The user's older keys that are accepted all the same.
    pub still_accepted: Vec<Held>,
    /// The keys that were issued for it, or whose delivery was finished.
    pub issued: Vec<Issued>,
    /// Until now more could read the key file than should.
    pub was_open: bool,
}

/// What was done for a user, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Done {
    /// A delivery that an earlier run left was finished.
    Delivered,
    /// A key was issued to who had none.
    Created,
    /// The key was replaced.
    Refreshed,
    /// The key file was given to its owner.
    Owner,
    /// The key file got its permissions.
    Mode,
    /// What is kept, or the key's label or end, was changed.
    Settings,
}

impl Done {
    /// The word for it, as in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Done::Created => "created",
            Done::Refreshed => "refreshed",
            Done::Delivered => "delivered",
            Done::Owner => "owner",
            Done::Mode => "mode",
            Done::Settings => "settings",
        }
    }
}
