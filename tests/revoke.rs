//! `apikey revoke`

mod common;

use common::Host;
use serde_json::json;

#[test]
fn a_revoked_key_is_not_accepted_and_there_is_nothing_on_standard_output() {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["revoke", "alice", "--yes"]).gives(0, "", "Revoked <prefix> of alice.\n");
    assert_eq!((host.status_of(&key), host.accepted()), ("revoked".into(), 0));
}

#[test]
fn quiet_says_nothing() {
    let (host, _) = Host::with_key_of("alice");
    host.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", "");
}

#[test]
fn nobody_there_to_ask_is_a_usage_error_and_changes_nothing() {
    let (host, key) = Host::with_key_of("alice");
    let before = host.contents();
    let message = "there is no terminal to ask whether to revoke the key of alice";
    host.apikey(&["revoke", "alice"]).fails(2, format!("apikey: {message}\nconfirm with --yes\n"));
    host.apikey(&["revoke", "alice", "--json"])
        .fails(2, format!("{{\"code\":\"USAGE\",\"message\":\"{message}; confirm with --yes\"}}\n"));
    assert!(host.contents() == before);
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn the_active_the_pending_and_every_retiring_key_of_the_user_end_at_once() {
    let (host, first) = Host::with_key_of("alice");
    let second = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    let third = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    // A delivery that was interrupted: the key that alice's file is about to hold.
    let pending = host.key_from(&["create", "elsewhere"]);
    host.execute("UPDATE keys SET user = 'alice', status = 'pending' WHERE user = 'elsewhere'");
    host.deliver_pending();
    let bob = host.key_from(&["create", "bob"]);
    assert_eq!(host.accepted(), 5);

    let revoked = host.apikey(&["revoke", "alice", "--yes", "--json"]).run().json();
    assert_eq!(revoked["revoked_key_prefix"], third[..15]);
    for key in [first, second, third, pending] {
        assert_eq!(host.status_of(&key), "revoked");
    }
    assert_eq!((host.status_of(&bob), host.accepted()), ("active".into(), 1));
}

#[test]
fn a_grace_period_that_is_left_alone_can_be_ended_too() {
    let (host, old) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.execute("DELETE FROM keys WHERE status = 'active'");
    host.apikey(&["revoke", "alice", "--yes"]).gives(0, "", "Revoked <prefix> of alice.\n");
    assert_eq!(host.status_of(&old), "revoked");
}

#[test]
fn a_user_without_a_key_has_none_to_revoke() {
    let (host, _) = Host::with_key_of("bob");
    let none = "apikey: alice has no active key\n`apikey create alice` issues one\n";
    host.apikey(&["revoke", "alice", "--yes"]).fails(4, none);
    host.key_from(&["create", "alice"]);
    host.apikey(&["revoke", "alice", "--yes"]).gives(0, "", "Revoked <prefix> of alice.\n");
    let before = host.contents();
    host.apikey(&["revoke", "alice", "--yes"]).fails(4, none);
    assert!(host.contents() == before);
}

#[test]
fn what_was_revoked_keeps_its_time_and_what_was_to_be_gets_an_earlier_one() {
    let (host, _) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes"]);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1ms"]);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    let revoked_at = || {
        let listed = host.apikey(&["list", "--all", "--json"]).run().json();
        [0, 1, 2, 3].map(|key| listed["keys"][key]["revoked_at"].as_str().unwrap_or("never").to_owned())
    };
    let before = revoked_at();
    assert_eq!(before[3], "never");
    host.apikey(&["revoke", "alice", "--yes"]).gives(0, "", "Revoked <prefix>, <prefix> of alice.\n");
    let after = revoked_at();
    assert_eq!(after[..2], before[..2]);
    assert!(after[2] < before[2] && after[2] == after[3], "{before:?} {after:?}");
}

#[test]
fn a_user_whose_key_was_revoked_gets_a_new_one() {
    let (host, _) = Host::with_key_of("alice");
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    let key = host.key_from(&["create", "alice"]);
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn without_a_database_there_is_nothing_to_revoke_and_none_is_made() {
    let host = Host::new();
    let outcome = host.apikey(&["revoke", "alice", "--yes", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "DB_UNAVAILABLE"));
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn with_no_user_it_is_about_the_login_name_of_the_calling_uid() {
    let host = Host::new();
    let key = host.key_from(&["create"]);
    let login = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let revoked = host.apikey(&["revoke", "--yes", "--json"]).env("USER", "mallory").run().json();
    let message = format!("Revoked {} of {login}.", &key[..15]);
    assert_eq!(revoked, json!({ "message": message, "user": login, "revoked_key_prefix": &key[..15] }));
}
