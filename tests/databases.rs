//! Databases and paths that are damaged, hostile, foreign or forbidden.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{APIKEY, Host, Outcome, issued_to};
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
    assert_commands_fail(host, &COMMANDS, status);
}

#[track_caller]
fn assert_commands_fail(host: &Host, commands: &[&[&str]], status: i32) {
    let before = (host.names(), host.contents());
    for args in commands {
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
        host.apikey(&["create", "alice", &db]).gives(0, "<key>\n", issued_to("alice"));
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
            assert_eq!(
                (outcome.status, outcome.code().as_str()),
                (6, "DB_UNAVAILABLE"),
                "{path}: {outcome:?}"
            );
        }
    }
    assert_eq!(host.names(), names, "nothing was made");
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

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let long = vec![b'x'; 10_000];
    let magic = [&b"SQLite format 3\0"[..], &[0; 4080]].concat();
    for content in [&b""[..], b"\0", b"a text\n", b"SQLite format 3\0", &[0; 4096], &magic, &long] {
        let host = Host::new();
        host.write("keys.db", content);
        assert_all_fail(&host, 6);
    }
}

#[test]
fn a_database_of_another_program_is_left_as_it_is_and_gets_no_side_files() {
    for (journal, version) in [("DELETE", 0), ("WAL", 0), ("DELETE", 1), ("WAL", 1)] {
        let host = Host::new();
        host.execute(&format!(
            "PRAGMA journal_mode = {journal}; PRAGMA user_version = {version};
             CREATE TABLE keys (key_hash TEXT, user TEXT);
             CREATE VIEW accepted_keys AS SELECT * FROM keys;
             CREATE TRIGGER thief AFTER INSERT ON keys BEGIN DELETE FROM keys; END;
             INSERT INTO keys VALUES ('x', 'alice');"
        ));
        assert_all_fail(&host, 6);
        host.apikey(&["list"])
            .fails(6, "apikey: <folder>/keys.db is not an apikey database\nname another with --db\n");
    }
}

#[test]
fn a_database_that_only_says_it_is_one_of_ours_is_not_written() {
    let host = Host::new();
    host.execute(
        "PRAGMA application_id = 0x616b6579; PRAGMA user_version = 1;
         CREATE TABLE keys (key_hash TEXT, user TEXT);",
    );
    let before = host.contents();
    for args in COMMANDS {
        let outcome = outcome_of(&host, args, "x");
        assert_ne!(outcome.status, 0, "{outcome:?}");
    }
    assert!(host.contents() == before);
}

#[test]
fn a_database_whose_schema_was_changed_is_not_written() {
    for change in [
        "CREATE TRIGGER thief AFTER INSERT ON keys BEGIN UPDATE keys SET user = 'mallory'; END",
        "CREATE TRIGGER thief INSTEAD OF INSERT ON accepted_keys BEGIN SELECT 1; END",
        "CREATE VIEW more AS SELECT * FROM keys",
        "CREATE INDEX more ON keys (name)",
        "CREATE TABLE more (x)",
        "DROP VIEW accepted_keys",
        "DROP INDEX one_active_key",
        "ALTER TABLE keys ADD COLUMN more TEXT",
        "ALTER TABLE keys RENAME TO others",
        "DROP VIEW accepted_keys; CREATE VIEW accepted_keys AS SELECT * FROM keys",
    ] {
        let (host, key) = host_without_log(1);
        host.execute(change);
        let before = fs::read(host.database()).unwrap();
        for args in COMMANDS {
            let outcome = outcome_of(&host, args, &key);
            // To verify is to look one row up. That it says no where it can't is all there is to ask.
            assert!(outcome.status == 6 || args == ["verify"], "{change}: {args:?}: {outcome:?}");
        }
        assert!(fs::read(host.database()).unwrap() == before, "{change}");
    }
}

#[test]
fn statistics_are_no_change_of_the_schema() {
    let (host, _) = Host::with_key_of("alice");
    host.execute("ANALYZE");
    host.apikey(&["create", "bob", "--quiet"]).gives(0, "<key>\n", "");
}

