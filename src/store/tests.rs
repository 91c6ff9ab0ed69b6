//! What becomes of a database of another version.

#![allow(clippy::print_stdout, reason = "figures that were measured, for --nocapture")]

mod misfits;
mod transactions;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::open::Access;
use super::versions::{FIRST, VERSIONS, Version, Versions, create, migrate, standing};
use super::*;
use crate::actor::Actor;
use crate::key_file::{KeyFile, Mode, Owner};
use crate::settings::{Reload, Settings};
use crate::user::User;

/// A version 2 that never was: programs of version 1 can read it.
static TWO: LazyLock<Versions> = LazyLock::new(|| leak(vec![first(), second(1)]));
/// Another, which they cannot.
static TWO_ANEW: LazyLock<Versions> = LazyLock::new(|| leak(vec![first(), second(2)]));

fn leak<T>(list: Vec<T>) -> &'static [T] {
    Box::leak(list.into_boxed_slice())
}

fn first() -> Version {
    Version { readable_since: 1, schema: &FIRST, migration: &FIRST }
}

fn second(readable_since: u32) -> Version {
    const NOTES: &str = "CREATE TABLE notes (prefix INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT";
    const INDEX: &str = "CREATE INDEX keys_by_name ON keys (name, note)";
    // As SQLite writes it: ALTER TABLE changes the text as little as it can.
    let keys = FIRST[0].strip_suffix(") STRICT").unwrap().to_owned() + ", note TEXT) STRICT";
    let mut schema: Vec<&str> = [&*keys.leak()].into_iter().chain(FIRST[1..].iter().copied()).collect();
    schema.extend([NOTES, INDEX]);
    let migration = leak(vec!["ALTER TABLE keys ADD COLUMN note TEXT", NOTES, INDEX]);
    Version { readable_since, schema: leak(schema), migration }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T08:19:03.123Z").unwrap()
}

fn clock() -> Result<Timestamp> {
    Ok(now())
}

fn opened(path: &Path, versions: Versions) -> Store {
    Store::open_at(Location::new(path).unwrap(), Access::Any, Duration::from_secs(10), versions).unwrap()
}

/// One that nobody else may write, whatever the umask is.
pub fn folder() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// A folder with a database of these versions in it, where alice has a key.
fn database(versions: Versions) -> (TempDir, std::path::PathBuf, Key) {
    let folder = folder();
    let path = folder.path().join("keys.db");
    make(&Location::new(&path).unwrap(), versions).unwrap();
    let key = issue(&mut opened(&path, versions), "alice").unwrap();
    (folder, path, key)
}

fn issue(store: &mut Store, user: &str) -> Result<Key> {
    let (key, user) = (Key::generate()?, user.parse::<User>()?);
    let new = NewKey { user: &user, settings: &Settings::default(), detail: "test".into() };
    Turn::begin(store, clock)?.write(|transaction| transaction.insert_active(&key, &new))?;
    Ok(key)
}

fn users(store: &Store) -> Vec<String> {
    let mut users = Vec::new();
    let each = |listed: Listed| {
        users.push(listed.key.user.to_string());
        Ok::<_, Error>(())
    };
    store.read_beside_writers(now(), |snapshot| snapshot.for_each(None, each)).unwrap();
    users
}

