//! `apikey revoke` on a database that is damaged.

mod common;

use common::Host;
use common::strace::{Fault, at_each_call};
use serde_json::json;

#[test]
fn rows_that_make_no_sense_keep_no_key_accepted() {
    for spoil in [
        "UPDATE keys SET prefix = prefix | (1 << 50) WHERE status = 'retiring'",
        "UPDATE settings SET lifetime_ms = -1",
        "UPDATE keys SET id = 'none', name = char(27), expires_at = 'then'",
    ] {
        for how in [&["revoke", "web", "-y"][..], &["refresh", "web", "-y", "--revoke-first"]] {
            let host = Host::new();
            host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
            host.apikey(&["refresh", "web", "-yq", "--grace", "1h"]).gives(0, "", "");
            let leaked = std::fs::read_to_string(host.path("web.key")).unwrap();
            host.execute(spoil);
            let outcome = host.apikey(how).run();
            let verdict = host.apikey(&["verify"]).input(leaked).run();
            assert_ne!(verdict.status, 0, "{spoil}: {outcome:?}");
            let left = host.accepted();
            assert!(left == 0 || (left == 1 && how[0] == "refresh"), "{spoil}: {left}: {outcome:?}");
        }
    }
}

/// A host where alice's key has a label and an end, and was used, all of it in the database's own file; that key; and
/// where in that file the types of its row begin.
fn host_with_a_row() -> (Host, String, usize) {
    let host = Host::new();
    let key = host.key_from(&["create", "alice", "--name", "label", "--expires-in", "90d"]);
    let start = start_of_row(&host, &key);
    (host, key, start)
}

/// Uses that key of alice, moves all of the log to the database's own file, and says where in that the types of its row
/// begin.
fn start_of_row(host: &Host, key: &str) -> usize {
    assert_eq!(host.status_of(key), "active");
    host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    let database = std::fs::read(host.database()).unwrap();
    // The header of the record (https://sqlite.org/fileformat2.html, section 2.1): its length, and then NULL, a blob
    // of 32 bytes, and texts of 36, 5, 5, 6, 24, 0 (NULL) and 24.
    let types =
        [10, 0, 32 * 2 + 12, 36 * 2 + 13, 5 * 2 + 13, 5 * 2 + 13, 6 * 2 + 13, 24 * 2 + 13, 0, 24 * 2 + 13];
    let places: Vec<usize> =
        (0..database.len() - types.len()).filter(|at| database[*at..].starts_with(&types)).collect();
    assert_eq!(places.len(), 1);
    places[0]
}

#[test]
fn no_flipped_bit_in_the_types_of_a_row_keeps_its_key_accepted() {
    let (whole, key, start) = host_with_a_row();
    let content = std::fs::read(whole.database()).unwrap();
    let hash = apikey::Key::parse(key.as_bytes()).unwrap().hash().to_string();
    for (column, bit) in (0..=9).flat_map(|column| (0..8).map(move |bit| (column, bit))) {
        for reindex in [false, true] {
            let at = format!("column {column}, bit {bit}, {reindex}");
            let host = Host::new();
            let mut flipped = content.clone();
            flipped[start + column] ^= 1 << bit;
            host.write("keys.db", &flipped);
            host.chmod("keys.db", 0o600);
            if reindex && host.sqlite().execute_batch("REINDEX").is_err() {
                continue;
            }
            let outcome = host.apikey(&["revoke", "alice", "-y"]).run();
            let by_services = |way: &str| {
                let sql = format!("SELECT user FROM accepted_keys WHERE {way} = ?1");
                let found = host.sqlite().query_row(&sql, [&hash], |row| Ok(format!("{:?}", row.get_ref(0))));
                found.ok()
            };
            // By the index, and by looking at each row.
            assert_eq!(
                (by_services("key_hash"), by_services("+key_hash")),
                (None, None),
                "{at}: {outcome:?}"
            );
            let verdict = host.apikey(&["verify"]).input(&*key).run();
            assert_ne!(verdict.status, 0, "{at}: {outcome:?}");
        }
    }
}

