//! `apikey edit`

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use common::Host;
use nix::unistd::geteuid;
use serde_json::{Value, json};

/// A host where web's key is in web.key.
fn host() -> Host {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    host
}

fn content(host: &Host) -> String {
    fs::read_to_string(host.path("web.key")).unwrap()
}

fn shown(host: &Host) -> Value {
    let outcome = host.apikey(&["show", "web", "--json"]).run();
    if outcome.status == 0 { outcome.json() } else { Value::Null }
}

/// What `edit web --json` with `args` says. It is what `show` says then, and no new key.
#[track_caller]
fn edit(host: &Host, args: &[&str], done: &[&str]) -> Value {
    let before = shown(host);
    let outcome = host.apikey(&[&["edit", "web", "--json"], args].concat()).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}: {outcome:?}");
    let said = outcome.json();
    assert_eq!((&said["done"], &said["changed"]), (&json!(done), &json!(!done.is_empty())), "{args:?}");
    let after = shown(host);
    for (member, value) in after.as_object().unwrap() {
        assert_eq!(&said[member], value, "{args:?}: {member}");
    }
    assert_eq!(
        (&after["prefix"], &after["created_at"]),
        (&before["prefix"], &before["created_at"]),
        "{args:?}"
    );
    assert!(after != before || done != ["settings"], "{args:?}: it is as before: {after}");
    said
}

#[track_caller]
fn fails(host: &Host, args: &[&str], status: i32, code: &str) {
    // Makes the side files anew that went when the test itself closed the database.
    let _ = shown(host);
    let before = (host.contents(), host.mode("web.key"));
    let outcome = host.apikey(&[&["edit", "web", "--json"], args].concat()).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (status, code), "{args:?}: {outcome:?}");
    assert!((host.contents(), host.mode("web.key")) == before, "{args:?}");
}

#[test]
fn label_end_and_settings_change_and_the_key_stays() {
    let host = host();
    let key = content(&host);
    assert_eq!(edit(&host, &["--name", "a label"], &["settings"])["name"], "a label");
    assert_eq!(edit(&host, &["--no-name"], &["settings"])["name"], Value::Null);
    let reload = ["--reload", "touch told", "--reload-timeout", "1m"];
    let settings = edit(&host, &reload, &["settings"])["settings"].clone();
    assert_eq!((&settings["reload"], &settings["reload_timeout_ms"]), (&json!("touch told"), &json!(60_000)));
    let renewed = edit(&host, &["--renew-after", "30d", "--renew-grace", "1h"], &["settings"]);
    assert!(renewed["due_at"].is_string(), "{renewed}");
    assert_eq!(renewed["settings"]["renew_after_ms"], 30 * 86_400_000_u64);
    assert_eq!(renewed["settings"]["renew_grace_ms"], 3_600_000);
    assert_eq!(edit(&host, &["--renew-after", "never"], &["settings"])["due_at"], Value::Null);
    assert_eq!(edit(&host, &["--no-reload"], &["settings"])["settings"]["reload"], Value::Null);
    host.apikey(&["edit", "web", "--name", "x"]).gives(0, "", "web was changed: settings.\n");
    assert_eq!((content(&host), host.accepted(), host.path("told").exists()), (key, 1, false));
}

