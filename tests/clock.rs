//! Clocks that are far off, and clocks that go back.

mod common;

use common::{APIKEY, Host, Outcome};

/// Runs the program when the clock says `time`, which goes on from there.
fn at(time: &str, host: &Host, args: &[&str], input: &str) -> Outcome {
    let clock = format!("@{time}");
    let args = [&["-f", &clock, APIKEY], args].concat();
    host.program("/usr/bin/faketime", &args).env("TZ", "UTC").input(input).run()
}

fn key_at(time: &str, host: &Host, args: &[&str]) -> String {
    let outcome = at(time, host, args, "");
    assert_eq!(outcome.status, 0, "{outcome:?}");
    outcome.stdout.trim_end().to_owned()
}

fn status_at(time: &str, host: &Host, key: &str) -> String {
    at(time, host, &["verify", "--json"], key).json()["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs faketime"]
fn keys_expire_as_they_should_in_1970_and_past_2038() {
    for (created, before, after) in [
        ("1970-01-01 00:00:00", "1970-01-01 00:59:00", "1970-01-01 01:01:00"),
        ("2038-01-19 02:30:00", "2038-01-19 03:29:00", "2038-01-19 03:31:00"),
        ("2106-02-07 06:00:00", "2106-02-07 06:59:00", "2106-02-07 07:01:00"),
    ] {
        let host = Host::new();
        let key = key_at(created, &host, &["create", "alice", "--expires-in", "1h"]);
        assert_eq!(status_at(before, &host, &key), "active", "{before}");
        assert_eq!(status_at(after, &host, &key), "expired", "{after}");
    }
}

#[test]
#[ignore = "needs faketime"]
fn a_clock_before_1970_is_refused_and_nothing_is_changed() {
    let host = Host::new();
    let before_1970 = |args: &[&str], key: &str| {
        let outcome = at("1969-12-31 23:00:00", &host, args, key);
        let said = "apikey: the clock is before 1970\nset the host's clock\n";
        assert_eq!((outcome.status, &*outcome.stdout, &*outcome.stderr), (1, "", said), "{args:?}");
    };
    let key = key_at("2026-11-22 08:19:03", &host, &["create", "alice"]);
    let before = host.contents();
    for args in [
        &["create", "bob"][..],
        &["refresh", "alice", "-y"],
        &["refresh", "alice", "-y", "--key-file", "alice.key"],
        &["revoke", "alice", "-y"],
        &["show", "alice"],
        &["list"],
        &["list", "--json", "-q"],
        &["verify"],
    ] {
        if args.contains(&"--json") {
            let outcome = at("1969-12-31 23:00:00", &host, args, "");
            assert_eq!((outcome.status, outcome.code().as_str()), (1, "INTERNAL_ERROR"), "{outcome:?}");
        } else {
            before_1970(args, &key);
        }
    }
    assert!(host.contents() == before);
}

#[test]
#[ignore = "needs faketime"]
fn a_clock_that_goes_back_brings_no_revoked_key_to_life() {
    let host = Host::new();
    let first = key_at("2030-01-01 00:00:00", &host, &["create", "alice"]);
    let second = key_at("2031-01-01 00:00:00", &host, &["refresh", "alice", "--yes"]);
    let third = key_at("2032-01-01 00:00:00", &host, &["refresh", "alice", "--yes", "--grace", "2h"]);
    assert_eq!(status_at("2032-01-01 01:00:00", &host, &second), "retiring");
    key_at("2032-01-01 01:00:00", &host, &["revoke", "alice", "--yes"]);
    for time in ["1970-01-01 00:00:00", "2030-06-01 00:00:00", "2032-01-01 00:30:00", "2040-01-01 00:00:00"] {
        for key in [&first, &second, &third] {
            assert_eq!(status_at(time, &host, key), "revoked", "{time}");
        }
    }
}

#[test]
#[ignore = "needs faketime"]
fn a_last_use_in_the_future_is_not_believed() {
    let host = Host::new();
    let key = key_at("2030-01-01 00:00:00", &host, &["create", "alice"]);
    for time in ["2035-05-05 05:05:00", "2031-03-03 03:03:00"] {
        assert_eq!(status_at(time, &host, &key), "active");
        let shown = host.apikey(&["show", "alice", "--json"]).run().json();
        let used = shown["last_used_at"].to_string();
        assert!(used.contains(&time[..16].replace(" ", "T")), "{used}");
    }
}
