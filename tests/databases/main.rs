//! Databases: where they are, and what else reads and writes them.

mod boot;
#[path = "../common/mod.rs"]
mod common;
mod damaged;
mod foreign;
mod killed;
mod locks;
mod permissions;
mod replica;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink};
use std::process::Child;
use std::time::{Duration, Instant};

use common::{APIKEY, Host, Outcome, ends_within};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rusqlite::Connection;

/// Every command, on a user who has a key and on one who has none. A command that would change
/// something comes last.
const COMMANDS: [&[&str]; 6] = [
    &["show", "alice"],
    &["list", "--all"],
    &["verify"],
    &["revoke", "alice", "--yes"],
    &["refresh", "alice", "--yes"],
    &["create", "bob"],
];

/// Runs `args` with `--json` and a key for `verify`, and asserts that it ends as the contract says.
#[track_caller]
fn outcome_of(host: &Host, args: &[&str], key: &str) -> Outcome {
    let outcome = host.apikey(&[args, &["--json"]].concat()).input(key).run();
    assert!((0..=7).contains(&outcome.status), "{args:?}: {outcome:?}");
    assert!(outcome.is_printable(), "{args:?}: {outcome:?}");
    if outcome.status == 0 {
        assert_eq!(outcome.stderr, "", "{args:?}");
        outcome.json();
    } else {
        assert!(outcome.stdout.is_empty() || args == ["verify"], "{args:?}: {outcome:?}");
        outcome.code();
    }
    outcome
}

/// Asserts that every command fails with `status`, and changes nothing.
#[track_caller]
fn assert_all_fail(host: &Host, status: i32) {
    let before = (host.names(), host.contents());
    for args in COMMANDS {
        let outcome = outcome_of(host, args, "x");
        assert_eq!(outcome.status, status, "{args:?}: {outcome:?}");
        assert!((host.names(), host.contents()) == before, "{args:?} changed something");
    }
}

/// A host whose database is whole in its one file, with `count` keys, of which alice's is returned.
fn host_without_log(count: usize) -> (Host, String) {
    let (host, key) = Host::with_key_of("alice");
    for number in 1..count {
        host.key_from(&["create", &format!("user{number}")]);
    }
    host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    for side in ["keys.db-wal", "keys.db-shm"] {
        let _ = fs::remove_file(host.path(side));
    }
    (host, key)
}

#[test]
fn a_path_is_a_path_whatever_it_looks_like() {
    for path in [":memory:", "file:x?mode=memory", "file:x?mode=ro", "a\nb.db", "a b%20c.db", "é.db", "-x.db"]
    {
        let host = Host::new();
        let db = format!("--db={path}");
        host.apikey(&["create", "alice", "-q", &db]).gives(0, "<key>\n", "");
        host.apikey(&["show", "alice", &db, "--json"]).run().json();
        assert!(host.path(path).metadata().unwrap().is_file(), "{path}");
    }
}

