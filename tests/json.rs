//! `--json`: what scripts parse, to the letter.
//!
//! `tests/snapshots` holds one object for each case, with what differs from run to run written as
//! placeholders. `UPDATE_SNAPSHOTS=1 cargo test --test json` writes them anew; look at the
//! difference before you commit it.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{Host, generalized};
use serde_json::Value;

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");

/// Every command that succeeds or, like `verify`, answers on standard output: snapshot, status,
/// standard output.
fn answers() -> Vec<(&'static str, i32, String)> {
    let host = Host::new();
    let folder = fs::canonicalize(host.folder()).unwrap();
    let caller = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let mut answers = Vec::new();
    let mut run = |snapshot, args: &[&str], input: &str| {
        let outcome = host.apikey(args).input(input).run();
        let shown = generalized(&outcome.stdout).replace(folder.to_str().unwrap(), "<folder>");
        let shown = shown.replace(&format!("\"{caller}\""), "\"<owner>\"");
        answers.push((snapshot, outcome.status, shown));
        // Nothing else anywhere on success; one object on failure.
        assert_eq!(outcome.stderr.lines().count(), usize::from(outcome.status != 0), "{snapshot}");
        outcome.json()
    };
    run("create", &["create", "alice", "--json", "--expires-in", "90d", "--name", "Zoë's laptop"], "");
    run("create-plain", &["create", "bob", "--json"], "");
    run("show", &["show", "alice", "--json"], "");
    run("show-plain", &["show", "bob", "--json"], "");
    run("refresh-first", &["refresh", "carol", "--json", "--yes"], "");
    let old = run("refresh", &["refresh", "carol", "--json", "--yes"], "");
    let new = run("refresh-grace", &["refresh", "carol", "--json", "--yes", "--grace", "1h"], "");
    let key = |json: &Value| json["key"].as_str().unwrap().to_owned();
    run("verify", &["verify", "--json"], &key(&new));
    run("verify-retiring", &["verify", "--json"], &key(&old));
    run("list", &["list", "carol", "--json"], "");
    run("list-all", &["list", "carol", "--json", "--all"], "");
    run("list-none", &["list", "dave", "--json"], "");
    run("revoke", &["revoke", "carol", "--json", "--yes"], "");
    run("verify-revoked", &["verify", "--json"], &key(&new));
    run("verify-unknown", &["verify", "--json"], &Host::with_key_of("x").1);
    run("verify-malformed", &["verify", "--json"], "x");
    let web = ["ensure", "web", "--json", "--key-file", "web.key"];
    run("ensure-check", &[&web[..], &["--check"]].concat(), "");
    run("ensure", &[&web[..], &["--renew-after", "30d", "--key-file-owner", &caller]].concat(), "");
    run("ensure-nothing", &["ensure", "web", "--json"], "");
    run("renew-nothing", &["renew", "--json"], "");
    run("edit", &["edit", "web", "--json", "--name", "the web", "--key-file-mode", "640"], "");
    host.apikey(&["create", "gone", "-q", "--key-file", "gone.key", "--renew-after", "30d"]).gives(0, "", "");
    fs::remove_file(host.path("gone.key")).unwrap();
    host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z' WHERE due_at IS NOT NULL");
    run("renew-dry-run", &["renew", "--json", "--dry-run"], "");
    run("renew", &["renew", "--json"], "");
    run("ensure-accepted", &["ensure", "gone", "--json", "--renew-after", "never"], "");
    let expired = host.expired_key_of("erin");
    let verdict = host.apikey(&["verify", "--json"]).input(expired).run();
    answers.push(("verify-expired", verdict.status, generalized(&verdict.stdout)));
    answers
}

#[test]
fn the_json_of_every_command_is_as_the_snapshots_say() {
    let mut names = BTreeSet::new();
    for (name, status, found) in answers() {
        let expected_status = match name {
            "renew" => 11,
            "verify-revoked" | "verify-unknown" | "verify-malformed" | "verify-expired" => 5,
            _ => 0,
        };
        assert_eq!(status, expected_status, "{name}");
        let path = Path::new(SNAPSHOTS).join(format!("{name}.json"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&path, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&path).unwrap_or_default(), "{name}");
        names.insert(format!("{name}.json"));
    }
    let there: BTreeSet<String> = fs::read_dir(SNAPSHOTS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, names, "a snapshot that nothing is compared with");
}

