//! What is kept from one key to the next of a user, and how it is changed.

use std::fs;

use serde_json::{Value, json};

use crate::common::Host;
use crate::{content, host_with_key_file};

fn settings(host: &Host) -> Value {
    host.apikey(&["show", "web", "--json"]).run().json()["settings"].clone()
}

fn refresh(host: &Host, args: &[&str]) {
    host.apikey(&[&["refresh", "web", "-yq"], args].concat()).gives(0, "", "");
}

#[test]
fn a_refresh_keeps_all_that_it_is_not_told_to_change() {
    let host = Host::new();
    let owner = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let create = [
        &["create", "web", "-q", "--name", "a label", "--expires-in", "90d", "--key-file", "web.key"][..],
        &["--key-file-mode", "640", "--key-file-owner", &owner, "--key-file-env", "API_KEY"],
        &["--reload", "touch told", "--reload-timeout", "30s"],
    ];
    host.apikey(&create.concat()).gives(0, "", "");
    let path = fs::canonicalize(host.path("web.key")).unwrap();
    let kept = json!({
        "lifetime_ms": 90 * 86_400_000_i64, "key_file": path, "key_file_mode": "0640", "key_file_owner": owner,
        "key_file_env": "API_KEY", "reload": "touch told", "reload_timeout_ms": 30_000,
        "renew_after_ms": null, "renew_grace_ms": null,
    });
    assert_eq!(settings(&host), kept);
    assert!(!host.path("told").exists(), "at the first delivery there is no reader");
    for args in [&[][..], &["--key-file", "web.key"], &["--key-file", "./web.key"], &["--revoke-first"]] {
        refresh(&host, args);
        assert_eq!(settings(&host), kept, "{args:?}");
        assert!(content(&host, "web.key").starts_with("API_KEY=ak_"), "{args:?}");
        assert_eq!(host.mode("web.key"), 0o640, "{args:?}");
        fs::remove_file(host.path("told")).unwrap();
    }
    let shown = host.apikey(&["show", "web", "--json"]).run().json();
    assert_eq!((&shown["name"], shown["expires_at"].is_string()), (&json!("a label"), true));
}

#[test]
fn each_setting_is_changed_or_taken_away_by_itself() {
    let host = host_with_key_file();
    let changed = |args: &[&str], member: &str| {
        let mut before = settings(&host);
        refresh(&host, args);
        let mut after = settings(&host);
        let value = after[member].take();
        before[member].take();
        assert_eq!(before, after, "{args:?} changed something else");
        value
    };
    assert_eq!(changed(&["--expires-in", "1h"], "lifetime_ms"), json!(3_600_000));
    assert_eq!(changed(&["--key-file-mode", "0640"], "key_file_mode"), json!("0640"));
    assert_eq!(changed(&["--key-file-env", "A"], "key_file_env"), json!("A"));
    let other = fs::canonicalize(host.folder()).unwrap().join("other.key");
    assert_eq!(changed(&["--key-file", "other.key"], "key_file"), json!(other));
    assert_eq!(host.mode("other.key"), 0o640, "the mode goes with it");
    assert!(content(&host, "other.key").starts_with("A=ak_"), "and so does the form");
    refresh(&host, &["--reload", "true"]);
    assert_eq!(changed(&["--reload-timeout", "1m"], "reload_timeout_ms"), json!(60_000));
    assert_eq!(changed(&["--reload", "exit 0"], "reload"), json!("exit 0"), "the time limit stays");
    assert_eq!(changed(&["--expires-in", "never"], "lifetime_ms"), Value::Null);
    assert_eq!(changed(&["--no-key-file-env"], "key_file_env"), Value::Null);
    assert_eq!(content(&host, "other.key").len(), 75);
    refresh(&host, &["--no-reload"]);
    assert_eq!(
        (&settings(&host)["reload"], &settings(&host)["reload_timeout_ms"]),
        (&Value::Null, &Value::Null)
    );
    refresh(&host, &["--name", "x"]);
    refresh(&host, &["--no-name"]);
    assert_eq!(host.apikey(&["show", "web", "--json"]).run().json()["name"], Value::Null);
    // To standard output again, for good.
    for args in [&["--no-key-file"][..], &[]] {
        host.apikey(&[&["refresh", "web", "-yq"], args].concat()).gives(0, "<key>\n", "");
        assert!(settings(&host).as_object().unwrap().values().all(Value::is_null));
    }
}

