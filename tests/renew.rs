//! `apikey renew`

mod common;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use common::{APIKEY, Host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const PAST: &str = "2026-01-01T00:00:00.000Z";

/// The key of `user` in its file `user.key`, with `args` for it.
fn create(host: &Host, user: &str, args: &[&str]) -> String {
    let file = format!("{user}.key");
    let create = ["create", user, "-q", "--key-file", &file];
    assert_eq!(host.apikey(&[&create, args].concat()).run().status, 0);
    content(host, user)
}

/// A host where the keys of these have a renewal age of 30 days.
fn host_with(users: &[&str]) -> Host {
    let host = Host::new();
    for user in users {
        create(&host, user, &["--renew-after", "30d"]);
    }
    host
}

/// Makes keys due: those of the users who have a renewal age.
fn make_due(host: &Host) {
    host.execute(&format!("UPDATE settings SET due_at = '{PAST}' WHERE due_at IS NOT NULL"));
}

fn make_expired(host: &Host, user: &str, status: &str) {
    let sql = format!("UPDATE keys SET expires_at = '{PAST}' WHERE user = '{user}' AND status = '{status}'");
    host.execute(&sql);
}

fn content(host: &Host, user: &str) -> String {
    fs::read_to_string(host.path(&format!("{user}.key"))).unwrap()
}

fn renew(host: &Host, status: i32) -> Value {
    let outcome = host.apikey(&["renew", "--json"]).run();
    assert_eq!(outcome.status, status, "{outcome:?}");
    assert_eq!(outcome.stderr.is_empty(), status == 0, "{outcome:?}");
    outcome.json()
}

fn users(of: &Value) -> Vec<&str> {
    of.as_array().unwrap().iter().map(|one| one["user"].as_str().unwrap()).collect()
}

fn show(host: &Host, user: &str) -> Value {
    host.apikey(&["show", user, "--json"]).run().json()
}

#[test]
fn only_a_user_with_a_renewal_age_is_renewed_and_only_when_the_key_is_older() {
    let host = host_with(&["web"]);
    let mail = create(&host, "mail", &["--expires-in", "90d"]);
    let soon = create(&host, "soon", &["--renew-after", "1ms"]);
    let alice = host.key_from(&["create", "alice"]);
    let web = content(&host, "web");
    std::thread::sleep(Duration::from_millis(5));
    host.apikey(&["renew"]).gives(
        0,
        "",
        "Issued <prefix> to soon, renewed from <time> on. The key is in <folder>/soon.key.\n\
         <prefix>, which is retiring, is accepted until <time>.\n",
    );
    assert_eq!((content(&host, "web"), content(&host, "mail")), (web, mail));
    assert_ne!(content(&host, "soon"), soon);
    assert_eq!(host.status_of(&alice), "active");
}

#[test]
fn nothing_due_is_no_write_at_all() {
    let host = host_with(&["web"]);
    let before = host.contents();
    host.apikey(&["renew"]).gives(0, "", "No key is due; 1 will be.\n");
    host.apikey(&["renew", "nobody"]).gives(0, "", "No key is due; 0 will be.\n");
    let nothing = json!({"renewed": [], "failed": [], "due": [], "not_due": 1});
    assert_eq!(renew(&host, 0), nothing);
    assert!(host.contents() == before);
}

#[test]
fn the_old_key_is_accepted_for_the_renewal_grace_and_not_past_its_own_end() {
    let host = Host::new();
    let grace = |args: &[&str]| {
        let old = create(&host, args[0], &[&["--renew-after", "1d"], &args[1..]].concat());
        make_due(&host);
        let renewed = host.apikey(&["renew", args[0], "--json"]).run().json();
        let one = &renewed["renewed"][0];
        assert_eq!((&one["user"], &one["key"]), (&json!(args[0]), &Value::Null));
        assert_eq!(one["previous_key_prefix"], old[..15]);
        assert_eq!(one["still_accepted"][0]["until"], one["previous_key_valid_until"]);
        assert_eq!(host.status_of(&content(&host, args[0])), "active");
        let until: chrono::DateTime<chrono::Utc> = one["previous_key_valid_until"]
            .as_str()
            .map_or(chrono::DateTime::UNIX_EPOCH, |until| until.parse().unwrap());
        let created: chrono::DateTime<chrono::Utc> = one["created_at"].as_str().unwrap().parse().unwrap();
        ((until - created).num_hours(), host.status_of(&old))
    };
    assert_eq!(grace(&["a"]), (24, "retiring".into()));
    assert_eq!(grace(&["b", "--renew-grace", "2h"]), (2, "retiring".into()));
    assert_eq!(grace(&["c", "--expires-in", "30h", "--renew-grace", "90d"]), (29, "retiring".into()));
    assert_eq!(grace(&["d", "--renew-grace", "0s"]).1, "revoked");
}

#[test]
fn the_next_key_has_all_that_the_last_one_had_and_its_reader_is_told() {
    let host = Host::new();
    let owner = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let settings = [
        &["--name", "a label", "--expires-in", "90d", "--key-file-mode", "640", "--key-file-env", "TOKEN"][..],
        &["--key-file-owner", &owner, "--reload", "cat web.key > told", "--reload-timeout", "30s"],
        &["--renew-after", "30d", "--renew-grace", "1h"],
    ];
    let old = create(&host, "web", &settings.concat());
    let before = show(&host, "web");
    make_due(&host);
    assert_eq!(users(&renew(&host, 0)["renewed"]), ["web"]);
    let after = show(&host, "web");
    assert_eq!((&after["settings"], &after["name"]), (&before["settings"], &json!("a label")));
    let new = content(&host, "web");
    assert!(new != old && new.starts_with("TOKEN=ak_") && new.ends_with('\n'));
    let ends = |shown: &Value| -> chrono::TimeDelta {
        let time = |at: &str| shown[at].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        time("expires_at") - time("created_at")
    };
    assert_eq!(ends(&after), ends(&before));
    let file = fs::metadata(host.path("web.key")).unwrap();
    assert_eq!((file.mode() & 0o7777, format!("{}:{}", file.uid(), file.gid())), (0o640, owner));
    assert_eq!(fs::read_to_string(host.path("told")).unwrap(), new);
    assert_eq!(renew(&host, 0)["not_due"], 1);
}

#[test]
fn a_revoked_user_stays_revoked_and_an_expired_key_is_renewed() {
    let host = host_with(&["gone", "late"]);
    let late = content(&host, "late");
    make_due(&host);
    host.apikey(&["revoke", "gone", "-yq"]).gives(0, "", "");
    make_expired(&host, "late", "active");
    let renewed = renew(&host, 0);
    assert_eq!(users(&renewed["renewed"]), ["late"]);
    assert_eq!(renewed["renewed"][0]["previous_key_revoked"], false);
    assert_eq!((host.status_of(&content(&host, "gone")).as_str(), host.accepted()), ("revoked", 1));
    assert_eq!(host.status_of(&late), "expired");
}

#[test]
fn a_user_who_is_named_is_renewed_alone() {
    let host = host_with(&["mail", "web"]);
    let (mail, web) = (content(&host, "mail"), content(&host, "web"));
    make_due(&host);
    let renewed = host.apikey(&["renew", "web", "--json"]).run().json();
    assert_eq!((users(&renewed["renewed"]), &renewed["not_due"]), (vec!["web"], &json!(0)));
    assert_eq!(content(&host, "mail"), mail);
    assert_ne!(content(&host, "web"), web);
}

#[test]
fn one_that_cannot_be_renewed_is_reported_and_keeps_nobody_else_from_it() {
    const AMISS: [&str; 5] = ["a-gone", "b-junk", "c-older", "d-another", "e-unmounted"];
    let host = Host::new();
    fs::create_dir(host.path("mnt")).unwrap();
    let older = create(&host, "c-older", &["--renew-after", "30d"]);
    for user in ["a-gone", "b-junk", "d-another", "f-well"] {
        create(&host, user, &["--renew-after", "30d"]);
    }
    let unmounted = ["create", "e-unmounted", "-q", "--key-file", "mnt/e.key", "--renew-after", "30d"];
    host.apikey(&unmounted).gives(0, "", "");
    host.apikey(&["refresh", "c-older", "-yq", "--grace", "1h"]).gives(0, "", "");
    make_due(&host);
    fs::remove_file(host.path("a-gone.key")).unwrap();
    host.write("b-junk.key", b"junk");
    host.write("c-older.key", older.as_bytes());
    host.write("d-another.key", content(&host, "f-well").as_bytes());
    fs::rename(host.path("mnt"), host.path("elsewhere")).unwrap();
    let lists = |host: &Host| AMISS.map(|user| host.apikey(&["list", user, "--all", "--json"]).run().stdout);
    let before = (lists(&host), host.names());
    let outcome = host.apikey(&["renew", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (11, "PROBLEMS"), "{outcome:?}");
    let renewed = outcome.json();
    assert_eq!((users(&renewed["renewed"]), users(&renewed["failed"])), (vec!["f-well"], AMISS.to_vec()));
    for (one, why) in renewed["failed"].as_array().unwrap().iter().zip([
        "there is no key in",
        "holds something else than a key",
        "holds no current key of c-older",
        "of f-well, which is accepted",
        "No such file or directory",
    ]) {
        assert_eq!(one["code"], "UNDELIVERABLE");
        assert!(one["message"].as_str().unwrap().contains(why) && one["hint"].is_string(), "{one}");
    }
    assert!((lists(&host), host.names()) == before, "something was changed or made");
    // An empty folder is there in its place.
    fs::create_dir(host.path("mnt")).unwrap();
    let outcome = host.apikey(&["renew", "e-unmounted"]).fails(
        11,
        "apikey: e-unmounted: the key cannot be handed over, so none was issued: \
         there is no key in <folder>/mnt/e.key; is its file system mounted?\n\
         see to that, or deliver a new one there: `apikey refresh e-unmounted`\n\
         apikey: 1 of 1 keys that are due could not be renewed\n\
         see to what each message says, and run it again\n",
    );
    assert_eq!(fs::read_dir(host.path("mnt")).unwrap().count(), 0, "{outcome:?}");
    // It is back.
    fs::remove_dir(host.path("mnt")).unwrap();
    fs::rename(host.path("elsewhere"), host.path("mnt")).unwrap();
    assert_eq!(users(&renew(&host, 11)["renewed"]), ["e-unmounted"]);
}

#[test]
fn a_reload_that_failed_is_tried_again_once_by_each_run() {
    let host = host_with(&["mail"]);
    let old = create(&host, "web", &["--renew-after", "30d", "--reload", "echo >> told; test -e ready"]);
    let told = || fs::read_to_string(host.path("told")).unwrap().len();
    make_due(&host);
    let first = renew(&host, 11);
    assert_eq!((users(&first["renewed"]), users(&first["failed"])), (vec!["mail"], vec!["web"]));
    assert_eq!(first["failed"][0]["code"], "DELIVERY_PENDING");
    let new = content(&host, "web");
    for run in 2..4 {
        let due = host.apikey(&["renew", "--dry-run", "--json"]).run().json();
        let waits = json!([{"user": "web", "prefix": new[..15], "why": "its reader is still to be told"}]);
        assert_eq!((&due["due"], &due["not_due"]), (&waits, &json!(1)));
        let outcome = host.apikey(&["renew", "--json"]).run();
        assert_eq!((users(&outcome.json()["failed"]), told()), (vec!["web"], run), "{outcome:?}");
        assert!(outcome.stderr.contains("\"1 of 1 keys"), "{outcome:?}");
    }
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("active", "pending"));
    host.write("ready", b"");
    let last = renew(&host, 0);
    assert_eq!((users(&last["renewed"]), &last["renewed"][0]["prefix"]), (vec!["web"], &json!(new[..15])));
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("retiring", "active"));
    assert_eq!(renew(&host, 0)["not_due"], 2);
}

