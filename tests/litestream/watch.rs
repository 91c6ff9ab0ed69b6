//! Keys that end while somebody watches, and how long it takes until that is known.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::common::Host;

/// A key that has ended, and since when.
#[derive(Clone)]
pub struct Ended {
    pub key: String,
    pub at: Instant,
}

/// How long it takes until `ask`, who says which of these keys are accepted, knows that a key has ended: of every
/// so-many-th of those that do.
pub fn watch(
    ended: &Mutex<Vec<Ended>>,
    is_over: &AtomicBool,
    every: usize,
    mut ask: impl FnMut(&[&str]) -> Vec<bool>,
) -> Vec<Duration> {
    let (mut seen, mut waiting, mut times) = (0, Vec::<Ended>::new(), Vec::new());
    loop {
        let over = is_over.load(Ordering::Relaxed);
        {
            let ended = ended.lock().unwrap();
            waiting.extend((seen..ended.len()).filter(|at| at % every == 0).map(|at| ended[at].clone()));
            seen = ended.len();
        }
        if over && waiting.is_empty() {
            return times;
        }
        let accepted = ask(&waiting.iter().map(|ended| ended.key.as_str()).collect::<Vec<_>>());
        let mut accepted = accepted.into_iter();
        waiting.retain(|ended| {
            let is_accepted = accepted.next().unwrap();
            if !is_accepted {
                times.push(ended.at.elapsed());
            }
            assert!(ended.at.elapsed() < Duration::from_secs(60), "it is accepted without end");
            is_accepted
        });
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {} revocations, median {median:.2?}, longest {longest:.2?}", times.len());
    assert!(longest < LIMIT, "{what}: {longest:?}");
}

/// Replaces and revokes the keys of these users in turn, with a pause between two changes. Every key that
/// was issued is added to `all`.
pub fn change(
    host: &Host,
    users: &[String],
    pause: Duration,
    changes: usize,
    ended: &Mutex<Vec<Ended>>,
    all: &Mutex<Vec<String>>,
) {
    let mut current: Vec<Option<String>> =
        users.iter().map(|user| Some(host.key_from(&["create", user]))).collect();
    all.lock().unwrap().extend(current.iter().flatten().cloned());
    thread::sleep(LIMIT);
    let start = Instant::now();
    for number in 0..changes {
        thread::sleep((pause * u32::try_from(number).unwrap()).saturating_sub(start.elapsed()));
        let at = number % users.len();
        let new = if number % 3 == 0 && current[at].is_some() {
            host.apikey(&["revoke", &users[at], "-y", "-q"]).gives(0, "", "");
            None
        } else {
            Some(host.key_from(&["refresh", &users[at], "-y", "-q"]))
        };
        let old = std::mem::replace(&mut current[at], new.clone());
        ended.lock().unwrap().extend(old.map(|key| Ended { key, at: Instant::now() }));
        all.lock().unwrap().extend(new);
    }
}
