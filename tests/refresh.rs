//! `apikey refresh`

mod common;

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use apikey::Timestamp;
use common::{Host, generalized, issued_to};
use serde_json::{Value, json};

/// What is left of `text`, a moment, after `earlier`.
fn time_between(earlier: &Value, text: &Value) -> Duration {
    let moment = |text: &Value| Timestamp::parse(text.as_str().unwrap()).unwrap();
    moment(text).since(moment(earlier)).unwrap()
}

#[test]
fn the_new_key_is_accepted_and_the_old_one_is_not() {
    let (host, old) = Host::with_key_of("alice");
    let outcome = host.apikey(&["refresh", "alice", "--yes"]).gives(
        0,
        "<key>\n",
        issued_to("alice") + "<prefix> is revoked.\n",
    );
    assert!(outcome.stderr.ends_with(&format!("{} is revoked.\n", &old[..15])));
    assert_eq!(host.status_of(&old), "revoked");
    assert_eq!(host.status_of(outcome.stdout.trim_end()), "active");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn quiet_says_nothing_but_the_key() {
    let (host, _) = Host::with_key_of("alice");
    host.apikey(&["refresh", "alice", "-y", "-q"]).gives(0, "<key>\n", "");
}

#[test]
fn a_user_without_a_key_gets_the_first_one() {
    let host = Host::new();
    let none = json!([false, null, null]);
    for _ in 0..2 {
        host.apikey(&["refresh", "alice", "--yes"]).gives(
            0,
            "<key>\n",
            issued_to("alice") + "alice had no key.\n",
        );
        host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    }
    let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json", "--grace", "1h"]).run().json();
    assert_eq!(previous(&refreshed), none);
}

/// The three members about the previous key.
fn previous(refreshed: &Value) -> Value {
    json!([
        refreshed["previous_key_revoked"],
        refreshed["previous_key_prefix"],
        refreshed["previous_key_valid_until"]
    ])
}

#[test]
fn nobody_there_to_ask_is_a_usage_error_and_changes_nothing() {
    let (host, old) = Host::with_key_of("alice");
    let before = host.contents();
    let message = "there is no terminal to ask whether to replace the key of alice";
    host.apikey(&["refresh", "alice"]).fails(2, format!("apikey: {message}\nconfirm with --yes\n"));
    host.apikey(&["refresh", "alice", "--json", "--quiet"]).fails(
        2,
        format!("{{\"code\":\"USAGE\",\"message\":\"{message}\",\"hint\":\"confirm with --yes\"}}\n"),
    );
    host.apikey(&["refresh", "alice"])
        .input("y\ny\n")
        .fails(2, format!("apikey: {message}\nconfirm with --yes\n"));
    assert!(host.contents() == before);
    assert_eq!(host.status_of(&old), "active");

    let empty = Host::new();
    assert_eq!(empty.apikey(&["refresh", "alice"]).run().status, 2);
    assert_eq!(empty.names(), [""; 0]);
}

#[test]
fn the_name_and_the_lifetime_are_kept_unless_others_are_given() {
    let host = Host::new();
    host.key_from(&["create", "alice", "--name", "laptop", "--expires-in", "1h"]);
    let refresh = |args: &[&str]| {
        let refreshed = host.apikey(&[&["refresh", "alice", "--yes", "--json"], args].concat()).run().json();
        let ends = refreshed["expires_at"].is_string();
        let lifetime =
            ends.then(|| time_between(&refreshed["created_at"], &refreshed["expires_at"]).as_secs());
        json!([refreshed["name"], lifetime])
    };
    assert_eq!(refresh(&[]), json!(["laptop", 3600]));
    assert_eq!(refresh(&["--expires-in", "2h"]), json!(["laptop", 7200]));
    assert_eq!(refresh(&["--name", "desk"]), json!(["desk", 7200]));
    assert_eq!(refresh(&["--expires-in", "never"]), json!(["desk", null]));
    assert_eq!(refresh(&[]), json!(["desk", null]));
    // A new beginning has nothing of what was kept.
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    let created = host.apikey(&["create", "alice", "--json"]).run().json();
    assert_eq!((&created["name"], &created["expires_at"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_new_key_expires_when_asked_to() {
    let (host, _) = Host::with_key_of("alice");
    let refreshed =
        host.apikey(&["refresh", "alice", "--yes", "--json", "--expires-in", "1h 30m"]).run().json();
    let lifetime = time_between(&refreshed["created_at"], &refreshed["expires_at"]);
    assert_eq!(lifetime, Duration::from_secs(5400));
}

#[test]
fn with_a_grace_period_both_keys_are_accepted_for_that_long() {
    let (host, old) = Host::with_key_of("alice");
    let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json", "--grace", "2h"]).run().json();
    let until = &refreshed["previous_key_valid_until"];
    assert_eq!(previous(&refreshed), json!([false, old[..15], until]));
    assert_eq!(time_between(&refreshed["created_at"], until), Duration::from_secs(7200));
    assert_eq!(host.status_of(&old), "retiring");
    assert_eq!(host.status_of(refreshed["key"].as_str().unwrap()), "active");
    assert_eq!(host.accepted(), 2);

    host.apikey(&["refresh", "alice", "--yes", "--grace", "1h"]).gives(
        0,
        "<key>\n",
        issued_to("alice")
            + "<prefix>, which is retiring, is accepted until <time>.\n\
               <prefix>, which is retiring, is accepted until <time>.\n",
    );
    assert_eq!(host.accepted(), 3);
}

#[test]
fn a_key_whose_grace_period_is_over_is_not_accepted() {
    let (host, old) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1ms"]);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(host.status_of(&old), "revoked");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_key_whose_grace_period_is_over_is_not_named_among_those_that_are_accepted() {
    let (host, _) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1ms"]);
    std::thread::sleep(Duration::from_millis(2));
    let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json"]).run().json();
    assert_eq!(refreshed["still_accepted"], serde_json::json!([]));
}

#[test]
fn a_grace_period_ends_with_the_key_s_own_expiry() {
    let host = Host::new();
    let created = host.apikey(&["create", "alice", "--json", "--expires-in", "1h"]).run().json();
    let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json", "--grace", "2h"]).run().json();
    assert_eq!(refreshed["previous_key_valid_until"], created["expires_at"]);
}

#[test]
fn a_refresh_without_grace_leaves_an_earlier_grace_period_as_it_is() {
    let (host, first) = Host::with_key_of("alice");
    let second = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.key_from(&["refresh", "alice", "--yes"]);
    assert_eq!((host.status_of(&first), host.status_of(&second)), ("retiring".into(), "revoked".into()));
}

#[test]
fn a_key_that_has_expired_is_replaced_and_stays_expired() {
    let host = Host::new();
    let old = host.expired_key_of("alice");
    host.apikey(&["refresh", "alice", "--yes", "--grace", "1h", "--expires-in", "never"]).gives(
        0,
        "<key>\n",
        issued_to("alice") + "<prefix> had expired.\n",
    );
    assert_eq!((host.status_of(&old), host.accepted()), ("expired".into(), 1));

    let old = host.expired_key_of("bob");
    let refreshed = host.apikey(&["refresh", "bob", "--yes", "--json", "--grace", "1h"]).run().json();
    assert_eq!(previous(&refreshed), json!([false, old[..15], null]));
}

#[test]
fn a_key_that_cannot_be_handed_over_leaves_the_old_one_as_it_was() {
    let (host, old) = Host::with_key_of("alice");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let before = host.apikey(&["show", "alice", "--json"]).run().stdout;
    for stdout in [full.into(), writer.into(), std::process::Stdio::from(null)] {
        let outcome = host.apikey(&["refresh", "alice", "--yes", "--json"]).stdout_to(stdout).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"));
        assert_eq!(host.apikey(&["show", "alice", "--json"]).run().stdout, before);
        assert_eq!(host.accepted(), 1);
    }
    assert_eq!(host.status_of(&old), "active");
}

#[test]
fn a_key_is_handed_over_in_exactly_one_write() {
    let host = Host::new();
    for args in
        [&["create", "alice"][..], &["refresh", "alice", "--yes"], &["refresh", "alice", "-y", "--json"]]
    {
        // Each write to a socket for datagrams is a message of its own.
        let (reader, writer) = UnixDatagram::pair().unwrap();
        host.apikey(&[args, &["--quiet"]].concat()).stdout_to(OwnedFd::from(writer)).gives(0, "", "");
        reader.set_nonblocking(true).unwrap();
        let mut message = [0; 4096];
        let length = reader.recv(&mut message).unwrap();
        let text = generalized(std::str::from_utf8(&message[..length]).unwrap());
        assert_eq!(text.matches("<key>").count(), 1, "{text}");
        assert!(text.ends_with('\n'), "{text}");
        let more = reader.recv(&mut message).map_or(0, |length| length);
        assert_eq!(more, 0, "a second write");
    }
}

#[test]
fn one_user_s_refresh_leaves_the_others_keys_alone() {
    let (host, alice) = Host::with_key_of("alice");
    host.key_from(&["create", "bob"]);
    host.key_from(&["refresh", "bob", "--yes"]);
    assert_eq!(host.status_of(&alice), "active");
}

#[test]
fn revoke_first_says_what_it_ended() {
    let (host, old) = Host::with_key_of("alice");
    let refreshed = host.apikey(&["refresh", "alice", "-y", "--revoke-first", "--json"]).run().json();
    assert_eq!(previous(&refreshed), json!([true, old[..15], null]));
    let retiring = refreshed["key"].as_str().unwrap().to_owned();
    host.key_from(&["refresh", "alice", "-y", "--grace", "1h"]);
    host.apikey(&["refresh", "alice", "-y", "--revoke-first"]).gives(
        0,
        "<key>\n",
        issued_to("alice") + "<prefix> is revoked.\n<prefix> is revoked.\n",
    );
    assert_eq!((host.status_of(&retiring).as_str(), host.accepted()), ("revoked", 1));

    host.expired_key_of("bob");
    host.apikey(&["refresh", "bob", "-y", "--revoke-first", "--expires-in", "never"]).gives(
        0,
        "<key>\n",
        issued_to("bob") + "<prefix> had expired.\n",
    );
}

#[test]
fn revoke_first_ends_nothing_where_the_next_key_would_reach_nobody() {
    let (host, key) = Host::with_key_of("alice");
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let outcome = host.apikey(&["refresh", "alice", "-y", "--revoke-first"]).stdout_to(null).run();
    assert_eq!((outcome.status, host.status_of(&key).as_str()), (8, "active"), "{outcome:?}");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome = host.apikey(&["refresh", "alice", "-y", "--revoke-first"]).stdout_to(full).run();
    assert_eq!((outcome.status, host.status_of(&key).as_str()), (8, "revoked"), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("{} of alice ended, but the key", &key[..15])), "{outcome:?}");
}
