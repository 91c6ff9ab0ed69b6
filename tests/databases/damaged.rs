//! Databases that are damaged.

use std::fs::{self, OpenOptions};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::Host;
use crate::{COMMANDS, host_without_log, outcome_of};

#[test]
fn a_database_that_was_cut_off_is_found_out_and_left_as_it_is() {
    let (whole, key) = host_without_log(30);
    let content = fs::read(whole.database()).unwrap();
    let pages = content.len() / 4096;
    assert!(pages >= 6, "{pages}");
    let near_pages = (1..=pages).flat_map(|page| [page * 4096 - 1, page * 4096, page * 4096 + 1]);
    let sizes = [0, 1, 15, 16, 18, 50, 99, 100, 101, 512, 2000].into_iter().chain(near_pages);
    in_parallel(sizes.filter(|size| *size < content.len()).collect(), |size| {
        let host = Host::new();
        host.write("keys.db", &content[..*size]);
        for args in COMMANDS {
            let outcome = outcome_of(&host, args, &key);
            assert!([1, 6].contains(&outcome.status), "{size}: {args:?}: {outcome:?}");
            assert!(fs::read(host.database()).unwrap() == content[..*size], "{size}: {args:?}");
        }
    });
}

#[test]
fn a_database_that_lacks_its_last_byte_is_damaged() {
    let (host, _) = host_without_log(1);
    let file = OpenOptions::new().write(true).open(host.database()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let before = fs::read(host.database()).unwrap();
    for args in COMMANDS {
        let outcome = outcome_of(&host, args, "x");
        assert_eq!((outcome.status, outcome.code().as_str()), (1, "DB_ERROR"), "{args:?}");
    }
    assert!(fs::read(host.database()).unwrap() == before);
}

#[test]
fn a_page_that_makes_no_sense_is_damage_and_a_backup_is_what_helps() {
    let (host, _) = host_without_log(1);
    let mut content = fs::read(host.database()).unwrap();
    content[4096..8192].fill(7);
    host.write("keys.db", &content);
    host.apikey(&["list"]).fails(
        1,
        "apikey: <folder>/keys.db is damaged: database disk image is malformed\nrestore it from a backup\n",
    );
}

#[test]
fn a_log_that_was_cut_off_holds_what_was_committed_before_the_cut() {
    let (host, first) = host_without_log(1);
    host.key_from(&["create", "bob"]);
    let second = host.key_from(&["refresh", "alice", "--yes"]);
    let (database, log) = (fs::read(host.database()).unwrap(), fs::read(host.path("keys.db-wal")).unwrap());
    let sizes =
        [0, 1, 31, 32, 33, 55, 56, 57].into_iter().chain((100..=log.len()).step_by(499)).chain([log.len()]);
    in_parallel(sizes.collect(), |size| {
        let host = Host::new();
        host.write("keys.db", &database);
        host.write("keys.db-wal", &log[..*size]);
        let statuses = (host.status_of(&first), host.status_of(&second));
        let statuses = (statuses.0.as_str(), statuses.1.as_str());
        let whole = *size == log.len();
        assert!(
            statuses == if whole { ("revoked", "active") } else { ("active", "unknown") },
            "{size}: {statuses:?}"
        );
        assert_eq!(host.apikey(&["refresh", "alice", "--yes"]).run().status, 0, "{size}");
        assert_eq!(host.apikey(&["show", "alice"]).run().status, 0, "{size}");
    });
}

#[test]
fn a_flipped_bit_is_no_reason_to_panic_or_to_hang() {
    let (whole, key) = host_without_log(30);
    let content = fs::read(whole.database()).unwrap();
    // All of the header, the start of every page, and a sample of the rest.
    let header = 0..108;
    let page_starts = (1..content.len() / 4096).flat_map(|page| (0..8).map(move |byte| page * 4096 + byte));
    let sample = (108..content.len()).step_by(397);
    in_parallel(header.chain(page_starts).chain(sample).collect(), |position| {
        let host = Host::new();
        let mut flipped = content.clone();
        flipped[*position] ^= 1 << (position % 8);
        host.write("keys.db", &flipped);
        let args = [&["list", "--all"][..], &["verify"], &["show", "alice"]][position % 3];
        outcome_of(&host, args, &key);
        let written = outcome_of(&host, &["refresh", "alice", "--yes"], "");
        if [6, 7].contains(&written.status) {
            assert!(fs::read(host.database()).unwrap() == flipped, "{position}: {written:?}");
        }
    });
}

/// Calls `test` with each of `cases`, some at a time.
fn in_parallel<T: Sync>(cases: Vec<T>, test: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    test(case);
                }
            });
        }
    });
}

