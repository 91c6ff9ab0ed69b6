//! Replicas that Litestream keeps up, and the database that it replicates, as they look without it;
//! `tests/litestream.rs` has the real one.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, UNIX_EPOCH};

use apikey::{Timestamp, Verdict, Verifier};

use crate::common::Host;
use crate::common::locks::{Lock, lock_file};

const PAGE: usize = 4096;

/// A host with a replica, in which alice has a key, and web one in a file that is due; and alice's.
fn replica() -> (Host, String) {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["ensure", "web", "-q", "--key-file", "web.key", "--renew-after", "1ms"]).gives(0, "", "");
    host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
    for name in ["keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        fs::remove_file(host.path(name)).unwrap();
    }
    fs::rename(host.path("copy.db"), host.database()).unwrap();
    host.write("keys.db-txid", b"0000000000000001\n");
    (host, key)
}

/// Has the header say that the database has a log, or none.
fn say_log(host: &Host, version: u8) {
    let file = File::options().write(true).open(host.database()).unwrap();
    file.write_all_at(&[version, version], 18).unwrap();
}

fn refusal(why: &str, what_to_do: &str) -> String {
    format!("apikey: <folder>/keys.db is a replica that {why}\n{what_to_do}\n")
}

const READING: [&[&str]; 8] = [
    &["show", "alice"],
    &["list", "--all"],
    &["verify"],
    &["log"],
    &["doctor"],
    &["renew", "--dry-run"],
    &["prune", "--ended-for", "1d", "--dry-run"],
    &["ensure", "web", "--check"],
];

const WRITING: [&[&str]; 9] = [
    &["create", "bob"],
    &["refresh", "alice", "-y"],
    &["refresh", "alice", "-y", "--revoke-first"],
    &["revoke", "alice", "-y"],
    &["edit", "alice", "--name", "other"],
    &["ensure", "bob", "--key-file", "bob.key"],
    &["ensure", "web"],
    &["renew"],
    &["create", "bob", "--key-file", "bob.key"],
];

#[test]
fn a_replica_is_only_read_whoever_runs_it() {
    let (host, key) = replica();
    let before = (host.names(), host.contents());
    for args in READING {
        let outcome = host.apikey(args).input(&*key).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
        assert!((host.names(), host.contents()) == before, "{args:?} changed something");
    }
    let hint = "run this on the host of the original; where this is to be the original, stop Litestream and \
                remove <folder>/keys.db-txid";
    for args in WRITING {
        host.apikey(args).fails(6, refusal("may not be written", hint));
        assert!((host.names(), host.contents()) == before, "{args:?} changed something");
    }
    let outcome = host.apikey(&["revoke", "alice", "-y", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "DB_UNAVAILABLE"));
    let copy = Host::new();
    let path = copy.path("copy.db");
    assert_eq!(host.apikey(&["backup", path.to_str().unwrap()]).run().status, 0);
    assert!((host.names(), host.contents()) == before, "backup changed something");
}

#[test]
fn who_reads_a_list_slowly_keeps_nobody_from_a_replica() {
    let (host, _) = replica();
    fs::remove_file(host.path("keys.db-txid")).unwrap();
    // More than a pipe holds.
    host.execute(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)
         INSERT INTO keys SELECT prefix + n, randomblob(32), id, 'user' || n, NULL, 'active', NULL, NULL, NULL
         FROM keys, numbers WHERE user = 'alice'",
    );
    host.execute(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)
         INSERT INTO events (at, event, user, uid) SELECT at, event, user, uid FROM events, numbers",
    );
    host.write("keys.db-txid", b"0000000000000001\n");
    let [mut list, mut log] = ["list", "log"].map(|command| host.apikey(&[command]).spawn());
    // As much as makes them wait.
    for reading in [&mut list, &mut log] {
        reading.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    }
    // SQLite's lock, as Litestream takes it: the pending byte, and those that are shared.
    drop(lock_file(&host.database(), Lock::Write, 0x4000_0000, 512));
    for mut reading in [list, log] {
        let mut read = Vec::new();
        reading.stdout.as_mut().unwrap().read_to_end(&mut read).unwrap();
        assert!(read.len() > 100_000 && reading.wait().unwrap().success());
    }
}

#[test]
fn the_library_only_reads_a_replica() {
    let (host, key) = replica();
    let before = (host.names(), host.contents());
    let verifier = Verifier::open(&host.database(), Duration::ZERO).unwrap();
    let verdict = verifier.verify(key.as_bytes(), Timestamp::now().unwrap()).unwrap();
    assert!(matches!(verdict, Verdict::Accepted(_)));
    verifier.write_uses();
    drop(verifier);
    assert!((host.names(), host.contents()) == before);
}

#[test]
fn where_a_replica_is_to_be_nothing_is_made_before_it_is_there() {
    let host = Host::new();
    host.write("keys.db-txid", b"");
    for args in [&["list"][..], &["verify"], &["show", "alice"]] {
        let hint = "see that `litestream restore -f` runs, which makes it";
        let message = format!("apikey: there is no replica at <folder>/keys.db yet\n{hint}\n");
        host.apikey(args).fails(6, message);
    }
    for args in
        [&["create", "alice"][..], &["refresh", "alice", "-y"], &["ensure", "web", "--key-file", "key"]]
    {
        assert_eq!(host.apikey(&[args, &["--json"]].concat()).run().code(), "DB_UNAVAILABLE");
    }
    assert_eq!(host.names(), ["keys.db-txid"]);
}