#[test]
fn every_member_is_always_there() {
    const CREATE: &[&str] =
        &["id", "user", "key", "prefix", "name", "created_at", "expires_at", "key_file", "still_accepted"];
    const PREVIOUS: &[&str] = &["previous_key_revoked", "previous_key_prefix", "previous_key_valid_until"];
    const SHOW: &[&str] = &[
        "id",
        "user",
        "prefix",
        "name",
        "status",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked_at",
        "key_file",
        "due_at",
    ];
    const SETTLED: &[&str] = &["settings", "changed", "done", "still_accepted"];
    const SETTINGS: &[&str] = &[
        "lifetime_ms",
        "key_file",
        "key_file_mode",
        "key_file_owner",
        "key_file_env",
        "reload",
        "reload_timeout_ms",
        "renew_after_ms",
        "renew_grace_ms",
    ];
    const RENEW: &[&str] = &["renewed", "failed", "due", "not_due"];
    const FAILED: &[&str] = &["user", "code", "message", "hint"];
    const DUE: &[&str] = &["user", "prefix", "why"];
    const ACCEPTED: &[&str] = &["prefix", "status", "until"];
    const REVOKE: &[&str] =
        &["message", "user", "revoked_key_prefix", "revoked_key_prefixes", "still_accepted"];
    const VERIFY: &[&str] = &["valid", "status", "id", "user", "prefix", "name", "expires_at"];
    let mut looked_at = BTreeSet::new();
    for (name, _, text) in answers() {
        let json: Value = serde_json::from_str(&text).unwrap();
        let command = name.split('-').next().unwrap();
        let members = match command {
            "create" => CREATE.into(),
            "refresh" => [CREATE, PREVIOUS].concat(),
            "show" => [SHOW, &["settings"]].concat(),
            "list" => vec!["keys"],
            "verify" => VERIFY.into(),
            "revoke" => REVOKE.into(),
            "ensure" | "edit" => [SHOW, SETTLED].concat(),
            "renew" => RENEW.into(),
            other => panic!("{other} is not known"),
        };
        let mut objects = vec![(command, json.clone(), members)];
        for (member, members) in [
            ("keys", SHOW.to_vec()),
            ("settings", SETTINGS.into()),
            ("renewed", [CREATE, PREVIOUS].concat()),
            ("failed", FAILED.into()),
            ("due", DUE.into()),
            ("still_accepted", ACCEPTED.into()),
        ] {
            let inner = match &json[member] {
                Value::Array(inner) => inner.clone(),
                Value::Null => Vec::new(),
                inner => vec![inner.clone()],
            };
            objects.extend(inner.into_iter().map(|object| (member, object, members.clone())));
        }
        for (what, object, members) in objects {
            let found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
            let (found, members) = (BTreeSet::from_iter(found), BTreeSet::from_iter(members));
            assert_eq!(found, members, "{name}: {what}");
            looked_at.insert(what.to_owned());
        }
    }
    assert_eq!(looked_at.len(), 9 + 6, "{looked_at:?}");
}

#[test]
fn it_is_one_object_on_one_line() {
    for (name, _, text) in answers() {
        assert!(text.starts_with('{') && text.ends_with("}\n"), "{name}");
        assert_eq!(text.lines().count(), 1, "{name}");
    }
}

#[test]
fn a_failure_is_one_object_on_standard_error() {
    let (host, key) = Host::with_key_of("alice");
    let fails = |args: &[&str], status, stderr: &str| {
        host.apikey(args).fails(status, format!("{stderr}\n"));
    };
    fails(
        &["create", "alice", "--json"],
        3,
        r#"{"code":"KEY_EXISTS","message":"alice has an active key already: <prefix>","hint":"`apikey refresh alice` replaces it, `apikey revoke alice` ends it"}"#,
    );
    fails(&["show", "bob", "--json"], 4, r#"{"code":"NO_KEY","message":"bob has no key","hint":null}"#);
    fails(
        &["revoke", "bob", "-y", "--json"],
        4,
        r#"{"code":"NO_KEY","message":"bob has no key","hint":null}"#,
    );
    fails(
        &["show", "--json", "--db", "none.db"],
        6,
        r#"{"code":"NO_DATABASE","message":"there is no database at <folder>/none.db","hint":"`apikey create` makes it, --db names another"}"#,
    );
    fails(
        &["refresh", "alice", "--json"],
        2,
        r#"{"code":"USAGE","message":"there is no terminal to ask whether to replace the key of alice","hint":"confirm with --yes"}"#,
    );
    host.key_from(&["refresh", "alice", "--yes"]);
    let verdict = host.apikey(&["verify", "--json"]).input(key).run();
    assert_eq!((verdict.status, verdict.code().as_str()), (5, "INVALID_KEY"));
}

#[test]
fn wrong_usage_is_an_object_too_wherever_json_is_asked_for() {
    let host = Host::new();
    for args in [
        &["--json"][..],
        &["--json", "frobnicate"],
        &["create", "--frobnicate", "--json"],
        &["create", "--json", "alice", "bob"],
        &["create", "--json", "--expires-in"],
        &["create", "--json", "--expires-in", "soon"],
        &["create", "--json", ""],
        &["list", "--json", "--json"],
        &["show", "--timeout", "never", "--json"],
        // Its output is a script.
        &["completions", "bash", "--json"],
    ] {
        let outcome = host.apikey(args).run();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(outcome.code(), "USAGE", "{args:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}");
    }
    let user = host.apikey(&["show", "alice", "bob", "--", "--json"]).run();
    assert!(user.stderr.starts_with("apikey: "), "after -- it is no option: {}", user.stderr);
}

#[test]
fn quiet_changes_nothing() {
    let (host, _) = Host::with_key_of("alice");
    let loud = host.apikey(&["show", "alice", "--json"]).run();
    host.apikey(&["show", "alice", "--json", "--quiet"]).gives(0, generalized(&loud.stdout), "");
    host.apikey(&["show", "bob", "--json", "--quiet"])
        .fails(4, "{\"code\":\"NO_KEY\",\"message\":\"bob has no key\",\"hint\":null}\n");
}
