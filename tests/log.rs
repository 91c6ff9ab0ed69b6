//! `apikey log`: what was done to whose key.

mod common;

use std::fs;

use common::Host;
use serde_json::{Value, json};

/// What `log --json` with `args` says.
fn said(host: &Host, args: &[&str]) -> Vec<Value> {
    let outcome = host.apikey(&[&["log", "--json"], args].concat()).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}: {outcome:?}");
    outcome.json()["events"].as_array().unwrap().clone()
}

/// What happened, to whom, of each event.
fn what(host: &Host, args: &[&str]) -> Vec<String> {
    let text = |event: &Value, member: &str| event[member].as_str().unwrap_or("-").to_owned();
    said(host, args).iter().map(|event| format!("{} {}", text(event, "event"), text(event, "user"))).collect()
}

/// A host on which some was done for alice and web.
fn host() -> Host {
    let host = Host::new();
    host.key_from(&["create", "alice", "--expires-in", "90d"]);
    host.key_from(&["refresh", "alice", "-y", "--grace", "1h"]);
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    host.apikey(&["edit", "web", "-q", "--name", "a label"]).gives(0, "", "");
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    host
}

#[test]
fn it_says_what_was_done_to_whose_key_when_and_by_whom() {
    let host = host();
    let by = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .map_or_else(|| format!("uid {}", nix::unistd::getuid()), |account| account.name);
    let sudo = host.apikey(&["create", "bob", "-q"]).env("SUDO_USER", "carol").run();
    assert_eq!(sudo.status, 0);
    let expected = [
        "issued     <prefix>  alice         by BY: create",
        "retired    <prefix>  alice         by BY: until <time>",
        "issued     <prefix>  alice         by BY: refresh, in place of <prefix>",
        "issued     <prefix>  web           by BY: create",
        "delivered  <prefix>  web           by BY: <folder>/web.key",
        "edited     <prefix>  web           by BY: name",
        "revoked    <prefix>  alice         by BY",
        "revoked    <prefix>  alice         by BY",
        "issued     <prefix>  bob           by BY (sudo: carol): create",
    ];
    let expected: String =
        expected.iter().map(|line| format!("<date> <clock>  {}\n", line.replace("BY", &by))).collect();
    let outcome = host.apikey(&["log"]).run();
    let clock = regex::Regex::new("[0-9]{2}:[0-9]{2}:[0-9]{2}").unwrap();
    let found = common::generalized(&outcome.stdout);
    let found = clock.replace_all(&found, "<clock>");
    let folder = host.folder().to_str().unwrap();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    // A host on which somebody has logged in says so, too.
    let logged_in = regex::Regex::new(r" \(logged in: uid [0-9]+\)").unwrap();
    assert_eq!(logged_in.replace_all(&found.replace(folder, "<folder>"), ""), expected);
}

#[test]
fn who_had_logged_in_is_told_where_that_was_somebody_else() {
    let (host, _) = Host::with_key_of("alice");
    for (audit_uid, by) in [("NULL", "7"), ("7", "7"), ("8", "7 (logged in: uid 8)")] {
        host.execute(&format!("UPDATE events SET login = NULL, uid = 7, audit_uid = {audit_uid}"));
        let told = host.apikey(&["log"]).run().stdout;
        assert!(told.ends_with(&format!("by uid {by}: create\n")), "{told}");
    }
}

#[test]
fn a_user_a_prefix_and_a_time_narrow_it() {
    let host = host();
    let web = ["issued web", "delivered web", "edited web"];
    assert_eq!(what(&host, &["web"]), web);
    let prefix = fs::read_to_string(host.path("web.key")).unwrap()[..15].to_owned();
    assert_eq!(what(&host, &[&prefix]), web);
    assert_eq!(what(&host, &[]).len(), 8);
    assert_eq!(what(&host, &["--since", "1h"]).len(), 8);
    host.execute("UPDATE events SET at = '2026-01-02T03:04:05.006Z' WHERE event = 'issued'");
    assert_eq!(what(&host, &["web", "--since", "1h"]), web[1..]);
    for (since, is_in) in [
        ("2026-01-02", true),
        ("2026-01-02T03:04:05.006Z", true),
        ("2026-01-02T05:04:05.006+02:00", true),
        ("2026-01-02T03:04:05.007Z", false),
        ("2026-01-02 03:04:05.006", true),
        ("2026-01-02T03:05", false),
        ("2026-01-03", false),
    ] {
        assert_eq!(what(&host, &["web", "--since", since]), web[usize::from(!is_in)..], "{since}");
    }
    let none = "Nothing is written down about bob since <time>.\n";
    host.apikey(&["log", "bob", "--since", "2026-01-02"]).gives(0, "", none);
    host.apikey(&["log", "bob"]).gives(0, "", "Nothing is written down about bob.\n");
    for since in ["yesterday", "1M", "2026-13-01", "2026-01-02 3:4", "-1d", ""] {
        let outcome = host.apikey(&["log", &format!("--since={since}")]).run();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{since}: {outcome:?}");
    }
}