#[test]
fn a_newer_schema_is_left_as_it_is() {
    let (host, _) = host_without_log(1);
    host.execute("PRAGMA user_version = 1000; PRAGMA wal_checkpoint(TRUNCATE)");
    assert_all_fail(&host, 6);
    host.apikey(&["create", "bob"]).fails(
        6,
        "apikey: <folder>/keys.db has schema 1000; this apikey knows none past 1\n\
         use the newer apikey that wrote it\n",
    );
}

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
fn a_planted_log_or_journal_is_not_played_into_a_new_database() {
    for (name, content) in
        [("keys.db-wal", &[7; 5000][..]), ("keys.db-journal", &[7; 5000]), ("keys.db-journal", &[])]
    {
        let host = Host::new();
        host.write(name, content);
        host.chmod(name, 0o600);
        host.apikey(&["create", "alice"]).fails(
            6,
            format!(
                "apikey: <folder>/{name} was left by another program or another database\n\
                 find out whose it is, and move it away\n"
            ),
        );
        assert!(!host.database().exists());
        assert_eq!(fs::read(host.path(name)).unwrap(), content);
    }
}

#[test]
fn a_journal_beside_a_database_is_refused() {
    let (host, _) = Host::with_key_of("alice");
    host.write("keys.db-journal", &[7; 5000]);
    assert_all_fail(&host, 6);
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

#[test]
fn a_side_file_that_is_a_link_a_fifo_or_has_a_second_name_is_refused() {
    type Plant = fn(PathBuf, PathBuf);
    let plants: [(&str, Plant); 4] = [
        ("a symbolic link", |path, victim| symlink(victim, path).unwrap()),
        ("a hard link", |path, victim| fs::hard_link(victim, path).unwrap()),
        ("a FIFO", |path, _| mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap()),
        ("a folder", |path, _| fs::create_dir(path).unwrap()),
    ];
    for name in ["keys.db-wal", "keys.db-shm", "keys.db-journal", "keys.db-lock"] {
        for (what, plant) in plants {
            let (host, _) = host_without_log(1);
            host.write("victim", b"precious");
            let _ = fs::remove_file(host.path(name));
            plant(host.path(name), host.path("victim"));
            assert_all_fail(&host, 6);
            assert_eq!(fs::read(host.path("victim")).unwrap(), b"precious", "{name}, {what}");

            let host = Host::new();
            host.write("victim", b"precious");
            plant(host.path(name), host.path("victim"));
            assert_eq!(host.apikey(&["create", "alice"]).run().status, 6, "{name}, {what}");
            assert_eq!(fs::read(host.path("victim")).unwrap(), b"precious", "{name}, {what}");
            assert!(!host.database().exists(), "{name}, {what}");
        }
    }
}

#[test]
fn a_link_where_a_new_database_is_prepared_is_not_followed() {
    let host = Host::new();
    host.write("victim", b"precious");
    symlink("victim", host.path("keys.db-new")).unwrap();
    host.apikey(&["create", "alice", "--quiet"]).gives(0, "<key>\n", "");
    assert_eq!(fs::read(host.path("victim")).unwrap(), b"precious");
    assert!(!host.path("keys.db-new").exists());
}

#[test]
fn what_others_may_write_is_forbidden() {
    for name in ["", "keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        let (host, _) = Host::with_key_of("alice");
        host.chmod(name, host.mode(name) | 0o002);
        assert_all_fail(&host, 7);
        let path = host.path(name).display().to_string();
        let path = path.trim_end_matches('/').replace(host.folder().to_str().unwrap(), "<folder>");
        let hint = match name {
            "" => "use a folder that nobody else may write".to_owned(),
            _ => format!("chmod o-w {path}"),
        };
        host.apikey(&["list"]).fails(7, format!("apikey: others may write {path}\n{hint}\n"));
    }
    let host = Host::new();
    fs::create_dir(host.path("open")).unwrap();
    host.chmod("open", 0o1777);
    let outcome = host.apikey(&["create", "alice", "--db", "open/keys.db", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (7, "FORBIDDEN"));
    assert!(fs::read_dir(host.path("open")).unwrap().next().is_none(), "nothing was made");
}

const READING: [&[&str]; 2] = [&["show", "alice"], &["list"]];
const WRITING: [&[&str]; 3] =
    [&["create", "bob"], &["refresh", "alice", "--yes"], &["revoke", "alice", "--yes"]];

#[test]
fn a_database_that_may_only_be_read_is_read_and_not_written() {
    for folder_mode in [0o500, 0o700] {
        let (host, key) = Host::with_key_of("alice");
        for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
            host.chmod(name, 0o400);
        }
        host.chmod("", folder_mode);
        let before = host.contents();
        for args in READING {
            assert_eq!(host.apikey_unprivileged(args).run().status, 0, "{args:?}");
        }
        host.apikey_unprivileged(&["verify"]).input(key).gives(
            0,
            "<prefix> is accepted: the active key of alice\n",
            "",
        );
        for args in WRITING {
            host.apikey_unprivileged(args).fails(
                7,
                "apikey: <folder>/keys.db may not be written\nrun apikey as a user who may write it\n",
            );
        }
        assert!(host.contents() == before);
        host.chmod("", 0o700);
    }
}

#[test]
fn a_database_that_may_not_be_read_is_forbidden() {
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let (host, key) = Host::with_key_of("alice");
        host.chmod(name, 0);
        for args in COMMANDS {
            host.apikey_unprivileged(args).input(&*key).fails(
                7,
                format!(
                    "apikey: <folder>/{name} may not be read\n\
                     who verifies keys needs read permission for the database, its -wal and its -shm\n"
                ),
            );
        }
    }
}

