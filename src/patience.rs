//! Waiting for what may never come.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use nix::poll::PollTimeout;

/// More than a file system that answers at all takes for a file or two.
pub const A_WHILE: Duration = Duration::from_secs(5);

/// `timeout` as poll(2) takes it: 24 days at the most.
pub fn milliseconds(timeout: Duration) -> PollTimeout {
    PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
}

/// Does `work` on a thread of its own, and waits for what it returns as long as `timeout`: `None` where
/// that is over. The kernel offers no limit for the calls that this is for. What is not done by then is
/// done later, or never; what it returns then is dropped.
pub fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    // Without room for a value, so that nothing is given to who has gone.
    let (give, take) = sync_channel(0);
    thread::Builder::new().spawn(move || drop(give.send(work())))?;
    Ok(take.recv_timeout(timeout).ok())
}

/// Does `work` on each of `items` likewise, one after the other on one thread, and waits as long as `timeout` and
/// up to as long again for each. Returns what came of them: of fewer where one was waited for in vain, and the rest
/// was left.
pub fn each_within<I: Send + 'static, T: Send + 'static>(
    timeout: Duration,
    items: Vec<I>,
    mut work: impl FnMut(I) -> T + Send + 'static,
) -> io::Result<Vec<T>> {
    let (give, take) = channel();
    // Who waits is woken once, and not for each.
    let (working, is_over) = channel::<()>();
    thread::Builder::new().spawn(move || {
        let _working = working;
        items.into_iter().try_for_each(|item| give.send(work(item)))
    })?;
    let mut done = Vec::new();
    loop {
        let is_over = is_over.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
        let before = done.len();
        done.extend(take.try_iter());
        if is_over || done.len() == before {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_pieces_of_work_those_before_the_one_that_never_ends_are_done() {
        let stuck = |item: u32| {
            if item == 3 {
                thread::park();
            }
            item
        };
        // A machine may stall for a while.
        let done = each_within(Duration::from_secs(2), vec![1, 2, 3, 4], stuck);
        assert_eq!(done.unwrap(), [1, 2]);
        let all = each_within(Duration::from_secs(60), vec![1, 2, 4], stuck);
        assert_eq!(all.unwrap(), [1, 2, 4]);
    }

    #[test]
    fn work_that_goes_on_is_waited_for_however_long_all_of_it_takes() {
        let slow = |item: u32| {
            thread::sleep(Duration::from_millis(100));
            item
        };
        let done = each_within(Duration::from_secs(2), (0..25).collect(), slow);
        assert_eq!(done.unwrap().len(), 25);
    }
}
