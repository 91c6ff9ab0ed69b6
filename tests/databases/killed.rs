//! A writer that was killed after it had written its transaction to the log, and before it had published that in
//! the index. `tests/litestream` has one that is really killed, beside the real Litestream.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;

use crate::common::Host;

const PAGE: u64 = 4096;

/// A host where alice has a key, and whose database somebody keeps open, so that its index is believed.
struct Killed {
    host: Host,
    alice: String,
    /// To close it would let go of the locks of this process.
    index: File,
    open: Connection,
}

impl Killed {
    fn new(is_replicated: bool) -> Self {
        let (host, alice) = Host::with_key_of("alice");
        if is_replicated {
            host.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)");
        }
        // It makes an index again, where the last to let go of the database has removed that.
        host.key_from(&["create", "first"]);
        let index = File::options().read(true).write(true).open(host.path("keys.db-shm")).unwrap();
        let open = host.sqlite();
        open.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0)).unwrap();
        // An index that has counted a write is another one than one that was made anew.
        host.key_from(&["refresh", "first", "-y"]);
        Killed { host, alice, index, open }
    }

    /// What `write` does is done up to the moment before it is published.
    fn kill<T>(&self, write: impl FnOnce(&Host) -> T) -> T {
        let mut before = vec![0; self.index.metadata().unwrap().len() as usize];
        self.index.read_exact_at(&mut before, 0).unwrap();
        let written = write(&self.host);
        self.index.write_all_at(&before, 0).unwrap();
        written
    }

    fn create(&self, user: &str) -> String {
        self.kill(|host| host.key_from(&["create", user]))
    }

    fn users(&self) -> Vec<String> {
        let mut users = self.open.prepare("SELECT user FROM accepted_keys ORDER BY user").unwrap();
        users.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn is_published(&self) -> [u8; 48] {
        let mut header = [0; 48];
        self.index.read_exact_at(&mut header, 0).unwrap();
        header
    }

    fn log(&self) -> File {
        File::options().read(true).write(true).open(self.host.path("keys.db-wal")).unwrap()
    }

    /// Asserts that nothing is published by a look, and that what is written next is all there is.
    #[track_caller]
    fn assert_nothing_is_there(&self, at: &str) {
        let before = self.is_published();
        assert_eq!(self.host.apikey(&["show", "alice"]).run().status, 0, "{at}");
        assert!(self.is_published() == before, "{at}: the index was made anew");
        self.host.key_from(&["create", "carol"]);
        assert_eq!(self.users(), ["alice", "carol", "first"], "{at}");
        self.assert_is_sound();
    }

    fn begin_log_anew(&self) {
        let busy = self.open.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        assert_eq!(busy, Ok(0));
    }

    fn assert_is_sound(&self) {
        let integrity: String = self.open.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok");
    }
}

