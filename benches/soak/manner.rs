//! How the program is run: killed, or when the clock is wrong, or neither.

use std::time::Instant;

use crate::random::Random;
use crate::soak::Soak;

#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// It is killed at some moment, where it has not ended before.
    pub kill: bool,
    /// The clock is so many seconds ahead.
    pub ahead: i64,
}

impl Manner {
    /// One at random, which kills so many of 100.
    pub fn of(soak: &Soak, kills: usize, random: &mut Random) -> Self {
        if random.percent(kills) {
            return Manner { kill: true, ahead: 0 };
        }
        // A wrong clock and a full disk at once are more than can be judged.
        let shift = random.percent(12) && !soak.was_full_since(Instant::now());
        Manner { kill: false, ahead: if shift { clock(soak, random) } else { 0 } }
    }
}

/// A clock that is wrong, as it may be now: one that is ahead keeps `prune` from its work until that time has come, so
/// it is a little ahead for some seconds of each minute, and far in the last tenth of the whole.
fn clock(soak: &Soak, random: &mut Random) -> i64 {
    let second = soak.start.elapsed().as_secs() % 60;
    match random.below(3) {
        _ if soak.part() > 0.9 => [-3600, 3600, 86_400][random.below(3)],
        0 if second < 10 => 10 - second as i64,
        _ => -3600,
    }
}
