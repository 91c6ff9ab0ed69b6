//! The index of the log after a boot: an old one, which somebody's lock would have SQLite believe.
//!
//! What the disk holds after a power cut is put together by hand here; `tests/disk.rs` cuts the power.

use std::fs::{self, OpenOptions};
use std::time::{Duration, Instant};

use crate::common::locks::{Lock, lock_index};
use crate::common::{APIKEY, Host};
use crate::this_process;

const ANOTHER_BOOT: &str = "01234567-89ab-4cde-8f01-23456789abcd\n";

fn this_boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()
}

/// A host as a power cut leaves it that comes after alice's key was revoked: the index on the disk is of the
/// time before. `boot` is the one that was noted last.
fn after_power_cut(boot: &str) -> (Host, String) {
    let (host, key) = Host::with_key_of("alice");
    host.key_from(&["create", "bob"]);
    let old_index = fs::read(host.path("keys.db-shm")).unwrap();
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    host.write("keys.db-shm", &old_index);
    host.write("keys.db-lock", boot.as_bytes());
    (host, key)
}

#[test]
fn a_key_that_was_revoked_before_a_power_cut_stays_refused_although_somebody_locks_the_index() {
    for byte in [Some(128), None] {
        let (host, key) = after_power_cut(ANOTHER_BOOT);
        let _lock = byte.map(|byte| lock_index(&host, Lock::Read, byte, 1));
        assert_eq!(host.status_of(&key), "revoked", "{byte:?}");
        assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), this_boot());
        let bob = host.key_from(&["refresh", "bob", "--yes"]);
        assert_eq!((host.status_of(&key), host.status_of(&bob)), ("revoked".into(), "active".into()));
    }
    // Each command that may write does it, and not verify alone.
    for args in [&["show", "bob"][..], &["list"], &["create", "carol"], &["revoke", "bob", "--yes"]] {
        let (host, key) = after_power_cut(ANOTHER_BOOT);
        let _lock = lock_index(&host, Lock::Read, 128, 1);
        assert_eq!(host.apikey(args).run().status, 0);
        assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), this_boot(), "{args:?}");
        assert_eq!(host.status_of(&key), "revoked", "{args:?}");
    }
    // So would it be without that: what is noted as of this boot is believed.
    let (host, key) = after_power_cut(&this_boot());
    let _lock = lock_index(&host, Lock::Read, 128, 1);
    assert_eq!(host.status_of(&key), "active", "the test proves nothing");
}

#[test]
fn who_has_the_database_open_while_its_index_is_made_anew_goes_on_with_right_answers() {
    let (host, old) = Host::with_key_of("alice");
    let service = host.sqlite();
    let count = || service.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0));
    service.execute_batch("BEGIN").unwrap();
    assert_eq!(count(), Ok(1));
    host.write("keys.db-lock", ANOTHER_BOOT.as_bytes());
    let new = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.key_from(&["create", "bob"]);
    assert_eq!(count(), Ok(1), "what it had begun to look at has changed");
    service.execute_batch("COMMIT").unwrap();
    assert_eq!(count(), Ok(3));
    host.write("keys.db-lock", ANOTHER_BOOT.as_bytes());
    service.execute("UPDATE keys SET name = 'a service wrote it'", []).unwrap();
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    assert_eq!(count(), Ok(1));
    assert_eq!((host.status_of(&old), host.status_of(&new)), ("revoked".into(), "revoked".into()));
    let integrity: String = service.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

#[test]
fn where_the_index_cannot_be_made_anew_for_a_lock_the_database_is_not_opened() {
    let (host, key) = after_power_cut(ANOTHER_BOOT);
    let _locks = (lock_index(&host, Lock::Read, 128, 1), lock_index(&host, Lock::Read, 120, 1));
    for timeout in ["0s", "300ms"] {
        for args in [&["verify"][..], &["show", "bob"], &["create", "carol"]] {
            let start = Instant::now();
            let outcome = host.apikey(&[args, &["--timeout", timeout, "--json"]].concat()).input(&*key).run();
            assert_eq!((outcome.status, outcome.code().as_str()), (6, "DB_LOCKED"), "{args:?}: {outcome:?}");
            assert!(timeout == "0s" || start.elapsed() >= Duration::from_millis(290));
            assert!(outcome.stderr.contains(&format!("is locked by {}", this_process())), "{outcome:?}");
        }
    }
    assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), ANOTHER_BOOT);
}

#[test]
fn where_there_is_no_index_or_only_a_part_of_one_the_boot_is_noted_all_the_same() {
    for length in [None, Some(0), Some(3), Some(100)] {
        let (host, key) = Host::with_key_of("alice");
        host.write("keys.db-lock", ANOTHER_BOOT.as_bytes());
        let index = OpenOptions::new().write(true).open(host.path("keys.db-shm")).unwrap();
        match length {
            Some(length) => index.set_len(length).unwrap(),
            None => fs::remove_file(host.path("keys.db-shm")).unwrap(),
        }
        assert_eq!(host.status_of(&key), "active", "{length:?}");
        assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), this_boot());
    }
}

#[test]
fn an_index_that_may_only_be_read_is_no_failure_and_nothing_is_noted() {
    let (host, key) = after_power_cut(ANOTHER_BOOT);
    host.chmod("keys.db-shm", 0o400);
    assert_eq!(host.apikey_unprivileged(&["list"]).run().status, 0);
    let outcome = host.apikey_unprivileged(&["verify", "--json"]).input(&*key).run();
    assert_eq!(outcome.json()["status"], "revoked", "{outcome:?}");
    assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), ANOTHER_BOOT);
}

#[test]
#[ignore = "needs strace"]
fn where_the_index_cannot_be_opened_it_is_not_believed() {
    let (host, key) = after_power_cut(ANOTHER_BOOT);
    let _lock = lock_index(&host, Lock::Read, 128, 1);
    let index = fs::canonicalize(host.path("keys.db-shm")).unwrap();
    let trace = host.path("trace");
    let [index, trace] = [&index, &trace].map(|path| path.to_str().unwrap());
    let fault = ["-f", "-o", trace, "-P", index, "-e", "inject=openat:error=EIO:when=1", APIKEY, "verify"];
    let outcome = host.program("/usr/bin/strace", &fault).input(&*key).run();
    assert!(fs::read_to_string(host.path("trace")).unwrap().contains("(INJECTED)"), "{outcome:?}");
    assert_eq!((outcome.status, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.starts_with("apikey: cannot make anew "), "{outcome:?}");
}

#[test]
fn a_note_that_is_long_gone_or_something_else_is_replaced_and_one_that_cannot_be_written_is_no_failure() {
    let (host, key) = Host::with_key_of("alice");
    for note in ["", "short", &"long".repeat(1000)] {
        host.write("keys.db-lock", note.as_bytes());
        assert_eq!(host.status_of(&key), "active");
        assert_eq!(fs::read_to_string(host.path("keys.db-lock")).unwrap(), this_boot());
    }
    host.write("keys.db-lock", ANOTHER_BOOT.as_bytes());
    host.chmod("keys.db-lock", 0o400);
    for args in [&["show", "alice"][..], &["list"]] {
        assert_eq!(host.apikey_unprivileged(args).run().status, 0);
    }
    assert_eq!(host.mode("keys.db-lock"), 0o400);
}
