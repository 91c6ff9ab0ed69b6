//! Whether the keys of a user stand as they must after a command: all of it was done, or nothing.

use std::collections::BTreeSet;

use crate::commands::{Effect, Order};
use crate::driver::{State, User};
use crate::rows::Row;
use crate::soak::Outcome;

/// What is wrong with how the keys of the user stand after this.
pub fn judge(
    user: &User,
    order: &Order,
    outcome: &Outcome,
    rows: &[Row],
    is_on_its_way: bool,
) -> Option<String> {
    let state = |prefix: &str| user.keys.get(prefix).map(|key| key.state).unwrap_or_default();
    let accepted = rows.iter().filter(|row| row.is_accepted);
    let back = accepted.clone().find(|row| state(&row.prefix) == State::Ended);
    if let Some(row) = back {
        return Some(format!("{} is accepted again", row.prefix));
    }
    let nobodys = |row: &&Row| row.status != "pending" && user.keys[&row.prefix].text.is_none();
    if let Some(row) = accepted.clone().find(nobodys) {
        return Some(format!("{} is accepted, and nobody has it", row.prefix));
    }
    let in_file = user.in_file();
    let is_in_file = |row: &Row| in_file.as_ref().is_some_and(|text| text.starts_with(&row.prefix));
    let has_active = rows.iter().any(|row| row.status == "active");
    if user.key_file.is_some() && has_active && !accepted.clone().any(is_in_file) {
        return Some(format!(
            "the file holds no accepted key: {:?}",
            in_file.map(|text| text[..15].to_owned())
        ));
    }
    if is_on_its_way {
        return None;
    }
    let before: BTreeSet<&str> = user
        .keys
        .iter()
        .filter(|(_, key)| key.state == State::Accepted)
        .map(|(prefix, _)| prefix.as_str())
        .collect();
    let now: BTreeSet<&str> = accepted.filter(|row| !row.ends_soon).map(|row| row.prefix.as_str()).collect();
    let mut after = before.clone();
    match order.effect {
        Effect::Nothing => {}
        Effect::Revokes | Effect::Replaces { first: true, .. } => after.clear(),
        Effect::Replaces { keeps, .. } => {
            if let Some(active) = user.active.as_deref().filter(|_| !keeps) {
                after.remove(active);
            }
        }
    }
    let new: Vec<&str> = now.difference(&before).copied().collect();
    let is_done = match order.effect {
        Effect::Replaces { .. } => {
            new.len() == 1 && now.difference(&after).count() == 1 && after.is_subset(&now)
        }
        _ => now == after,
    };
    let ended_first = matches!(order.effect, Effect::Replaces { first: true, .. }) && now.is_empty();
    let is_right = match outcome.status {
        Some(0) => is_done,
        _ if outcome.changed_nothing() => now == before || (ended_first && outcome.was_full),
        _ => is_done || now == before || ended_first,
    };
    (!is_right).then(|| format!("accepted were {before:?}, and are {now:?}"))
}