#[test]
fn a_revocation_says_that_a_row_made_no_sense() {
    // The user and the hash as they are, but of another type.
    for column in [2, 4] {
        let (host, key, start) = host_with_a_row();
        let mut content = std::fs::read(host.database()).unwrap();
        content[start + column] ^= 1;
        host.write("keys.db", &content);
        for subject in ["alice", &key[..15]] {
            let host = host.copy();
            host.apikey(&["revoke", subject, "-y"]).gives(
                0,
                "",
                "Revoked <prefix> of alice. The database is damaged: 1 damaged row had to be written \
                 anew. `apikey doctor` says what else is wrong.\n",
            );
            assert_eq!(host.status_of(&key), "revoked", "{column}, {subject}");
            let integrity: String =
                host.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(integrity, "ok", "{column}, {subject}");
            host.key_from(&["create", "alice"]);
        }
    }
    // A status that nobody reads is in nobody's way any more.
    let (host, key, start) = host_with_a_row();
    let mut content = std::fs::read(host.database()).unwrap();
    content[start + 6] ^= 1;
    host.write("keys.db", &content);
    let revoked = host.apikey(&["revoke", "alice", "-y", "--json"]).run().json();
    assert_eq!(revoked["revoked_key_prefixes"], json!([]));
    assert!(
        revoked["message"].as_str().unwrap().starts_with("Revoked 1 unreadable key of alice."),
        "{revoked}"
    );
    assert_eq!(host.status_of(&key), "revoked");
    host.key_from(&["create", "alice"]);
}

#[test]
fn where_an_index_lacks_an_entry_all_else_of_a_revocation_is_done() {
    let host = Host::new();
    let options = ["--name", "label", "--expires-in", "90d", "--key-file", "a.key", "--renew-after", "30d"];
    host.apikey(&[&["create", "alice", "-q"], &options[..]].concat()).gives(0, "", "");
    let key = std::fs::read_to_string(host.path("a.key")).unwrap();
    let row = start_of_row(&host, &key);
    // The index says that alice is due at another time than her settings say.
    let due_at: String =
        host.sqlite().query_row("SELECT due_at FROM settings", [], |row| row.get(0)).unwrap();
    let (mut database, index) = page_of(&host, "due_keys");
    let entry = (index..index + 4096).find(|at| database[*at..].starts_with(due_at.as_bytes())).unwrap();
    database[entry + 3] ^= 1;
    let revoked = "Revoked <prefix> of alice. <folder>/a.key holds a key that is no longer accepted.";
    let anew = "The database is damaged: 1 damaged row had to be written anew. `apikey doctor` says what \
                else is wrong.";
    for (column, said) in [
        (None, format!("{revoked}\n")),
        // And the types of the hash, of the user, and of the status, which nobody can read then.
        (Some(2), format!("{revoked} {anew}\n")),
        (Some(4), format!("{revoked} {anew}\n")),
        (Some(6), format!("Revoked 1 unreadable key of alice. {anew}\n")),
    ] {
        let copy = host.copy();
        let mut database = database.clone();
        column.iter().for_each(|column| database[row + column] ^= 1);
        copy.write("keys.db", &database);
        // The path of its file is that on the first host.
        let outcome = copy.apikey(&["revoke", "alice", "-y"]).run();
        let stderr = outcome.stderr.replace(host.folder().to_str().unwrap(), "<folder>");
        assert_eq!((outcome.status, stderr.replace(&key[..15], "<prefix>")), (0, said), "{column:?}");
        assert_eq!((copy.status_of(&key).as_str(), copy.accepted()), ("revoked", 0), "{column:?}");
        let log = copy.apikey(&["log", "alice", "--json"]).run().json();
        let events = log["events"].as_array().unwrap();
        let written = Vec::from_iter(events.iter().filter(|event| event["event"] == "revoked"));
        assert_eq!(written.len(), 1, "{column:?}");
        assert_eq!(written[0]["prefix"], key[..15], "{column:?}");
    }
}

#[test]
fn a_damaged_row_is_revoked_also_where_the_log_of_events_is_damaged() {
    for column in [2, 4, 6] {
        let (host, key, row) = host_with_a_row();
        let (mut database, events) = page_of(&host, "events");
        database[row + column] ^= 1;
        database[events..events + 4096].fill(7);
        host.write("keys.db", &database);
        let outcome = host.apikey(&["revoke", "alice", "-y"]).run();
        assert!(outcome.status == 0 && outcome.stderr.contains("The log does not say so"), "{outcome:?}");
        assert_eq!((host.status_of(&key).as_str(), host.accepted()), ("revoked", 0), "{column}");
    }
}

#[test]
fn no_flipped_bit_in_the_name_of_its_user_keeps_a_key_accepted() {
    let (host, key, start) = host_with_a_row();
    let content = std::fs::read(host.database()).unwrap();
    // Behind the ten types of the row, its hash and its id.
    let name = start + 10 + 32 + 36;
    assert_eq!(&content[name..name + 5], b"alice");
    for (at, bit) in [0, 2].into_iter().flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = content.clone();
        flipped[name + at] ^= 1 << bit;
        // An index still says whose it is.
        for subject in ["alice", &key[..15]] {
            let copy = host.copy();
            copy.write("keys.db", &flipped);
            let outcome = copy.apikey(&["revoke", subject, "-y"]).run();
            let said = format!("Revoked {} of ", &key[..15]);
            let is_said = outcome.stderr.starts_with(&said) && !outcome.stderr.contains("made to expire");
            assert!(outcome.status == 0 && is_said, "{at}, {bit}: {subject}: {outcome:?}");
            assert_eq!(copy.accepted(), 0, "{at}, {bit}: {subject}: {outcome:?}");
            let log = copy.apikey(&["log", &key[..15], "--json"]).run().json();
            let last = log["events"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(last["event"], "revoked", "{at}, {bit}: {subject}: {log}");
        }
    }
    // The first character is `!` now.
    let mut flipped = content;
    flipped[name] ^= 0x40;
    host.write("keys.db", &flipped);
    host.apikey(&["revoke", &key[..15], "-y"]).gives(0, "", "Revoked <prefix> of damaged:_lice.\n");
}