#[test]
fn a_folder_that_may_not_be_written_gets_no_database() {
    let host = Host::new();
    host.chmod("", 0o500);
    host.apikey_unprivileged(&["create", "alice"])
        .fails(7, "apikey: cannot lock <folder>/keys.db-lock: Permission denied (os error 13)\n");
    host.chmod("", 0o700);
    assert_eq!(host.names(), [""; 0]);
}

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
fn a_lock_that_may_not_be_taken_keeps_writers_out_and_nobody_else() {
    let (host, key) = Host::with_key_of("alice");
    host.chmod("keys.db-lock", 0o400);
    for args in READING {
        assert_eq!(host.apikey_unprivileged(args).run().status, 0, "{args:?}");
    }
    assert_eq!(host.apikey_unprivileged(&["verify"]).input(key).run().status, 0);
    for args in WRITING {
        host.apikey_unprivileged(args)
            .fails(7, "apikey: cannot lock <folder>/keys.db-lock: Permission denied (os error 13)\n");
    }
}

#[test]
#[ignore = "needs root: nobody else can give a file away"]
fn root_uses_no_database_that_another_user_could_swap() {
    assert!(nix::unistd::geteuid().is_root());
    for name in ["", "keys.db", "keys.db-wal", "keys.db-lock"] {
        let (host, _) = Host::with_key_of("alice");
        std::os::unix::fs::lchown(host.path(name), Some(65_534), None).unwrap();
        assert_all_fail(&host, 7);
    }
}

#[test]
#[ignore = "needs root: nobody else can act as two users"]
fn a_group_that_may_write_the_database_shares_it_and_root_keeps_out() {
    let host = Host::new();
    let member = |uid: u32, args: &[&str]| {
        let run = host.program(host.apikey_for_all(), args).with(|command| {
            command.uid(uid).gid(1000);
        });
        run.run()
    };
    std::os::unix::fs::chown(host.folder(), Some(1001), Some(1000)).unwrap();
    host.chmod("", 0o2770);
    assert_eq!(member(1001, &["create", "alice"]).status, 0);
    host.chmod("keys.db", 0o660);
    for side_file in ["keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        fs::remove_file(host.path(side_file)).unwrap();
    }
    // What is missing is made by one of them, and used by both.
    for (uid, args) in [
        (1002, &["list"][..]),
        (1002, &["create", "bob"]),
        (1001, &["create", "carol"]),
        (1002, &["refresh", "alice", "--yes"]),
        (1001, &["list"]),
    ] {
        let outcome = member(uid, args);
        assert_eq!(outcome.status, 0, "{uid} {args:?}: {outcome:?}");
    }
    assert_eq!(host.mode("keys.db-lock"), 0o660);
    assert_eq!(member(1003, &["list"]).status, 0);
    assert_eq!(host.apikey(&["list"]).run().status, 7, "root would write what a member can swap");
}

#[test]
#[ignore = "needs root: nobody else can act as somebody in another group"]
fn a_folder_that_another_group_may_write_is_forbidden_before_there_is_a_database() {
    let host = Host::new();
    std::os::unix::fs::chown(host.folder(), Some(1001), Some(1003)).unwrap();
    for (mode, status) in [(0o770, 7), (0o750, 0)] {
        host.chmod("", mode);
        let run = host.program(host.apikey_for_all(), &["create", "alice"]).with(|command| {
            command.uid(1001).gid(1001);
        });
        assert_eq!(run.run().status, status, "{mode:o}");
    }
}

