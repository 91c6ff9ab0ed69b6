//! `apikey ensure`

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};

use common::strace::{Call, Fault};
use common::{Host, Outcome};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde_json::{Value, json};

/// A host where web's key is in web.key, as ensure puts it there.
fn host() -> Host {
    host_with(&[])
}

fn host_with(args: &[&str]) -> Host {
    let host = Host::new();
    host.apikey(&[&["ensure", "web", "-q", "--key-file", "web.key"], args].concat()).gives(0, "", "");
    host
}

fn content(host: &Host) -> String {
    fs::read_to_string(host.path("web.key")).unwrap()
}

fn run(host: &Host, args: &[&str]) -> Outcome {
    host.apikey(&[&["ensure", "web"], args].concat()).run()
}

/// What `ensure web --json` with `args` says; only that.
fn said(host: &Host, args: &[&str]) -> Value {
    let outcome = run(host, &[args, &["--json"]].concat());
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}: {outcome:?}");
    let said = outcome.json();
    assert_eq!(said["changed"], !said["done"].as_array().unwrap().is_empty(), "{args:?}: {said}");
    said
}

/// Contents, and what `ls -l` shows of the key file.
fn state(host: &Host) -> impl PartialEq {
    // Makes the side files anew that went when the test itself closed the database.
    let _ = host.apikey(&["list", "-q"]).run();
    let file = fs::symlink_metadata(host.path("web.key")).ok();
    (host.names(), host.contents(), file.map(|file| (file.ino(), file.mode(), file.uid(), file.gid())))
}

/// `ensure web` with `args` does exactly `done`: --check says so before and does nothing, the run says so, and
/// after it there is nothing to do. Then the active key is in the file. Returns what the run said.
#[track_caller]
fn does(host: &Host, args: &[&str], done: &[&str]) -> Value {
    let before = state(host);
    let checked = said(host, &[args, &["--check"]].concat());
    assert!(state(host) == before, "{args:?}: --check did something");
    let found = said(host, args);
    assert_eq!((&checked["done"], &found["done"]), (&json!(done), &json!(done)), "{args:?}: {found}");
    assert_eq!(state(host) == before, done.is_empty(), "{args:?}: {found}");
    let after = state(host);
    assert_eq!(said(host, args)["done"], json!([]), "{args:?}: again");
    assert!(state(host) == after, "{args:?}: the second run did something");
    let key = content(host);
    let key = key.trim_end().rsplit('=').next().unwrap();
    assert_eq!((host.status_of(key).as_str(), &found["prefix"]), ("active", &json!(key[..15])), "{args:?}");
    found
}

/// Makes web's current key one that was issued when the year began, and due where it is ever renewed.
fn make_old(host: &Host) {
    host.execute(
        "UPDATE keys SET id = '019b76da-a800' || substr(id, 14) WHERE user = 'web' AND status = 'active';
         UPDATE settings SET due_at = '2026-02-01T00:00:00.000Z' WHERE user = 'web' AND due_at IS NOT NULL",
    );
}

#[test]
fn the_first_key_is_issued_into_a_database_that_is_made_for_it() {
    let host = Host::new();
    let path = "--key-file=web.key";
    host.apikey(&["ensure", "web", "--check", path]).gives(0, "", "web is to be changed: created.\n");
    assert_eq!(host.names(), [""; 0], "--check made something");
    let checked = said(&host, &["--check", path]);
    assert_eq!((&checked["done"], &checked["prefix"]), (&json!(["created"]), &Value::Null));
    assert_eq!(host.names(), [""; 0], "--check made something");
    host.apikey(&["ensure", "web", path, "--renew-after", "30d"]).gives(
        0,
        "",
        "Issued <prefix> to web, renewed from <time> on. The key is in <folder>/web.key.\n\
         web was changed: created.\n",
    );
    host.apikey(&["ensure", "web"]).gives(0, "", "web is as it should be.\n");
    assert_eq!((host.mode("web.key"), host.accepted()), (0o600, 1));
    does(&host, &[path], &[]);
}