/// A host where the key of web waits for its reader to be told, and has expired meanwhile.
fn host_with_expired_pending() -> (Host, String) {
    let host = Host::new();
    let settings = ["--renew-after", "30d", "--expires-in", "90d", "--reload", "test -e ready"];
    create(&host, "web", &settings);
    make_due(&host);
    renew(&host, 11);
    make_expired(&host, "web", "pending");
    host.write("ready", b"");
    let pending = content(&host, "web");
    (host, pending)
}

#[test]
fn a_pending_key_that_has_expired_is_superseded_whoever_has_undone_it() {
    for command in ["true", "create alice -q", "refresh alice -yq"] {
        let (host, pending) = host_with_expired_pending();
        let command: Vec<&str> = command.split(' ').collect();
        if command != ["true"] {
            assert_eq!(host.apikey(&command).run().status, 0);
            assert_eq!(content(&host, "web"), pending);
        }
        assert_eq!(users(&renew(&host, 0)["renewed"]), ["web"], "{command:?}");
        let new = content(&host, "web");
        assert_ne!(new, pending);
        assert_eq!((host.status_of(&new).as_str(), host.status_of(&pending).as_str()), ("active", "revoked"));
    }
}

#[test]
fn a_pending_key_that_has_expired_is_superseded_where_it_was_the_only_one() {
    let (host, pending) = host_with_expired_pending();
    host.execute("UPDATE keys SET status = 'revoked', revoked_at = expires_at WHERE status = 'active'");
    assert_eq!(users(&renew(&host, 0)["renewed"]), ["web"]);
    assert_ne!(content(&host, "web"), pending);
    assert_eq!(host.status_of(&content(&host, "web")), "active");
}