#[test]
#[ignore = "needs root: to anybody else it is a group's database"]
fn root_uses_no_database_that_its_group_may_write() {
    let (host, _) = Host::with_key_of("alice");
    std::os::unix::fs::chown(host.folder(), None, Some(1000)).unwrap();
    host.chmod("", 0o750);
    for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        std::os::unix::fs::chown(host.path(name), None, Some(1000)).unwrap();
        assert_eq!(host.apikey(&["list"]).run().status, 0);
        host.chmod(name, 0o660);
        assert_all_fail(&host, 7);
        host.chmod(name, 0o600);
    }
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
    let spoil =
        "UPDATE keys SET name = ?1, id = ?1, key_file = '/none/' || ?1 || '/key', key_file_mode = 384";
    host.sqlite().execute(spoil, [HOSTILE]).unwrap();
    let shown = host.apikey(&["show", "alice"]).run();
    assert!(shown.is_printable() && shown.stdout.matches(ESCAPED).count() == 3, "{shown:?}");
    let json = host.apikey(&["show", "alice", "--json"]).run();
    assert!(json.is_printable() && json.json()["name"] == HOSTILE, "{json:?}");

    let refused = host.apikey(&["refresh", "alice", "--yes"]).run();
    assert!(refused.is_printable() && refused.stderr.contains(ESCAPED), "{refused:?}");
    assert_eq!(refused.status, 8, "{refused:?}");
    host.execute("UPDATE keys SET key_file = NULL");
    let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json"]).run();
    assert!(refreshed.is_printable() && refreshed.json()["name"] == HOSTILE, "{refreshed:?}");

    host.sqlite().execute("UPDATE keys SET user = ?1", [HOSTILE]).unwrap();
    let listed = host.apikey(&["list", "--all"]).run();
    assert!(listed.is_printable() && listed.stdout.matches(ESCAPED).count() == 4, "{listed:?}");
    let json = host.apikey(&["list", "--json"]).run();
    assert!(json.is_printable() && json.json()["keys"][0]["user"] == HOSTILE, "{json:?}");
    for args in [&["verify"][..], &["verify", "--json"]] {
        let refused = host.apikey(args).input(&*key).run();
        assert!(refused.status == 5 && refused.is_printable(), "{refused:?}");
    }
    host.execute("UPDATE keys SET status = 'pending', key_file = '/none/key', key_file_mode = 384, revoked_at = NULL WHERE status = 'revoked'");
    for args in [&["verify"][..], &["verify", "--json"]] {
        let accepted = host.apikey(args).input(&*key).run();
        assert!(accepted.status == 0 && accepted.is_printable(), "{accepted:?}");
    }
}

#[test]
fn a_writer_who_waits_in_vain_says_so_when_the_time_is_over() {
    let (host, _) = Host::with_key_of("alice");
    let lock = OpenOptions::new().write(true).open(host.path("keys.db-lock")).unwrap();
    let transaction = host.sqlite();
    for timeout in ["0s", "300ms"] {
        let fails = |args: &[&str]| {
            let start = Instant::now();
            host.apikey(&[args, &["--timeout", timeout]].concat()).fails(
                6,
                "apikey: <folder>/keys.db is locked by another process\n\
                 try again, or wait longer with --timeout\n",
            );
            let waited = start.elapsed();
            let least = if timeout == "0s" { Duration::ZERO } else { Duration::from_millis(290) };
            assert!((least..Duration::from_secs(8)).contains(&waited), "{args:?}: {waited:?}");
        };
        lock.lock().unwrap();
        WRITING.iter().for_each(|args| fails(args));
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
    let waiting = host.apikey(&["create", "bob"]).spawn();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.accepted(), 1);
    lock.unlock().unwrap();
    assert!(waiting.wait_with_output().unwrap().status.success());
    assert_eq!(host.accepted(), 2);
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
fn a_database_lost_with_only_its_log_left_is_not_made_anew() {
    let (host, _) = Host::with_key_of("alice");
    fs::remove_file(host.database()).unwrap();
    assert_all_fail(&host, 6);
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
