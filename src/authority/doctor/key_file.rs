//! The file of a user's current key.

use crate::key::KeyHash;
use crate::key_file::{KeyFile, Stage, Target};
use crate::patience::{A_WHILE, within};
use crate::trust::Obstacle;

/// How a key file is.
pub enum Found {
    /// As it should be.
    Right,
    /// Another could read it than should, or who should cannot: these differ.
    Differs { what: String, was_open: bool },
    /// It holds the key in another form.
    OtherForm,
    /// It holds no key, or is not there.
    Nothing,
    /// It holds another key.
    OtherKey,
    /// It could not be looked at, or is no key file.
    Obstructed(Obstacle),
}

/// How the key file is that is to hold the key with this hash, and what is staged in its folder where that is to
/// be looked at, too. A file system that does not answer is not waited for.
pub fn look_at(key_file: &KeyFile, hash: KeyHash, stages: bool) -> (Found, Vec<Stage>) {
    let path = key_file.path().to_owned();
    let key_file = key_file.clone();
    let look = move || match Target::open(&key_file, [None; 2]) {
        Ok(target) => {
            let staged = if stages { target.stages().unwrap_or_default() } else { Vec::new() };
            (look(&target, &hash).unwrap_or_else(Found::Obstructed), staged)
        }
        Err(obstacle) => (Found::Obstructed(obstacle), Vec::new()),
    };
    let unanswered = |reason| {
        let hint = "see to the file system that it is on".to_owned();
        (Found::Obstructed(Obstacle { reason, hint }), Vec::new())
    };
    match within(A_WHILE, look) {
        Ok(Some(found)) => found,
        Ok(None) => unanswered(format!("the file system of {path} does not answer")),
        Err(error) => unanswered(format!("{path} cannot be looked at: {error}")),
    }
}

fn look(target: &Target, hash: &KeyHash) -> Result<Found, Obstacle> {
    let Some(holding) = target.holding(hash)? else {
        return Ok(match target.check_replaceable()? {
            None => Found::Nothing,
            Some(key) if key.hash().matches(hash) => Found::OtherForm,
            Some(_) => Found::OtherKey,
        });
    };
    let differs = target.differs(&holding);
    let what = [("owner", differs.owner), ("mode", differs.mode)];
    let what: Vec<&str> = what.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect();
    Ok(match what.is_empty() {
        true => Found::Right,
        false => Found::Differs { what: what.join(" and "), was_open: differs.was_open },
    })
}