#[test]
fn where_there_is_nothing_to_do_nothing_is_written_and_no_lock_waited_for() {
    let host = host_with(&["--renew-after", "30d", "--expires-in", "90d", "--reload", "touch told"]);
    let lock = fs::OpenOptions::new().write(true).open(host.path("keys.db-lock")).unwrap();
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    let writer = host.sqlite();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = state(&host);
    for args in [
        &[][..],
        &["--check"],
        &["--key-file", "./web.key", "--key-file-mode", "600", "--expires-in", "90d", "--no-name"],
        &["--renew-after", "30d", "--reload", "touch told", "--no-key-file-env"],
    ] {
        host.apikey(&[&["ensure", "web", "--timeout", "0s"], args].concat()).gives(
            0,
            "",
            "web is as it should be.\n",
        );
    }
    assert!(state(&host) == before);
    assert_eq!(run(&host, &["--timeout", "0s", "--name", "x"]).status, 6, "there is something to do");
}

#[test]
#[ignore = "needs strace"]
fn where_there_is_nothing_to_do_nothing_is_synced() {
    let host = host_with(&["--renew-after", "30d"]);
    let shown = host.traced(&["show", "web"], |run| run);
    for args in [&["ensure", "web"][..], &["ensure", "web", "--check"], &["renew"]] {
        let traced = host.traced(args, |run| run);
        assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
        let writes = ["pwrite64", "ftruncate", "fchown"];
        assert_eq!(traced.count(&["fsync", "fdatasync", "sync", "syncfs", "msync"]), 0, "{args:?}");
        assert_eq!(traced.count(&["unlink", "unlinkat", "rename", "renameat", "fchmod"]), 0, "{args:?}");
        // SQLite's index of the log is made anew by whoever opens the database.
        assert_eq!(traced.count(&writes), shown.count(&writes), "{args:?}: more than a show");
    }
}

#[test]
fn a_file_that_is_gone_or_empty_or_holds_another_key_gets_a_new_one() {
    let unknown = Host::with_key_of("elsewhere").1;
    for spoiled in ["gone", "empty", "an old key of web", "an ended key of another", "an unknown key"] {
        let host = host();
        let old = content(&host);
        match spoiled {
            "gone" => fs::remove_file(host.path("web.key")).unwrap(),
            "empty" => host.write("web.key", b""),
            "an old key of web" => {
                host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
                host.write("web.key", old.as_bytes());
            }
            "an ended key of another" => {
                let ended = host.key_from(&["create", "bob"]);
                host.apikey(&["revoke", "bob", "-yq"]).gives(0, "", "");
                host.write("web.key", ended.as_bytes());
            }
            _ => host.write("web.key", unknown.as_bytes()),
        }
        does(&host, &[], &["refreshed"]);
        assert_ne!(content(&host), old, "{spoiled}");
    }
}

#[test]
fn the_old_key_is_accepted_for_the_renewal_grace() {
    let host = host_with(&["--renew-grace", "1h"]);
    let old = content(&host);
    fs::remove_file(host.path("web.key")).unwrap();
    host.apikey(&["ensure", "web"]).gives(
        0,
        "",
        "Issued <prefix> to web. The key is in <folder>/web.key.\n\
         <prefix>, which is retiring, is accepted until <time>.\n\
         web was changed: refreshed.\n",
    );
    assert_eq!((host.status_of(&old).as_str(), host.accepted()), ("retiring", 2));
    fs::remove_file(host.path("web.key")).unwrap();
    let said = does(&host, &["--renew-grace", "0s"], &["refreshed", "settings"]);
    assert_eq!(
        said["still_accepted"].as_array().unwrap().len(),
        1,
        "the first one, and not the second: {said}"
    );
}

