//! How much was tried.

use std::collections::BTreeMap;
use std::fmt;

/// At which stage of its work a command was killed that changes something.
pub const KILLS: [&str; 3] =
    ["killed before a change", "killed between two changes", "killed after the last change"];

/// How often each was done, by what it was.
#[derive(Default)]
pub struct Tally(BTreeMap<String, u32>);

impl Tally {
    pub fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub fn add(&mut self, other: Tally) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Whether some were killed at each stage of their work.
    pub fn has_all_kills(&self) -> bool {
        KILLS.iter().all(|what| self.0.contains_key(*what))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>8} {what}"))
    }
}