#[test]
fn a_path_that_cannot_be_a_database_is_refused() {
    let host = Host::new();
    fs::create_dir(host.path("folder")).unwrap();
    mkfifo(&host.path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    host.write("file", b"");
    symlink("nowhere.db", host.path("dangling")).unwrap();
    let long_name = "a".repeat(5000);
    let long_path = "a/".repeat(2500) + "keys.db";
    let names = host.names();
    for path in [
        "/",
        ".",
        "..",
        "folder",
        "folder/..",
        "fifo",
        "dangling",
        "/dev/zero",
        "/dev/null",
        "missing/keys.db",
        "file/keys.db",
        "fifo/keys.db",
        &long_name,
        &long_path,
    ] {
        for args in COMMANDS {
            let outcome = outcome_of(&host, &[args, &["--db", path]].concat(), "x");
            let code = if path == "missing/keys.db" { "NO_DATABASE" } else { "DB_UNAVAILABLE" };
            assert_eq!((outcome.status, outcome.code().as_str()), (6, code), "{path}: {outcome:?}");
        }
    }
    assert_eq!(host.names(), names, "nothing was made");
}

#[test]
fn a_path_may_be_as_long_as_sqlite_takes_it_and_is_refused_before_anything_is_made_where_it_is_longer() {
    let host = Host::new();
    let folder = fs::canonicalize(host.folder()).unwrap();
    let create = |path: &str| host.apikey(&["create", "alice", "-q", "--db", path]).run();
    // So many bytes in all, in folders of up to 100.
    let path_of = |bytes: usize| {
        let mut path = folder.to_str().unwrap().to_owned();
        while bytes - path.len() > 101 {
            path += &format!("/{}", "f".repeat(if bytes - path.len() > 250 { 99 } else { 49 }));
        }
        let last = "n".repeat(bytes - path.len() - 1);
        fs::create_dir_all(&path).unwrap();
        (path.clone() + "/" + &last, path)
    };
    for (bytes, fits) in [(504, true), (505, false), (512, false)] {
        let (path, folder) = path_of(bytes);
        let before = fs::read_dir(&folder).unwrap().count();
        let outcome = create(&path);
        assert_eq!(outcome.status, if fits { 0 } else { 6 }, "{bytes}: {outcome:?}");
        if !fits {
            assert!(
                outcome.stderr.contains("is too long for a database: a path takes 504 bytes"),
                "{outcome:?}"
            );
            assert_eq!(fs::read_dir(&folder).unwrap().count(), before, "something was made");
        }
    }
    for (bytes, fits) in [(247, true), (248, false), (255, false), (256, false)] {
        let names = host.names();
        let outcome = create(&"n".repeat(bytes));
        assert_eq!(outcome.status, if fits { 0 } else { 6 }, "{bytes}: {outcome:?}");
        assert!(fits || (outcome.stderr.contains("a name 247") && host.names() == names), "{outcome:?}");
    }
}

#[test]
fn a_database_is_reached_through_a_linked_folder_but_not_by_a_link_of_its_own() {
    let (host, _) = Host::with_key_of("alice");
    symlink(".", host.path("folder")).unwrap();
    symlink("keys.db", host.path("link.db")).unwrap();
    assert_eq!(host.apikey(&["show", "alice", "--db", "folder/keys.db"]).run().status, 0);
    for args in COMMANDS {
        assert_eq!(outcome_of(&host, &[args, &["--db", "link.db"]].concat(), "x").status, 6);
    }
    host.apikey(&["list", "--db", "link.db"]).fails(6, "apikey: <folder>/link.db is not a regular file\n");
}

#[test]
fn a_database_with_a_second_name_is_refused() {
    let (host, _) = Host::with_key_of("alice");
    fs::hard_link(host.database(), host.path("second.db")).unwrap();
    assert_all_fail(&host, 6);
    host.apikey(&["list"]).fails(
        6,
        "apikey: <folder>/keys.db has 2 hard links\na database has exactly one name; remove the others\n",
    );
}

const WRITING: [&[&str]; 3] =
    [&["create", "bob"], &["refresh", "alice", "--yes"], &["revoke", "alice", "--yes"]];

/// Those that wait for the lock.
const ISSUING: [&[&str]; 2] = [WRITING[0], WRITING[1]];

#[test]
fn without_a_path_the_database_is_in_the_user_s_data_folder() {
    let host = Host::new();
    let run = |args: &[&str]| {
        host.apikey_unprivileged(args).env_remove("APIKEY_DB").env("HOME", host.folder()).run()
    };
    assert_eq!(run(&["list"]).status, 6);
    assert_eq!(host.names(), [""; 0], "only what issues a key makes the folder");
    assert_eq!(run(&["create", "alice"]).status, 0);
    assert_eq!(host.mode(".local/share/apikey"), 0o700);
    assert_eq!(host.mode(".local/share/apikey/keys.db"), 0o600);
    assert_eq!(run(&["show", "alice"]).status, 0);
    let homeless =
        host.apikey_unprivileged(&["create", "bob"]).env_remove("APIKEY_DB").env("HOME", "here").run();
    assert!(homeless.status == 2 && homeless.stderr.contains("no home folder"), "{homeless:?}");
}

#[test]
fn a_stream_that_is_closed_is_not_taken_for_the_database() {
    let (host, key) = Host::with_key_of("alice");
    for streams in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"] {
        for args in ["list", "show nobody", "create --frobnicate", "revoke nobody --yes", "create alice"] {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("exec \"$0\" {args} {streams}"), APIKEY]);
            let status = shell.env("APIKEY_DB", host.database()).output().unwrap().status;
            assert!(status.code().is_some_and(|code| code <= 8), "{args} {streams}: {status}");
            assert_eq!(host.status_of(&key), "active", "{args} {streams}");
        }
    }
    let integrity: String = host.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