#[test]
fn another_form_or_another_place_gets_a_new_key() {
    let host = host();
    does(&host, &["--key-file-env", "A"], &["refreshed", "settings"]);
    assert!(content(&host).starts_with("A=ak_"));
    // The same key in the other form, by somebody's hand.
    host.write("web.key", content(&host).trim_end().strip_prefix("A=").unwrap().as_bytes());
    does(&host, &[], &["refreshed"]);
    assert!(content(&host).starts_with("A=ak_") && content(&host).ends_with('\n'));
    let said = said(&host, &["--key-file", "other.key"]);
    assert_eq!(said["done"], json!(["refreshed", "settings"]));
    assert!(host.path("other.key").exists());
}

#[test]
fn what_is_no_key_file_is_refused_and_nothing_changes() {
    for kind in ["junk", "link", "hard link", "folder", "another's accepted key"] {
        let host = host();
        let bob = host.key_from(&["create", "bob"]);
        if kind != "hard link" {
            fs::rename(host.path("web.key"), host.path("away")).unwrap();
        }
        match kind {
            "junk" => host.write("web.key", b"junk"),
            "link" => symlink("away", host.path("web.key")).unwrap(),
            "hard link" => fs::hard_link(host.path("web.key"), host.path("second")).unwrap(),
            "folder" => fs::create_dir(host.path("web.key")).unwrap(),
            _ => host.write("web.key", bob.as_bytes()),
        }
        // With and without a current key, the answer is the same, and --check has it.
        for _ in 0..2 {
            // The log is told once.
            assert_eq!(run(&host, &[]).status, 8);
            let before = state(&host);
            for args in [&[][..], &["--check"], &["--key-file-mode", "640"]] {
                let outcome = run(&host, &[args, &["--json"]].concat());
                assert_eq!(outcome.status, 8, "{kind} {args:?}: {outcome:?}");
                assert_eq!(outcome.code(), "UNDELIVERABLE", "{kind} {args:?}");
            }
            assert!(state(&host) == before, "{kind}");
            let _ = host.apikey(&["revoke", "web", "-yq"]).run();
        }
    }
}

#[test]
fn the_mode_alone_is_put_right_in_place() {
    let host = host();
    let (old, inode) = (content(&host), fs::metadata(host.path("web.key")).unwrap().ino());
    host.chmod("web.key", 0o400);
    does(&host, &[], &["mode"]);
    host.chmod("web.key", 0o644);
    host.apikey(&["ensure", "web"]).gives(
        0,
        "",
        "web was changed: mode.\n\
         Until now more could read <folder>/web.key than should: \
         `apikey refresh web --revoke-first` replaces the key.\n",
    );
    assert_eq!(host.mode("web.key"), 0o600);
    // Who asks for less privacy has none to miss.
    host.apikey(&["ensure", "web", "--key-file-mode", "640"]).gives(
        0,
        "",
        "web was changed: mode, settings.\n",
    );
    assert_eq!((host.mode("web.key"), content(&host)), (0o640, old));
    assert_eq!(fs::metadata(host.path("web.key")).unwrap().ino(), inode, "it is another file");
}

#[test]
#[ignore = "needs root"]
fn the_owner_alone_is_put_right_in_place() {
    assert!(geteuid().is_root());
    let host = host_with(&["--key-file-owner", "65534:65534"]);
    let (old, path) = (content(&host), host.path("web.key"));
    let owner = || (fs::metadata(&path).unwrap().uid(), fs::metadata(&path).unwrap().gid());
    does(&host, &[], &[]);
    chown(&path, Some(0), None).unwrap();
    host.apikey(&["ensure", "web"]).gives(
        0,
        "",
        "web was changed: owner.\n\
         Until now more could read <folder>/web.key than should: \
         `apikey refresh web --revoke-first` replaces the key.\n",
    );
    assert_eq!(owner(), (65534, 65534));
    // Another group that could not read it.
    chown(&path, None, Some(7)).unwrap();
    host.apikey(&["ensure", "web"]).gives(0, "", "web was changed: owner.\n");
    assert_eq!(owner(), (65534, 65534));
    // From the owner that is kept to another.
    does(&host, &["--key-file-owner", "7:7", "--key-file-mode", "640"], &["owner", "mode", "settings"]);
    assert_eq!((owner(), content(&host)), ((7, 7), old));
    // Another group that could.
    chown(&path, None, Some(8)).unwrap();
    let outcome = run(&host, &[]);
    assert!(outcome.stderr.starts_with("web was changed: owner.\nUntil now more could read "), "{outcome:?}");
    // To somebody who was never named it was not given by us.
    chown(&path, Some(9), None).unwrap();
    let outcome = run(&host, &["--json"]);
    assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"));
    assert_eq!(owner(), (9, 7));
}