#[test]
fn a_dry_run_says_who_is_due_and_why_and_changes_nothing() {
    let host = host_with(&["mail", "web"]);
    make_due(&host);
    create(&host, "later", &["--renew-after", "30d"]);
    let before = host.contents();
    host.apikey(&["renew", "--dry-run"]).gives(
        0,
        "",
        "<prefix> of mail is due: it is older than its renewal age.\n\
         <prefix> of web is due: it is older than its renewal age.\n",
    );
    let outcome = host.apikey(&["renew", "--dry-run", "--json"]).run();
    let due = |user| {
        let prefix = &content(&host, user)[..15];
        json!({"user": user, "prefix": prefix, "why": "it is older than its renewal age"})
    };
    let expected = json!({"renewed": [], "failed": [], "due": [due("mail"), due("web")], "not_due": 1});
    assert_eq!((outcome.status, outcome.json(), outcome.stderr.as_str()), (0, expected, ""));
    assert!(host.contents() == before);
}

#[test]
fn with_json_it_is_one_object_also_where_one_fails() {
    let host = host_with(&["a", "b", "c"]);
    make_due(&host);
    host.write("b.key", b"junk");
    let outcome = host.apikey(&["renew", "--json"]).run();
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.lines().count()), (1, 1), "{outcome:?}");
    let renewed = outcome.json();
    assert_eq!((users(&renewed["renewed"]), users(&renewed["failed"])), (vec!["a", "c"], vec!["b"]));
    let refreshed = host.apikey(&["refresh", "a", "-yq", "--json"]).run().json();
    let members = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&renewed["renewed"][0]), members(&refreshed));
    assert_eq!(members(&renewed["failed"][0]), ["code", "hint", "message", "user"]);
    assert_eq!(members(&renewed), ["due", "failed", "not_due", "renewed"]);
    assert_eq!((&renewed["due"], &renewed["not_due"]), (&json!([]), &json!(0)));
}

