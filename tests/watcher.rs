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
    /// The key in the file was refused.
    refused: usize,
    /// The key that was in the file when it was read once more was refused too.
    refused_again: usize,
}

/// Refreshes web's key with these arguments too, while a daemon presents it.
fn watch(args: &[&str]) -> Watched {
    let (host, over) = (Host::new(), AtomicBool::new(false));
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let store = Store::open(&host.database(), Duration::from_secs(10)).unwrap();
    let file = host.path("web.key");
    let presents_one_that_is_accepted = || {
        let key = std::fs::read(&file).unwrap();
        matches!(store.verify(&key, Timestamp::now()).unwrap(), Verdict::Accepted(_))
    };
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
        let mut watched = Watched { presented: 0, refused: 0, refused_again: 0 };
        while !over.load(Ordering::Relaxed) {
            watched.presented += 1;
            if !presents_one_that_is_accepted() {
                watched.refused += 1;
                watched.refused_again += usize::from(!presents_one_that_is_accepted());
            }
        }
        println!(
            "{} times presented, {} refused, {} refused again",
            watched.presented, watched.refused, watched.refused_again
        );
        watched
    })
}

#[test]
fn a_daemon_that_reads_its_file_again_after_a_refusal_is_never_refused_twice() {
    let watched = watch(&[]);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.refused_again, 0);
}

#[test]
fn with_grace_a_daemon_is_never_refused() {
    let watched = watch(&["--grace", "1s"]);
    assert!(watched.presented > REFRESHES);
    assert_eq!(watched.refused, 0);
}