#[test]
fn a_revocation_that_could_not_be_written_down_says_so_and_what_is_accepted_all_the_same() {
    let (host, old) = Host::with_key_of("alice");
    let current = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    let (mut database, start) = page_of(&host, "events");
    database[start] ^= 8;
    host.write("keys.db", &database);
    let not_logged =
        "The log does not say so, since the database is damaged or its disk is full: see `apikey doctor`.";
    let copy = host.copy();
    let all = format!("Revoked <prefix>, <prefix> of alice. {not_logged}\n");
    copy.apikey(&["revoke", "alice", "-y"]).gives(0, "", all);
    assert_eq!(copy.accepted(), 0);
    let revoked = host.apikey(&["revoke", &current[..15], "-y", "--json"]).run().json();
    assert_eq!(revoked["message"], format!("Revoked {} of alice. {not_logged}", &current[..15]));
    let accepted = &revoked["still_accepted"];
    assert_eq!((&accepted[0]["prefix"], &accepted[0]["status"]), (&json!(old[..15]), &json!("retiring")));
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_key_that_could_not_be_ended_since_it_cannot_be_read_is_told() {
    // Its prefix is none, and the index cannot be read in which a status would have to be written.
    let spoil = |host: &Host| {
        host.execute(
            "UPDATE keys SET prefix = prefix | (1 << 50) WHERE status = (SELECT max(status) FROM keys);
             PRAGMA wal_checkpoint(TRUNCATE)",
        );
        let (mut database, start) = page_of(host, "one_active_key");
        database[start] ^= 8;
        host.write("keys.db", &database);
    };
    let (host, _) = Host::with_key_of("alice");
    let alone = host.copy();
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    spoil(&host);
    host.apikey(&["revoke", "alice", "-y"]).gives(
        0,
        "",
        "Revoked <prefix> of alice. They could only be made to expire, since the database is damaged or its disk is full: \
         make room, or restore it from a backup, and revoke them again, each by its prefix. Another key, which cannot be \
         read, is left as it was, and may be accepted: restore the database from a backup, and revoke again.\n",
    );
    spoil(&alone);
    alone.apikey(&["revoke", "alice", "-y"]).fails(
        1,
        "apikey: a key of alice cannot be read, and could not be revoked\n\
         restore the database from a backup, and revoke it there\n",
    );
}

#[test]
fn a_user_whose_older_key_could_only_be_made_to_expire_is_renewed_as_before() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--renew-after", "30d"]).gives(0, "", "");
    let old = std::fs::read_to_string(host.path("web.key")).unwrap();
    host.apikey(&["refresh", "web", "-yq", "--grace", "1h"]).gives(0, "", "");
    host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    let (mut database, start) = page_of(&host, "retiring_keys");
    database[start] ^= 8;
    host.write("keys.db", &database);
    let renewed =
        || host.sqlite().query_row("SELECT count(renew_after_ms) FROM settings", [], |row| row.get(0));
    for (subject, left) in [(&old[..15], 1), ("web", 0)] {
        let outcome = host.apikey(&["revoke", subject, "-y"]).run();
        assert!(outcome.stderr.contains("only be made to expire"), "{subject}: {outcome:?}");
        assert_eq!(outcome.stderr.contains(", which is active, is accepted."), left == 1, "{outcome:?}");
        assert_eq!(renewed(), Ok(left), "{subject}: {outcome:?}");
    }
}

const INDEXES: [&str; 4] = ["keys_of_user", "one_active_key", "one_pending_key", "retiring_keys"];

/// A host where alice has an active, a pending and a retiring key, all of it in the database's own file.
fn host_with_three_keys() -> Host {
    let (host, _) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.key_from(&["create", "elsewhere"]);
    host.execute("UPDATE keys SET user = 'alice', status = 'pending' WHERE user = 'elsewhere'");
    host.deliver_pending();
    host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    host
}

/// The database's bytes, and where in them the root page of `index` begins.
fn page_of(host: &Host, index: &str) -> (Vec<u8>, usize) {
    let root: usize = host
        .sqlite()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [index], |row| row.get::<_, u32>(0))
        .unwrap() as usize;
    (std::fs::read(host.database()).unwrap(), (root - 1) * 4096)
}

