//! `apikey list`

mod common;

use std::fs::OpenOptions;
use std::io::Read as _;
use std::thread::sleep;
use std::time::Duration;

use common::Host;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value;

const HEADER: &str = "USER   PREFIX           NAME    STATUS    CREATED      ENDS         LAST USED\n";

/// Alice with an expired, a revoked, a retiring and an active key, and Bob with an active one.
fn host_with_many_keys() -> Host {
    let host = Host::new();
    host.key_from(&["create", "bob"]);
    host.expired_key_of("alice");
    host.key_from(&["create", "alice", "--name", "laptop", "--expires-in", "90d"]);
    host.key_from(&["refresh", "alice", "--yes"]);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h", "--expires-in", "1h"]);
    host
}

fn statuses(listed: &Value) -> Vec<String> {
    let keys = listed["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| format!("{} {}", key["user"].as_str().unwrap(), key["status"].as_str().unwrap()))
        .collect()
}

#[test]
fn accepted_keys_are_listed_by_user_and_the_oldest_first() {
    host_with_many_keys().apikey(&["list"]).gives(
        0,
        HEADER.to_owned()
            + "alice  <prefix>  laptop  retiring  <minute>  <minute>  not recorded\n\
               alice  <prefix>  laptop  active    <minute>  <minute>  not recorded\n\
               bob    <prefix>  -       active    <minute>  never        not recorded\n",
        "",
    );
}

#[test]
fn a_key_whose_use_nobody_wrote_down_is_not_said_to_be_unused() {
    let (host, key) = Host::with_key_of("alice");
    // As a service does that asks by SQL.
    let hash = common::aftermath::hash_of(&key);
    assert!(common::aftermath::accepted(&host.database()).contains(&hash));
    let listed = host.apikey(&["list"]).run().stdout;
    assert!(listed.ends_with("  never  not recorded\n"), "{listed}");
    assert_eq!(host.apikey(&["list", "--json"]).run().json()["keys"][0]["last_used_at"], Value::Null);
    assert_eq!(host.status_of(&key), "active");
    host.apikey(&["list"]).gives(
        0,
        "USER   PREFIX           NAME  STATUS  CREATED      ENDS   LAST USED\n\
         alice  <prefix>  -     active  <minute>  never  <minute>\n",
        "",
    );
}

#[test]
fn with_all_the_expired_and_revoked_are_listed_too() {
    let host = host_with_many_keys();
    for all in ["--all", "-a"] {
        host.apikey(&["list", all]).gives(
            0,
            HEADER.to_owned()
                + "alice  <prefix>  -       expired   <minute>  <minute>  not recorded\n\
                   alice  <prefix>  laptop  revoked   <minute>  <minute>  not recorded\n\
                   alice  <prefix>  laptop  retiring  <minute>  <minute>  not recorded\n\
                   alice  <prefix>  laptop  active    <minute>  <minute>  not recorded\n\
                   bob    <prefix>  -       active    <minute>  never        not recorded\n",
            "",
        );
    }
}

#[test]
fn one_user_s_keys_can_be_listed_alone() {
    let host = host_with_many_keys();
    let list = |args: &[&str]| statuses(&host.apikey(&[&["list", "--json"], args].concat()).run().json());
    assert_eq!(list(&["bob"]), ["bob active"]);
    assert_eq!(list(&["alice"]), ["alice retiring", "alice active"]);
    assert_eq!(
        list(&["alice", "--all"]),
        ["alice expired", "alice revoked", "alice retiring", "alice active"]
    );
    assert_eq!(list(&["carol", "--all"]), [""; 0]);
}

#[test]
fn where_standard_output_is_no_terminal_everything_is_whole() {
    let host = Host::new();
    let (user, name) = ("u".repeat(128), "鍵".repeat(100));
    host.key_from(&["create", &user, "--name", &name, "--expires-in", "90d"]);
    let listed = host.apikey(&["list"]).env("COLUMNS", "60").run().stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0].split_whitespace().next_back(), Some("USED"));
    assert!(lines.len() == 2 && lines[1].starts_with(&format!("{user}  ak_")), "{listed}");
    assert!(lines[1].contains(&format!("  {name}  active  ")), "{listed}");
}