#[test]
fn where_litestream_replicates_no_write_overwrites_what_a_killed_writer_left() {
    let writes: [&[&str]; 7] = [
        &["create", "carol"],
        &["refresh", "alice", "-y"],
        &["revoke", "alice", "-y"],
        &["edit", "alice", "--name", "laptop"],
        &["ensure", "web", "--key-file", "web.key"],
        &["prune", "--ended-for", "0s", "-y"],
        // It writes when the key was used.
        &["verify"],
    ];
    for args in writes {
        let killed = Killed::new(true);
        let bob = killed.create("bob");
        assert_eq!(killed.users(), ["alice", "first"], "the test proves nothing");
        let outcome = killed.host.apikey(args).input(&*killed.alice).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
        assert_eq!(killed.host.status_of(&bob), "active", "{args:?}");
        killed.assert_is_sound();
    }
    let killed = Killed::new(true);
    killed.kill(|host| host.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", ""));
    killed.host.key_from(&["create", "carol"]);
    assert_eq!(killed.host.status_of(&killed.alice), "revoked");
}

#[test]
fn where_nobody_replicates_it_never_was() {
    let killed = Killed::new(false);
    let bob = killed.create("bob");
    killed.host.key_from(&["create", "carol"]);
    assert_eq!(killed.users(), ["alice", "carol", "first"]);
    assert_eq!(killed.host.status_of(&bob), "unknown");
}

#[test]
fn who_only_looks_sees_it_as_a_replica_does() {
    for args in [&["list"][..], &["show", "bob"], &["log"], &["backup", "copy.db"]] {
        let killed = Killed::new(true);
        let bob = killed.create("bob");
        let outcome = killed.host.apikey(args).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
        assert_eq!(killed.users(), ["alice", "bob", "first"], "{args:?}");
        assert!(args[0] == "backup" || outcome.stdout.contains("bob"), "{args:?}: {outcome:?}");
        assert_eq!(killed.host.status_of(&bob), "active");
    }
}

#[test]
fn a_delivery_that_was_left_there_is_finished() {
    let killed = Killed::new(true);
    let host = &killed.host;
    let web = ["ensure", "web", "--key-file", "web.key", "--reload", "test -e ready"];
    assert_eq!(host.apikey(&web).run().status, 0);
    // The new key is in its file, and the reader still to be told.
    killed.kill(|host| assert_eq!(host.apikey(&["refresh", "web", "-y"]).run().status, 9));
    let key = fs::read_to_string(host.path("web.key")).unwrap();
    let outcome = host.apikey(&["create", "carol"]).run();
    assert!(outcome.stderr.contains("and accepted, but its reader is not told yet"), "{outcome:?}");
    assert_eq!(host.status_of(&key), "pending");
    host.write("ready", b"");
    assert_eq!(host.apikey(&["ensure", "web"]).run().status, 0);
    assert_eq!(host.status_of(&key), "active");
    assert_eq!(killed.users(), ["alice", "carol", "first", "web"]);
}

#[test]
fn a_transaction_that_is_not_whole_is_none() {
    for cut in [1, PAGE, PAGE + 23, PAGE + 24] {
        let killed = Killed::new(true);
        killed.create("bob");
        let log = killed.log();
        log.set_len(log.metadata().unwrap().len() - cut).unwrap();
        killed.assert_nothing_is_there(&format!("without its last {cut} bytes"));
    }
    // In the last frame: its page number, its salts, its checksum, its page.
    for before_end in [PAGE + 24, PAGE + 16, PAGE + 8, PAGE, 1] {
        let killed = Killed::new(true);
        killed.create("bob");
        let log = killed.log();
        let at = log.metadata().unwrap().len() - before_end;
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[!byte[0]], at).unwrap();
        killed.assert_nothing_is_there(&format!("{before_end} bytes before its end"));
    }
    for header in [0, 3, 8, 16, 24] {
        let killed = Killed::new(true);
        killed.create("bob");
        killed.log().write_all_at(&[0xff; 4], header).unwrap();
        killed.assert_nothing_is_there(&format!("at {header} of the log's header"));
    }
}

#[test]
fn what_is_left_of_an_older_log_is_nothing() {
    let killed = Killed::new(true);
    (0..5).for_each(|_| drop(killed.host.key_from(&["refresh", "first", "-y"])));
    let older = fs::read(killed.host.path("keys.db-wal")).unwrap();
    killed.begin_log_anew();
    // As a writer leaves it that is killed before it has written the header of the new one.
    killed.log().write_all_at(&older, 0).unwrap();
    assert_eq!(killed.host.apikey(&["show", "alice"]).run().status, 0);
    assert_eq!(killed.users(), ["alice", "first"]);
    killed.assert_is_sound();
}

