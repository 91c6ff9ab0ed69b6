//! The rows of keys, with any value in any column.

use apikey::{Filter, Verdict};

use super::cell::Cell;
use super::ends_as_documented;
use super::scratch::{Scratch, user};

/// But for the prefix: a row with another one is another key's.
const COLUMNS: [&str; 8] =
    ["key_hash", "id", "user", "name", "status", "expires_at", "revoked_at", "last_used_at"];

/// Alice's keys.
const ROWS: [&str; 3] = ["active", "retiring", "revoked"];

/// A database where one of alice's rows is changed; `None` where SQLite has nothing to do with it.
fn changed(row: usize, changes: &[(usize, Cell)]) -> Option<(Scratch, &'static str)> {
    let (scratch, row) = (Scratch::new(), ROWS[row % ROWS.len()]);
    let is_changed = scratch.change(|connection| {
        let prefix = i64::from_str_radix(&scratch.key(row)[3..15], 16).unwrap();
        changes.iter().try_fold(0, |rows, (column, value)| {
            let sql = format!("UPDATE keys SET {} = ?1 WHERE prefix = ?2", COLUMNS[column % COLUMNS.len()]);
            Ok(rows + connection.execute(&sql, rusqlite::params![value, prefix])?)
        })
    });
    is_changed.then_some((scratch, row))
}

/// What the library accepts the view has, and the reverse: but for a row that the library cannot read, which is an
/// error.
pub fn check_verdict(row: usize, changes: &[(usize, Cell)]) {
    let Some((scratch, row)) = changed(row, changes) else { return };
    let key = scratch.key(row);
    let (verdict, is_in_view) = (scratch.verdict(key), scratch.is_in_view(key));
    match verdict {
        Some(Verdict::Accepted(_)) => assert!(is_in_view, "accepted, and not by the view: {changes:?}"),
        Some(verdict) => assert!(!is_in_view, "{verdict:?}, and accepted by the view: {changes:?}"),
        None => {}
    }
}

/// Whatever the rows of a user hold, a revocation ends every one of them, and nobody else's.
pub fn check_revocation(row: usize, changes: &[(usize, Cell)]) {
    let Some((scratch, row)) = changed(row, changes) else { return };
    let is_hers: bool = {
        let prefix = i64::from_str_radix(&scratch.key(row)[3..15], 16).unwrap();
        let sql = "SELECT typeof(user) = 'text' AND user = 'alice' FROM keys WHERE prefix = ?1";
        scratch.sqlite().query_row(sql, [prefix], |row| row.get(0)).unwrap()
    };
    let mut authority = scratch.authority().unwrap();
    let revoked = ends_as_documented(authority.revoke(&user("alice"), None)).is_some();
    for hers in ROWS.iter().filter(|hers| is_hers || **hers != row) {
        let key = scratch.key(hers);
        assert!(!scratch.is_in_view(key), "{hers}, in the view still, {revoked}: {changes:?}");
        assert!(!scratch.is_accepted(key), "{hers}, accepted still, {revoked}: {changes:?}");
    }
    let bob = scratch.key("bob");
    assert!(scratch.is_in_view(bob) && scratch.is_accepted(bob), "{changes:?}");
}

/// Whatever they hold, each look at them ends, and what fails says why.
pub fn check_looks(row: usize, changes: &[(usize, Cell)]) {
    let Some((scratch, _)) = changed(row, changes) else { return };
    let authority = scratch.authority().unwrap();
    let all = Filter { all: true, ..Filter::default() };
    ends_as_documented(authority.list(|keys| keys.for_each(None, &all, |_| Ok::<_, apikey::Error>(()))));
    ends_as_documented(authority.show(&user("alice")));
    ends_as_documented(authority.revocable(&user("alice")));
    ends_as_documented(authority.users("", 10));
    ends_as_documented(authority.log(None, None, |_| Ok::<_, apikey::Error>(())));
}
