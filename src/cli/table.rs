//! Tables for people.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, Table, Width, presets};
use console::{Term, measure_text_width};

use crate::key_file::KeyFile;
use crate::name::Name;
use crate::store::Listed;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// All that is known of a key, a line each.
pub fn one(shown: &Listed) -> String {
    let time = |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string());
    let key = &shown.key;
    let lines = [
        ("user", key.user.as_str()),
        ("prefix", &key.prefix.to_string()),
        ("name", key.name.as_ref().map_or("-", Name::as_str)),
        ("status", key.status.as_str()),
        ("id", &key.id.to_string()),
        ("created", &key.created_at.to_string()),
        ("last used", &time(key.last_used_at)),
        ("expires", &time(key.expires_at)),
        ("revoked", &time(key.revoked_at)),
        ("key file", shown.key_file.as_ref().map_or("-", KeyFile::path)),
    ];
    lines.map(|(what, value)| format!("{what:<9}  {}\n", printable(value))).concat()
}

const COLUMNS: usize = 7;
const HEADER: [&str; COLUMNS] = ["USER", "PREFIX", "NAME", "STATUS", "CREATED", "ENDS", "LAST USED"];
/// The column whose text is broken where the terminal is too narrow, and how narrow it gets.
const NAME: usize = 2;
const NARROWEST_NAME: usize = 12;
/// Blanks between two columns.
const GAP: usize = 2;

/// How wide the columns of many keys are, a row each: no wider than the terminal where that can be.
pub struct Widths([usize; COLUMNS]);

impl Widths {
    /// Those of the header alone.
    pub fn new() -> Self {
        Widths(HEADER.map(measure_text_width))
    }

    /// Makes room for a key.
    pub fn make_room_for(&mut self, key: &Listed) {
        for (width, cell) in self.0.iter_mut().zip(cells(key)) {
            *width = (*width).max(measure_text_width(&cell));
        }
    }

    /// The rows of some keys, the first of them under the header.
    pub fn rows(&self, keys: &[Listed], with_header: bool) -> String {
        let mut widths = self.0;
        if io::stdout().is_terminal() {
            let rest: usize = widths.iter().sum::<usize>() - widths[NAME] + COLUMNS * GAP;
            let left = usize::from(Term::stdout().size().1).saturating_sub(rest);
            widths[NAME] = widths[NAME].min(left.max(NARROWEST_NAME));
        }
        // No lines, and as wide as the whole is, not this part.
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if with_header {
            table.set_header(HEADER);
        }
        table.add_rows(keys.iter().map(cells));
        for (column, width) in table.column_iter_mut().zip(widths) {
            column.set_padding((0, GAP as u16));
            let width = u16::try_from(width + GAP).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// Dates only, so that it fits a terminal; `one` has the rest.
fn cells(listed: &Listed) -> [String; COLUMNS] {
    let date =
        |time: Option<Timestamp>| time.map_or("never".into(), |time| time.to_string()[..10].to_owned());
    let key = &listed.key;
    [
        key.user.to_string(),
        key.prefix.to_string(),
        printable(key.name.as_ref().map_or("-", Name::as_str)).into_owned(),
        key.status.as_str().to_owned(),
        date(Some(key.created_at)),
        date([key.expires_at, key.revoked_at].into_iter().flatten().min()),
        date(key.last_used_at),
    ]
}
