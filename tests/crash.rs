//! What is left when the program is killed, and when the kernel fails it, at any system call.

mod common;

use std::cell::RefCell;
use std::fs;

use common::Host;
use common::aftermath::{Tally, accepted, goes_on, hash_of, printed};
use common::strace::{Call, Fault, at_each_call, kill_at_each_call};
use common::verifier::Verifier;
use rusqlite::{Connection, OpenFlags};

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
        tally.add(&host.database(), outcome, &[], None, at);
        goes_on(&host.database(), at);
    });
    tally.assert_is_complete(total);
}

/// `create alice`, killed anywhere on a copy of `before`, where bob has a key.
fn kill_create_at_each_call(before: &Host, bob: &str) {
    let mut tally = Tally::default();
    let total = kill_at_each_call(
        || before.copy(),
        &["create", "alice"],
        |host, outcome, at| {
            tally.add(&host.database(), outcome, &[bob], None, at);
            goes_on(&host.database(), at);
        },
    );
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs strace"]
fn a_create_that_is_killed_leaves_no_accepted_key_that_was_not_printed() {
    let (before, bob) = Host::with_key_of("bob");
    kill_create_at_each_call(&before, &bob);
}

#[test]
#[ignore = "needs strace"]
fn a_create_that_is_killed_on_a_database_without_a_log_leaves_none_either() {
    let (original, bob) = Host::with_key_of("bob");
    let before = Host::new();
    original.execute(&format!("VACUUM INTO '{}'", before.database().display()));
    kill_create_at_each_call(&before, &bob);
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
            tally.add(&host.database(), outcome, &[&bob], Some(&alice), at);
            goes_on(&host.database(), at);
        },
    );
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs root and strace"]
fn who_may_only_read_can_verify_whenever_a_create_is_killed() {
    let verifier = Verifier::new();
    let (before, bob) = Host::with_key_of("bob");
    before.let_all_read();
    kill_at_each_call(
        || before.copy(),
        &["create", "alice"],
        |host, outcome, at| {
            assert!(verifier.accepts(&host.database(), &bob, at), "{at}");
            if let Some(key) = outcome.stdout.strip_suffix('\n') {
                let verified = verifier.accepts(&host.database(), key, at);
                assert_eq!(verified, accepted(&host.database()).contains(&hash_of(key)), "{at}");
            }
        },
    );
}

#[test]
#[ignore = "needs root and strace"]
fn who_may_only_read_can_verify_whenever_a_refresh_is_killed() {
    let verifier = Verifier::new();
    let (before, bob, alice) = bob_and_alice();
    before.let_all_read();
    let refresh = ["refresh", "alice", "--yes"];
    kill_at_each_call(
        || before.copy(),
        &refresh,
        |host, outcome, at| {
            assert!(verifier.accepts(&host.database(), &bob, at), "{at}");
            let old = verifier.accepts(&host.database(), &alice, at);
            let new = outcome
                .stdout
                .strip_suffix('\n')
                .is_some_and(|key| verifier.accepts(&host.database(), key, at));
            assert!(old != new, "{at}: the old key is accepted: {old}, and the new one: {new}");
        },
    );
}

/// The state before a refresh that moves the log to the database, and the one after such a refresh,
/// when the log is written from its start again.
#[test]
#[ignore = "needs root and strace"]
fn a_refresh_that_is_killed_while_it_moves_or_restarts_the_log_leaves_one_of_the_keys_accepted() {
    let verifier = Verifier::new();
    let (before, bob, mut alice) = bob_and_alice();
    before.let_all_read();
    let refresh = ["refresh", "alice", "--yes"];
    let moves_the_log = || before.copy().traced(&refresh, |run| run).count(&["fsync"]) > 2;
    while !moves_the_log() {
        alice = before.key_from(&refresh);
    }
    for _ in 0..2 {
        let mut tally = Tally::default();
        let total = kill_at_each_call(
            || before.copy(),
            &refresh,
            |host, outcome, at| {
                let database = host.database();
                let took_hold = tally.add(&database, outcome, &[&bob], Some(&alice), at);
                assert!(verifier.accepts(&database, &bob, at), "{at}");
                assert_eq!(verifier.accepts(&database, &alice, at), !took_hold, "{at}");
                goes_on(&database, at);
            },
        );
        tally.assert_is_complete(total);
        alice = before.key_from(&refresh);
    }
}

