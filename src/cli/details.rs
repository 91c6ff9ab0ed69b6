//! One key, for people: all that is known of it, a line each.

use std::time::Duration;

use super::table::NOT_RECORDED;
use crate::authority::Shown;
use crate::key_file::{EnvName, KeyFile};
use crate::name::Name;
use crate::settings::Settings;
use crate::store::Listed;
use crate::text::printable;
use crate::timestamp::Timestamp;

/// All that is known of a key, and then what is kept of its user, a line each.
pub fn of(shown: &Shown) -> String {
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let time = |time: Option<Timestamp>, else_: &str| time.map_or(else_.into(), |time| time.to_string());
    let Listed { key, key_file, due_at } = &shown.listed;
    let Settings { lifetime, key_file: kept, reload, renew_after, .. } = &shown.settings;
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
        ("renewed", due_at.map_or("never".to_owned(), |at| format!("from {at} on"))),
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
    if let Some(age) = renew_after {
        lines.extend([("renew at", in_words(*age)), ("grace", in_words(shown.settings.renew_grace()))]);
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
    let words: Vec<String> = words.collect();
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}
