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
    let message = "there is no terminal to ask whether to revoke alice";
    host.apikey(&["revoke", "alice"]).fails(2, format!("apikey: {message}\nconfirm with --yes\n"));
    host.apikey(&["revoke", "alice", "--json"]).fails(
        2,
        format!("{{\"code\":\"USAGE\",\"message\":\"{message}\",\"hint\":\"confirm with --yes\"}}\n"),
    );
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
    let none = "apikey: alice has no key\n`apikey list alice --all` lists those that ended\n";
    host.apikey(&["revoke", "alice", "--yes"]).fails(4, "apikey: alice has no key\n");
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
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "NO_DATABASE"));
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn with_no_user_it_is_about_the_login_name_of_the_calling_uid() {
    let host = Host::new();
    let key = host.key_from(&["create"]);
    let login = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let revoked = host.apikey(&["revoke", "--yes", "--json"]).env("USER", "mallory").run().json();
    let message = format!("Revoked {} of {login}.", &key[..15]);
    assert_eq!(
        revoked,
        json!({
            "message": message, "user": login, "revoked_key_prefix": &key[..15],
            "revoked_key_prefixes": [&key[..15]], "still_accepted": [],
        })
    );
}

#[test]
fn a_revocation_waits_for_nobody_s_delivery() {
    let (host, key) = Host::with_key_of("alice");
    host.key_from(&["create", "bob"]);
    let lock = std::fs::File::open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    host.apikey(&["revoke", "alice", "-yq", "--timeout", "0s"]).gives(0, "", "");
    assert_eq!(host.status_of(&key), "revoked");
    // What is issued afterwards has to wait, but not what ends first.
    let refresh = ["refresh", "bob", "-y", "--revoke-first", "--timeout", "0s", "--json"];
    let outcome = host.apikey(&refresh).run();
    let failure: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!((outcome.status, host.accepted()), (6, 0), "{outcome:?}");
    assert_eq!(failure["revoked_key_prefixes"].as_array().unwrap().len(), 1, "{failure}");
}