#[test]
fn an_index_that_is_damaged_for_one_user_keeps_nobody_else_from_theirs() {
    // Its key is to be made the active one, or to be given up.
    for spoil in ["", "UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE status = 'pending';"] {
        let host = Host::new();
        let create = ["create", "web", "-q", "--key-file", "web.key", "--renew-after", "30d"];
        host.apikey(&create).gives(0, "", "");
        assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
        host.execute(&format!("{spoil} UPDATE settings SET reload_pending = 0"));
        let number = |sql: &str| host.sqlite().query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'due_keys'") as usize;
        number("PRAGMA wal_checkpoint(TRUNCATE)");
        let mut content = fs::read(host.database()).unwrap();
        let index = &mut content[(page - 1) * 4096..page * 4096];
        let due = index.windows(3).rposition(|bytes| bytes == b"202" || bytes == b"203").unwrap();
        index[due + 3] ^= 1;
        host.write("keys.db", &content);
        for args in ["create bob", "refresh bob -y", "edit bob --name x", "ensure carl --key-file carl.key"] {
            let outcome = host.apikey(&args.split(' ').collect::<Vec<_>>()).run();
            assert_eq!(outcome.status, 0, "{args}: {outcome:?}");
            assert!(outcome.stderr.contains(" of web is accepted, and still on its way to "), "{outcome:?}");
        }
        let refused = host.apikey(&["refresh", "web", "-y"]).run();
        assert_eq!(refused.status, 9, "{refused:?}");
        host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
        assert_eq!(host.accepted(), 2);
    }
}

#[test]
fn two_active_keys_of_one_user_are_no_reason_to_panic() {
    let (host, first) = Host::with_key_of("alice");
    let second = host.key_from(&["create", "bob"]);
    // The index that forbids it is there to the letter, but has not heard of the change.
    host.execute(
        "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'one_active_key';
         PRAGMA writable_schema = ON;
         DELETE FROM sqlite_schema WHERE name = 'one_active_key';",
    );
    host.execute("UPDATE keys SET user = 'alice'");
    host.execute("PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM kept");
    host.execute("DROP TABLE kept");
    for key in [&first, &second] {
        assert_eq!(host.status_of(key), "active");
    }
    let listed = host.apikey(&["list", "alice", "--json"]).run().json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    for args in COMMANDS {
        outcome_of(&host, args, &first);
    }
}

#[test]
fn a_row_that_the_table_forbids_is_not_accepted_is_named_by_doctor_and_ended_by_a_revocation() {
    for row in [
        "status = 'active', revoked_at = '2026-01-01T00:00:00.000Z'",
        "status = 'pending', revoked_at = '2026-01-01T00:00:00.000Z'",
        "status = 'active', revoked_at = '2999-01-01T00:00:00.000Z'",
        "status = 'retiring', revoked_at = NULL",
    ] {
        let (host, key) = Host::with_key_of("alice");
        host.execute(&format!("PRAGMA ignore_check_constraints = ON; UPDATE keys SET {row}"));
        let verdict = host.apikey(&["verify", "--json"]).input(&*key).run();
        assert_eq!((verdict.status, verdict.code().as_str()), (1, "DB_ERROR"), "{row}: {verdict:?}");
        let checked = host.apikey(&["doctor"]).run();
        let named = format!("1 key ({}) and 0 events that are stored make no sense", &key[..15]);
        assert!(checked.status == 11 && checked.stdout.contains(&named), "{row}: {checked:?}");
        host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
        assert_eq!((host.status_of(&key).as_str(), host.accepted()), ("revoked", 0), "{row}");
    }
}

#[test]
fn a_log_or_an_index_of_garbage_loses_no_key_that_is_in_the_database() {
    for name in ["keys.db-wal", "keys.db-shm"] {
        let (host, key) = host_without_log(1);
        host.write(name, &[7; 5000]);
        host.chmod(name, 0o600);
        assert_eq!(host.status_of(&key), "active", "{name}");
        host.apikey(&["create", "bob", "--quiet"]).gives(0, "<key>\n", "");
        assert_eq!(host.accepted(), 2, "{name}");
    }
}
