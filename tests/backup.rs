//! `apikey backup`

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::disk::Mount;
use common::strace::kill_at_each_call;
use common::{APIKEY, Host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_copy_is_a_database_with_the_same_keys() {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let listed = |database: &str| host.apikey(&["list", "--json", "--db", database]).run().stdout;
    host.apikey(&["backup", "copy.db"]).gives(
        0,
        "",
        "Copied the database into <folder>/copy.db: 2 keys, 45056 bytes.\n",
    );
    assert_eq!((host.mode("copy.db"), listed("copy.db")), (0o600, listed("keys.db")));
    assert!(host.names().iter().all(|name| !name.starts_with('.')), "{:?}", host.names());
    // It is gone on with.
    let verified = host.apikey(&["verify", "-q", "--db", "copy.db"]).input(key.as_str()).run();
    assert_eq!(verified.status, 0, "{verified:?}");
    host.apikey(&["refresh", "alice", "-yq", "--db", "copy.db"]).gives(0, "<key>\n", "");
    let said = host.apikey(&["backup", "third.db", "--json", "--db", "copy.db"]).run().json();
    let path = fs::canonicalize(host.path("third.db")).unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    assert_eq!(said, serde_json::json!({ "path": path, "bytes": bytes, "keys": 3 }));
}

#[test]
fn it_takes_no_other_file_s_place() {
    let (host, _) = Host::with_key_of("alice");
    host.write("file", b"content");
    fs::create_dir(host.path("folder")).unwrap();
    symlink("nowhere", host.path("link")).unwrap();
    let before = (host.names(), host.contents());
    for path in [
        "file",
        "folder",
        "folder/",
        "link",
        "keys.db",
        "keys.db-lock",
        "keys.db-journal",
        "none/copy.db",
        "",
        "-",
        &"x".repeat(234),
    ] {
        let outcome = host.apikey(&["backup", path, "--json"]).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (2, "USAGE"), "{path}: {outcome:?}");
    }
    assert!((host.names(), host.contents()) == before);
    fs::create_dir(host.path("open")).unwrap();
    host.chmod("open", 0o777);
    let outcome = host.apikey(&["backup", "open/copy.db", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (7, "FORBIDDEN"), "{outcome:?}");
    assert_eq!(fs::read_dir(host.path("open")).unwrap().count(), 0);
}

#[test]
fn a_copy_is_of_one_moment_while_others_write() {
    let (host, _) = Host::with_key_of("alice");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut keys = 1;
            while !is_over.load(Ordering::Relaxed) || keys < 10 {
                host.apikey(&["refresh", "alice", "-yq"]).gives(0, "<key>\n", "");
                keys += 1;
            }
            keys
        });
        let mut most = 0;
        for number in 0..20 {
            let copy = format!("copy-{number}.db");
            let made = host.apikey(&["backup", &copy, "--json"]).run().json()["keys"].as_u64().unwrap();
            assert!(made >= most, "{made} after {most}");
            most = made;
            let copy = rusqlite::Connection::open(host.path(&copy)).unwrap();
            let one = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
            assert_eq!(one("PRAGMA integrity_check"), "ok");
            assert_eq!(one("SELECT count(*) || '' FROM keys"), made.to_string());
            assert_eq!(one("SELECT count(*) || '' FROM accepted_keys"), "1");
            // Each refresh writes down two events.
            assert_eq!(one("SELECT count(*) || '' FROM events"), (2 * made - 1).to_string());
        }
        is_over.store(true, Ordering::Relaxed);
        let keys = writer.join().unwrap();
        assert!(keys > 2 && most > 1, "nobody wrote meanwhile");
    });
}

#[test]
fn a_run_that_is_ended_by_a_signal_leaves_nothing() {
    let (host, _) = Host::with_key_of("alice");
    host.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
         INSERT INTO events (at, event, uid, detail) \
         SELECT '2026-01-01T00:00:00.000Z', 'pruned', 0, printf('%.4000c', 'x') FROM n",
    );
    let is_ended_by = |signal: Signal| {
        let mut backup = host.apikey(&["backup", "copy.db"]).spawn();
        let process = Pid::from_raw(backup.id().try_into().unwrap());
        let has_begun = |_| {
            thread::sleep(Duration::from_millis(1));
            host.names().iter().any(|name| name.contains("copy.db"))
        };
        assert!((0..60_000).any(has_begun), "it never began");
        kill(process, signal).unwrap();
        let status = backup.wait().unwrap();
        if status.success() {
            fs::remove_file(host.path("copy.db")).unwrap();
            return false;
        }
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        let left: Vec<String> = host.names().into_iter().filter(|name| name.contains("copy")).collect();
        assert_eq!(left, [""; 0]);
        true
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // A signal may come too late, but not each time.
        assert!((0..5).any(|_| is_ended_by(signal)), "{signal}");
    }
}

#[test]
fn where_there_is_no_room_for_the_copy_that_is_said_and_nothing_is_left() {
    let (host, _) = Host::with_key_of("alice");
    host.add_revoked_keys(5000);
    let script = format!("trap '' XFSZ; ulimit -f 128; exec {APIKEY} backup copy.db");
    let outcome = host.program("/bin/sh", &["-c", &script]).run();
    assert_eq!((outcome.status, &*outcome.stdout), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("apikey: cannot copy "), "{outcome:?}");
    assert!(outcome.stderr.ends_with("\nsee that there is room for the copy\n"), "{outcome:?}");
    assert!(host.names().iter().all(|name| !name.contains("copy")), "{:?}", host.names());
}

#[test]
#[ignore = "needs root"]
fn where_the_disk_is_full_nothing_is_left() {
    let (host, _) = Host::with_key_of("alice");
    let disk = Mount::tmpfs(20_000);
    let copy = disk.path().join("copy.db");
    let outcome = host.apikey(&["backup", copy.to_str().unwrap()]).run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("copy.db") && outcome.stderr.contains("full"), "{outcome:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}

#[test]
#[ignore = "needs strace"]
fn a_backup_that_is_killed_leaves_a_whole_copy_or_none() {
    let kills = kill_at_each_call(
        || Host::with_key_of("alice").0,
        &["backup", "copy.db"],
        |host, _, at| {
            let names = host.names();
            let is_left = |name: &&String| name.starts_with(".copy.db.") && !name.ends_with("-journal");
            let is_there = names.contains(&"copy.db".to_owned());
            assert!(names.iter().filter(is_left).count() + usize::from(is_there) <= 1, "{at}: {names:?}");
            if is_there {
                let listed = host.apikey(&["list", "--json", "--db", "copy.db"]).run();
                assert_eq!((listed.status, host.mode("copy.db")), (0, 0o600), "{at}: {listed:?}");
                assert_eq!(listed.json()["keys"][0]["user"], "alice", "{at}");
            } else {
                host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
            }
        },
    );
    assert!(kills > 100, "{kills}");
}