#[test]
fn one_flipped_bit_in_an_index_hides_no_key_from_a_revocation() {
    for index in INDEXES {
        let host = host_with_three_keys();
        let (mut database, start) = page_of(&host, index);
        let places: Vec<usize> =
            (start..start + 4091).filter(|at| &database[*at..*at + 5] == b"alice").collect();
        assert!(!places.is_empty(), "{index}");
        places.iter().for_each(|at| database[at + 4] ^= 1);
        host.write("keys.db", &database);
        assert_eq!(host.accepted(), 3);
        let outcome = host.apikey(&["revoke", "alice", "-yq"]).run();
        assert_eq!((outcome.status, host.accepted()), (0, 0), "{index}: {outcome:?}");
    }
}

#[test]
fn an_index_that_cannot_be_read_keeps_no_key_accepted() {
    for index in INDEXES {
        let host = host_with_three_keys();
        let (mut database, start) = page_of(&host, index);
        // What kind of page it is, and where its cells are.
        for (at, bit) in [(0, 1), (0, 8), (5, 128)] {
            database[start + at] ^= bit;
            host.write("keys.db", &database);
            let copy = host.copy();
            let outcome = copy.apikey(&["revoke", "alice", "-yq"]).run();
            // What was done counts: the database itself says what is accepted, by no index.
            let left: u32 = copy
                .sqlite()
                .query_row(
                    "SELECT count(*) FROM keys NOT INDEXED WHERE status IN ('active', 'pending', 'retiring')
                     AND coalesce(revoked_at, expires_at, '9') > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!((outcome.status, left), (0, 0), "{index}, {at}: {outcome:?}");
            database[start + at] ^= bit;
        }
    }
}

#[test]
fn damage_to_the_log_of_events_keeps_no_key_accepted_where_litestream_replicates_the_database_either() {
    let (host, _) = Host::with_key_of("alice");
    host.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY); PRAGMA wal_checkpoint(TRUNCATE)");
    for damaged in ["events", "events_of_user"] {
        let (mut database, start) = page_of(&host, damaged);
        database[start] ^= 8;
        let copy = host.copy();
        copy.write("keys.db", &database);
        let outcome = copy.apikey(&["revoke", "alice", "-yq"]).run();
        assert_eq!((outcome.status, copy.accepted()), (0, 0), "{damaged}: {outcome:?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_read_that_fails_leaves_nothing_that_is_only_said_to_be_revoked() {
    let before = Host::new();
    before.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let key = std::fs::read_to_string(before.path("web.key")).unwrap();
    before.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    // Not EIO, which SQLite takes for damage.
    let reads = at_each_call(
        || before.copy(),
        &["revoke", "web", "-y"],
        |call| if call.name == "pread64" { vec![Fault::Error("ESTALE")] } else { vec![] },
        |host, outcome, at| {
            let status = host.status_of(&key);
            assert_eq!(status == "revoked", outcome.status == 0, "{at}: {status}: {outcome:?}");
        },
    );
    assert!(reads > 10, "{reads}");
}

#[test]
fn one_flipped_bit_in_an_index_ends_nobody_else_s_key() {
    for index in ["one_active_key", "keys_of_user"] {
        for has_one in [true, false] {
            let (host, other) = Host::with_key_of("web1");
            let own = has_one.then(|| host.key_from(&["create", "web0"]));
            host.execute("PRAGMA wal_checkpoint(TRUNCATE)");
            let (mut database, page) = page_of(&host, index);
            let at = (page..page + 4096).find(|at| database[*at..].starts_with(b"web1")).unwrap();
            database[at + 3] ^= 1;
            host.write("keys.db", &database);
            let outcome = host.apikey(&["revoke", "web0", "-y"]).run();
            assert_eq!(outcome.status, if has_one { 0 } else { 4 }, "{index}: {outcome:?}");
            assert_eq!(host.status_of(&other), "active", "{index}, {has_one}: {outcome:?}");
            own.iter().for_each(|own| assert_eq!(host.status_of(own), "revoked", "{index}"));
        }
    }
}

#[test]
fn a_row_whose_status_is_none_is_revoked_and_in_nobody_s_way() {
    let (host, key, row) = host_with_a_row();
    let mut database = std::fs::read(host.database()).unwrap();
    let status = (row..row + 4096).find(|at| database[*at..].starts_with(b"active")).unwrap();
    database[status + 5] ^= 3;
    host.write("keys.db", &database);
    let outcome = host.apikey(&["revoke", "alice", "-y"]).run();
    assert!(outcome.stderr.starts_with("Revoked 1 unreadable key of alice."), "{outcome:?}");
    assert_eq!((outcome.status, host.status_of(&key).as_str()), (0, "revoked"));
    host.key_from(&["create", "alice"]);
}
