//! A daemon that reads its key file and presents the key, over and over, through a thousand
//! refreshes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use apikey::{Store, Timestamp, Verdict};
use common::Host;

const REFRESHES: usize = 1000;

struct Watched {
    presented: usize,
    /// The key that had been in the file was refused.
    refused: usize,
    /// It was refused, and it was in the file still.
    still_there: usize,
}

/// Refreshes web's key with these arguments too, while a daemon presents it.
fn watch(args: &[&str]) -> Watched {
    let (host, over) = (Host::new(), AtomicBool::new(false));
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let store = Store::open(&host.database(), Duration::from_secs(10)).unwrap();
    let file = host.path("web.key");
    let read = || std::fs::read(&file).unwrap();
    let is_accepted =
        |key: &[u8]| matches!(store.verify(key, Timestamp::now()).unwrap(), Verdict::Accepted(_));
    let refresh = [&["refresh", "web", "--yes", "--quiet"], args].concat();
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
        let mut watched = Watched { presented: 0, refused: 0, still_there: 0 };
        while !over.load(Ordering::Relaxed) {
            let key = read();
            watched.presented += 1;
            if !is_accepted(&key) {
                watched.refused += 1;
                watched.still_there += usize::from(read() == key);
            }
        }
        println!(
            "{} times presented, {} refused, {} of them still in the file",
            watched.presented, watched.refused, watched.still_there
        );
        watched
    })
}

/// The next one may be refused too, where the daemon is not given the time to present it before it is
/// replaced in its turn.
#[test]
fn a_daemon_that_reads_its_file_again_after_a_refusal_finds_another_key() {
    let watched = watch(&[]);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.still_there, 0);
}

#[test]
fn with_grace_a_daemon_is_never_refused() {
    let watched = watch(&["--grace", "1s"]);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.refused, 0);
}