#[test]
fn every_member_is_always_there() {
    let host = host();
    let members =
        "at event user prefix expires_at valid_until uid login sudo_user audit_uid detail".split(' ');
    let members: Vec<&str> = members.collect();
    let text = host.apikey(&["log", "--json"]).run().stdout;
    for event in said(&host, &[]) {
        let event = event.as_object().unwrap();
        assert_eq!(event.len(), members.len(), "{event:?}");
        assert!(members.iter().all(|member| event.contains_key(*member)), "{event:?}");
    }
    let places: Vec<usize> =
        members.iter().map(|member| text.find(&format!("\"{member}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let retired = said(&host, &["alice"])[1].clone();
    assert_eq!(retired["event"], "retired");
    assert!(retired["valid_until"].as_str() < retired["expires_at"].as_str(), "{retired}");
}

#[test]
fn a_delivery_that_was_refused_is_told_once_with_its_reason() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--renew-after", "30d"]).gives(0, "", "");
    let key = fs::read(host.path("web.key")).unwrap();
    host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z'");
    host.write("web.key", b"junk");
    for _ in 0..3 {
        assert_eq!(host.apikey(&["renew", "-q"]).run().status, 11);
    }
    let refused = json!(format!(
        "{}/web.key holds something else than a key",
        fs::canonicalize(host.folder()).unwrap().display()
    ));
    let events = said(&host, &["web"]);
    assert_eq!(what(&host, &["web"]), ["issued web", "delivered web", "refused web"]);
    assert_eq!((&events[2]["detail"], &events[2]["prefix"]), (&refused, &Value::Null));
    // Another reason is another event.
    fs::remove_file(host.path("web.key")).unwrap();
    fs::create_dir(host.path("web.key")).unwrap();
    assert_eq!(host.apikey(&["refresh", "web", "-y"]).run().status, 8);
    fs::remove_dir(host.path("web.key")).unwrap();
    host.write("web.key", &key);
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    let refused = ["refused web", "refused web", "issued web", "revoked web", "delivered web"];
    assert_eq!(what(&host, &["web"])[2..], refused);
}

#[test]
fn what_an_ensure_refuses_is_told_too_and_a_check_writes_nothing() {
    let host = Host::new();
    host.apikey(&["ensure", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    host.write("web.key", b"junk");
    assert_eq!(host.apikey(&["ensure", "web", "--check"]).run().status, 8);
    assert_eq!(what(&host, &["web"]), ["issued web", "delivered web"]);
    for _ in 0..2 {
        assert_eq!(host.apikey(&["ensure", "web"]).run().status, 8);
    }
    assert_eq!(what(&host, &["web"]), ["issued web", "delivered web", "refused web"]);
    // What another command refuses for the same reason is no news.
    assert_eq!(host.apikey(&["refresh", "web", "-y"]).run().status, 8);
    assert_eq!(host.apikey(&["ensure", "web"]).run().status, 8);
    assert_eq!(what(&host, &["web"]), ["issued web", "delivered web", "refused web"]);
    let detail = said(&host, &["web"])[2]["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with("/web.key holds something else than a key"), "{detail}");
}

#[test]
fn nothing_in_it_steers_a_terminal() {
    let host = host();
    host.execute("UPDATE events SET login = 'a' || char(27) || '[31m', detail = 'b' || char(0x202e) || char(10) || 'c'");
    let outcome = host.apikey(&["log"]).run();
    assert!(outcome.is_printable() && outcome.status == 0, "{outcome:?}");
    assert!(outcome.stdout.contains(r"by a\u{1b}[31m: b\u{202e}\nc"), "{}", outcome.stdout);
    assert!(host.apikey(&["log", "--json"]).run().is_printable());
}

#[test]
fn a_row_that_makes_no_sense_is_damage_and_said() {
    let host = host();
    host.execute("UPDATE events SET at = 'yesterday' WHERE event = 'edited'");
    let outcome = host.apikey(&["log"]).run();
    assert_eq!((outcome.status, outcome.stdout.lines().count()), (1, 0), "{outcome:?}");
}
