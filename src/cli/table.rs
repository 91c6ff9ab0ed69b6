//! Tables for people.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use comfy_table::{ColumnConstraint, Table, Width, presets};
use console::{Term, measure_text_width};

use crate::authority::Shown;
use crate::key_file::{EnvName, KeyFile};
use crate::name::Name;
use crate::settings::Settings;
use crate::store::Listed;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// What is known of the use of a key of which no use was written down: a service that asks by SQL
/// writes down none.
const NOT_RECORDED: &str = "not recorded";

/// All that is known of a key, and then what is kept of its user, a line each.
pub fn one(shown: &Shown) -> String {
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let time = |time: Option<Timestamp>, else_: &str| time.map_or(else_.into(), |time| time.to_string());
    let Listed { key, key_file } = &shown.listed;
    let Settings { lifetime, key_file: kept, reload, .. } = &shown.settings;
    let mut lines = vec![
        ("user", key.user.to_string()),
        ("prefix", key.prefix.to_string()),
        ("name", or_none(key.name.as_ref().map(Name::as_str))),
        ("status", key.status.as_str().to_owned()),
        ("id", key.id.to_string()),
        ("created", key.created_at.to_string()),
        ("last used", time(key.last_used_at, NOT_RECORDED)),
        ("expires", time(key.expires_at, "never")),
        ("revoked", time(key.revoked_at, "never")),
        ("key file", or_none(key_file.as_ref().map(KeyFile::path))),
        ("lifetime", or_none(lifetime.map(in_words).as_deref())),
    ];
    if let Some(kept) = kept {
        if key_file.as_ref().map(KeyFile::path) != Some(kept.path()) {
            lines.push(("next key", kept.path().to_owned()));
        }
        lines.extend([
            ("mode", kept.mode.to_string()),
            ("owner", or_none(kept.owner.map(|owner| owner.to_string()).as_deref())),
            ("variable", or_none(kept.env.as_ref().map(EnvName::as_str))),
            ("reload", or_none(reload.as_ref().map(|reload| reload.command.as_str()))),
        ]);
    }
    if let Some(reload) = reload {
        lines.push(("timeout", in_words(reload.timeout())));
    }
    lines.iter().map(|(what, value)| format!("{what:<9}  {}\n", printable(value))).collect()
}

/// A duration as it is given: `90d`, `1h 30m`.
fn in_words(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let words = units.iter().filter_map(|(unit, length)| {
        let count = rest / length;
        rest %= length;
        (count > 0).then(|| format!("{count}{unit}"))
    });
    words.collect::<Vec<_>>().join(" ")
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
    let date = |time: Option<Timestamp>, none: &str| {
        time.map_or(none.into(), |time| time.to_string()[..10].to_owned())
    };
    let key = &listed.key;
    [
        key.user.to_string(),
        key.prefix.to_string(),
        printable(key.name.as_ref().map_or("-", Name::as_str)).into_owned(),
        key.status.as_str().to_owned(),
        date(Some(key.created_at), "-"),
        date([key.expires_at, key.revoked_at].into_iter().flatten().min(), "never"),
        date(key.last_used_at, NOT_RECORDED),
    ]
}