#[test]
#[ignore = "needs strace"]
fn the_mode_is_put_right_by_taking_away_first_and_giving_last() {
    let host = host();
    host.chmod("web.key", 0o644);
    // Killed in between, where the owner would be changed.
    let call = Call { name: "fchmod".into(), number: 2 };
    host.with_fault(&["ensure", "web", "--key-file-mode", "660"], &call, Fault::Kill).unwrap();
    assert_eq!(host.mode("web.key"), 0o640);
}

#[test]
fn a_due_key_is_replaced_and_one_that_is_only_old_is_not() {
    let host = host();
    make_old(&host);
    does(&host, &[], &[]);
    does(&host, &["--renew-after", "30d"], &["refreshed", "settings"]);
    let old = content(&host);
    make_old(&host);
    does(&host, &[], &["refreshed"]);
    assert_eq!(host.status_of(&old), "retiring");
    make_old(&host);
    does(&host, &["--renew-after", "never"], &["settings"]);
}

#[test]
fn an_expired_key_is_replaced_and_a_revoked_user_gets_the_next_one() {
    let host = host_with(&["--expires-in", "90d", "--name", "x", "--key-file-mode", "640"]);
    host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z'");
    let replaced = does(&host, &[], &["refreshed"]);
    assert_eq!((&replaced["name"], replaced["expires_at"].is_string()), (&json!("x"), true));
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    let issued = does(&host, &[], &["created"]);
    assert_eq!((&issued["name"], issued["expires_at"].is_string()), (&json!("x"), true));
    assert_eq!((host.mode("web.key"), host.accepted()), (0o640, 1));
}

#[test]
fn another_lifetime_moves_the_end_and_where_that_has_passed_the_key_is_replaced() {
    let host = host();
    let old = content(&host);
    let of_key = |column: &str| -> Option<String> {
        let sql = format!("SELECT {column} FROM keys WHERE status = 'active'");
        host.sqlite().query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    make_old(&host);
    does(&host, &["--expires-in", "1000d"], &["settings"]);
    assert_eq!(of_key("expires_at").as_deref(), Some("2028-09-27T00:00:00.000Z"), "from its creation on");
    // An end that was set by hand stays, as long as the lifetime is the same.
    host.apikey(&["edit", "web", "-q", "--expires-in", "1000d"]).gives(0, "", "");
    does(&host, &["--expires-in", "1000d"], &[]);
    does(&host, &["--expires-in", "never"], &["settings"]);
    assert_eq!((of_key("expires_at"), content(&host)), (None, old.clone()));
    does(&host, &["--expires-in", "1d"], &["refreshed", "settings"]);
    assert_ne!(content(&host), old);
}

#[test]
fn label_and_settings_alone_need_no_new_key() {
    let host = host();
    let old = content(&host);
    for args in [
        &["--name", "a label"][..],
        &["--reload", "touch told", "--reload-timeout", "1m"],
        &["--renew-after", "30d", "--renew-grace", "1h"],
        &["--no-name"],
        &["--no-reload"],
    ] {
        does(&host, args, &["settings"]);
    }
    assert_eq!((content(&host), host.path("told").exists()), (old, false));
}

#[test]
fn a_delivery_whose_reader_was_not_told_is_finished() {
    let host = host_with(&["--reload", "test -e ready && touch told"]);
    let old = content(&host);
    fs::remove_file(host.path("web.key")).unwrap();
    let outcome = run(&host, &["--json"]);
    assert_eq!((outcome.status, outcome.code().as_str()), (9, "DELIVERY_PENDING"));
    let pending = content(&host);
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&pending).as_str()), ("active", "pending"));
    host.write("ready", b"");
    let before = state(&host);
    assert_eq!(said(&host, &["--check"])["done"], json!(["delivered"]));
    assert!(state(&host) == before, "--check did something");
    assert_eq!(said(&host, &[])["done"], json!(["delivered"]));
    assert!(host.path("told").exists());
    assert_eq!((content(&host), host.status_of(&pending).as_str()), (pending.clone(), "active"));
    does(&host, &[], &[]);
}