#[test]
fn it_goes_on_when_its_reader_closes_the_pipe() {
    for args in [&["renew", "--json"][..], &["renew"]] {
        let host = host_with(&["a", "b", "c"]);
        make_due(&host);
        let before = ["a", "b", "c"].map(|user| content(&host, user));
        let (reader, writer) = std::io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap();
        let run = host.apikey(args).stdout_to(writer).with(|command| {
            command.stderr(Stdio::from(stderr));
        });
        drop(reader);
        let mut child = run.spawn();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
        for (user, before) in ["a", "b", "c"].into_iter().zip(before) {
            assert_ne!(content(&host, user), before, "{args:?}: {user}");
        }
        assert_eq!(renew(&host, 0)["not_due"], 3);
    }
}

#[test]
fn what_was_renewed_is_written_before_the_next_one_is() {
    let host = host_with(&["a"]);
    create(&host, "b", &["--renew-after", "30d", "--reload", "until test -e go; do sleep 0.01; done"]);
    make_due(&host);
    let mut child = host.apikey(&["renew", "--json"]).spawn();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 64];
    stdout.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"{\"renewed\":[{\"id\":"));
    host.write("go", b"");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("],\"failed\":[],\"due\":[],\"not_due\":0}\n"), "{rest}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reload_command_that_nobody_vouches_for_is_a_failure_and_not_run() {
    let reload = ["--renew-after", "30d", "--reload", "touch told"];
    let not_run = |host: &Host, why: &str, code: &str| {
        let before = content(host, "web");
        // As who may write it.
        let outcome = host.apikey_unprivileged(&["renew", "--json"]).run();
        assert_eq!(outcome.status, 11, "{outcome:?}");
        let renewed = outcome.json();
        assert_eq!((users(&renewed["failed"]), &renewed["failed"][0]["code"]), (vec!["web"], &json!(code)));
        assert!(renewed["failed"][0]["message"].as_str().unwrap().ends_with(why), "{outcome:?}");
        assert_eq!(users(&renewed["renewed"]), ["other"], "{outcome:?}");
        assert_eq!((content(host, "web"), host.path("told").exists()), (before, false));
    };
    let host = host_with(&["other"]);
    create(&host, "web", &reload);
    make_due(&host);
    host.execute("UPDATE settings SET reload_machine = 'another' WHERE user = 'web'");
    not_run(&host, "is not run: it was not set on this machine", "USAGE");
    let host = host_with(&["other"]);
    create(&host, "web", &reload);
    make_due(&host);
    for name in host.names().iter().filter(|name| name.starts_with("keys.db")) {
        host.chmod(name, 0o660);
    }
    let why =
        format!("is not run: others may write {}", fs::canonicalize(host.database()).unwrap().display());
    not_run(&host, &why, "FORBIDDEN");
}