/// What may well go wrong at each call, from the first that is the program's own: before it, it is
/// the loader and Rust's runtime that give up. SQLite never lets the kernel wait for a lock, so
/// nothing interrupts an `fcntl`.
fn errors() -> impl FnMut(&Call) -> Vec<Fault> {
    const NEED_SPACE: &str = "openat write pwrite64 ftruncate fsync rename mmap fchmod close";
    const ARE_INTERRUPTED: &str = "openat read pread64 write pwrite64 ftruncate fsync flock close";
    const TRANSFER: &str = "read pread64 write pwrite64";
    let mut begun = false;
    move |call| {
        let is_one_of = |names: &str| names.split(' ').any(|name| name == call.name);
        begun |= call.name == "prctl";
        let mut faults = Vec::new();
        if begun {
            faults.push(Fault::Error("EIO"));
        }
        if begun && is_one_of(NEED_SPACE) {
            faults.push(Fault::Error("ENOSPC"));
        }
        if begun && is_one_of(ARE_INTERRUPTED) {
            faults.push(Fault::Error("EINTR"));
        }
        // strace makes a call return less without doing that less. Of nothing that is true.
        if begun && is_one_of(TRANSFER) {
            faults.push(Fault::Return(0));
        }
        faults
    }
}

/// With an error at any call: a status of 0 says that the new key is accepted, any other that it is
/// not. `beside` keeps the database open meanwhile, as a service does, where it is to.
fn answers_truly(
    before: &Host,
    command: &[&str],
    others: &[&str],
    old: Option<&str>,
    beside: fn(&Host) -> Option<Connection>,
) {
    let mut tally = Tally::default();
    let service = RefCell::new(None);
    let prepare = || {
        let host = before.copy();
        service.replace(beside(&host));
        host
    };
    // A lock that could not be let go of is waited for, by the very process that holds it.
    let command = [command, &["--timeout", "100ms"]].concat();
    let total = at_each_call(prepare, &command, errors(), |host, outcome, at| {
        let took_hold = tally.add(&host.database(), outcome, others, old, at);
        assert_eq!(outcome.status == 0, took_hold, "{at}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{at}: {outcome:?}");
        // The first to open the database when all have closed it reads the log from its start.
        if service.take().is_some() {
            let at = format!("{at}, once the service is gone");
            let holds = Tally::default().add(&host.database(), outcome, others, old, &at);
            assert_eq!(holds, took_hold, "{at}: {outcome:?}");
        }
        goes_on(&host.database(), at);
    });
    tally.assert_is_complete(total);
}

/// A connection of somebody who only reads.
fn reader(host: &Host) -> Option<Connection> {
    let sqlite = Connection::open_with_flags(host.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    sqlite.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0)).unwrap();
    Some(sqlite)
}

#[test]
#[ignore = "needs strace"]
fn a_first_create_exits_0_exactly_where_its_key_is_accepted_whatever_fails() {
    answers_truly(&Host::new(), &["create", "alice"], &[], None, |_| None);
}