#[test]
fn no_keys_is_no_failure() {
    let (host, _) = Host::with_key_of("alice");
    host.apikey(&["list", "bob"]).gives(0, "", "bob has no key.\n");
    host.apikey(&["list", "bob", "--quiet"]).gives(0, "", "");
    host.apikey(&["list", "bob", "--json"]).gives(0, "{\"keys\":[]}\n", "");
}

#[test]
fn where_nothing_is_listed_it_says_why_and_what_would_be() {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["list", "ak_0123456789ab"]).gives(0, "", "No key with the prefix <prefix> is known.\n");
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    let says = |args: &[&str], text: &str| {
        host.apikey(&[&["list"], args].concat()).gives(0, "", text.to_owned() + "\n");
    };
    says(&[], "No key is accepted; `apikey list --all` lists those that ended.");
    says(&["alice"], "alice has no key that is accepted; `apikey list alice --all` lists those that ended.");
    says(&[&key[..15]], "<prefix> is not accepted; `apikey list <prefix> --all` lists it.");
    host.execute("DELETE FROM keys");
    says(&[], "There are no keys yet.");
}

#[test]
fn one_key_can_be_listed_by_its_prefix() {
    let (host, old) = Host::with_key_of("alice");
    let new = host.key_from(&["refresh", "alice", "--yes"]);
    let list = |args: &[&str]| statuses(&host.apikey(&[&["list", "--json"], args].concat()).run().json());
    assert_eq!(list(&[&new[..15]]), ["alice active"]);
    assert_eq!(list(&[&old[..15]]), [""; 0]);
    assert_eq!(list(&[&old[..15], "--all"]), ["alice revoked"]);
}

#[test]
fn an_expired_key_is_listed_as_long_as_it_is_the_user_s_current_one() {
    let host = Host::new();
    host.expired_key_of("alice");
    let list = || statuses(&host.apikey(&["list", "--json"]).run().json());
    assert_eq!(list(), ["alice expired"]);
    host.key_from(&["create", "alice"]);
    assert_eq!(list(), ["alice active"]);
}