#[test]
fn a_delivery_that_was_interrupted_is_finished() {
    let host = host_with(&["--reload", "false"]);
    assert_eq!(host.apikey(&["refresh", "web", "-yq"]).run().status, 9);
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    does(&host, &[], &["delivered"]);
}

#[test]
fn a_pending_key_that_expired_is_superseded() {
    let host = host_with(&["--reload", "false"]);
    assert_eq!(host.apikey(&["refresh", "web", "-yq", "--expires-in", "1h"]).run().status, 9);
    let pending = content(&host);
    host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE status = 'pending'");
    let before = state(&host);
    let args = ["--reload", "true"];
    assert_eq!(said(&host, &[&args[..], &["--check"]].concat())["done"], json!(["refreshed", "settings"]));
    assert!(state(&host) == before, "--check did something");
    host.apikey(&[&["ensure", "web"], &args[..]].concat()).gives(
        0,
        "",
        "Revoked <prefix> of web: its delivery to <folder>/web.key was interrupted, and it is gone or has expired.\n\
         Issued <prefix> to web. The key is in <folder>/web.key.\n\
         <prefix>, which is retiring, is accepted until <time>.\n\
         web was changed: refreshed, settings.\n",
    );
    assert_eq!(host.status_of(&pending), "revoked");
    does(&host, &[], &[]);
}

#[test]
fn what_a_delivery_that_was_given_up_has_made_due_is_due() {
    let host = host_with(&["--renew-after", "30d"]);
    host.execute("UPDATE settings SET due_at = '2026-02-01T00:00:00.000Z'");
    let renew = host.apikey(&["renew", "--dry-run", "--json"]).run().json();
    assert_eq!(renew["due"][0]["user"], "web");
    does(&host, &[], &["refreshed"]);
}

#[test]
fn what_is_asked_for_has_to_fit_together() {
    let (host, _) = Host::with_key_of("web");
    let before = host.contents();
    let path = "--key-file=web.key";
    host.apikey(&["ensure", "web"])
        .fails(2, "apikey: there is no key file that web's key could be in\nname it with --key-file\n");
    for args in [
        &["--check"][..],
        &["--no-key-file"],
        &["--key-file-mode", "640"],
        &[path, "--reload-timeout", "1m"],
        &[path, "--renew-after", "30d", "--expires-in", "30d"],
        &["--key-file", "-"],
    ] {
        let outcome = run(&host, args);
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{args:?}: {outcome:?}");
        // Nor where there is no database yet; and none is made for it by --check.
        let empty = Host::new();
        let checked = run(&empty, &[args, if args[0] == "--check" { &[] } else { &["--check"] }].concat());
        assert!([2, 6].contains(&checked.status), "{args:?}: {checked:?}");
        assert_eq!(empty.names(), [""; 0], "{args:?}");
    }
    assert!(host.contents() == before);
}

#[test]
fn where_the_folder_of_the_database_is_missing_nothing_was_done_and_that_is_said() {
    let host = Host::new();
    for check in [&[][..], &["--check"]] {
        let ensure = ["ensure", "web", "--key-file", "web.key", "--db", "none/keys.db", "--json"];
        let outcome = host.apikey(&[&ensure[..], check].concat()).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (6, "NO_DATABASE"), "{outcome:?}");
    }
    let wrong = ["ensure", "web", "--key-file", "web.key", "--renew-after", "1d", "--expires-in", "1d"];
    assert_eq!(host.apikey(&wrong).run().status, 2);
    host.write("junk", b"junk");
    for check in [&["--check"][..], &[]] {
        assert_eq!(host.apikey(&[&["ensure", "web", "--key-file", "junk"], check].concat()).run().status, 8);
    }
    assert_eq!(host.names(), ["junk"], "nothing was made");
}

