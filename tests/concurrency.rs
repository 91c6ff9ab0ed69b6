//! Many processes at once, and processes that are killed.

mod common;

use std::collections::BTreeSet;
use std::process::{Child, Output};
use std::time::Duration;

use common::Host;
use serde_json::Value;

const PROCESSES: usize = 64;

fn all_at_once(host: &Host, args: &[&str]) -> Vec<Output> {
    let args = [args, &["--timeout", "10m", "--json"]].concat();
    let children: Vec<Child> = (0..PROCESSES).map(|_| host.apikey(&args).spawn()).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn member(output: &Output, name: &str) -> Option<String> {
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json[name].as_str().map(str::to_owned)
}

#[test]
fn of_many_who_create_the_same_user_s_key_at_once_exactly_one_does() {
    let host = Host::new();
    let outputs = all_at_once(&host, &["create", "alice"]);
    let (issued, refused): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!((issued.len(), host.accepted()), (1, 1));
    for output in refused {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{stderr}");
        assert!(stderr.contains("\"KEY_EXISTS\""), "{stderr}");
    }
    assert_eq!(host.status_of(&member(issued[0], "key").unwrap()), "active");
}

#[test]
fn of_many_who_refresh_the_same_user_s_key_at_once_all_do_one_after_another() {
    let (host, first) = Host::with_key_of("alice");
    let outputs = all_at_once(&host, &["refresh", "alice", "--yes"]);
    assert!(outputs.iter().all(|output| output.status.success() && output.stderr.is_empty()));
    let keys: BTreeSet<String> = outputs.iter().map(|output| member(output, "key").unwrap()).collect();
    assert_eq!(keys.len(), PROCESSES, "every key is another");
    let accepted: Vec<&String> = keys.iter().filter(|key| host.status_of(key) == "active").collect();
    assert_eq!((accepted.len(), host.accepted()), (1, 1));

    // Each replaced the key of the one before: nobody replaced a key that was replaced already.
    let replaced: BTreeSet<String> =
        outputs.iter().map(|output| member(output, "previous_key_prefix").unwrap()).collect();
    let mut all: BTreeSet<String> = keys.iter().chain([&first]).map(|key| key[..15].to_owned()).collect();
    assert!(all.remove(&accepted[0][..15]));
    assert_eq!(replaced, all);
}

#[test]
fn many_who_verify_while_others_write_are_all_answered() {
    let (host, key) = Host::with_key_of("alice");
    let writers: Vec<Child> = (0..16)
        .map(|number| host.apikey(&["create", &format!("user{number}"), "--timeout", "10m"]).spawn())
        .collect();
    let readers: Vec<Child> =
        (0..32).map(|_| host.apikey(&["verify", "--timeout", "10m"]).input(&*key).spawn()).collect();
    for child in readers.into_iter().chain(writers) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(host.accepted(), 17);
}

/// Runs `args` again and again, and kills it a little later each time, until it has got through
/// `times` times before it was killed. Calls `check` with the output after each run.
fn kill_ever_later(
    host: &Host,
    args: impl Fn(usize) -> Vec<String>,
    times: usize,
    check: impl Fn(usize, &Output),
) {
    let (mut finished, mut killed) = (0, 0);
    let mut delay = Duration::ZERO;
    while finished < times {
        let run = finished + killed;
        let mut child = host.apikey(&args(run)).spawn();
        std::thread::sleep(delay);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            finished += 1
        } else {
            killed += 1
        }
        check(run, &output);
        delay += Duration::from_micros(150);
    }
    assert!(killed > 0, "nothing was tested");
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

#[test]
fn a_kill_loses_no_key_that_was_acknowledged_and_leaves_none_that_nobody_saw() {
    let host = Host::new();
    let user = |run| format!("user{run}");
    kill_ever_later(
        &host,
        |run| vec!["create".into(), user(run)],
        20,
        |run, output| {
            let key = printed(output);
            let shown = host.apikey(&["show", &user(run), "--json"]).run();
            match shown.status {
                0 => assert_eq!(shown.json()["prefix"], key[..15], "an accepted key that nobody saw"),
                // 6: killed before there was a database.
                4 | 6 => assert!(!output.status.success(), "{key} was acknowledged, and is lost"),
                other => panic!("{other}: {shown:?}"),
            }
        },
    );
    let integrity: String = host.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

#[test]
fn a_kill_leaves_exactly_one_key_accepted_the_old_one_or_the_new_one() {
    let (host, first) = Host::with_key_of("alice");
    let current = std::cell::RefCell::new(first);
    let args = |_| ["refresh", "alice", "--yes"].map(String::from).into();
    kill_ever_later(&host, args, 20, |_, output| {
        assert_eq!(host.accepted(), 1);
        let (old, new) = (current.borrow().clone(), printed(output));
        let took_hold = !new.is_empty() && host.status_of(&new) == "active";
        assert!(took_hold || !output.status.success(), "{new} was acknowledged, and is lost");
        if took_hold {
            current.replace(new);
        } else {
            assert_eq!(host.status_of(&old), "active");
        }
    });
}