#[test]
fn what_does_not_fit_together_is_wrong_usage() {
    let host = host_with_key_file();
    host.key_from(&["create", "alice"]);
    for args in [
        &["refresh", "alice", "-y", "--key-file-mode", "640"][..],
        &["refresh", "alice", "-y", "--key-file-env", "A"],
        &["refresh", "alice", "-y", "--reload", "true"],
        &["refresh", "alice", "-y", "--reload-timeout", "1m"],
        &["refresh", "web", "-y", "--reload-timeout", "1m"],
        &["create", "bob", "--reload", "true"],
        &["create", "bob", "--key-file", "k", "--reload-timeout", "1m"],
        &["create", "bob", "--key-file", "k", "--reload", "true", "--reload-timeout", "0s"],
        &["create", "bob", "--key-file", "k", "--reload", ""],
    ] {
        let outcome = host.apikey(args).run();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{args:?}: {outcome:?}");
    }
    assert_eq!(host.accepted(), 2);
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    const OF_EDIT: [&str; 3] =
        ["--name=a --no-name", "--reload=true --no-reload", "--reload-timeout=1m --no-reload"];
    const OF_ALL: [&str; 6] = [
        "--key-file=a --no-key-file",
        "--key-file-mode=640 --no-key-file",
        "--key-file-owner=0:0 --no-key-file",
        "--key-file-env=A --no-key-file",
        "--key-file-env=A --no-key-file-env",
        "--reload=true --no-key-file",
    ];
    const OF_REFRESH: [&str; 1] = ["--grace=1h --revoke-first"];
    // These are for what results: `--renew-after never` goes with --no-key-file.
    const BY_WHAT_RESULTS: [&str; 2] =
        ["--reload-timeout=1m --no-key-file", "--renew-after=30d --no-key-file"];
    const TOO_LONG: &str = "--renew-after=30d --expires-in=30d";
    let host = host_with_key_file();
    let before = host.contents();
    let refused = |command: &str, pair: &str, why: &str| {
        let user = if command == "create" { "new" } else { "web" };
        let args: Vec<&str> = [command, user].into_iter().chain(pair.split(' ')).collect();
        let outcome = host.apikey(&args).run();
        assert!(outcome.status == 2 && outcome.stderr.contains(why), "{command} {pair}: {outcome:?}");
    };
    for command in ["create", "refresh --yes", "ensure", "ensure --check", "edit"] {
        let (command, more) = command.split_once(' ').unwrap_or((command, ""));
        let refused = |pairs: &[&str], why| {
            pairs.iter().for_each(|pair| refused(command, format!("{pair} {more}").trim_end(), why));
        };
        refused(&OF_EDIT, "cannot be used with");
        if command != "edit" {
            refused(&OF_ALL, "cannot be used with");
            refused(&BY_WHAT_RESULTS, "there is no ");
        }
        if command == "refresh" {
            refused(&OF_REFRESH, "cannot be used with");
        }
        let to_a_file = if command == "create" { "--key-file=new.key " } else { "" };
        refused(&[&format!("{to_a_file}{TOO_LONG}")], "the key would end before it is renewed");
    }
    refused("renew", "--dry-run --dry-run", "cannot be used multiple times");
    assert!(host.contents() == before);
}

#[test]
fn a_reload_command_that_was_kept_on_another_machine_is_not_run() {
    let host = host_with_key_file();
    refresh(&host, &["--reload", "touch told"]);
    fs::remove_file(host.path("told")).unwrap();
    host.execute("UPDATE settings SET reload_machine = 'another'");
    let before = content(&host, "web.key");
    host.apikey(&["refresh", "web", "-y"]).fails(
        2,
        "apikey: the reload command that is kept for web is not run: it was not set on this machine\n\
         say it again with --reload, or do without it with --no-reload\n",
    );
    assert_eq!((content(&host, "web.key"), host.path("told").exists()), (before, false));
    // A leaked key ends all the same.
    let outcome = host.apikey(&["refresh", "web", "-y", "--revoke-first"]).run();
    assert!(outcome.status == 2 && outcome.stderr.contains(" of web ended, but the reload"), "{outcome:?}");
    assert_eq!(host.accepted(), 0);
    refresh(&host, &["--reload", "touch told"]);
    fs::remove_file(host.path("told")).unwrap();
    refresh(&host, &[]);
    assert!(host.path("told").exists(), "it is of this machine again");
}

#[test]
fn what_is_kept_in_a_database_that_others_may_write_is_not_believed() {
    let host = host_with_key_file();
    refresh(&host, &["--reload", "touch told"]);
    fs::remove_file(host.path("told")).unwrap();
    let share = || {
        for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
            host.chmod(name, 0o660);
        }
    };
    share();
    host.apikey_unprivileged(&["refresh", "web", "-y"]).fails(
        7,
        "apikey: the reload command that is kept for web is not run: others may write <folder>/keys.db\n\
         say it again with --reload, or do without it with --no-reload\n",
    );
    let ensure = |args: &[&str]| {
        let ensure = |check: &[&str]| {
            host.apikey_unprivileged(&[&["ensure", "web", "--json"], args, check].concat()).run().status
        };
        (ensure(&["--check"]), ensure(&[]))
    };
    assert_eq!((ensure(&["--key-file-env", "KEY"]), ensure(&[])), ((7, 7), (0, 0)));
    assert!(!host.path("told").exists());
    host.apikey_unprivileged(&["refresh", "web", "-yq", "--no-reload"]).gives(0, "", "");
    fs::remove_file(host.path("web.key")).unwrap();
    assert_eq!(ensure(&[]), (8, 8));
    let edit = host.apikey_unprivileged(&["edit", "web", "--key-file-mode", "640"]).run();
    assert!(edit.status == 8 && edit.stderr.contains("the current key\n`apikey ensure web`"), "{edit:?}");
    host.apikey_unprivileged(&["refresh", "web", "-y"]).fails(
        8,
        "apikey: the key cannot be handed over, so none was issued: there is no key in <folder>/web.key, \
         and others may write <folder>/keys.db, which says to go there\n\
         name the file with --key-file\n",
    );
    host.apikey_unprivileged(&["refresh", "web", "-yq", "--key-file", "web.key"]).gives(0, "", "");
}

#[test]
fn a_refresh_to_another_place_says_where_the_last_key_is() {
    let host = host_with_key_file();
    let old = "The last key went to <folder>/web.key: remove it there.\n";
    host.apikey(&["refresh", "web", "-y", "--key-file", "new.key"]).gives(
        0,
        "",
        format!("Issued <prefix> to web. The key is in <folder>/new.key.\n<prefix> is revoked.\n{old}"),
    );
    host.apikey(&["refresh", "web", "-y", "--no-key-file"]).gives(
        0,
        "<key>\n",
        "Issued <prefix> to web. The key is shown only once.\n<prefix> is revoked.\n\
         The last key went to <folder>/new.key: remove it there.\n",
    );
}