#[test]
fn who_is_revoked_while_another_is_renewed_stays_revoked() {
    let host = Host::new();
    let reload = format!("{APIKEY} --db keys.db revoke b -yq");
    create(&host, "a", &["--renew-after", "30d", "--reload", &reload]);
    create(&host, "b", &["--renew-after", "30d"]);
    create(&host, "c", &["--renew-after", "30d"]);
    let b = content(&host, "b");
    make_due(&host);
    assert_eq!(users(&renew(&host, 0)["renewed"]), ["a", "c"]);
    assert_eq!((content(&host, "b"), host.status_of(&b)), (b, "revoked".into()));
}

#[test]
fn who_is_revoked_while_its_own_reader_is_told_stays_revoked() {
    let host = Host::new();
    let reload = format!("{APIKEY} --db keys.db revoke web -yq");
    create(&host, "web", &["--renew-after", "30d", "--reload", &reload]);
    make_due(&host);
    let renewed = renew(&host, 0);
    assert_eq!((&renewed["renewed"], &renewed["failed"]), (&json!([]), &json!([])), "nothing is left to do");
    assert_eq!(host.accepted(), 0);
    assert_eq!(renew(&host, 0)["not_due"], 0);
}

/// What a renewal to which this signal comes when its reload command has made `told` exits with, and says.
fn renew_ended_by(host: &Host, signal: Signal) -> (Option<i32>, Value) {
    let run = host.apikey(&["renew", "--json"]).spawn();
    while !host.path("told").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(run.id().try_into().unwrap()), signal).unwrap();
    let output = run.wait_with_output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_signal_that_ends_a_reload_ends_the_renewal_and_the_next_run_goes_on() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let host = Host::new();
        let reload = "test -e go || { sleep 0.3; touch told; exec sleep 1000; }";
        create(&host, "a", &["--renew-after", "30d", "--reload", reload]);
        create(&host, "b", &["--renew-after", "30d"]);
        let b = content(&host, "b");
        make_due(&host);
        let (status, said) = renew_ended_by(&host, signal);
        assert_eq!((status, users(&said["failed"])), (Some(11), vec!["a", "b"]), "{signal}");
        assert_eq!(said["failed"][1]["code"], "CANCELLED");
        assert_eq!(content(&host, "b"), b, "{signal}");
        host.write("go", b"");
        assert_eq!(users(&renew(&host, 0)["renewed"]), ["a", "b"]);
    }
}

#[test]
fn a_signal_that_ends_a_reload_ends_the_renewal_whatever_has_become_of_the_key() {
    for (meanwhile, renewed, failed) in
        [("revoke a -yq", &[][..], &["a", "b"][..]), ("refresh a -yq --no-reload", &["a"], &["b"])]
    {
        let host = Host::new();
        let reload = format!("{APIKEY} --db keys.db {meanwhile}; sleep 0.3; touch told; exec sleep 1000");
        create(&host, "a", &["--renew-after", "30d", "--reload", &reload]);
        create(&host, "b", &["--renew-after", "30d"]);
        let b = content(&host, "b");
        make_due(&host);
        let (status, said) = renew_ended_by(&host, Signal::SIGTERM);
        assert_eq!(status, Some(11), "{said}");
        assert_eq!((users(&said["renewed"]), users(&said["failed"])), (renewed.to_vec(), failed.to_vec()));
        assert_eq!(content(&host, "b"), b, "{meanwhile}");
        assert_eq!(users(&renew(&host, 0)["renewed"]), ["b"], "{meanwhile}");
    }
}

