//! Whether two worlds are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use apikey::Status;

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
    ends.retain(|prefix, end| {
        let known = world.keys.get(*prefix);
        // NOT YET: of an expired key that is replaced no end is written down.
        let is_expired = known.is_some_and(|known| known.status == Status::Expired);
        // NOT YET: where the clock went back, a prune forgets that a key was revoked, and not that it was issued.
        let is_forgotten = known.is_none();
        !is_expired && !is_forgotten && end.is_none_or(|end| end > now)
    });
    ends.into_keys().map(str::to_owned).collect()
}

/// Whether the model's world is the one that is seen. What a killed command has staged for a key that was never
/// issued, nobody knows of.
pub fn is_same(model: &World, seen: &World, now: Ms, is_killed: bool) -> bool {
    let comparable = |world: &World| {
        let mut world = World { log: comparable(&world.log, seen), ..world.clone() };
        if is_killed {
            let World { keys, stages, .. } = &mut world;
            stages.retain(|(_, prefix), _| keys.get(prefix).is_some_and(|known| known.is_accepted(now)));
        }
        world
    };
    comparable(model) == comparable(seen)
}

/// The log without that of which two may be as right as one, in an order that does not depend on chance.
fn comparable(log: &[Event], seen: &World) -> Vec<Event> {
    let mut comparable: Vec<Event> = Vec::new();
    for event in log {
        let known = event.prefix.as_ref().map(|prefix| seen.keys.get(prefix));
        // NOT YET: the first of them.
        let is_left_out =
            event.event == "revoked" && known.flatten().is_some_and(|known| known.status == Status::Expired);
        let last = comparable.iter().rev().find(|last| last.user == event.user);
        let is_again = event.event == "refused" && last.is_some_and(|last| last.event == "refused");
        if !is_left_out && !is_again {
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