fn user_version(path: &Path) -> u32 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn the_migrations_lead_to_the_text_of_each_version_to_the_letter() {
    for versions in [VERSIONS, *TWO] {
        let texts = |connection: &Connection| -> BTreeSet<String> {
            let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL";
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(|sql| sql.unwrap()).collect()
        };
        for newest in 1..=versions.len() {
            let known = &versions[..newest];
            let (made, grown) =
                (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
            create(&made, known).unwrap();
            create(&grown, &versions[..1]).unwrap();
            migrate(&grown, known, &known[1..]).unwrap();
            let schema: BTreeSet<String> = known[newest - 1].schema.iter().map(|sql| (*sql).into()).collect();
            assert_eq!(texts(&made), schema);
            assert_eq!(texts(&grown), schema);
            for connection in [made, grown] {
                let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
                let standing = standing(known, pragma("application_id"), pragma("user_version"));
                assert!(matches!(standing, Standing::Newest));
                assert!(versions::schema(&connection, known, standing).unwrap().is_some());
            }
        }
    }
}

#[test]
fn an_older_database_is_read_as_it_is_and_brought_to_the_newest_version_by_a_write() {
    let (_folder, path, key) = database(VERSIONS);
    let mut store = opened(&path, *TWO);
    assert_eq!(users(&store), ["alice"]);
    let record = store.find(&key, now()).unwrap().unwrap();
    let write_use = |store: &mut Store| {
        store.write_uses(&[(record.prefix, now())]).unwrap();
        store.find(&key, now()).unwrap().unwrap().last_used_at
    };
    assert_eq!(write_use(&mut store), None, "not worth a migration");
    assert_eq!(user_version(&path), 1001);
    issue(&mut store, "bob").unwrap();
    assert_eq!(user_version(&path), 2001);
    assert_eq!(users(&store), ["alice", "bob"]);
    assert_eq!(write_use(&mut store), Some(now()));
}

#[test]
fn a_newer_database_is_read_where_its_number_says_so_and_is_never_written() {
    let (folder, path, key) = database(*TWO);
    let mut store = opened(&path, VERSIONS);
    assert_eq!(users(&store), ["alice"]);
    let record = store.find(&key, now()).unwrap().unwrap();
    assert!(record.status.is_accepted());
    let content = || ["keys.db", "keys.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let before = content();
    assert!(store.write_uses(&[(record.prefix, now())]).unwrap());
    assert_eq!(issue(&mut store, "bob").unwrap_err().code(), Code::DbUnavailable);
    assert!(content() == before);
    let (_folder, path, _) = database(*TWO_ANEW);
    let refused = Store::open_at(Location::new(&path).unwrap(), Access::Any, Duration::ZERO, VERSIONS);
    assert_eq!(refused.unwrap_err().code(), Code::DbUnavailable);
}

#[test]
fn what_a_newer_database_lacks_is_no_damage_but_for_a_newer_program() {
    for change in [
        "ALTER TABLE keys DROP COLUMN last_used_at",
        "ALTER TABLE keys RENAME COLUMN id TO uuid",
        "DROP TABLE settings",
        "DROP INDEX keys_of_user",
    ] {
        let (_folder, path, key) = database(*TWO);
        Connection::open(&path).unwrap().execute_batch(change).unwrap();
        let store = opened(&path, VERSIONS);
        let user: User = "alice".parse().unwrap();
        let listed = |snapshot: &Snapshot<'_>| snapshot.for_each(None, |_| Ok::<_, Error>(()));
        let looks = [
            store.find(&key, now()).map(drop),
            store.read_beside_writers(now(), listed),
            store.read(now(), |snapshot| snapshot.held_by(&[Look::ByUser], &user)).map(drop),
        ];
        let refused: Vec<Error> = looks.into_iter().filter_map(Result::err).collect();
        assert!(!refused.is_empty(), "{change}");
        for error in refused {
            assert_eq!(error.code(), Code::DbUnavailable, "{change}: {error}");
            assert!(error.to_string().contains("was made by a newer apikey"), "{change}: {error}");
        }
    }
}

#[test]
fn no_page_of_a_newer_database_is_moved_and_no_log_turned_on() {
    let (folder, path, _) = database(*TWO);
    let copy = folder.path().join("copy.db");
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let copied = std::fs::read(&copy).unwrap();
    for n in 0..80 {
        issue(&mut opened(&path, *TWO), &format!("user{n}")).unwrap();
        if std::fs::metadata(folder.path().join("keys.db-wal")).unwrap().len() > 66 * 4120 {
            break;
        }
    }
    let before = std::fs::read(&path).unwrap();
    for (path, before) in [(&path, before), (&copy, copied)] {
        assert_eq!(issue(&mut opened(path, VERSIONS), "bob").unwrap_err().code(), Code::DbUnavailable);
        assert!(std::fs::read(path).unwrap() == before, "{}", path.display());
    }
}

#[test]
fn nothing_stamps_a_version_on_what_was_not_migrated() {
    let (_folder, path, _) = database(VERSIONS);
    opened(&path, *TWO).write_nothing().unwrap();
    assert_eq!(user_version(&path), 1001);
}

const DATABASE_TO_MIGRATE: &str = "APIKEY_TEST_DATABASE_TO_MIGRATE";

#[test]
#[ignore = "needs strace"] // A part of the next one, which starts it; does nothing by itself.
fn migrates_the_database_that_it_is_told() {
    let Some(path) = std::env::var_os(DATABASE_TO_MIGRATE) else { return };
    issue(&mut opened(path.as_ref(), *TWO), "bob").unwrap();
}

/// This very program, under strace, migrating the database. Returns the trace.
fn migrate_under_strace(path: &Path, options: &[&str]) -> String {
    let trace = path.with_file_name("trace");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).args(options).arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "store::tests::migrates_the_database_that_it_is_told", "--include-ignored"]);
    strace.env(DATABASE_TO_MIGRATE, path).env("RUST_BACKTRACE", "0").env("RUST_TEST_THREADS", "1");
    let status = strace.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status();
    assert!(status.is_ok(), "strace cannot be started");
    std::fs::read_to_string(trace).unwrap()
}

