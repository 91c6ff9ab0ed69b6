//! Forgetting what ended long ago, a little at a time: whoever writes meanwhile waits for one step at most.

use std::thread;
use std::time::{Duration, Instant};

use super::Authority;
use crate::error::{Code, Error, Result};
use crate::signals::HeldOff;
use crate::store::{Forgotten, Old, Pruned, Turn};
use crate::syslog;
use crate::timestamp::Timestamp;

/// How long a step takes, about.
const A_STEP: Duration = Duration::from_millis(8);
/// How many are forgotten in the first step and at the least, and at the most. Fewer would take the disk as long, and
/// each step waits for its turn behind whoever else writes.
const FEWEST: usize = 64;
const MOST: usize = 4096;

impl Authority {
    /// What [`prune`](Authority::prune) would forget.
    pub fn prunable(&self, ended_for: Duration) -> Result<Pruned> {
        let before = self.old_before(ended_for)?;
        self.read_beside_writers(|snapshot| snapshot.count_old(before))
    }

    /// Forgets keys that ended longer ago, with all of their events; the events of that time that are about no key
    /// that is known; and the settings of users who have no key left. Tells `each` how many that are so far. What is somebody's current
    /// key stays, be it expired.
    ///
    /// Fails with [`Code::InternalError`] where the newest event is still to come: the clock is not believed then.
    /// Where another error comes in between, its message says how much was forgotten by then.
    pub fn prune(&mut self, ended_for: Duration, each: impl FnMut(&Pruned)) -> Result<Pruned> {
        let before = self.old_before(ended_for)?;
        let mut so_far = Forgotten::default();
        // Who is ended by one has the system's log told of what was forgotten.
        let signals = HeldOff::those_that_end()
            .map_err(|error| Error::new(Code::InternalError, format!("cannot hold off signals: {error}")))?;
        let done = self.forget(before, &signals, &mut so_far, each);
        syslog::write(so_far.event.map(|(_, event)| event.to_string()));
        let some = !so_far.sum.is_nothing();
        done.map(|()| so_far.sum).map_err(|error| match some {
            true => error.after(&format!("{} were forgotten", so_far.sum)),
            false => error,
        })
    }

    fn forget(
        &mut self,
        before: Timestamp,
        signals: &HeldOff,
        so_far: &mut Forgotten,
        mut each: impl FnMut(&Pruned),
    ) -> Result<()> {
        let mut most = FEWEST;
        self.store.keep_statements()?;
        for what in Old::ALL {
            let mut last = None;
            loop {
                let found = self
                    .read_beside_writers(|snapshot| snapshot.next_old(what, before, last.as_ref(), most))?;
                if found.is_empty() {
                    break;
                }
                let mut turn = Turn::begin(&mut self.store, self.clock)?;
                let start = Instant::now();
                *so_far = turn.write(|transaction| transaction.forget(what, before, &found, so_far))?;
                drop(turn);
                let took = start.elapsed();
                last = found.into_iter().next_back();
                each(&so_far.sum);
                if signals.has_come() {
                    return Err(Error::new(Code::Cancelled, "a signal came"));
                }
                most = if took > A_STEP { most / 2 } else { most * 2 }.clamp(FEWEST, MOST);
                // Whoever waits is faster than the next step.
                thread::sleep(took.min(A_STEP));
            }
        }
        Ok(())
    }

    fn old_before(&self, ended_for: Duration) -> Result<Timestamp> {
        let now = (self.clock)()?;
        match self.read_beside_writers(|snapshot| snapshot.newest_event())? {
            Some(newest) if newest > now => {
                let message =
                    format!("the newest event is of {newest}, and it is {now}: the clock is not believed");
                Err(Error::new(Code::InternalError, message).hint(format!(
                    "nothing was pruned: set the host's clock; where that is right, it was not once, and {newest} has \
                     to pass first"
                )))
            }
            _ => Ok(now.before(ended_for)),
        }
    }
}
