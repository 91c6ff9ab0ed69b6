//! Databases that are not ours, and what somebody else laid beside one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::Host;
use crate::{COMMANDS, assert_all_fail, host_without_log, outcome_of};

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
fn what_sqlite_takes_for_no_database_is_none_of_ours() {
    let (host, _) = host_without_log(1);
    let mut content = fs::read(host.database()).unwrap();
    // The largest part of a page that a row may take: 64, in every database.
    content[21] = 65;
    host.write("keys.db", &content);
    for args in COMMANDS {
        host.apikey(args).input("x").fails(6, "apikey: <folder>/keys.db is not an apikey database\n");
        assert!(fs::read(host.database()).unwrap() == content, "{args:?}");
    }
}

#[test]
fn a_database_that_only_says_it_is_one_of_ours_is_not_written() {
    let host = Host::new();
    host.execute(
        "PRAGMA application_id = 0x616b6579; PRAGMA user_version = 1001;
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
        "CREATE UNIQUE INDEX more ON settings (key_file)",
        "DROP VIEW accepted_keys",
        "DROP INDEX one_active_key",
        "ALTER TABLE keys ADD COLUMN more TEXT",
        "ALTER TABLE keys RENAME TO others",
        "DROP VIEW accepted_keys; CREATE VIEW accepted_keys AS SELECT * FROM keys",
        // Only a schema that is written by hand can have a trigger of that name.
        "PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_thief', 'keys', 0,
         'CREATE TRIGGER sqlite_thief AFTER INSERT ON keys BEGIN UPDATE keys SET user = ''mallory''; END')",
    ] {
        let (host, key) = host_without_log(1);
        host.execute(change);
        let before = fs::read(host.database()).unwrap();
        for args in COMMANDS {
            let outcome = outcome_of(&host, args, &key);
            assert!(outcome.status == 6, "{change}: {args:?}: {outcome:?}");
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
fn a_database_that_is_another_program_s_by_its_log_is_not_written() {
    for id in [12345, -5] {
        let (host, _) = Host::with_key_of("alice");
        let keeps_the_log = host.sqlite();
        keeps_the_log.pragma_update(None, "application_id", id).unwrap();
        let before = host.contents();
        for args in COMMANDS.into_iter().filter(|args| *args != ["verify"]) {
            assert_eq!(outcome_of(&host, args, "x").status, 6, "{args:?}");
        }
        assert!(host.contents() == before);
    }
}

#[test]
fn a_newer_schema_is_left_as_it_is() {
    let (host, _) = host_without_log(1);
    host.execute("PRAGMA user_version = 9009; PRAGMA wal_checkpoint(TRUNCATE)");
    assert_all_fail(&host, 6);
    host.apikey(&["create", "bob"]).fails(
        6,
        "apikey: <folder>/keys.db has schema 9; this apikey knows none past 1\n\
         use the newer apikey that wrote it\n",
    );
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
fn a_log_with_nothing_in_it_keeps_no_database_from_being_made() {
    let host = Host::new();
    host.write("keys.db-wal", b"");
    host.chmod("keys.db-wal", 0o600);
    host.key_from(&["create", "alice"]);
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_journal_beside_a_database_is_refused() {
    let (host, _) = Host::with_key_of("alice");
    host.write("keys.db-journal", &[7; 5000]);
    assert_all_fail(&host, 6);
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
fn a_database_lost_with_only_its_log_left_is_not_made_anew() {
    let (host, _) = Host::with_key_of("alice");
    fs::remove_file(host.database()).unwrap();
    assert_all_fail(&host, 6);
}

#[test]
fn other_people_s_tables_are_left_alone() {
    let (host, old) = Host::with_key_of("alice");
    // The two of the usual replication tool, an analysis, and one that refers to a table of ours.
    host.execute(
        "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
         CREATE TABLE _litestream_lock (id INTEGER);
         INSERT INTO _litestream_seq VALUES (1, 1);
         CREATE INDEX notes_of_theirs ON _litestream_seq (seq);
         CREATE TABLE indexed_by_sqlite_itself (note TEXT UNIQUE);
         CREATE TABLE refers (prefix INTEGER REFERENCES keys (prefix));
         INSERT INTO refers SELECT prefix FROM keys;
         ANALYZE",
    );
    host.apikey(&["show", "alice", "--json"]).run().json();
    let new = host.key_from(&["refresh", "alice", "--yes"]);
    assert_eq!((host.status_of(&old), host.status_of(&new)), ("revoked".into(), "active".into()));
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    let sqlite = host.sqlite();
    let count = |sql| sqlite.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM _litestream_seq"), 1);
    assert_eq!(count("SELECT count(*) FROM refers"), 1);
}

#[test]
fn a_newer_schema_that_this_program_can_read_is_read_and_never_written() {
    let (host, key) = host_without_log(1);
    host.execute(
        "ALTER TABLE keys ADD COLUMN note TEXT; CREATE TABLE notes (note TEXT) STRICT;
         CREATE INDEX keys_by_note ON keys (note); PRAGMA user_version = 2001; PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let before = fs::read(host.database()).unwrap();
    let newer = "apikey: <folder>/keys.db was made by a newer apikey, and may only be read by this one\n\
                 use the newer apikey that wrote it\n";
    assert_eq!(host.apikey(&["show", "alice"]).run().status, 0);
    assert_eq!(host.apikey(&["list", "--all"]).run().status, 0);
    host.apikey(&["verify"]).input(&*key).gives(0, "<prefix> is accepted: the active key of alice\n", "");
    host.apikey(&["create", "bob"]).fails(6, newer);
    host.apikey(&["refresh", "alice", "-y"]).fails(6, newer);
    host.apikey(&["revoke", "alice", "-y"]).fails(6, newer);
    assert!(fs::read(host.database()).unwrap() == before);
    assert_eq!(fs::metadata(host.path("keys.db-wal")).unwrap().len(), 0);
    // What would run with our rights is refused here, too.
    for thief in [
        "TRIGGER thief AFTER INSERT ON notes BEGIN DELETE FROM keys; END",
        "VIEW thief AS SELECT * FROM keys",
    ] {
        let host = host.copy();
        host.execute(&format!("CREATE {thief}"));
        for args in COMMANDS {
            assert_eq!(outcome_of(&host, args, &key).status, 6, "{thief}: {args:?}");
        }
    }
}

#[test]
fn the_log_is_not_turned_on_in_a_copy_that_is_not_ours_any_more() {
    let (host, _) = Host::with_key_of("alice");
    host.execute(&format!("VACUUM INTO '{}'", host.path("copy.db").display()));
    let copy = rusqlite::Connection::open(host.path("copy.db")).unwrap();
    copy.execute_batch("CREATE VIEW more AS SELECT 1").unwrap();
    drop(copy);
    let before = fs::read(host.path("copy.db")).unwrap();
    assert_eq!(host.apikey(&["create", "bob", "--db", "copy.db"]).run().status, 6);
    assert!(fs::read(host.path("copy.db")).unwrap() == before);
}
