//! The first hundred bytes of a database.

use std::fs;

use apikey::{Changes, Code};

use super::ends_as_documented;
use super::scratch::{Scratch, Taker, order};

/// Each change is a place and what is there then.
pub fn check(changes: &[(usize, u8)]) {
    let mut bytes = Scratch::bytes();
    for (at, byte) in changes {
        bytes[at % 100] = *byte;
    }
    let scratch = Scratch::with(&bytes);
    scratch.verdict(scratch.key("active"));
    let created = scratch.authority().and_then(|mut authority| {
        authority.create(&order("carol", Changes::default()), &mut Taker::default())
    });
    let code = created.as_ref().err().map(|error| error.code());
    ends_as_documented(created);
    // What is not ours, or not for this program, is not touched.
    let is_ours = bytes.starts_with(b"SQLite format 3\0") && bytes[68..72] == *b"akey";
    assert!(is_ours || code.is_some(), "{changes:?}");
    if !is_ours || code == Some(Code::DbUnavailable) {
        assert!(fs::read(scratch.database()).unwrap() == bytes, "{changes:?}");
        for name in ["keys.db-wal", "keys.db-journal"] {
            let length = scratch.path(name).metadata().map_or(0, |found| found.len());
            assert_eq!(length, 0, "{name}: {changes:?}");
        }
    }
}
