//! Telling the reader of a key file of the new key, while both keys are accepted.

use std::fs;

use nix::sys::signal::Signal;

use crate::common::{APIKEY, Host};
use crate::{content, host_with_key_file};

#[test]
fn revoke_first_and_grace_exclude_each_other() {
    let outcome = Host::new().apikey(&["refresh", "web", "-y", "--revoke-first", "--grace", "1h"]).run();
    assert_eq!(outcome.status, 2, "{outcome:?}");
}

#[test]
fn a_reload_needs_a_key_file() {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["refresh", "alice", "--yes", "--reload", "true"]).fails(
        2,
        "apikey: there is no key file whose reader could be told\n\
         name the file with --key-file\n",
    );
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn the_reload_command_runs_while_both_keys_are_accepted_and_never_sees_the_key() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.write("old.key", old.as_bytes());
    let look = format!(
        "env > env; cat web.key > seen; {APIKEY} verify -q --db keys.db --key-file old.key && \
         {APIKEY} verify --db keys.db --key-file web.key > verdict"
    );
    let outcome = host.apikey(&["refresh", "web", "--yes", "--reload", &look, "--json"]).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(outcome.json()["key"], serde_json::Value::Null);
    assert!(content(&host, "verdict").ends_with("is accepted: the pending key of web\n"));
    let new = content(&host, "web.key");
    assert_eq!(content(&host, "seen"), new);
    let env = content(&host, "env");
    assert!(!env.contains(&new[15..]) && !env.contains(&old[15..]), "{env}");
    let path = fs::canonicalize(host.path("web.key")).unwrap();
    for line in [
        "APIKEY_USER=web",
        &format!("APIKEY_PREFIX={}", &new[..15]),
        &format!("APIKEY_KEY_FILE={}", path.display()),
    ] {
        assert!(env.lines().any(|found| found == line), "{line} is not in {env}");
    }
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("revoked", "active"));
}

#[test]
fn what_the_reload_command_says_is_heard_but_with_json_which_is_one_object() {
    let host = host_with_key_file();
    let refresh = ["refresh", "web", "--yes", "--reload", "echo out; echo err >&2"];
    host.apikey(&[&refresh[..], &["--quiet"]].concat()).gives(0, "", "err\n");
    let outcome = host.apikey(&[&refresh[..], &["--json"]].concat()).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    outcome.json();
}

#[test]
fn a_reload_that_fails_leaves_both_keys_accepted_and_the_next_refresh_goes_on_from_there() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.apikey(&["refresh", "web", "--yes", "--reload", "exit 7"]).fails(
        9,
        "apikey: <prefix> of web is in <folder>/web.key and accepted, but its reader is not told yet: \
         the reload command failed: exit status: 7\n\
         `apikey refresh web` tells it again (by another command with --reload, not at all with --no-reload), \
         `apikey revoke web` ends all keys of web\n",
    );
    let new = content(&host, "web.key");
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("active", "pending"));
    // Whatever else is written meanwhile does not take the old key from the daemon that still has it.
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "<prefix> of web is in <folder>/web.key and accepted, but its reader is not told yet\n\
         Issued <prefix> to other. The key is shown only once.\n",
    );
    assert_eq!(host.status_of(&old), "active");
    host.apikey(&["refresh", "web", "-yq", "--reload", "touch reloaded"]).gives(0, "", "");
    assert!(host.path("reloaded").exists());
    assert_eq!(content(&host, "web.key"), new, "a third key was issued");
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("revoked", "active"));
}

#[test]
fn a_refresh_goes_on_with_a_first_delivery_without_being_told_where_to() {
    let (host, old) = Host::with_key_of("web");
    let refresh = ["refresh", "web", "-yq", "--key-file", "web.key", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    let new = content(&host, "web.key");
    assert_eq!(host.apikey(&["refresh", "web", "-yq"]).run().status, 9, "the command that is kept fails");
    host.apikey(&["refresh", "web", "-yq", "--no-reload"]).gives(0, "", "");
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("revoked", "active"));
    assert_eq!(content(&host, "web.key"), new);
}

#[test]
fn revoke_ends_a_key_that_waits_for_its_reload_too() {
    let host = host_with_key_file();
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    assert_eq!(host.accepted(), 0);
    assert_eq!(host.status_of(&content(&host, "web.key")), "revoked");
}

#[test]
fn revoke_first_ends_the_old_key_before_the_reload() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.write("old.key", old.as_bytes());
    let look = format!("{APIKEY} verify --json --db keys.db --key-file old.key > verdict; true");
    let outcome =
        host.apikey(&["refresh", "web", "--yes", "--revoke-first", "--reload", &look, "--json"]).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(content(&host, "verdict").contains("\"status\":\"revoked\""));
    assert_eq!(outcome.json()["previous_key_revoked"], true);
    assert_eq!(outcome.json()["previous_key_prefix"], old[..15]);
}