#[test]
fn a_timeout_may_be_as_long_as_any_duration() {
    let (host, _) = Host::with_key_of("alice");
    for args in [&["show", "alice"][..], &["refresh", "alice", "-y"], &["list"]] {
        assert_eq!(host.apikey(&[args, &["--timeout", "1000y"]].concat()).run().status, 0);
    }
}

#[test]
fn hostile_text_in_the_database_does_not_reach_the_terminal() {
    const HOSTILE: &str = "x\u{1b}[31m\u{9b}1m\n\r\u{202e}\u{200b}\u{2028}\u{feff}\u{7f}\u{e0041}y";
    const ESCAPED: &str = r"x\u{1b}[31m\u{9b}1m\n\r\u{202e}\u{200b}\u{2028}\u{feff}\u{7f}\u{e0041}y";
    let (host, key) = Host::with_key_of("alice");
    host.sqlite()
        .execute(
            "INSERT INTO settings (user, pending_key, key_file, key_file_mode)
             VALUES ('alice', 0, '/none/' || ?1 || '/key', 384)",
            [HOSTILE],
        )
        .unwrap();
    let shown = host.apikey(&["show", "alice"]).run();
    assert!(shown.is_printable() && shown.stdout.contains(ESCAPED), "{shown:?}");
    let json = host.apikey(&["show", "alice", "--json"]).run();
    assert!(json.is_printable() && json.json()["key_file"] == format!("/none/{HOSTILE}/key"), "{json:?}");
    let refused = host.apikey(&["refresh", "alice", "--yes"]).run();
    assert!(refused.is_printable() && refused.stderr.contains(ESCAPED), "{refused:?}");
    assert_eq!(refused.status, 8, "{refused:?}");

    // No user and no name is like that: the rows are damaged.
    for column in ["name", "user"] {
        let host = host.copy();
        host.sqlite().execute(&format!("UPDATE keys SET {column} = ?1"), [HOSTILE]).unwrap();
        for args in [&["list"][..], &["list", "--json"], &["verify"], &["verify", "--json"]] {
            let outcome = host.apikey(args).input(&*key).run();
            assert_eq!(outcome.status, 1, "{column}: {outcome:?}");
            assert!(outcome.is_printable() && outcome.stderr.contains("is damaged"), "{outcome:?}");
        }
    }
}

/// The tests, as a message about a lock that they hold names them.
fn this_process() -> String {
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    format!("process {} ({})", std::process::id(), comm.trim_end())
}

#[test]
fn what_nobody_could_have_written_is_damage_and_is_found_out_at_once() {
    let (before, key) = Host::with_key_of("alice");
    before.execute(
        "INSERT INTO settings (user, pending_key, key_file, key_file_mode) VALUES ('alice', 0, '/none/key', 384)",
    );
    let damage = |sql: &str, length: usize| {
        let host = before.copy();
        host.sqlite().execute(sql, ["x".repeat(length)]).unwrap();
        host
    };
    let ends = |host: &Host, args: &[&str], status: i32| {
        let ends_at_once = ends_within(Duration::from_secs(5), || {
            let outcome = host.apikey(args).input(&*key).run();
            assert_eq!(outcome.status, status, "{args:?}: {:.300}", outcome.stderr);
            assert!(outcome.stderr.len() < 300, "{args:?}: {:.300}", outcome.stderr);
            assert!(status == 0 || outcome.stderr.contains("is damaged"), "{args:?}: {outcome:?}");
        });
        assert!(ends_at_once, "{args:?}");
    };
    for column in ["name", "user", "id", "status", "expires_at"] {
        let host = damage(&format!("UPDATE keys SET {column} = ?1"), 500_000);
        for args in [&["list", "--all"][..], &["list", "--json"], &["verify"]] {
            ends(&host, args, 1);
        }
    }
    for (sql, length, args) in [
        ("UPDATE settings SET key_file = '/none/' || ?1", 4096, &["show", "alice"][..]),
        ("UPDATE settings SET key_file = '/none/' || ?1", 500_000, &["list"]),
        ("UPDATE settings SET reload = ?1", 4097, &["refresh", "alice", "--yes"]),
        ("UPDATE settings SET reload = ?1", 500_000, &["refresh", "alice", "--yes"]),
        ("UPDATE settings SET reload_machine = ?1, reload = 'true'", 500_000, &["refresh", "alice", "--yes"]),
        ("UPDATE settings SET key_file_env = ?1", 500_000, &["show", "alice"]),
    ] {
        ends(&damage(sql, length), args, 1);
    }
    ends(&damage("UPDATE settings SET reload = ?1", 4096), &["show", "alice"], 0);
}

