//! What the schema says that each thing in the database is.

use std::fs;

use apikey::{Changes, Code};

use super::ends_as_documented;
use super::scratch::{Scratch, Taker, order};

/// The names of what is ours.
const OURS: [&str; 11] = [
    "keys",
    "unique_key_hash",
    "keys_of_user",
    "one_active_key",
    "one_pending_key",
    "retiring_keys",
    "settings",
    "due_keys",
    "events",
    "events_of_user",
    "accepted_keys",
];

/// The text of one of them.
pub fn text_of(which: usize) -> String {
    let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
    let name = OURS[which % OURS.len()];
    Scratch::new().sqlite().query_row(sql, [name], |row| row.get(0)).unwrap()
}

/// One of ours has this text, in a database of this version or of a later one that says that it can be read.
pub fn check(which: usize, text: &[u8], is_newer: bool) {
    let (scratch, name) = (Scratch::new(), OURS[which % OURS.len()]);
    let is_another = {
        let connection = scratch.sqlite();
        connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
        let text = rusqlite::types::ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Text(text));
        let sql = "UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1 AND sql <> ?2";
        let changed = connection.execute(sql, rusqlite::params![name, text]).unwrap();
        if is_newer {
            connection.execute_batch("PRAGMA user_version = 2001").unwrap();
        }
        changed > 0
    };
    let before = fs::read(scratch.database()).unwrap();
    scratch.verdict(scratch.key("active"));
    scratch.verdict(scratch.key("revoked"));
    assert!(!scratch.is_accepted(scratch.key("revoked")) || is_another, "{name}");
    let created = scratch.authority().and_then(|mut authority| {
        authority.create(&order("carol", Changes::default()), &mut Taker::default())
    });
    if is_another || is_newer {
        let error = created.as_ref().expect_err("a database that is not ours to the letter was written");
        assert!(matches!(error.code(), Code::DbError | Code::DbUnavailable), "{error}");
        assert!(fs::read(scratch.database()).unwrap() == before, "{name}: {text:?}");
    } else {
        assert!(created.is_ok(), "{created:?}");
    }
    ends_as_documented(created);
}

/// What a newer database lacks that a reader of this version looks for is no damage.
pub fn check_newer(change: &str) {
    let scratch = Scratch::new();
    let sql = format!("PRAGMA user_version = 2001; {change}");
    scratch.sqlite().execute_batch(&sql).unwrap();
    let shown = scratch.authority().and_then(|authority| {
        let all = apikey::Filter { all: true, ..apikey::Filter::default() };
        authority.list(|keys| keys.for_each(None, &all, |_| Ok::<_, apikey::Error>(())))
    });
    let code = shown.err().map(|error| error.code());
    assert!(matches!(code, None | Some(Code::DbUnavailable)), "{change}: {code:?}");
}
