//! `apikey prune`

mod common;

use std::time::Duration;

use apikey::{Authority, Timestamp};
use common::Host;
use serde_json::{Value, json};

/// Makes all that was done so far be done so many days ago.
fn age(host: &Host, days: u32) {
    let ago = |column: &str| format!("{column} = strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '-{days} days')");
    host.execute(&format!(
        "UPDATE events SET {}; UPDATE keys SET {}, {}",
        ago("at"),
        ago("revoked_at"),
        ago("expires_at")
    ));
}

/// What is in the folder.
fn contents(host: &Host) -> impl PartialEq {
    // Makes the side files anew that went when the test itself closed the database.
    let _ = host.apikey(&["list", "-q"]).run();
    host.contents()
}

/// What is left: each key with its status as it is stored, each event, and whose settings are kept.
fn left(host: &Host) -> Vec<String> {
    let sqlite = host.sqlite();
    let mut lines = Vec::new();
    for sql in [
        "SELECT user || ' ' || status FROM keys ORDER BY id",
        "SELECT 'settings of ' || user FROM settings ORDER BY user",
        "SELECT event || ' ' || ifnull(user, '-') FROM events ORDER BY number",
    ] {
        let mut statement = sqlite.prepare(sql).unwrap();
        lines.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    }
    lines
}

fn prune(host: &Host, args: &[&str]) -> Value {
    let outcome = host.apikey(&[&["prune", "--json"], args].concat()).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}: {outcome:?}");
    outcome.json()
}

/// A year ago: gone was revoked, with settings; alice's was replaced, and her current one is from then;
/// stale's expired, and is current; web's is in a file. Today: bob's was replaced.
fn host() -> Host {
    let host = Host::new();
    host.apikey(&["create", "gone", "-q", "--key-file", "gone.key", "--name", "old"]).gives(0, "", "");
    host.apikey(&["revoke", "gone", "-yq"]).gives(0, "", "");
    host.key_from(&["create", "alice"]);
    host.key_from(&["refresh", "alice", "-y"]);
    host.expired_key_of("stale");
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    age(&host, 365);
    host.key_from(&["create", "bob"]);
    host.key_from(&["refresh", "bob", "-y"]);
    host
}

#[test]
fn what_ended_longer_ago_is_forgotten_and_nothing_else() {
    let host = host();
    let before = contents(&host);
    let there = json!({ "keys": 2, "events": 5 });
    assert_eq!(prune(&host, &["--ended-for", "300d", "--dry-run"]), there);
    host.apikey(&["prune", "--ended-for", "300d", "--dry-run"]).gives(
        0,
        "",
        "Would forget 2 keys, 5 events and the settings of 1 user.\n",
    );
    assert!(contents(&host) == before, "a dry run did something");
    host.apikey(&["prune", "--ended-for", "300d", "-y"]).gives(
        0,
        "",
        "Forgot 2 keys, 5 events and the settings of 1 user.\n",
    );
    let expected = [
        "alice active",
        "stale active",
        "web active",
        "bob revoked",
        "bob active",
        "settings of stale",
        "settings of web",
        "issued alice",
        "issued stale",
        "issued web",
        "delivered web",
        "issued bob",
        "revoked bob",
        "issued bob",
        "pruned -",
    ];
    assert_eq!(left(&host), expected);
    let log = host.apikey(&["log", "--json"]).run().json();
    let pruned = log["events"].as_array().unwrap().last().unwrap().clone();
    let detail = pruned["detail"].as_str().unwrap();
    assert!(detail.starts_with("2 keys, 5 events and the settings of 1 user, from before 20"), "{detail}");
    let after = contents(&host);
    for args in [&["-y"][..], &["-y", "--dry-run"]] {
        let args = [&["prune", "--ended-for", "300d"], args].concat();
        host.apikey(&args).gives(0, "", "Nothing ended that long ago.\n");
    }
    assert!(contents(&host) == after);
    // Whoever was forgotten begins anew.
    host.apikey(&["create", "gone", "-q", "--key-file", "gone.key"]).gives(0, "", "");
}