#[test]
#[ignore = "needs strace"]
fn a_migration_that_is_killed_or_fails_at_any_call_is_done_whole_or_not_at_all() {
    let before = database(VERSIONS);
    let copy = || {
        let folder = folder();
        for name in ["keys.db", "keys.db-wal"] {
            std::fs::copy(before.1.with_file_name(name), folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("keys.db");
        (folder, path)
    };
    let (_folder, path) = copy();
    let trace = migrate_under_strace(&path, &[]);
    assert_eq!(user_version(&path), 2001);
    // Of each thread by itself, as strace counts them.
    let calls: BTreeSet<(String, usize)> = {
        let mut counts = std::collections::HashMap::new();
        let words = trace.lines().filter_map(|line| line.split_once(' '));
        let named = words.filter_map(|(thread, rest)| Some((thread, rest.trim().split_once('(')?.0)));
        let named = named.filter(|(_, name)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let mut number = |thread: &str, name: &str| {
            let count = counts.entry((thread.to_owned(), name.to_owned())).or_insert(0);
            *count += 1;
            (name.to_owned(), *count)
        };
        named.map(|(thread, name)| number(thread, name)).collect()
    };
    let (mut old, mut new) = (0, 0);
    for (name, number) in calls {
        for fault in ["signal=SIGKILL", "error=EIO"] {
            let starts = ["execve", "exit_group", "clone3", "vfork"].contains(&name.as_str());
            let disk =
                ["pread64", "pwrite64", "fsync", "fdatasync", "ftruncate", "openat"].contains(&name.as_str());
            if starts || (fault == "error=EIO" && !disk) {
                continue;
            }
            let (_folder, path) = copy();
            let inject = format!("inject={name}:{fault}:when={number}");
            migrate_under_strace(&path, &["-e", &format!("trace={name}"), "-e", &inject]);
            let at = format!("{fault} at {name} number {number}");
            let store = opened(&path, *TWO);
            let found = users(&store);
            match user_version(&path) {
                1001 => {
                    old += 1;
                    assert_eq!(found, ["alice"], "{at}");
                    assert_eq!(users(&opened(&path, VERSIONS)), found, "{at}");
                }
                2001 => {
                    new += 1;
                    assert_eq!(found, ["alice", "bob"], "{at}");
                }
                other => panic!("{at}: {other}"),
            }
            issue(&mut opened(&path, *TWO), "carol").unwrap();
            assert_eq!(user_version(&path), 2001, "{at}");
            let check = Connection::open(&path).unwrap();
            let integrity: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(integrity, "ok", "{at}");
        }
    }
    println!("{} points: {old} of the old version, {new} of the new", old + new);
    assert!(old > 50 && new > 5, "{old} of the old version, {new} of the new");
}
