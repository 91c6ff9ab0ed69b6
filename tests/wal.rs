//! The write-ahead log beside the database.

mod common;

use common::Host;
use rusqlite::{Connection, OpenFlags};

/// A frame of the log: a page and its header. <https://sqlite.org/fileformat2.html>, section 4.1.
const FRAME: u64 = 4096 + 24;

fn frames(host: &Host) -> u64 {
    (std::fs::metadata(host.path("keys.db-wal")).unwrap().len() - 32) / FRAME
}

/// The most that one write adds. It puts the key into three trees; where its place in one is full, SQLite
/// spreads up to three neighbours over one page more, and notes that in the page above. With random
/// keys that happens in all three at once now and then. The first page counts the pages.
const MOST_OF_ONE_WRITE: u64 = 3 * 5 + 1;

/// Fewer than `CHECKPOINT_PAGES`, and those of the last write.
const MOST: u64 = 64 + MOST_OF_ONE_WRITE;

#[test]
fn the_log_stays_short_however_many_processes_write_one_after_the_other() {
    let host = Host::new();
    let mut keys = Vec::new();
    for n in 0..90 {
        keys.push(host.key_from(&["create", &format!("user-{n}")]));
        assert!(frames(&host) < MOST, "{} frames after {n} keys", frames(&host));
    }
    for key in &keys {
        assert_eq!(host.status_of(key), "active");
        assert!(frames(&host) < MOST, "{} frames after a use was written down", frames(&host));
    }
    assert_eq!(host.accepted(), 90);
}

#[test]
fn a_log_that_starts_anew_keeps_its_length_which_it_would_have_to_grow_to_again() {
    let host = Host::new();
    let mut longest = 0;
    for n in 0..60 {
        host.key_from(&["create", &format!("user-{n}")]);
        assert!(frames(&host) >= longest, "{} frames after {n} keys, and {longest} before", frames(&host));
        longest = frames(&host);
    }
    assert!((64..MOST).contains(&longest), "{longest} frames: it never started anew");
}

#[test]
fn a_reader_that_stays_keeps_nobody_from_writing_and_sees_what_was_there() {
    let (host, _) = Host::with_key_of("alice");
    let reader = host.sqlite();
    let accepted = || reader.query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get::<_, u32>(0));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(accepted(), Ok(1));
    for n in 0..60 {
        host.key_from(&["create", &format!("user-{n}")]);
    }
    assert_eq!(accepted(), Ok(1));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(accepted(), Ok(61));
    drop(reader);
    host.key_from(&["create", "bob"]);
    assert_eq!(host.accepted(), 62);
}

#[test]
fn a_use_that_is_no_news_is_no_write() {
    let (host, key) = Host::with_key_of("alice");
    assert_eq!(host.status_of(&key), "active");
    // One that moves nothing when it goes.
    let reader = Connection::open_with_flags(host.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM keys").unwrap();
    for n in 0..30 {
        host.key_from(&["create", &format!("user-{n}")]);
    }
    drop(reader);
    assert!(frames(&host) > MOST, "{}", frames(&host));
    // The next write moves the log to the database.
    let before = host.contents();
    assert_eq!(host.status_of(&key), "active");
    assert!(host.contents() == before);
    host.key_from(&["create", "bob"]);
    assert!(host.contents() != before);
}
