//! Tables for people.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use dialoguer::console::Term;

use crate::key_file::KeyFile;
use crate::store::Record;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// All that is known of a key, a line each.
pub fn one(key: &Record) -> String {
    let time = |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string());
    let lines = [
        ("user", &*key.user),
        ("prefix", &key.prefix),
        ("name", key.name.as_deref().unwrap_or("-")),
        ("status", key.status.as_str()),
        ("id", &key.id),
        ("created", &key.created_at.to_string()),
        ("last used", &time(key.last_used_at)),
        ("expires", &time(key.expires_at)),
        ("revoked", &time(key.revoked_at)),
        ("key file", key.key_file.as_ref().map_or("-", KeyFile::path)),
    ];
    lines.map(|(what, value)| format!("{what:<9}  {}\n", printable(value))).concat()
}

/// The column of `many` whose text is broken where the terminal is too narrow.
const NAME: usize = 2;

/// Many keys, a row each. Dates only, so that it fits a terminal; `one` has the rest.
pub fn many(keys: &[Record]) -> String {
    let date =
        |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string()[..10].to_owned());
    // No lines, two blanks between columns, and no wider than the terminal.
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(Term::stdout().size().1);
    }
    table.set_header(["USER", "PREFIX", "NAME", "STATUS", "CREATED", "ENDS", "LAST USED"]);
    table.add_rows(keys.iter().map(|key| {
        [
            printable(&key.user).into_owned(),
            printable(&key.prefix).into_owned(),
            printable(key.name.as_deref().unwrap_or("-")).into_owned(),
            key.status.as_str().to_owned(),
            date(Some(key.created_at)),
            date([key.expires_at, key.revoked_at].into_iter().flatten().min()),
            date(key.last_used_at),
        ]
    }));
    let longest_name = table.column_max_content_widths()[NAME];
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // What is to be copied stays on one line, and what is short.
        column.set_constraint(match number {
            NAME => ColumnConstraint::LowerBoundary(Width::Fixed(longest_name.min(12))),
            _ => ColumnConstraint::ContentWidth,
        });
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