#[test]
fn a_writer_who_waits_in_vain_says_who_holds_the_lock_when_the_time_is_over() {
    let (host, _) = Host::with_key_of("alice");
    let lock = OpenOptions::new().write(true).open(host.path("keys.db-lock")).unwrap();
    let transaction = host.sqlite();
    for timeout in ["0s", "300ms"] {
        let fails = |args: &[&str]| {
            let waits_no_longer = ends_within(Duration::from_secs(8), || {
                let start = Instant::now();
                host.apikey(&[args, &["--timeout", timeout]].concat()).fails(
                    6,
                    format!(
                        "apikey: <folder>/keys.db is locked by {}\ntry again, or wait longer with --timeout\n",
                        this_process()
                    ),
                );
                let waited = start.elapsed();
                let least = if timeout == "0s" { Duration::ZERO } else { Duration::from_millis(290) };
                assert!(waited >= least, "{args:?}: {waited:?}");
            });
            assert!(waits_no_longer, "{args:?}");
        };
        lock.lock().unwrap();
        ISSUING.iter().for_each(|args| fails(args));
        lock.unlock().unwrap();
        transaction.execute_batch("BEGIN IMMEDIATE").unwrap();
        WRITING.iter().for_each(|args| fails(args));
        assert_eq!(host.apikey(&["list", "--timeout", timeout]).run().status, 0);
        transaction.execute_batch("ROLLBACK").unwrap();
    }
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_writer_who_waits_gets_its_turn() {
    let (host, _) = Host::with_key_of("alice");
    let lock = OpenOptions::new().write(true).open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    let waiting = host.apikey(&["create", "bob", "--timeout", "1m"]).spawn();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.accepted(), 1);
    lock.unlock().unwrap();
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(host.accepted(), 2);
}

/// The lock of writers, which is taken, and one who waits for it.
fn lock_and_who_waits(host: &Host) -> (File, Child) {
    let lock = lock_file(host);
    lock.lock().unwrap();
    let waiting = host.apikey(&["create", "bob", "--timeout", "1m"]).spawn();
    let waits = format!("-> FLOCK  ADVISORY  WRITE {} ", waiting.id());
    let inode = format!(":{} 0 EOF", lock.metadata().unwrap().ino());
    let is_waiting = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains(&waits) && line.ends_with(&inode))
    };
    assert!((0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        is_waiting()
    }));
    (lock, waiting)
}

fn lock_file(host: &Host) -> File {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(host.path("keys.db-lock")).unwrap()
}

#[test]
fn a_lock_that_is_as_it_should_be_is_left_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let (host, _) = Host::with_key_of("alice");
    let changed = || {
        let found = fs::metadata(host.path("keys.db-lock")).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let before = changed();
    host.key_from(&["create", "bob"]);
    assert_eq!(changed(), before);
    host.chmod("keys.db-lock", 0o640);
    host.key_from(&["create", "carol"]);
    assert_eq!(host.mode("keys.db-lock"), 0o600);
}

