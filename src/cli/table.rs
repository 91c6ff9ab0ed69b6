//! Many keys, for people: a line each.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use comfy_table::{ColumnConstraint, Table, Width, presets};
use console::{Term, measure_text_width};

use crate::name::Name;
use crate::store::Listed;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// What is known of the use of a key of which no use was written down: a service that asks by SQL
/// writes down none.
pub const NOT_RECORDED: &str = "not recorded";

const COLUMNS: usize = 7;
const HEADER: [&str; COLUMNS] = ["USER", "PREFIX", "NAME", "STATUS", "CREATED", "ENDS", "LAST USED"];
const USER: usize = 0;
const NAME: usize = 2;
const CREATED: usize = 4;
const LAST_USED: usize = 6;
/// How narrow a user or a name gets before a column is left out.
const NARROWEST: usize = 9;
/// Blanks between two columns.
const GAP: usize = 2;
/// A moment no further away than this is shown to the minute.
const NEAR: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How wide the columns of many keys are, a line each.
pub struct Widths {
    widths: [usize; COLUMNS],
    now: Timestamp,
}

impl Widths {
    /// Those of the header alone. It is `now`.
    pub fn new(now: Timestamp) -> Self {
        Widths { widths: HEADER.map(measure_text_width), now }
    }

    /// Makes room for a key.
    pub fn make_room_for(&mut self, key: &Listed) {
        for (width, cell) in self.widths.iter_mut().zip(cells(key, self.now)) {
            *width = (*width).max(measure_text_width(&cell));
        }
    }