#[test]
fn a_key_that_was_forgotten_is_unknown() {
    let (host, key) = Host::with_key_of("alice");
    let pending = host.key_from(&["refresh", "alice", "-y", "--grace", "1h"]);
    assert_eq!(prune(&host, &["--ended-for", "0s", "-y"])["keys"], 0);
    host.key_from(&["refresh", "alice", "-y"]);
    host.apikey(&["revoke", &key[..15], "-yq"]).gives(0, "", "");
    assert_eq!((host.status_of(&key).as_str(), host.status_of(&pending).as_str()), ("revoked", "revoked"));
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(prune(&host, &["--ended-for", "0s", "-y"])["keys"], 2);
    assert_eq!((host.status_of(&key).as_str(), host.status_of(&pending).as_str()), ("unknown", "unknown"));
    assert_eq!(host.accepted(), 1);
}

#[test]
fn where_the_clock_went_back_the_log_still_says_of_every_issued_key_that_it_ended() {
    let (host, _) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "-y"]);
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    host.key_from(&["create", "alice"]);
    // The clock was right when the keys were issued, and years behind when the last of them was revoked.
    let then = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-400 days')";
    host.execute(&format!(
        "UPDATE keys SET revoked_at = {then} WHERE status = 'revoked' AND id = (SELECT max(id) FROM keys WHERE status = 'revoked');
         UPDATE events SET at = {then} WHERE event = 'revoked' AND number = 4"
    ));
    let forgotten = json!({ "keys": 1, "events": 2 });
    assert_eq!(prune(&host, &["--ended-for", "300d", "--dry-run"]), forgotten);
    assert_eq!(prune(&host, &["--ended-for", "300d", "-y"]), forgotten);
    let events = ["issued alice", "revoked alice", "issued alice", "pruned -"];
    assert_eq!(left(&host)[2..], events);
}

#[test]
fn a_key_that_is_on_its_way_is_never_touched() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--reload", "false"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-yq", "--expires-in", "1ms"]).run().status, 9);
    age(&host, 365);
    let before = left(&host);
    assert_eq!(prune(&host, &["--ended-for", "30d", "-y"]), json!({ "keys": 0, "events": 0 }));
    assert_eq!(left(&host), before);
}

#[test]
fn a_clock_that_the_log_contradicts_is_not_believed() {
    let host = host();
    host.execute("UPDATE events SET at = '2999-01-01T00:00:00.000Z' WHERE number = 3");
    let before = contents(&host);
    for args in [&["-y"][..], &["--dry-run"]] {
        host.apikey(&[&["prune", "--ended-for", "300d"], args].concat()).fails(
            1,
            "apikey: the newest event is of <time>, and it is <time>: the clock is not believed\n\
             nothing was pruned: set the host's clock; where that is right, it was not once, and <time> has to pass first\n",
        );
    }
    assert!(contents(&host) == before);
}

#[test]
fn it_asks_or_needs_yes_and_how_long_is_to_be_said() {
    let host = host();
    let before = contents(&host);
    host.apikey(&["prune", "--ended-for", "300d"])
        .fails(2, "apikey: there is no terminal to ask whether to prune\nconfirm with --yes\n");
    for args in
        [&["prune", "-y"][..], &["prune", "-y", "--ended-for", "1M"], &["prune", "-y", "--ended-for", ""]]
    {
        assert_eq!(host.apikey(args).run().status, 2, "{args:?}");
    }
    assert!(contents(&host) == before);
}

#[test]
fn many_are_forgotten_in_steps_which_one_event_sums_up() {
    let host = Host::new();
    host.key_from(&["create", "alice"]);
    host.add_revoked_keys(5000);
    assert_eq!(prune(&host, &["--ended-for", "1d", "-y"]), json!({ "keys": 5000, "events": 0 }));
    assert_eq!(left(&host), ["alice active", "issued alice", "pruned -"]);
}

#[test]
fn who_prunes_begins_with_a_few_and_takes_no_more_than_twice_as_many_the_next_time() {
    let (host, _) = Host::with_key_of("alice");
    host.add_revoked_keys(1000);
    let mut authority = Authority::open(&host.database(), Duration::from_secs(10), Timestamp::now).unwrap();
    let mut sums = vec![0];
    authority.prune(Duration::from_secs(24 * 60 * 60), |so_far| sums.push(so_far.keys)).unwrap();
    let steps = Vec::from_iter(sums.windows(2).map(|sums| sums[1] - sums[0]));
    assert_eq!((steps[0], sums.last()), (64, Some(&1000)), "{steps:?}");
    assert!(steps.windows(2).all(|steps| steps[1] <= 2 * steps[0].max(64)), "{steps:?}");
}
