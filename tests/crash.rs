//! What is left when the program is killed, when the kernel fails it, when the disk is full and
//! when the power goes: after each of them, at every system call.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use apikey::Key;
use common::strace::kill_at_each_call;
use common::{Host, Outcome};
use rusqlite::{Connection, OpenFlags};

fn hash_of(key: &str) -> String {
    Key::parse(key.as_bytes()).unwrap_or_else(|| panic!("no key: {key:?}")).hash().as_str().to_owned()
}

/// The hashes that a service would accept, in a database that is otherwise whole. Looks only: a
/// connection that may write would tidy up when it closes.
fn accepted(database: &Path) -> BTreeSet<String> {
    let sqlite = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let integrity: String = sqlite.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let mut hashes = sqlite.prepare("SELECT key_hash FROM accepted_keys").unwrap();
    hashes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The hash of the key on standard output, which has a whole one or nothing.
fn printed(outcome: &Outcome) -> Option<String> {
    match outcome.stdout.strip_suffix('\n') {
        None if outcome.stdout.is_empty() => None,
        key => Some(hash_of(key.unwrap_or_else(|| panic!("half a key: {outcome:?}")))),
    }
}

/// What was left by runs of which each printed a key or did not, and was accepted or was not.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    nothing: usize,
    printed: usize,
    printed_and_accepted: usize,
}

impl Tally {
    /// Looks at what a run of `create alice` or `refresh alice` left on `host`, where the keys
    /// `others` stay accepted whatever happens, and alice had `old`, or none. Returns whether the
    /// new key is accepted.
    fn add(&mut self, host: &Host, outcome: &Outcome, others: &[&str], old: Option<&str>, at: &str) -> bool {
        let (mut left, old) = (BTreeSet::new(), old.map(hash_of));
        if host.database().exists() {
            left = accepted(&host.database());
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
    fn assert_is_complete(&self, total: usize) {
        assert!(self.nothing > 50 && self.printed > 0 && self.printed_and_accepted > 0, "{self:?}");
        assert_eq!(self.nothing + self.printed + self.printed_and_accepted, total);
        println!("{total} points: {self:?}");
    }
}

/// The next commands of the admin whose process was killed: nothing has to be repaired first.
fn goes_on(host: &Host, at: &str) {
    let refreshed = host.apikey(&["refresh", "alice", "--yes"]).run();
    assert_eq!(refreshed.status, 0, "{at}: {refreshed:?}");
    let created = host.apikey(&["create", "carol"]).run();
    assert_eq!(created.status, 0, "{at}: {created:?}");
    let left = accepted(&host.database());
    for outcome in [refreshed, created] {
        assert!(left.contains(&printed(&outcome).unwrap()), "{at}: {outcome:?}");
    }
}

/// bob and alice have a key each.
fn bob_and_alice() -> (Host, String, String) {
    let (host, bob) = Host::with_key_of("bob");
    let alice = host.key_from(&["create", "alice"]);
    (host, bob, alice)
}

#[test]
#[ignore = "needs strace"]
fn a_first_create_that_is_killed_leaves_no_accepted_key_that_was_not_printed() {
    let mut tally = Tally::default();
    let total = kill_at_each_call(Host::new, &["create", "alice"], |host, outcome, at| {
        tally.add(host, outcome, &[], None, at);
        goes_on(host, at);
    });
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs strace"]
fn a_create_that_is_killed_leaves_no_accepted_key_that_was_not_printed() {
    let (before, bob) = Host::with_key_of("bob");
    let mut tally = Tally::default();
    let total = kill_at_each_call(
        || before.copy(),
        &["create", "alice"],
        |host, outcome, at| {
            tally.add(host, outcome, &[&bob], None, at);
            goes_on(host, at);
        },
    );
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_that_is_killed_leaves_the_old_key_accepted_or_the_new_one_that_was_printed() {
    let (before, bob, alice) = bob_and_alice();
    let mut tally = Tally::default();
    let total = kill_at_each_call(
        || before.copy(),
        &["refresh", "alice", "--yes"],
        |host, outcome, at| {
            tally.add(host, outcome, &[&bob], Some(&alice), at);
            goes_on(host, at);
        },
    );
    tally.assert_is_complete(total);
}