#[test]
fn a_replica_whose_header_says_that_it_has_a_log_is_not_opened() {
    let (host, key) = replica();
    say_log(&host, 2);
    let before = (host.names(), host.contents());
    let hint = "it can be from the next change to the original on, or see apikey(5), Replicas; where it is to be \
                the original, remove <folder>/keys.db-txid";
    let refusal = refusal("was just restored, and cannot be read yet", hint);
    for args in [&["list"][..], &["verify"], &["create", "bob"], &["revoke", "alice", "-y"]] {
        host.apikey(args).input(&*key).fails(6, &refusal);
    }
    let verifier = Verifier::open(&host.database(), Duration::ZERO);
    assert_eq!(verifier.unwrap_err().code(), apikey::Code::DbUnavailable);
    assert!((host.names(), host.contents()) == before, "it was opened");
    say_log(&host, 1);
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn a_replica_that_somebody_wrote_is_not_opened() {
    let (host, _) = replica();
    host.write("keys.db-wal", b"");
    assert_eq!(host.apikey(&["list"]).run().status, 0, "it says nothing");
    host.write("keys.db-wal", b"a log");
    let refusal = refusal(
        "was written here: <folder>/keys.db-wal lies beside it",
        "remove both, and start Litestream again, which restores it",
    );
    host.apikey(&["list"]).fails(6, refusal);
}

#[test]
fn a_replica_that_is_followed_no_more_is_a_database_as_before() {
    let (host, key) = replica();
    say_log(&host, 2);
    fs::remove_file(host.path("keys.db-txid")).unwrap();
    assert_eq!(host.status_of(&key), "active");
    let new = host.key_from(&["refresh", "alice", "-y"]);
    assert_eq!((host.status_of(&key), host.status_of(&new)), ("revoked".into(), "active".into()));
}

#[test]
fn doctor_says_of_a_replica_that_it_is_one_and_how_old_its_newest_change_is() {
    let (host, _) = replica();
    fs::remove_file(host.path("web.key")).unwrap();
    let outcome = host.apikey(&["doctor"]).run();
    assert_eq!(outcome.status, 0, "key files are where the original is: {outcome:?}");
    let start = "it is a replica, which is only read; its newest change is of 20";
    assert!(
        outcome.stdout.contains(start) && outcome.stdout.contains(" ago; Litestream last wrote it on 20")
    );
    let checks =
        host.apikey(&["doctor", "--json", "--metrics", "apikey.prom"]).run().json()["checks"].clone();
    let checks = checks.as_array().unwrap();
    let named: Vec<&str> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(named, ["database", "access", "space", "integrity", "rows", "size", "clock", "replica"]);
    let metrics = fs::read_to_string(host.path("apikey.prom")).unwrap();
    assert!(metrics.contains("\napikey_replica_written_timestamp_seconds 1"), "{metrics}");
    let written = UNIX_EPOCH + Duration::new(1_790_000_000, 1_999_999);
    File::options().write(true).open(host.database()).unwrap().set_modified(written).unwrap();
    assert_eq!(host.apikey(&["doctor", "-q", "--metrics", "apikey.prom"]).run().status, 0);
    let metrics = fs::read_to_string(host.path("apikey.prom")).unwrap();
    assert!(metrics.contains("\napikey_replica_written_timestamp_seconds 1790000000\n"), "{metrics}");
}

/// The pages that `change` writes to the log.
fn pages_of(host: &Host, change: impl FnOnce()) -> Vec<u32> {
    let log = || fs::read(host.path("keys.db-wal")).unwrap_or_default();
    let before = log().len().max(32);
    change();
    let number = |frame: &[u8]| u32::from_be_bytes(frame[..4].try_into().unwrap());
    log()[before..].chunks(24 + PAGE).map(number).collect()
}

#[test]
fn each_write_to_a_database_that_is_replicated_changes_its_first_page() {
    let (host, key) = Host::with_key_of("alice");
    host.execute(
        "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
         CREATE TABLE _litestream_lock (id INTEGER);",
    );
    let _open = host.sqlite();
    let changes: [&[&str]; 7] = [
        &["verify"],
        &["edit", "alice", "--name", "laptop"],
        &["ensure", "web", "--key-file", "web.key", "--renew-after", "1ms"],
        &["renew"],
        &["revoke", "web", "-y"],
        &["revoke", "alice", "-y"],
        &["prune", "--ended-for", "0s", "-y"],
    ];
    for args in changes {
        let run = || assert_eq!(host.apikey(args).input(&*key).run().status, 0, "{args:?}");
        let pages = pages_of(&host, run);
        assert!(pages.contains(&1), "{args:?}: {pages:?}");
    }
    host.execute("DROP TABLE _litestream_seq");
    host.key_from(&["create", "alice"]);
    let pages = pages_of(&host, || drop(host.apikey(&["revoke", "alice", "-y"]).run()));
    assert!(!pages.is_empty() && !pages.contains(&1), "nobody is to notice, and it was written: {pages:?}");
}
