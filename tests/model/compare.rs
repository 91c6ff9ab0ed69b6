//! Whether two worlds are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::step::Ms;
use crate::world::{Event, World};

/// The prefixes that are accepted, as it follows from nothing but the log.
pub fn accepted_by_log(world: &World, now: Ms) -> BTreeSet<String> {
    let mut ends: BTreeMap<&str, Option<Ms>> = BTreeMap::new();
    for event in &world.log {
        let Some(prefix) = event.prefix.as_deref() else { continue };
        match &*event.event {
            "issued" | "edited" => drop(ends.insert(prefix, event.expires)),
            "retired" => drop(ends.insert(prefix, event.until)),
            "revoked" | "undone" => drop(ends.remove(prefix)),
            "delivered" => {}
            other => panic!("{other}"),
        }
    }
    ends.retain(|_, end| end.is_none_or(|end| end > now));
    ends.into_keys().map(str::to_owned).collect()
}

/// Whether the model's world is the one that is seen. What a killed command has staged for a key that was never
/// issued, nobody knows of.
pub fn is_same(model: &World, seen: &World, now: Ms, is_killed: bool) -> bool {
    let comparable = |world: &World| {
        let mut world = World { log: comparable(&world.log), ..world.clone() };
        if is_killed {
            let World { keys, stages, .. } = &mut world;
            stages.retain(|(_, prefix), _| keys.get(prefix).is_some_and(|known| known.is_accepted(now)));
        }
        world
    };
    comparable(model) == comparable(seen)
}

/// The log in an order that does not depend on chance, and with one refusal where there are several in a row: whether
/// they are for the same reason the model does not know.
fn comparable(log: &[Event]) -> Vec<Event> {
    let mut comparable: Vec<Event> = Vec::new();
    for event in log {
        let last = comparable.iter().rev().find(|last| last.user == event.user);
        let is_again = event.event == "refused" && last.is_some_and(|last| last.event == "refused");
        if !is_again {
            comparable.push(event.clone());
        }
    }
    comparable
        .chunk_by_mut(|one, next| one.event == "revoked" && next.event == "revoked")
        .for_each(<[Event]>::sort);
    comparable
}

/// In what the seen world differs from the expected one that is nearest to it.
pub fn differences(expected: &[World], seen: &World, before: &World) -> String {
    let lines = |world: &World| format!("{world:?}").lines().map(str::to_owned).collect::<Vec<_>>();
    let seen = lines(seen);
    let differs = |world: &World| {
        let model = lines(world);
        let mut text = String::new();
        for line in model.iter().filter(|line| !seen.contains(line)) {
            let _ = writeln!(text, "  model: {line}");
        }
        for line in seen.iter().filter(|line| !model.contains(line)) {
            let _ = writeln!(text, "   seen: {line}");
        }
        text
    };
    let nearest = expected.iter().map(differs).min_by_key(|text| text.lines().count());
    format!(
        "none of the {} worlds that may be is seen; in the nearest\n{}before\n{before:?}",
        expected.len(),
        nearest.unwrap_or_default()
    )
}