#[test]
fn nothing_about_a_file_keeps_a_leaked_key_accepted() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let leaked = std::fs::read_to_string(host.path("web.key")).unwrap();
    // Its owner can write junk into it.
    host.write("web.key", b"junk");
    let outcome = host.apikey(&["refresh", "web", "-y", "--revoke-first", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"));
    let failure: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(failure["revoked_key_prefixes"], json!([&leaked[..15]]));
    assert_eq!((host.status_of(&leaked).as_str(), host.accepted()), ("revoked", 0));
}

#[test]
fn with_a_prefix_that_one_key_is_revoked_and_the_others_are_named() {
    let (host, first) = Host::with_key_of("alice");
    let second = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.apikey(&["revoke", &second[..15], "--yes"]).gives(
        0,
        "",
        "Revoked <prefix> of alice.\n<prefix>, which is retiring, is accepted until <time>.\n",
    );
    assert_eq!((host.status_of(&first), host.status_of(&second)), ("retiring".into(), "revoked".into()));
    let third = host.key_from(&["create", "alice"]);
    let revoked = host.apikey(&["revoke", &first[..15], "--yes", "--json"]).run().json();
    assert_eq!(revoked["user"], "alice");
    assert_eq!(revoked["revoked_key_prefixes"], json!([&first[..15]]));
    assert_eq!(
        revoked["still_accepted"],
        json!([{ "prefix": &third[..15], "status": "active", "until": null }])
    );
    host.apikey(&["revoke", &first[..15], "-y"]).fails(4, "apikey: <prefix> of alice is revoked already\n");
    host.apikey(&["revoke", "ak_0123456789ab", "-y"])
        .fails(4, "apikey: no key with the prefix <prefix> is known\n");
    assert_eq!(host.status_of(&third), "active");
}

/// A host where web's key in `web.key` is the active one, and the next one is in `new.key`, pending; with
/// both keys.
fn host_with_two_files() -> (Host, String, String) {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let refresh = ["refresh", "web", "-y", "--key-file", "new.key", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    let content = |name| std::fs::read_to_string(host.path(name)).unwrap();
    let (old, new) = (content("web.key"), content("new.key"));
    (host, old, new)
}

const HOLDS: &str = "holds a key that is no longer accepted.";

#[test]
fn a_pending_key_that_is_revoked_by_its_prefix_leaves_the_active_one_and_its_file() {
    let (host, _, pending) = host_with_two_files();
    host.apikey(&["revoke", &pending[..15], "-y"]).gives(
        0,
        "",
        format!(
            "Revoked <prefix> of web. <folder>/new.key {HOLDS}\n<prefix>, which is active, is accepted.\n"
        ),
    );
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    let current = std::fs::read_to_string(host.path("web.key")).unwrap();
    assert_eq!((host.status_of(&current).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn the_files_that_hold_a_dead_key_are_named_and_no_others() {
    let (host, ..) = host_with_two_files();
    host.apikey(&["revoke", "web", "-y"]).gives(
        0,
        "",
        format!("Revoked <prefix>, <prefix> of web. <folder>/web.key {HOLDS} <folder>/new.key {HOLDS}\n"),
    );
    let (host, active, _) = host_with_two_files();
    host.apikey(&["revoke", &active[..15], "-y"]).gives(
        0,
        "",
        format!(
            "Revoked <prefix> of web. <folder>/web.key {HOLDS}\n<prefix>, which is pending, is accepted.\n"
        ),
    );
    let (host, ..) = host_with_two_files();
    std::fs::remove_file(host.path("web.key")).unwrap();
    std::fs::remove_file(host.path("new.key")).unwrap();
    host.apikey(&["revoke", "web", "-y"]).gives(0, "", "Revoked <prefix>, <prefix> of web.\n");
}

#[test]
fn keys_whose_grace_period_is_over_are_revoked_for_good_although_there_is_none_to_revoke() {
    let (host, old) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1ms"]);
    host.execute("DELETE FROM keys WHERE status = 'active'");
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(host.apikey(&["revoke", "alice", "--yes"]).run().status, 4);
    let stored: String = host
        .sqlite()
        .query_row("SELECT status FROM keys WHERE user = 'alice'", [], |row| row.get(0))
        .unwrap();
    assert_eq!((stored.as_str(), host.status_of(&old).as_str()), ("revoked", "revoked"));
}

#[test]
fn a_revocation_sees_to_what_earlier_runs_left_once_it_is_done() {
    let host = Host::new();
    host.key_from(&["create", "alice"]);
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    host.apikey(&["revoke", "alice", "-y"]).gives(
        0,
        "",
        "Revoked <prefix> of alice.\n\
         Finished the delivery of <prefix> of web to <folder>/web.key, which was interrupted.\n",
    );
    assert_eq!(host.accepted(), 1);
}

#[test]
#[ignore = "needs strace"]
fn a_delivery_whose_key_is_revoked_on_its_way_says_so() {
    // When it has seen the key that it is to replace, and when the next one is issued.
    for (call, said) in
        [("fchmod", "was revoked meanwhile, so none was issued"), ("renameat", "was revoked before")]
    {
        let host = Host::new();
        host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
        let revoke = || {
            host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
        };
        let outcome = host.with_delay(&["refresh", "web", "-y"], call, revoke);
        assert_eq!((outcome.status, host.accepted()), (4, 0), "{call}: {outcome:?}");
        assert!(outcome.stderr.contains(said), "{call}: {outcome:?}");
        assert!(!host.names().iter().any(|name| name.starts_with('.')), "{call}: {:?}", host.names());
    }
}

#[test]
fn a_revocation_opens_no_file_that_somebody_has_put_in_the_place_of_a_key_file() {
    for link in [false, true] {
        let host = Host::new();
        host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
        let fifo = host.path(if link { "fifo" } else { "web.key" });
        std::fs::remove_file(host.path("web.key")).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        if link {
            std::os::unix::fs::symlink(&fifo, host.path("web.key")).unwrap();
        }
        // It is held up until somebody opens the other end.
        let path = fifo.clone();
        let opened = std::thread::spawn(move || std::fs::File::options().write(true).open(path).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(host.apikey(&["revoke", "web", "-y", "-q"]).run().status, 0);
        std::thread::sleep(std::time::Duration::from_millis(200));
        let was_opened = opened.is_finished();
        // Where nobody did, this does.
        drop(std::fs::File::options().read(true).write(true).open(&fifo).unwrap());
        opened.join().unwrap().unwrap();
        assert!(!was_opened, "with a link: {link}");
    }
}
