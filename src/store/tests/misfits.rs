//! What a store says of a database that is not, or not any more, as it should be.

use rusqlite::ffi;

use super::*;

#[test]
fn a_row_of_a_newer_database_that_makes_no_sense_is_damage() {
    let (_folder, path, key) = database(*TWO);
    let store = opened(&path, VERSIONS);
    Connection::open(&path).unwrap().execute("UPDATE keys SET id = 'none'", []).unwrap();
    let error = store.find(&key, now()).unwrap_err();
    assert_eq!(error.code(), Code::DbError, "{error}");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_schema_that_changes_while_the_database_is_open_is_not_ours_and_no_newer_one() {
    let (_folder, path, key) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    Connection::open(&path).unwrap().execute("ALTER TABLE keys RENAME COLUMN id TO uuid", []).unwrap();
    let found = store.find(&key, now()).unwrap_err();
    let used = store.write_uses(&[(key.prefix(), now())]).unwrap_err();
    for error in [found, used] {
        assert_eq!(error.code(), Code::DbUnavailable, "{error}");
        assert!(error.to_string().contains("is not an apikey database"), "{error}");
    }
}

#[test]
fn a_file_system_that_may_only_be_read_is_no_index_that_was_half_written() {
    let folder = folder();
    let location = Location::new(&folder.path().join("keys.db")).unwrap();
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None);
    let error = failure(&error, &location);
    assert_eq!(error.code(), Code::Forbidden);
    assert!(error.to_string().contains("may not be written"), "{error}");
}

#[test]
fn where_a_log_cannot_be_looked_at_nothing_older_is_shown() {
    let (folder, path, _) = database(VERSIONS);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)").unwrap();
    let store = opened(&path, VERSIONS);
    let look = || store.read(now(), |snapshot| snapshot.pending());
    look().unwrap();
    let log = folder.path().join("keys.db-wal");
    std::fs::rename(&log, folder.path().join("away")).unwrap();
    std::fs::create_dir(log).unwrap();
    let error = look().unwrap_err();
    assert!(error.to_string().contains("look at the log of"), "{error}");
}

#[test]
fn a_version_with_another_oldest_reader_than_it_has_is_somebody_else_s() {
    let standing = |user_version| standing(*TWO, u32::from_be_bytes(*b"akey"), user_version);
    assert!(matches!(standing(2001), versions::Standing::Newest));
    assert!(matches!(standing(2002), versions::Standing::Foreign));
}