#[test]
fn no_database_is_one_and_none_is_made() {
    let host = Host::new();
    host.apikey(&["list"]).fails(
        6,
        "apikey: there is no database at <folder>/keys.db\n`apikey create` makes it, --db names another\n",
    );
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn listing_changes_nothing() {
    let host = host_with_many_keys();
    let before = host.contents();
    assert_eq!(host.apikey(&["list", "--all"]).run().status, 0);
    assert!(host.contents() == before);
}

#[test]
fn a_reader_that_closes_the_pipe_ends_it_quietly() {
    let host = host_of_thousands();
    for args in [&["list"][..], &["list", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        host.apikey(args).stdout_to(writer).gives(0, "", "");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let host = host_of_thousands();
    for args in [&["list"][..], &["list", "--json"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let outcome = host.apikey(args).stdout_to(full).run();
        assert_eq!(outcome.status, 1, "{outcome:?}");
    }
}

#[test]
fn a_non_blocking_standard_output_is_waited_for() {
    let host = host_of_thousands();
    let (mut pipe, output) = std::io::pipe().unwrap();
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut listing = host.apikey(&["list", "--json"]).stdout_to(output).spawn();
    sleep(Duration::from_millis(100));
    let mut listed = String::new();
    pipe.read_to_string(&mut listed).unwrap();
    assert!(listing.wait().unwrap().success());
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 3000);
}

#[test]
fn thousands_of_keys_are_all_there() {
    let listed = host_of_thousands().apikey(&["list", "--json"]).run().json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 3000);
}

fn host_of_thousands() -> Host {
    let (host, _) = Host::with_key_of("alice");
    host.execute(
        "WITH RECURSIVE numbers (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers LIMIT 2999)
         INSERT INTO keys (prefix, key_hash, id, user, status)
         SELECT value, randomblob(32), printf('01a202c4-2cbf-7a53-9e0f-%012x', value),
             printf('user%d', value), 'active'
         FROM numbers",
    );
    host
}

#[test]
fn what_is_asked_for_narrows_the_list_and_together_further() {
    let host = Host::new();
    for user in ["fresh", "ends", "old", "used"] {
        let lifetime = if user == "ends" { "10d" } else { "30d" };
        host.key_from(&["create", user, "--expires-in", lifetime]);
    }
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--renew-after", "30d"]).gives(0, "", "");
    host.expired_key_of("over");
    host.key_from(&["create", "gone"]);
    host.apikey(&["revoke", "gone", "-yq"]).gives(0, "", "");
    let days_ago = |days: u64| {
        let now = apikey::Timestamp::now().unwrap().unix_millis();
        let then = format!("{:012x}", now - days * 86_400_000);
        format!("{}-{}", &then[..8], &then[8..])
    };
    for (user, days) in [("old", 100), ("used", 100), ("web", 40)] {
        let id = days_ago(days);
        host.execute(&format!("UPDATE keys SET id = '{id}' || substr(id, 14) WHERE user = '{user}'"));
    }
    host.execute("UPDATE keys SET last_used_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-20 days') WHERE user = 'used'");
    host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z' WHERE user = 'web'");
    let listed = |args: &[&str]| -> Vec<String> {
        let found = host.apikey(&[&["list", "--json"], args].concat()).run();
        assert_eq!((found.status, found.stderr.as_str()), (0, ""), "{args:?}: {found:?}");
        let found = found.json();
        let keys = found["keys"].as_array().unwrap();
        let users: Vec<String> = keys.iter().map(|key| key["user"].as_str().unwrap().to_owned()).collect();
        let table = host.apikey(&[&["list"], args].concat()).run();
        let shown = table.stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned());
        assert_eq!(shown.collect::<Vec<_>>(), users, "{args:?}: {table:?}");
        users
    };
    for (args, expected) in [
        (&[][..], &["ends", "fresh", "old", "over", "used", "web"][..]),
        (&["--expiring-within", "11d"], &["ends", "over"]),
        (&["--expiring-within", "9d"], &["over"]),
        (&["--expiring-within", "1000y"], &["ends", "fresh", "old", "over", "used"]),
        (&["--older-than", "30d"], &["old", "used", "web"]),
        (&["--older-than", "50d"], &["old", "used"]),
        (&["--unused-for", "30d"], &["old", "web"]),
        (&["--unused-for", "19d"], &["old", "used", "web"]),
        (&["--unused-for", "19d", "--older-than", "50d"], &["old", "used"]),
        (&["--older-than", "50d", "--expiring-within", "40d", "--unused-for", "50d"], &["old"]),
        (&["--due"], &["web"]),
        (&["--due", "--expiring-within", "90d"], &[]),
        (&["--all", "--expiring-within", "0s"], &["gone", "over"]),
        (&["web", "--due"], &["web"]),
        (&["old", "--due"], &[]),
    ] {
        assert_eq!(listed(args), expected, "{args:?}");
    }
    host.apikey(&["list", "old", "--due"]).gives(0, "", "There is no such key.\n");
    host.apikey(&["list", "gone", "--older-than", "0s"]).gives(0, "", "There is no such key.\n");
}

#[test]
fn a_key_that_a_renewal_would_go_on_with_is_listed_as_due() {
    let host = Host::new();
    let ensure =
        ["ensure", "web", "-q", "--key-file", "web.key", "--renew-after", "30d", "--reload", "false"];
    host.apikey(&ensure).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-yq"]).run().status, 9);
    let due = host.apikey(&["renew", "--dry-run", "--json"]).run().json()["due"][0]["prefix"].clone();
    let listed = host.apikey(&["list", "--due", "--json"]).run().json();
    assert_eq!((statuses(&listed), &listed["keys"][0]["prefix"]), (vec!["web pending".to_owned()], &due));
}