#[test]
fn what_is_left_of_an_older_log_behind_a_new_one_is_nothing() {
    let killed = Killed::new(true);
    (0..5).for_each(|_| drop(killed.host.key_from(&["refresh", "first", "-y"])));
    let older = killed.log().metadata().unwrap().len();
    let restarted = killed.open.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0));
    assert_eq!(restarted, Ok(0));
    killed.host.key_from(&["create", "bob"]);
    killed.host.apikey(&["revoke", "bob", "-y", "-q"]).gives(0, "", "");
    assert_eq!(killed.log().metadata().unwrap().len(), older, "the test proves nothing");
    killed.assert_nothing_is_there("behind a new log");
}

#[test]
fn the_first_transaction_of_a_new_log_counts() {
    let killed = Killed::new(true);
    killed.begin_log_anew();
    let bob = killed.create("bob");
    assert_eq!(killed.users(), ["alice", "first"], "the test proves nothing");
    killed.host.key_from(&["create", "carol"]);
    assert_eq!(killed.host.status_of(&bob), "active");
    killed.assert_is_sound();
}

#[test]
fn an_index_that_knows_more_than_is_whole_in_the_log_is_kept() {
    let killed = Killed::new(true);
    killed.create("bob");
    // Of the first frame, the checksum.
    killed.log().write_all_at(&[0xff; 8], 32 + 16).unwrap();
    killed.assert_nothing_is_there("behind damage");
}

#[test]
fn a_log_that_is_missing_or_too_short_is_nothing() {
    for length in [0, 31, 32, 40] {
        let killed = Killed::new(true);
        killed.begin_log_anew();
        killed.log().set_len(length).unwrap();
        killed.assert_nothing_is_there(&format!("{length} bytes"));
    }
}

#[test]
fn a_writer_that_is_alive_is_waited_for() {
    let killed = Killed::new(true);
    let length = || killed.log().metadata().unwrap().len();
    let before = length();
    killed.open.execute_batch("PRAGMA cache_size = 1; BEGIN IMMEDIATE; CREATE TABLE other (x)").unwrap();
    for _ in 0..50 {
        killed.open.execute("INSERT INTO other VALUES (randomblob(3000))", []).unwrap();
    }
    assert!(length() > before + 10 * PAGE, "the test proves nothing");
    let outcome = killed.host.apikey(&["create", "bob", "--timeout", "100ms"]).run();
    assert_eq!(outcome.status, 6, "{outcome:?}");
    assert_eq!(killed.host.apikey(&["list"]).run().status, 0, "who looks does not wait");
    killed.open.execute_batch("COMMIT").unwrap();
    killed.host.key_from(&["create", "carol"]);
    let rows = killed.open.query_row("SELECT count(*) FROM other", [], |row| row.get::<_, u32>(0));
    assert_eq!((rows, killed.users()), (Ok(50), ["alice", "carol", "first"].map(String::from).to_vec()));
}

#[test]
fn who_is_reading_meanwhile_goes_on_with_what_it_began_with() {
    let killed = Killed::new(true);
    killed.open.execute_batch("BEGIN").unwrap();
    assert_eq!(killed.users(), ["alice", "first"]);
    killed.create("bob");
    killed.host.key_from(&["create", "carol"]);
    assert_eq!(killed.users(), ["alice", "first"]);
    killed.open.execute_batch("COMMIT").unwrap();
    assert_eq!(killed.users(), ["alice", "bob", "carol", "first"]);
    killed.assert_is_sound();
}

#[test]
fn a_log_that_was_to_begin_anew_and_is_all_in_the_database_is_gone_on_with() {
    let killed = Killed::new(true);
    // Whoever was to cut it off was killed before.
    let log = fs::read(killed.host.path("keys.db-wal")).unwrap();
    killed.begin_log_anew();
    killed.log().write_all_at(&log, 0).unwrap();
    assert_eq!(killed.is_published()[16..20], [0; 4]);
    let reader = killed.host.sqlite();
    reader.execute_batch("BEGIN; SELECT * FROM keys").unwrap();
    killed.host.key_from(&["create", "carol"]);
    killed.host.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", "");
    let seen: u32 = reader.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 2);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(killed.users(), ["carol", "first"]);
    killed.assert_is_sound();
}