#[test]
fn a_delivery_that_is_finished_leaves_nothing_for_the_next_ensure() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.chmod("web.key", 0o644);
    does(&host, &["--reload", "true"], &["delivered", "mode", "settings"]);
    assert_eq!(host.mode("web.key"), 0o600);
}

/// A host where a refresh of web was interrupted after its first transaction, and its delivery stands so; and
/// the key that it had issued.
fn interrupted(stands: &str, args: &[&str]) -> (Host, String) {
    let host = host_with(args);
    let old = content(&host);
    assert_eq!(host.apikey(&["refresh", "web", "-yq", "--reload", "test -e ready"]).run().status, 9);
    let pending = content(&host);
    host.write("ready", b"");
    if !stands.contains("waits") {
        host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    }
    match stands {
        "waits" | "in place" => {}
        "staged" | "staged, waits" | "staged, open" => {
            let stage = format!(".web.key.{}", &pending[..15]);
            fs::rename(host.path("web.key"), host.path(&stage)).unwrap();
            host.write("web.key", old.as_bytes());
            host.chmod(&stage, if stands == "staged, open" { 0o644 } else { 0o600 });
        }
        "lost" => host.write("web.key", old.as_bytes()),
        "stuck" => fs::remove_file(host.path("web.key")).unwrap(),
        _ => panic!("{stands}"),
    }
    (host, pending)
}

#[test]
fn a_staged_key_that_has_a_second_name_is_refused_as_a_key_file_is() {
    let (host, pending) = interrupted("staged", &[]);
    fs::hard_link(host.path(&format!(".web.key.{}", &pending[..15])), host.path("second")).unwrap();
    for args in [&["--check"][..], &[]] {
        let outcome = run(&host, &[args, &["--json"]].concat());
        assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"), "{args:?}: {outcome:?}");
    }
    assert_eq!(host.status_of(&pending), "pending");
}

#[test]
fn check_foresees_what_becomes_of_a_delivery_that_was_interrupted() {
    let owner = format!("{}:{}", geteuid(), nix::unistd::getegid());
    let orders = [
        &[][..],
        &["--key-file-owner", &owner],
        &["--key-file-mode", "640"],
        &["--key-file", "other.key"],
        &["--key-file-env", "KEY"],
        &["--name", "a label"],
        &["--reload", "true"],
        &["--no-reload"],
        &["--expires-in", "90d"],
        &["--renew-after", "30d", "--renew-grace", "1h"],
    ];
    let mut seen = std::collections::BTreeSet::new();
    let all = ["waits", "in place", "staged", "staged, waits", "staged, open", "lost", "stuck"];
    for stands in all {
        for args in orders {
            for first in [&[][..], &["--renew-after", "10d"]] {
                let (host, pending) = interrupted(stands, first);
                let at = format!("{stands} {first:?} {args:?}");
                let before = state(&host);
                let json = [args, &["--json"]].concat();
                let checked = run(&host, &[&json[..], &["--check"]].concat());
                assert!(state(&host) == before, "{at}: --check did something");
                let found = run(&host, &json);
                assert_eq!(checked.status, found.status, "{at}: {checked:?} {found:?}");
                if found.status == 0 {
                    let done = found.json()["done"].clone();
                    assert_eq!(checked.json()["done"], done, "{at}");
                    assert_eq!(said(&host, args)["done"], json!([]), "{at}: again");
                    assert_ne!(host.status_of(&pending), "pending", "{at}");
                    seen.insert(format!("{stands}: {done}"));
                } else {
                    assert_eq!((checked.code(), found.status), (found.code(), 9), "{at}: {found:?}");
                    seen.insert(format!("{stands}: not"));
                }
            }
        }
    }
    let expected = [
        r#"in place: ["delivered","mode","settings"]"#,
        r#"in place: ["delivered","refreshed","settings"]"#,
        r#"in place: ["delivered","settings"]"#,
        r#"in place: ["delivered"]"#,
        r#"lost: ["mode","settings"]"#,
        r#"lost: ["refreshed","settings"]"#,
        r#"lost: ["refreshed"]"#,
        r#"lost: ["settings"]"#,
        "lost: []",
        r#"staged, open: ["delivered","mode","settings"]"#,
        r#"staged, open: ["delivered","mode"]"#,
        r#"staged, open: ["delivered","refreshed","settings"]"#,
        r#"staged, waits: ["delivered","settings"]"#,
        r#"staged, waits: ["delivered"]"#,
        "staged, waits: not",
        r#"staged: ["delivered","mode","settings"]"#,
        r#"staged: ["delivered","refreshed","settings"]"#,
        r#"staged: ["delivered","settings"]"#,
        r#"staged: ["delivered"]"#,
        "stuck: not",
        r#"waits: ["delivered","settings"]"#,
        r#"waits: ["delivered"]"#,
        "waits: not",
    ];
    assert_eq!(Vec::from_iter(seen), expected);
}

