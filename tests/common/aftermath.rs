//! Looks at what is left of the keys after a run that was disturbed.

use std::collections::BTreeSet;
use std::path::Path;

use apikey::Key;
use rusqlite::{Connection, OpenFlags};

use super::{Host, Outcome};

pub fn hash_of(key: &str) -> String {
    Key::parse(key.as_bytes()).unwrap_or_else(|| panic!("no key: {key:?}")).hash().to_string()
}

/// The hashes that a service would accept, in a database that is otherwise whole. Looks only: a
/// connection that may write would tidy up when it closes.
pub fn accepted(database: &Path) -> BTreeSet<String> {
    let sqlite = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let integrity: String = sqlite.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let mut hashes = sqlite.prepare("SELECT key_hash FROM accepted_keys").unwrap();
    hashes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The hash of the key on standard output, which has a whole one or nothing.
pub fn printed(outcome: &Outcome) -> Option<String> {
    match outcome.stdout.strip_suffix('\n') {
        None if outcome.stdout.is_empty() => None,
        key => Some(hash_of(key.unwrap_or_else(|| panic!("half a key: {outcome:?}")))),
    }
}

/// What was left by runs of which each printed a key or did not, and was accepted or was not.
#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    pub nothing: usize,
    pub printed: usize,
    pub printed_and_accepted: usize,
}

impl Tally {
    /// Looks at what a run of `create alice` or `refresh alice` left in `database`, where the keys
    /// `others` stay accepted whatever happens, and alice had `old`, or none. Returns whether the
    /// new key is accepted.
    pub fn add(
        &mut self,
        database: &Path,
        outcome: &Outcome,
        others: &[&str],
        old: Option<&str>,
        at: &str,
    ) -> bool {
        let (mut left, old) = (BTreeSet::new(), old.map(hash_of));
        if database.exists() {
            left = accepted(database);
        }
        for other in others {
            assert!(left.remove(&hash_of(other)), "{at}: another user's key is gone: {outcome:?}");
        }
        let printed = printed(outcome);
        let before: BTreeSet<String> = old.into_iter().collect();
        let after: BTreeSet<String> = printed.clone().into_iter().collect();
        let took_hold = left != before;
        assert!(
            !took_hold || (printed.is_some() && left == after),
            "{at}: of alice's keys {left:?} are accepted, before it were {before:?}, printed was {after:?}: {outcome:?}"
        );
        match (printed, took_hold) {
            (None, _) => self.nothing += 1,
            (Some(_), false) => self.printed += 1,
            (Some(_), true) => self.printed_and_accepted += 1,
        }
        took_hold
    }

    /// The points have shown all three: before the key is printed, before the commit, and after it.
    pub fn assert_is_complete(&self, total: usize) {
        assert!(self.nothing > 50 && self.printed > 0 && self.printed_and_accepted > 0, "{self:?}");
        assert_eq!(self.nothing + self.printed + self.printed_and_accepted, total);
        println!("{total} points: {self:?}");
    }
}

/// The next commands of the admin whose process was killed: nothing has to be repaired first.
pub fn goes_on(database: &Path, at: &str) {
    let elsewhere = Host::new();
    let path = database.to_str().unwrap();
    for command in [["refresh", "alice", "--yes"], ["create", "dave", "--quiet"]] {
        let outcome = elsewhere.apikey(&[&["--db", path], &command[..]].concat()).run();
        assert_eq!(outcome.status, 0, "{at}: {outcome:?}");
        assert!(accepted(database).contains(&printed(&outcome).unwrap()), "{at}: {outcome:?}");
    }
}