#[test]
#[ignore = "needs strace"]
fn a_create_exits_0_exactly_where_its_key_is_accepted_whatever_fails() {
    let (before, bob) = Host::with_key_of("bob");
    answers_truly(&before, &["create", "alice"], &[&bob], None, |_| None);
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_exits_0_exactly_where_its_key_is_accepted_whatever_fails() {
    let (before, bob, alice) = bob_and_alice();
    answers_truly(&before, &["refresh", "alice", "--yes"], &[&bob], Some(&alice), |_| None);
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_answers_truly_whatever_fails_while_a_service_keeps_the_database_open() {
    let (before, bob, alice) = bob_and_alice();
    answers_truly(&before, &["refresh", "alice", "--yes"], &[&bob], Some(&alice), reader);
}

/// Has the database look as one that Litestream replicates.
fn replicated((before, bob, alice): (Host, String, String)) -> (Host, String, String) {
    before.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)");
    // The header of a new log is put on the disk before its first frame is written.
    before.apikey(&["edit", "bob", "--name", "laptop", "-q"]).gives(0, "", "");
    (before, bob, alice)
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_answers_truly_whatever_fails_where_litestream_replicates_the_database() {
    let (before, bob, alice) = replicated(bob_and_alice());
    answers_truly(&before, &["refresh", "alice", "--yes"], &[&bob], Some(&alice), reader);
}

/// A replica may have all that was written to the log.
#[test]
#[ignore = "needs strace"]
fn where_litestream_replicates_a_refresh_that_was_killed_took_hold_once_all_of_it_was_written() {
    let (before, bob, alice) = replicated(bob_and_alice());
    let (mut tally, service) = (Tally::default(), RefCell::new(None));
    let prepare = || {
        let host = before.copy();
        service.replace(reader(&host));
        host
    };
    let (mut published, mut is_written) = (0, false);
    let total = kill_at_each_call(prepare, &["refresh", "alice", "--yes"], |host, outcome, at| {
        let is_accepted = |key: &str| accepted(&host.database()).contains(&hash_of(key));
        let was_published = !is_accepted(&alice);
        assert_eq!(host.apikey(&["show", "bob"]).run().status, 0, "{at}");
        let took_hold = tally.add(&host.database(), outcome, &[&bob], Some(&alice), at);
        published += usize::from(took_hold && !was_published);
        is_written |= at.contains(" fsync ");
        assert_eq!(took_hold, is_written, "{at}: {outcome:?}");
        service.take();
        goes_on(&host.database(), at);
    });
    assert!(published > 0, "the test proves nothing");
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs strace"]
fn a_revoke_exits_0_exactly_where_the_key_is_revoked_whatever_fails() {
    let (before, bob, alice) = bob_and_alice();
    let command = ["revoke", "alice", "--yes", "--timeout", "100ms"];
    at_each_call(
        || before.copy(),
        &command,
        errors(),
        |host, outcome, at| {
            let left = accepted(&host.database());
            assert!(left.contains(&hash_of(&bob)), "{at}: {outcome:?}");
            assert_eq!(outcome.status == 0, !left.contains(&hash_of(&alice)), "{at}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked"), "{at}: {outcome:?}");
            goes_on(&host.database(), at);
        },
    );
}

#[test]
#[ignore = "needs strace"]
fn a_revoke_that_is_killed_can_be_run_again() {
    let (before, bob, alice) = bob_and_alice();
    let (mut revoked, mut not_revoked) = (0, 0);
    kill_at_each_call(
        || before.copy(),
        &["revoke", "alice", "--yes"],
        |host, _, at| {
            let done = !accepted(&host.database()).contains(&hash_of(&alice));
            let again = host.apikey(&["revoke", "alice", "--yes"]).run();
            assert_eq!(again.status, if done { 4 } else { 0 }, "{at}: {again:?}");
            assert_eq!(accepted(&host.database()), [hash_of(&bob)].into(), "{at}");
            *(if done { &mut revoked } else { &mut not_revoked }) += 1;
        },
    );
    assert!(revoked > 0 && not_revoked > 0, "{revoked} and {not_revoked}");
}

/// After an fsync that failed, the next one does not write the same again: fsync(2).
#[test]
#[ignore = "needs strace"]
fn a_key_whose_log_could_not_be_synced_is_in_the_database_itself() {
    let (host, _) = Host::with_key_of("bob");
    let commit = Call { name: "fsync".into(), number: 1 };
    let outcome = host.with_fault(&["create", "alice"], &commit, Fault::Error("EIO")).unwrap();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let without_log = Host::new();
    without_log.write("keys.db", &fs::read(host.database()).unwrap());
    assert!(accepted(&without_log.database()).contains(&printed(&outcome).unwrap()));
}

#[test]
#[ignore = "needs strace"]
fn a_key_that_standard_output_takes_a_part_of_is_not_issued() {
    let (before, _, alice) = bob_and_alice();
    let first_write = Call { name: "write".into(), number: 1 };
    for command in [&["create", "carol"][..], &["refresh", "alice", "--yes"]] {
        let host = before.copy();
        let outcome = host.with_fault(command, &first_write, Fault::Return(10)).unwrap();
        assert_eq!(outcome.status, 8, "{outcome:?}");
        assert!(outcome.stderr.contains("only a part of the key was taken"), "{outcome:?}");
        assert!(accepted(&host.database()).len() == 2 && host.status_of(&alice) == "active");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_fault_that_does_not_happen_is_noticed() {
    let (host, _) = Host::with_key_of("bob");
    let never = Call { name: "fsync".into(), number: 100 };
    for fault in [Fault::Kill, Fault::Error("EIO"), Fault::Return(0)] {
        assert!(host.with_fault(&["list"], &never, fault).is_none(), "{fault:?}");
    }
}