#[test]
fn check_foresees_that_a_key_is_in_the_way_of_which_nothing_else_can_be_read() {
    let (host, _) = interrupted("waits", &[]);
    host.execute("DELETE FROM settings WHERE pending_key <> 0");
    fs::remove_file(host.path("web.key")).unwrap();
    for check in [&["--check", "--json"][..], &["--json"]] {
        let outcome = run(&host, check);
        assert_eq!((outcome.status, outcome.code().as_str()), (9, "DELIVERY_PENDING"), "{outcome:?}");
    }
}

#[test]
fn every_key_that_is_issued_or_finished_is_named() {
    let (host, waiting) = interrupted("waits", &["--renew-after", "30d"]);
    host.execute("UPDATE keys SET id = '019b76da-a800' || substr(id, 14) WHERE status = 'pending'");
    host.apikey(&["ensure", "web"]).gives(
        0,
        "",
        "<prefix> of web is in <folder>/web.key and accepted, but its reader is not told yet\n\
         Finished the delivery of <prefix> to web, renewed from <time> on. The key is in <folder>/web.key.\n\
         <prefix> is revoked.\n\
         Issued <prefix> to web, renewed from <time> on. The key is in <folder>/web.key.\n\
         <prefix>, which is retiring, is accepted until <time>.\n\
         web was changed: delivered, refreshed.\n",
    );
    assert_eq!(host.status_of(&waiting), "retiring");
}

#[test]
fn where_a_delivery_was_given_up_and_brings_a_renewal_age_the_current_key_is_due() {
    for revoked in [false, true] {
        let (host, old) = Host::with_key_of("web");
        let first =
            ["refresh", "web", "-yq", "--key-file", "web.key", "--renew-after", "30d", "--reload", "false"];
        host.write("web.key", old.as_bytes());
        host.chmod("web.key", 0o600);
        assert_eq!(host.apikey(&first).run().status, 9);
        if revoked {
            host.apikey(&["revoke", &content(&host)[..15], "-yq"]).gives(0, "", "");
        }
        host.execute("UPDATE settings SET reload = 'true'");
        host.write("web.key", old.as_bytes());
        if revoked {
            let due = host.apikey(&["renew", "--dry-run", "--json"]).run().json();
            assert_eq!((&due["due"][0]["user"], due["not_due"].as_u64()), (&json!("web"), Some(0)));
        }
        does(&host, &[], &["refreshed"]);
        assert!(host.apikey(&["show", "web", "--json"]).run().json()["due_at"].is_string());
    }
}

#[test]
fn a_key_file_that_is_the_database_is_refused_and_nothing_is_made() {
    let host = Host::new();
    for check in [&["--check"][..], &[]] {
        for name in ["keys.db", "keys.db-wal"] {
            let outcome = host.apikey(&[&["ensure", "web", "--key-file", name], check].concat()).run();
            assert_eq!(outcome.status, 8, "{outcome:?}");
            assert_eq!(host.names(), [""; 0]);
        }
    }
}
