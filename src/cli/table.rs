//! Tables for people.

use std::io::{self, IsTerminal as _};

use comfy_table::{ContentArrangement, Table, presets};
use dialoguer::console::Term;

use crate::key_file::KeyFile;
use crate::store::Record;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// All that is known of a key, a line each.
pub fn one(key: &Record) -> String {
    let mut table = new();
    let mut line = |what: &str, value: &str| {
        table.add_row([what, &*printable(value)]);
    };
    let time = |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string());
    line("user", &key.user);
    line("prefix", &key.prefix);
    line("name", key.name.as_deref().unwrap_or("-"));
    line("status", key.status.as_str());
    line("id", &key.id);
    line("created", &key.created_at.to_string());
    line("last used", &time(key.last_used_at));
    line("expires", &time(key.expires_at));
    line("revoked", &time(key.revoked_at));
    line("key file", key.key_file.as_ref().map_or("-", KeyFile::path));
    lines(table)
}

/// Many keys, a row each. Dates only, so that it fits a terminal; `one` has the rest.
pub fn many(keys: &[Record]) -> String {
    let date =
        |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string()[..10].to_owned());
    let mut table = new();
    table.set_header(["USER", "PREFIX", "NAME", "STATUS", "CREATED", "EXPIRES", "LAST USED"]);
    table.add_rows(keys.iter().map(|key| {
        [
            printable(&key.user).into_owned(),
            printable(&key.prefix).into_owned(),
            printable(key.name.as_deref().unwrap_or("-")).into_owned(),
            key.status.as_str().to_owned(),
            date(Some(key.created_at)),
            date(key.expires_at),
            date(key.last_used_at),
        ]
    }));
    lines(table)
}

/// A table with no lines, two blanks between columns, and no wider than the terminal.
fn new() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(Term::stdout().size().1);
    }
    table
}

fn lines(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