#[test]
fn the_end_counts_from_now_on() {
    let host = host();
    host.execute("UPDATE keys SET id = '019b76da-a800' || substr(id, 14)");
    let until = |args: &[&str]| edit(&host, args, &["settings"])["expires_at"].clone();
    let from_now = |days| {
        let sql = format!("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{days} days')");
        host.sqlite().query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let before = from_now(30);
    let end = until(&["--expires-in", "30d"]);
    assert!((before.as_str()..=from_now(30).as_str()).contains(&end.as_str().unwrap()), "{end}");
    let log = host.apikey(&["log", "web", "--json"]).run().json();
    assert_eq!(log["events"].as_array().unwrap().last().unwrap()["expires_at"], end);
    // The same again is later, and the next key lives as long.
    assert!(until(&["--expires-in", "30d"]).as_str() > end.as_str());
    assert_eq!(shown(&host)["settings"]["lifetime_ms"], 30 * 86_400_000_u64);
    assert_eq!(until(&["--expires-in", "never"]), Value::Null);
    assert_eq!(shown(&host)["settings"]["lifetime_ms"], Value::Null);
    host.apikey(&["edit", "web", "-q", "--expires-in", "1ms"]).gives(0, "", "");
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(host.status_of(&content(&host)), "expired");
}

#[test]
fn a_key_that_was_printed_can_be_edited_too() {
    let (host, key) = Host::with_key_of("web");
    edit(&host, &["--name", "x", "--expires-in", "1d"], &["settings"]);
    let verdict = host.apikey(&["verify", "--json"]).input(key).run().json();
    assert_eq!((&verdict["status"], &verdict["name"]), (&json!("active"), &json!("x")));
}

#[test]
fn mode_and_owner_are_changed_in_the_file_at_once() {
    let host = host();
    let (key, inode) = (content(&host), fs::metadata(host.path("web.key")).unwrap().ino());
    edit(&host, &["--key-file-mode", "640"], &["mode", "settings"]);
    assert_eq!(host.mode("web.key"), 0o640);
    // What is kept is right, and the file is not.
    host.chmod("web.key", 0o644);
    host.apikey(&["edit", "web", "--key-file-mode", "640"]).gives(
        0,
        "",
        "web was changed: mode.\n\
         Until now more could read <folder>/web.key than should: \
         `apikey refresh web --revoke-first` replaces the key.\n",
    );
    edit(&host, &["--key-file-mode", "640"], &[]);
    // Without a word on the file, it is let be.
    host.chmod("web.key", 0o600);
    edit(&host, &["--name", "x"], &["settings"]);
    assert_eq!((host.mode("web.key"), content(&host)), (0o600, key));
    assert_eq!(fs::metadata(host.path("web.key")).unwrap().ino(), inode, "it is another file");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert_eq!(host.mode("web.key"), 0o640, "it was not kept");
}

#[test]
#[ignore = "needs root"]
fn the_owner_is_changed_in_the_file_at_once() {
    assert!(geteuid().is_root());
    let host = host();
    let owner = || {
        let found = fs::metadata(host.path("web.key")).unwrap();
        (found.uid(), found.gid(), host.mode("web.key"))
    };
    let said = edit(&host, &["--key-file-owner", "65534:65534"], &["owner", "settings"]);
    assert_eq!(
        (owner(), &said["settings"]["key_file_owner"]),
        ((65534, 65534, 0o600), &json!("65534:65534"))
    );
    edit(&host, &["--key-file-owner", "7:8", "--key-file-mode", "660"], &["owner", "mode", "settings"]);
    assert_eq!(owner(), (7, 8, 0o660));
    // Somebody's file who was never named.
    chown(host.path("web.key"), Some(9), None).unwrap();
    fails(&host, &["--key-file-owner", "7:8"], 8, "UNDELIVERABLE");
    assert_eq!(owner(), (9, 8, 0o660));
}

#[test]
fn nothing_to_change_is_wrong_usage() {
    let host = host();
    let before = host.contents();
    host.apikey(&["edit", "web"])
        .fails(2, "apikey: there is nothing to change\nsay what: `apikey edit --help` lists it\n");
    assert!(host.contents() == before);
    let (other, _) = Host::with_key_of("web");
    for args in [
        &["--key-file-mode", "640"][..],
        &["--key-file-owner", "0:0"],
        &["--reload", "true"],
        &["--reload-timeout", "1m"],
        &["--renew-after", "30d"],
    ] {
        let outcome = other.apikey(&[&["edit", "web"], args].concat()).run();
        assert_eq!(outcome.status, 2, "{args:?} without a key file: {outcome:?}");
    }
    fails(&host, &["--renew-after", "30d", "--expires-in", "30d"], 2, "USAGE");
    for option in ["--key-file=other", "--key-file-env=A", "--no-key-file", "--no-key-file-env", "--yes"] {
        let outcome = host.apikey(&["edit", "web", option]).run();
        assert!(outcome.status == 2 && outcome.stderr.contains("unexpected"), "{option}: {outcome:?}");
    }
}

#[test]
fn a_user_with_no_key_or_an_expired_one_has_none_to_edit() {
    let host = host();
    host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z'");
    host.apikey(&["edit", "web", "--name", "x"])
        .fails(4, "apikey: <prefix> of web has expired\n`apikey refresh web` issues the next one\n");
    fails(&host, &["--expires-in", "30d"], 4, "NO_KEY");
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    fails(&host, &["--name", "x"], 4, "NO_KEY");
    let nobody = host.apikey(&["edit", "nobody", "--name", "x", "--json"]).run();
    assert_eq!((nobody.status, nobody.code().as_str()), (4, "NO_KEY"));
    let empty = Host::new();
    assert_eq!(empty.apikey(&["edit", "web", "--name", "x"]).run().status, 6);
    assert_eq!(empty.names(), [""; 0]);
}

#[test]
fn a_key_is_not_edited_while_another_is_on_its_way() {
    let host = host();
    assert_eq!(host.apikey(&["refresh", "web", "-yq", "--reload", "false"]).run().status, 9);
    for args in [["--name", "x"], ["--key-file-mode", "640"], ["--reload", "true"]] {
        fails(&host, &args, 9, "DELIVERY_PENDING");
    }
    // One that was interrupted is finished first.
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    let pending = content(&host);
    host.apikey(&["edit", "web", "--name", "x"]).gives(
        0,
        "",
        "Finished the delivery of <prefix> of web to <folder>/web.key, which was interrupted.\n\
         web was changed: settings.\n",
    );
    assert_eq!((&shown(&host)["name"], &shown(&host)["prefix"]), (&json!("x"), &json!(pending[..15])));
}

#[test]
fn a_file_that_does_not_hold_the_key_is_not_changed() {
    for file in ["gone", "empty", "another key", "junk"] {
        let host = host();
        let other = host.key_from(&["create", "other"]);
        host.apikey(&["revoke", "other", "-yq"]).gives(0, "", "");
        host.write(
            "web.key",
            match file {
                "another key" => other.as_bytes(),
                "junk" => b"junk",
                _ => b"",
            },
        );
        let edit = ["edit", "web", "--json", "--key-file-mode", "640", "--name", "x"];
        if file == "gone" {
            fs::remove_file(host.path("web.key")).unwrap();
        }
        let before = host.contents();
        let outcome = host.apikey(&edit).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"), "{file}: {outcome:?}");
        assert!(host.contents() == before && shown(&host)["name"].is_null(), "{file}");
        assert!(file == "gone" || host.mode("web.key") == 0o600, "{file}");
        // What is not about the file does not need it.
        host.apikey(&["edit", "web", "-q", "--name", "x"]).gives(0, "", "");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_key_that_is_revoked_while_its_file_is_put_right_is_said_to_be_and_so_is_what_was_done() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let revoke = || {
        host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    };
    let outcome = host.with_delay(&["edit", "web", "--key-file-mode", "0640"], "fchmod", revoke);
    assert_eq!((outcome.status, host.mode("web.key")), (4, 0o640), "{outcome:?}");
    let message = outcome.stderr.lines().next().unwrap();
    assert!(message.contains("/web.key were put right, but ak_"), "{message}");
    assert!(message.ends_with(" of web was revoked meanwhile"), "{message}");
    assert!(outcome.stderr.ends_with("\n`apikey create web` issues another\n"), "{outcome:?}");
}
