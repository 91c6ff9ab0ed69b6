//! The row of a user's settings, with any value in any column.

use apikey::{Changes, Code};

use super::cell::Cell;
use super::scratch::{Scratch, Taker, order, refresh, user};
use super::{ends_as_documented, is_documented};

/// A reload command that is stored is not run: it was set on no machine that there is.
const COLUMNS: [&str; 14] = [
    "name",
    "lifetime_ms",
    "key_file",
    "key_file_mode",
    "key_file_uid",
    "key_file_gid",
    "key_file_env",
    "reload",
    "reload_timeout_ms",
    "renew_after_ms",
    "renew_grace_ms",
    "due_at",
    "grace_ms",
    "reload_pending",
];

pub fn check(changes: &[(usize, Cell)]) {
    let scratch = Scratch::new().with_key_file();
    let is_changed = scratch.change(|connection| {
        changes.iter().try_fold(0, |rows, (column, value)| {
            let column = COLUMNS[column % COLUMNS.len()];
            let sql = format!("UPDATE settings SET {column} = ?1 WHERE user = 'web'");
            Ok(rows + connection.execute(&sql, [&inside(&scratch, column, value)])?)
        })
    });
    if !is_changed {
        return;
    }
    let mut authority = scratch.authority().unwrap();
    ends_as_documented(authority.show(&user("web")));
    ends_as_documented(authority.ensure(&order("web", Changes::default()), true, &mut Taker::default()));
    let mut taker = Taker::default();
    ends_as_documented(authority.refresh(&refresh("web", Changes::default()), &mut taker));
    if let Err(error) = authority.revoke(&user("web"), None) {
        is_documented(&error);
        assert_eq!(error.code(), Code::NoKey, "{error}: {changes:?}");
    }
    for key in [scratch.key("web"), &taker.0] {
        assert!(key.is_empty() || !scratch.is_accepted(key), "{changes:?}");
    }
    let web = "SELECT count(*) FROM accepted_keys WHERE user = 'web'";
    assert_eq!(scratch.sqlite().query_row(web, [], |row| row.get(0)), Ok(0), "{changes:?}");
}

/// A path of a key file that is to be written only where that is in the folder of this test.
fn inside(scratch: &Scratch, column: &str, value: &Cell) -> Cell {
    match value {
        Cell::Text(path) if column == "key_file" && path.starts_with(b"/") => {
            let folder = scratch.path("").to_str().unwrap().trim_end_matches('/').as_bytes().to_vec();
            Cell::Text([folder, path.clone()].concat())
        }
        value => value.clone(),
    }
}