    /// The lines of some keys, the first of them under the header. On a terminal they are no wider than
    /// that.
    pub fn rows(&self, keys: &[Listed], with_header: bool) -> String {
        let mut widths = self.widths;
        if io::stdout().is_terminal() {
            widths = fitted(widths, Term::stdout().size().1.into());
        }
        let shown: Vec<usize> = (0..COLUMNS).filter(|column| widths[*column] > 0).collect();
        let row = |cells: [String; COLUMNS]| -> Vec<String> {
            shown.iter().map(|column| shortened(&cells[*column], widths[*column])).collect()
        };
        // No lines, and as wide as the whole is, not this part.
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if with_header {
            table.set_header(row(HEADER.map(str::to_owned)));
        }
        table.add_rows(keys.iter().map(|key| row(cells(key, self.now))));
        for (column, shown) in table.column_iter_mut().zip(&shown) {
            column.set_padding((0, GAP as u16));
            let width = u16::try_from(widths[*shown] + GAP).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// As much as `one` has, but for the id and the file, and as short as can be read.
fn cells(listed: &Listed, now: Timestamp) -> [String; COLUMNS] {
    let time = |time: Option<Timestamp>, none: &str| time.map_or(none.into(), |time| moment(time, now));
    let key = &listed.key;
    [
        key.user.to_string(),
        key.prefix.to_string(),
        printable(key.name.as_ref().map_or("-", Name::as_str)).into_owned(),
        key.status.as_str().to_owned(),
        moment(key.created_at, now),
        time(key.until(), "never"),
        time(key.last_used_at, NOT_RECORDED),
    ]
}

/// `11-22 08:19` near `now`, else `2026-11-22`.
fn moment(time: Timestamp, now: Timestamp) -> String {
    let text = time.to_string();
    let is_near = now.since(time).or_else(|| time.since(now)).is_some_and(|apart| apart <= NEAR);
    if is_near { format!("{} {}", &text[5..10], &text[11..16]) } else { text[..10].to_owned() }
}

/// `widths` in so many columns of a terminal: users and names get narrower, and where that is not
/// enough a column is left out, which is 0 wide then. The rest stays whole, whatever that takes.
fn fitted(mut widths: [usize; COLUMNS], terminal: usize) -> [usize; COLUMNS] {
    let mut left = 0;
    for left_out in [None, Some(CREATED), Some(LAST_USED), Some(NAME)] {
        if let Some(column) = left_out {
            widths[column] = 0;
        }
        let (user, name) = (widths[USER], widths[NAME]);
        let shown = widths.iter().filter(|width| **width > 0).count();
        let rest = widths.iter().sum::<usize>() - user - name + (shown - 1) * GAP;
        left = terminal.saturating_sub(rest);
        if user.min(NARROWEST) + name.min(NARROWEST) <= left {
            // What the one does not need is the other's.
            widths[NAME] = name.min(left.saturating_sub(user).max(left / 2));
            widths[USER] = user.min(left - widths[NAME]);
            return widths;
        }
    }
    widths[USER] = left.max(1);
    widths
}

/// `text`, or as much of its start and its end as fits in `width` with an ellipsis in between.
fn shortened(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let left = width.saturating_sub(1);
    let starts = text.char_indices().map(|(at, _)| &text[..at]);
    let start = starts.take_while(|start| measure_text_width(start) <= left.div_ceil(2)).last();
    let start = start.unwrap_or_default();
    let left = left - measure_text_width(start);
    let ends = text.char_indices().rev().map(|(at, _)| &text[at..]);
    let fitting = ends.take_while(|end| measure_text_width(end) <= left);
    // No mark without the character that it belongs to.
    let end = fitting.filter(|end| end.chars().next().is_some_and(is_wide)).last().unwrap_or_default();
    format!("{start}…{end}")
}

fn is_wide(c: char) -> bool {
    measure_text_width(c.encode_utf8(&mut [0; 4])) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_in_its_middle_to_what_is_shown_of_it() {
        for (text, width, cut) in [
            ("alice@example.com", 17, "alice@example.com"),
            ("alice@example.com", 16, "alice@ex…ple.com"),
            ("alice@example.com", 9, "alic….com"),
            ("alice@example.com", 2, "a…"),
            ("alice@example.com", 1, "…"),
            // Each takes two columns.
            ("鍵鍵鍵鍵鍵鍵", 9, "鍵鍵…鍵鍵"),
            ("鍵鍵鍵鍵鍵鍵", 8, "鍵鍵…鍵"),
            ("🔑🔑🔑🔑", 7, "🔑…🔑🔑"),
            ("a鍵鍵鍵b", 6, "a鍵…b"),
            // And these one, with the mark on it.
            ("e\u{301}e\u{301}e\u{301}e\u{301}", 3, "e\u{301}…e\u{301}"),
        ] {
            assert_eq!(shortened(text, width), cut, "{text} {width}");
            assert!(measure_text_width(&shortened(text, width)) <= width, "{text} {width}");
        }
    }

    #[test]
    fn users_and_names_get_narrower_before_columns_are_left_out_and_the_rest_stays_whole() {
        let widths = |user, name| [user, 15, name, 8, 11, 11, 12];
        for (found, terminal, expected) in [
            (widths(5, 4), 100, [5, 15, 4, 8, 11, 11, 12]),
            (widths(128, 100), 100, [16, 15, 15, 8, 11, 11, 12]),
            (widths(128, 6), 100, [25, 15, 6, 8, 11, 11, 12]),
            (widths(6, 100), 100, [6, 15, 25, 8, 11, 11, 12]),
            (widths(128, 100), 87, [9, 15, 9, 8, 11, 11, 12]),
            (widths(128, 100), 86, [15, 15, 15, 8, 0, 11, 12]),
            (widths(128, 100), 80, [12, 15, 12, 8, 0, 11, 12]),
            (widths(128, 100), 73, [16, 15, 15, 8, 0, 11, 0]),
            (widths(128, 100), 60, [9, 15, 9, 8, 0, 11, 0]),
            (widths(128, 100), 59, [19, 15, 0, 8, 0, 11, 0]),
            (widths(128, 100), 45, [5, 15, 0, 8, 0, 11, 0]),
            (widths(128, 100), 10, [1, 15, 0, 8, 0, 11, 0]),
        ] {
            let fitted = fitted(found, terminal);
            assert_eq!(fitted, expected, "{found:?} {terminal}");
        }
    }

    #[test]
    fn a_moment_within_two_days_shows_its_time_and_any_other_its_year() {
        let time = |text| Timestamp::parse(text).unwrap();
        let now = time("2026-11-22T08:19:03.123Z");
        for (text, shown) in [
            ("2026-11-22T08:19:03.123Z", "11-22 08:19"),
            ("2026-11-20T08:19:03.123Z", "11-20 08:19"),
            ("2026-11-20T08:19:03.122Z", "2026-11-20"),
            ("2026-11-24T08:19:03.123Z", "11-24 08:19"),
            ("2026-11-24T08:19:03.124Z", "2026-11-24"),
            ("2027-11-22T08:19:03.123Z", "2027-11-22"),
        ] {
            assert_eq!(moment(time(text), now), shown);
        }
    }
}