#[test]
fn a_key_that_expires_while_it_waits_for_its_reload_is_not_made_the_active_one() {
    let host = host_with_key_file();
    let refresh = ["refresh", "web", "-yq", "--expires-in", "1ms", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    host.apikey(&["refresh", "web", "-yq", "--reload", "true", "--expires-in", "never"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_key_that_expires_while_its_reader_is_told_does_not_end_the_old_one() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let refresh = ["refresh", "web", "--yes", "--expires-in", "200ms", "--reload", "sleep 0.3"];
    host.apikey(&refresh).fails(
        9,
        "apikey: <prefix> of web has expired before its delivery was done\n\
         run `apikey refresh web` again\n",
    );
    assert_eq!(host.status_of(&old), "active");
    host.apikey(&["refresh", "web", "-yq", "--expires-in", "never"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn where_there_is_only_a_key_that_waits_for_its_reload_show_says_so() {
    let host = host_with_key_file();
    let refresh = ["refresh", "web", "--yes", "--revoke-first", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    host.apikey(&["show", "web"]).fails(
        4,
        "apikey: web has no active key, but <prefix>, which is pending\n`apikey list web` shows it\n",
    );
}

#[test]
fn revoke_first_ends_a_key_that_waits_for_its_reload_too() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    let waiting = content(&host, "web.key");
    host.apikey(&["refresh", "web", "-y", "--revoke-first", "--no-reload"]).gives(
        0,
        "",
        "Issued <prefix> to web. The key is in <folder>/web.key.\n\
         <prefix> is revoked.\n<prefix> is revoked.\n",
    );
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&waiting).as_str()), ("revoked", "revoked"));
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn the_same_refresh_again_goes_on_from_there_whatever_it_asks_for() {
    for more in [
        &["--grace", "1h"][..],
        &["--name", "new"],
        &["--expires-in", "1d"],
        &["--key-file", "web.env", "--key-file-env", "KEY"],
        &["--grace", "1h 30m", "--name", "new", "--expires-in", "1d", "--key-file", "web.key"],
    ] {
        let host = host_with_key_file();
        let refresh = |reload| [&["refresh", "web", "-yq", "--reload", reload], more].concat();
        assert_eq!(host.apikey(&refresh("false")).run().status, 9, "{more:?}");
        let pending =
            |host: &Host| host.apikey(&["list", "web", "--json"]).run().json()["keys"][1]["id"].clone();
        let new = pending(&host);
        host.apikey(&refresh("true")).gives(0, "", "");
        let shown = host.apikey(&["show", "web", "--json"]).run().json();
        assert_eq!(shown["id"], new, "{more:?}: a third key was issued");
    }
}

#[test]
fn a_refresh_that_asks_for_more_does_not_go_on_with_a_key_that_waits() {
    let host = host_with_key_file();
    assert_eq!(
        host.apikey(&["refresh", "web", "--yes", "--grace", "5m", "--reload", "false"]).run().status,
        9
    );
    for more in [
        &["--name", "new"][..],
        &["--expires-in", "1d"],
        &["--grace", "1h"],
        &["--grace", "0s"],
        &["--key-file", "other.key"],
        &["--key-file", "web.key", "--key-file-mode", "640"],
    ] {
        host.apikey(&[&["refresh", "web", "-yq"], more].concat()).fails(
            9,
            "apikey: <prefix> of web is in <folder>/web.key and accepted, but its reader is not told yet\n\
             `apikey refresh web` tells it again (by another command with --reload, not at all with --no-reload), \
         `apikey revoke web` ends all keys of web\n",
        );
    }
    assert_eq!(host.accepted(), 2);
}

#[test]
fn two_runs_that_tell_the_same_reader_with_no_lock_between_them_say_what_is_so() {
    // The lock's file is gone, and another run comes while this one tells the reader.
    for (meanwhile, status, accepted) in [
        ("refresh web -yq --reload true", 0, 1),
        ("refresh web -yq --reload true; exit 1", 0, 1),
        ("revoke web -yq", 4, 0),
        ("revoke web -yq; exit 1", 4, 0),
    ] {
        let host = host_with_key_file();
        let reload = format!("rm keys.db-lock; {APIKEY} --db keys.db {meanwhile}");
        let outcome = host.apikey(&["refresh", "web", "-yq", "--reload", &reload]).run();
        assert_eq!((outcome.status, host.accepted()), (status, accepted), "{meanwhile}: {outcome:?}");
    }
}

#[test]
fn how_the_reader_was_told_in_the_end_is_what_is_kept() {
    let host = host_with_key_file();
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "exit 7"]).run().status, 9);
    host.apikey(&["refresh", "web", "-yq", "--reload", "true"]).gives(0, "", "");
    let kept: String = host.sqlite().query_row("SELECT reload FROM settings", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "true");
}

#[test]
fn a_refresh_after_a_reload_that_failed_tells_the_reader_before_the_old_key_ends() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let refresh = ["refresh", "web", "-y", "--reload", "test -e ready && touch told"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    assert_eq!(host.apikey(&["refresh", "web", "-yq"]).run().status, 9, "it is told again, in vain");
    assert_eq!(host.status_of(&old), "active");
    host.write("ready", b"");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert!(host.path("told").exists());
    assert_eq!((host.status_of(&old).as_str(), host.accepted()), ("revoked", 1));
}

#[test]
fn a_key_that_waits_and_has_no_command_is_not_taken_for_one_whose_reader_was_told() {
    let host = host_with_key_file();
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.execute("UPDATE settings SET reload = NULL WHERE pending_key <> 0");
    assert_eq!(host.apikey(&["refresh", "web", "-yq"]).run().status, 9);
    assert_eq!(host.accepted(), 2);
    host.apikey(&["refresh", "web", "-yq", "--no-reload"]).gives(0, "", "");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn while_a_reader_is_told_others_write_and_revoke() {
    let host = host_with_key_file();
    host.key_from(&["create", "alice"]);
    let meanwhile = format!(
        "export APIKEY_DB=keys.db; {APIKEY} create bob -q --timeout 0s > bob && \
         {APIKEY} revoke alice -yq --timeout 0s && {APIKEY} refresh bob -yq --timeout 0s > bob"
    );
    host.apikey(&["refresh", "web", "-yq", "--reload", &meanwhile]).gives(0, "", "");
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_reload_that_takes_too_long_is_ended_with_its_children() {
    let host = host_with_key_file();
    let stuck = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > child; sleep 1000' & wait; sleep 1000";
    host.apikey(&["refresh", "web", "-y", "--reload", stuck, "--reload-timeout", "300ms"]).fails(
        9,
        "apikey: <prefix> of web is in <folder>/web.key and accepted, but its reader is not told yet: \
         the reload command took longer than 300ms, and was ended\n\
         `apikey refresh web` tells it again (by another command with --reload, not at all with --no-reload), \
         `apikey revoke web` ends all keys of web\n",
    );
    let child = content(&host, "child");
    let is_running = || {
        let status = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        status.split(' ').nth(2).is_some_and(|state| state != "Z")
    };
    assert!((0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        !is_running()
    }));
}

#[test]
fn a_signal_that_ends_a_refresh_ends_its_reload_command_too() {
    let host = host_with_key_file();
    let stuck = "echo $$ > child; exec sleep 1000";
    let run = host.apikey(&["refresh", "web", "-y", "--reload", stuck]).spawn();
    while !fs::read_to_string(host.path("child")).is_ok_and(|pid| pid.ends_with('\n')) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(run.id().try_into().unwrap());
    // The command runs for a moment before signals are held off: these, where all are while a process is started.
    let is_held_off = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        let is_blocked = |signal| u64::from_str_radix(blocked, 16).unwrap() >> (signal as u32 - 1) & 1 == 1;
        is_blocked(Signal::SIGTERM) && !is_blocked(Signal::SIGUSR1)
    };
    while !is_held_off() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.contains("not told yet: the reload command was interrupted"), "{said}");
    let child = nix::unistd::Pid::from_raw(content(&host, "child").trim().parse().unwrap());
    assert!(nix::sys::signal::kill(child, None).is_err(), "it goes on");
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_key_that_is_revoked_while_its_reader_is_told_is_named_as_what_was_replaced() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let reload = format!("{APIKEY} --db keys.db revoke {} -yq", &old[..15]);
    host.apikey(&["refresh", "web", "-y", "--reload", &reload]).gives(
        0,
        "",
        "Issued <prefix> to web. The key is in <folder>/web.key.\n<prefix> is revoked.\n",
    );
}

#[test]
fn the_one_who_comes_second_says_what_was_replaced_all_the_same() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let reload = format!("{APIKEY} --db keys.db refresh web -yq --reload true");
    let refreshed = host.apikey(&["refresh", "web", "-y", "--json", "--reload", &reload]).run().json();
    assert_eq!(refreshed["previous_key_prefix"], old[..15]);
    assert_eq!(refreshed["previous_key_revoked"], true);
}

#[test]
fn a_command_that_is_too_long_to_be_kept_is_refused_before_a_key_is_issued() {
    let host = host_with_key_file();
    let before = fs::read(host.path("web.key")).unwrap();
    for (bytes, status) in [(4097, 2), (4096, 0)] {
        let reload = format!("true #{}", "x".repeat(bytes - 6));
        let outcome = host.apikey(&["refresh", "web", "-yq", "--reload", &reload]).run();
        assert_eq!((outcome.status, host.accepted()), (status, 1), "{outcome:?}");
        assert_eq!(fs::read(host.path("web.key")).unwrap() == before, status == 2);
        assert!(!host.names().iter().any(|name| name.starts_with(".web.key")), "a stage was left");
    }
}
