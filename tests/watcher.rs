//! A daemon that reads its key file and presents the key, over and over, through a thousand
//! refreshes.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use apikey::{Timestamp, Verdict, Verifier};
use common::Host;

const REFRESHES: usize = 1000;

struct Watched {
    presented: usize,
    /// The key that had been in the file was refused.
    refused: usize,
    /// It was refused, and it was in the file still.
    still_there: usize,
    /// The key that was in the file then was refused too: it had been replaced in its turn before it was
    /// presented.
    refused_again: usize,
}

/// Refreshes web's key with a grace period of so many seconds, while a daemon presents it. A daemon that
/// is kept waiting for longer than that, with a key that it has read, does not count.
fn watch(grace: u64) -> Watched {
    let (host, over) = (Host::new(), AtomicBool::new(false));
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let store = Verifier::open(&host.database(), Duration::from_secs(10)).unwrap();
    let file = host.path("web.key");
    let read = || std::fs::read(&file).unwrap();
    let is_accepted =
        |key: &[u8]| matches!(store.verify(key, Timestamp::now().unwrap()).unwrap(), Verdict::Accepted(_));
    let grace_option = format!("--grace={grace}s");
    let refresh = ["refresh", "web", "--yes", "--quiet", &grace_option];
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..REFRESHES {
                let outcome = host.apikey(&refresh).run();
                if outcome.status != 0 {
                    over.store(true, Ordering::Relaxed);
                }
                assert_eq!(outcome.status, 0, "{outcome:?}");
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut watched = Watched { presented: 0, refused: 0, still_there: 0, refused_again: 0 };
        while !over.load(Ordering::Relaxed) {
            let (start, key) = (Instant::now(), read());
            watched.presented += 1;
            let refused = !is_accepted(&key);
            if refused && (grace == 0 || start.elapsed() < Duration::from_secs(grace)) {
                watched.refused += 1;
                let next = read();
                watched.still_there += usize::from(next == key);
                watched.refused_again += usize::from(!is_accepted(&next));
            }
        }
        println!(
            "{} times presented, {} refused, {} of them still in the file, {} refused again",
            watched.presented, watched.refused, watched.still_there, watched.refused_again
        );
        watched
    })
}

/// How often it is refused again is for the scheduler to say, and no promise of the program.
#[test]
fn a_daemon_that_reads_its_file_again_after_a_refusal_finds_another_key() {
    let watched = watch(0);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.still_there, 0);
}

#[test]
fn with_grace_a_daemon_is_never_refused() {
    let watched = watch(1);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.refused, 0);
}
