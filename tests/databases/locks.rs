//! Locks on the index of the log, which whoever may read the database can take and keep.

use std::fs::File;
use std::thread;
use std::time::Duration;

use crate::common::locks::{Lock, lock_file, lock_file_as_nobody};
use crate::common::{Host, Outcome, ends_within};
use crate::{WRITING, host_without_log, this_process};

const READING: [&[&str]; 4] = [&["show", "alice"], &["list"], &["list", "--all", "--json"], &["verify"]];

/// A host with a database of this name, the key that alice had, and the one that she has.
fn host_with(name: &str) -> (Host, String, String) {
    let host = Host::new();
    let old = host.key_from(&["create", "alice", "--db", name]);
    let new = host.key_from(&["refresh", "alice", "--yes", "--db", name]);
    (host, old, new)
}

fn run(host: &Host, name: &str, args: &[&str], key: &str) -> Outcome {
    host.apikey(&[args, &["--timeout", "200ms", "--db", name]].concat()).input(key).run()
}

#[test]
fn a_lock_on_the_index_keeps_nobody_from_reading_where_nobody_else_has_the_database_open() {
    // SQLite tries for ten seconds, whatever the timeout: all of it at once, on a database each.
    thread::scope(|scope| {
        for (name, first, count) in
            [("keys.db", 120, 1), ("keys.db", 121, 1), ("keys.db", 122, 1), ("a b%20c?d#é.db", 120, 3)]
        {
            let reads_revoked = [(&["verify"][..], true, 5)];
            let reads = READING.map(|args| (args, false, 0));
            let writes = WRITING.map(|args| (args, false, 6));
            for (args, is_revoked, status) in reads.into_iter().chain(reads_revoked).chain(writes) {
                scope.spawn(move || {
                    let (host, old, new) = host_with(name);
                    let _lock = lock_file(&host.path(&format!("{name}-shm")), Lock::Read, first, count);
                    let names = host.names();
                    let outcome = run(&host, name, args, if is_revoked { &old } else { &new });
                    assert_eq!(outcome.status, status, "{first} {args:?}: {outcome:?}");
                    assert_eq!(host.names(), names, "who may only read needs the side files");
                    match status {
                        0 => assert!(outcome.stdout.contains(&new[..15]), "{args:?}: {outcome:?}"),
                        6 => {
                            let says = format!("{name} is locked by {}\n", this_process());
                            assert!(outcome.stderr.contains(&says), "{first} {args:?}: {outcome:?}");
                        }
                        _ => {}
                    }
                });
            }
        }
    });
}

#[test]
fn a_lock_on_the_index_is_waited_for_as_long_as_was_asked_where_somebody_has_the_database_open() {
    let (host, old, new) = host_with("keys.db");
    let service = host.sqlite();
    let accepted = || service.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0));
    assert_eq!(accepted(), Ok(1));
    let lock = lock_file(&host.path("keys.db-shm"), Lock::Read, 120, 3);
    let ends = ends_within(Duration::from_secs(8), || {
        for args in READING {
            let outcome = run(&host, "keys.db", args, &new);
            assert_eq!((outcome.status, &*outcome.stderr), (0, ""), "{args:?}: {outcome:?}");
            assert!(outcome.stdout.contains(&new[..15]), "{args:?}: {outcome:?}");
        }
        assert_eq!(run(&host, "keys.db", &["verify"], &old).status, 5, "a revoked key");
        for args in WRITING {
            let json = [args, &["--json"]].concat();
            let outcome = run(&host, "keys.db", &json, "");
            assert_eq!((outcome.status, &*outcome.code()), (6, "DB_LOCKED"), "{args:?}: {outcome:?}");
        }
    });
    assert!(ends, "one of them took SQLite's own ten seconds");
    assert_eq!(accepted(), Ok(1));
    // Closing it ends the service's locks too: both are of this process.
    drop((service, lock));
    host.key_from(&["create", "bob"]);
}

/// That the database is locked, and by whom.
fn locked_by(holder: &str) -> String {
    format!("apikey: <folder>/keys.db is locked by {holder}\ntry again, or wait longer with --timeout\n")
}

/// SQLite's first lock on the database itself, and the one behind those that are shared:
/// <https://sqlite.org/lockingv3.html>.
const PENDING: i64 = 0x4000_0000;
const SHARED: i64 = PENDING + 2;

#[test]
fn who_locks_the_database_itself_or_shares_the_lock_of_writers_is_named() {
    let (host, _) = host_without_log(1);
    let lock = lock_file(&host.database(), Lock::Write, PENDING, 512);
    for args in [&["list", "--timeout", "0s"][..], &["create", "bob", "--timeout", "0s"]] {
        host.apikey(args).fails(6, locked_by(&this_process()));
    }
    drop(lock);
    let lock = File::open(host.path("keys.db-lock")).unwrap();
    lock.lock_shared().unwrap();
    host.apikey(&["create", "bob", "--timeout", "0s"]).fails(6, locked_by(&this_process()));
}

#[test]
fn who_only_reads_a_database_or_locks_another_file_is_not_said_to_keep_others_from_it() {
    let (host, _) = host_without_log(1);
    host.write("other", b"");
    let _other = lock_file(&host.path("other"), Lock::Write, 0, 0);
    let _reader = lock_file(&host.database(), Lock::Read, SHARED, 510);
    let _holder = lock_file_as_nobody(&host.database(), Lock::Write, PENDING, 1);
    host.apikey(&["list", "--timeout", "0s"]).fails(6, locked_by("another process"));
}