#[test]
fn a_lock_that_was_removed_while_somebody_waited_for_it_is_made_anew() {
    let (host, _) = Host::with_key_of("alice");
    let (lock, waiting) = lock_and_who_waits(&host);
    fs::remove_file(host.path("keys.db-lock")).unwrap();
    drop(lock);
    let outcome = waiting.wait_with_output().unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(host.path("keys.db-lock").exists());
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_lock_that_was_removed_lets_nobody_in_beside_whoever_holds_the_one_that_took_its_place() {
    let (host, _) = Host::with_key_of("alice");
    let (first, mut waiting) = lock_and_who_waits(&host);
    fs::remove_file(host.path("keys.db-lock")).unwrap();
    let second = lock_file(&host);
    second.lock().unwrap();
    drop(first);
    std::thread::sleep(Duration::from_secs(1));
    assert!(waiting.try_wait().unwrap().is_none(), "it writes beside whoever holds the lock");
    assert_eq!(host.accepted(), 1);
    drop(second);
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_log_that_grew_under_a_long_look_shrinks_again_and_nobody_waits_for_who_looks() {
    let (host, _) = Host::with_key_of("alice");
    let length = || host.path("keys.db-wal").metadata().unwrap().len();
    let refresh = || host.key_from(&["refresh", "alice", "--yes", "--timeout", "0s"]);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = Connection::open_with_flags(host.database(), flags).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM keys").unwrap();
    while length() < 2 << 20 {
        refresh();
    }
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    assert!(length() >= 2 << 20);
    (0..2).for_each(|_| drop(refresh()));
    assert!(length() <= 1 << 20, "{}", length());
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_copy_made_by_sqlite_works_although_it_has_no_log() {
    let (host, key) = Host::with_key_of("alice");
    host.execute(&format!("VACUUM INTO '{}'", host.path("copy.db").display()));
    let is_wal = || fs::read(host.path("copy.db")).unwrap()[18..20] == [2, 2];
    let before = host.contents();
    let on_copy = |args: &[&str]| host.apikey(&[args, &["--db", "copy.db"]].concat());
    on_copy(&["verify"]).input(&*key).gives(0, "<prefix> is accepted: the active key of alice\n", "");
    assert_eq!(on_copy(&["show", "alice"]).run().status, 0);
    assert_eq!(on_copy(&["list"]).run().status, 0);
    assert!(!is_wal() && host.contents() == before, "reading changes nothing");
    on_copy(&["refresh", "alice", "--yes", "--quiet"]).gives(0, "<key>\n", "");
    assert!(is_wal());
    on_copy(&["verify"])
        .input(&*key)
        .fails(5, "apikey: not accepted: <prefix>, a key of alice, is revoked\n");
    assert_eq!(host.status_of(&key), "active", "the original is as it was");
}

#[test]
fn writers_who_wait_for_a_copy_to_get_its_log_find_it() {
    let (host, _) = Host::with_key_of("alice");
    host.key_from(&["create", "bob"]);
    let copy = Host::new();
    host.execute(&format!("VACUUM INTO '{}'", copy.database().display()));
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let service = Connection::open_with_flags(copy.database(), flags).unwrap();
    let count = || service.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0));
    assert_eq!(count(), Ok(2));
    let lock = File::create(copy.path("keys.db-lock")).unwrap();
    copy.chmod("keys.db-lock", 0o600);
    lock.lock().unwrap();
    let waiting: Vec<_> = ["alice", "bob"]
        .map(|user| copy.apikey(&["refresh", user, "-y", "--grace", "1h", "--timeout", "1m"]).spawn())
        .into();
    // Until both have opened it.
    std::thread::sleep(Duration::from_millis(500));
    lock.unlock().unwrap();
    for writer in waiting {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(count(), Ok(4));
}

#[test]
fn a_service_that_may_only_read_finds_the_key_in_the_view() {
    let (host, _) = Host::with_key_of("alice");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let service = Connection::open_with_flags(host.database(), flags).unwrap();
    let count = || -> u32 {
        service
            .query_row("SELECT count(*) FROM accepted_keys WHERE user = 'alice'", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(), 1);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    assert_eq!(count(), 2);
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    assert_eq!(count(), 0);
}

#[test]
#[ignore = "needs strace"]
fn a_database_that_is_swapped_while_it_is_opened_is_not_used() {
    let (host, _) = Host::with_key_of("alice");
    let (other, _) = Host::with_key_of("mallory");
    let traced = host.traced(&["show", "alice"], |run| run);
    let opens: Vec<&str> = traced.trace.lines().filter(|line| line.contains(" openat(")).collect();
    let number = opens.iter().position(|line| line.contains("/keys.db\"")).unwrap() + 1;
    let inject = format!("inject=openat:delay_enter=4000000:when={number}");
    let trace = host.path("trace");
    let strace =
        ["-f", "-o", trace.to_str().unwrap(), "-e", "trace=openat", "-e", &inject, APIKEY, "show", "alice"];
    let opening = host.program("/usr/bin/strace", &strace).spawn();
    // It has opened what comes before, soon after looks at the one file, and is kept from opening it.
    let opened = || fs::read_to_string(&trace).unwrap_or_default().matches(" openat(").count();
    let mut waits = (0..6000).map(|_| std::thread::sleep(Duration::from_millis(10)));
    assert!(waits.any(|()| opened() + 1 >= number), "it never came to that");
    std::thread::sleep(Duration::from_secs(1));
    fs::rename(other.database(), host.database()).unwrap();
    let output = opening.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("was replaced while it was being opened"), "{said}");
}