#[test]
fn a_row_that_makes_no_sense_keeps_no_other_user_from_being_renewed() {
    for spoil in [
        "UPDATE keys SET id = 'none' WHERE user = 'a'",
        "UPDATE keys SET name = char(27) WHERE user = 'a'",
        "UPDATE settings SET lifetime_ms = -1 WHERE user = 'a'",
    ] {
        let host = host_with(&["a", "b"]);
        make_due(&host);
        host.execute(&format!(
            "{spoil}; UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z' WHERE user = 'a'"
        ));
        let due = host.apikey(&["renew", "--dry-run", "--json"]).run().json();
        assert_eq!(due["due"].as_array().unwrap().last().unwrap()["user"], "b", "{spoil}");
        let renewed = renew(&host, 11);
        assert_eq!(
            (users(&renewed["renewed"]), users(&renewed["failed"])),
            (vec!["b"], vec!["a"]),
            "{spoil}"
        );
        assert_eq!(renewed["failed"][0]["code"], "DB_ERROR", "{spoil}");
    }
}

#[test]
fn nothing_is_renewed_in_a_database_that_another_took_the_place_of() {
    let host = Host::new();
    let swap = "mkdir -m 700 away; mv keys.db keys.db-wal keys.db-shm away; cp -p copy.db keys.db";
    create(&host, "a", &["--renew-after", "30d", "--reload", swap]);
    create(&host, "b", &["--renew-after", "30d"]);
    make_due(&host);
    host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
    let b = content(&host, "b");
    let outcome = host.apikey(&["renew"]).run();
    assert_ne!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("another file lies at"), "{outcome:?}");
    assert_eq!((content(&host, "b"), host.status_of(&b).as_str()), (b.clone(), "active"), "{outcome:?}");
}

#[test]
fn a_database_that_is_locked_ends_it_at_once_and_not_once_a_user() {
    let host = host_with(&["a", "b", "c"]);
    make_due(&host);
    // The log is there again.
    show(&host, "a");
    let before = host.contents();
    let lock = fs::File::open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    let outcome = host.apikey(&["renew", "--json", "--timeout", "100ms"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "DB_LOCKED"), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    assert!(host.contents() == before);
}

#[test]
fn a_database_that_is_locked_meanwhile_leaves_one_object_of_what_was_done() {
    let host = Host::new();
    let create_with = |user, reload: &str| create(&host, user, &["--renew-after", "30d", "--reload", reload]);
    create_with("a", "true");
    // It goes on holding the lock when it is over, in a session of its own.
    create_with(
        "b",
        "setsid flock keys.db-lock sh -c 'touch held; sleep 2' & until test -e held; do sleep 0.01; done",
    );
    create_with("c", "true");
    make_due(&host);
    let outcome = host.apikey(&["renew", "--json", "--timeout", "100ms"]).run();
    let said = outcome.json();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "DB_LOCKED"), "{outcome:?}");
    assert_eq!((users(&said["renewed"]), users(&said["failed"])), (vec!["a"], vec!["b"]));
}

#[test]
fn without_a_database_there_is_nothing_to_renew_and_none_is_made() {
    let host = Host::new();
    let outcome = host.apikey(&["renew", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str(), outcome.stdout.as_str()), (6, "NO_DATABASE", ""));
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn nobody_s_key_is_printed_who_is_kept_with_no_file() {
    let (host, _) = Host::with_key_of("alice");
    host.execute("INSERT INTO settings (user, pending_key, name) VALUES ('alice', 0, 'x')");
    let file = ["--key-file", "a.key", "--reload", "false", "--renew-after", "30m", "--expires-in", "1h"];
    assert_eq!(host.apikey(&[&["refresh", "alice", "-y"], &file[..]].concat()).run().status, 9);
    make_expired(&host, "alice", "pending");
    host.apikey(&["renew", "-q"]).gives(0, "", "");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn an_edit_does_not_forget_that_a_key_was_made_due() {
    let (host, _) = host_with_expired_pending();
    host.apikey(&["edit", "web", "-q", "--name", "x"]).gives(0, "", "");
    let due_at = host.apikey(&["list", "web", "--json"]).run().json()["keys"][0]["due_at"].clone();
    assert!(due_at.as_str().unwrap() <= &*apikey::Timestamp::now().unwrap().to_string(), "{due_at}");
    assert_eq!(users(&renew(&host, 0)["renewed"]), ["web"]);
    assert_eq!(host.status_of(&content(&host, "web")), "active");
}
