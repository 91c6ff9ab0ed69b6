//! What was done is written down with what it records.

mod common;

use std::collections::BTreeSet;

use common::Host;
use nix::unistd::getuid;

/// What was written down, a line each: what, of whom, whether it ends, and the detail, with prefixes in
/// the order in which they come up.
fn events(host: &Host) -> Vec<String> {
    let sqlite = host.sqlite();
    let mut statement = sqlite
        .prepare(
            "SELECT concat_ws(' ', event, user, printf('ak_%012x', prefix), iif(expires_at IS NULL, NULL, 'expires'),
                 iif(valid_until IS NULL, NULL, 'valid until'), detail) FROM events ORDER BY number",
        )
        .unwrap();
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let prefix = regex::Regex::new("ak_[0-9a-f]{12}").unwrap();
    let mut known: Vec<String> = Vec::new();
    let mut number = |found: &str| {
        let at = known.iter().position(|known| known == found).unwrap_or_else(|| {
            known.push(found.to_owned());
            known.len() - 1
        });
        format!("#{}", at + 1)
    };
    let folder = std::fs::canonicalize(host.folder()).unwrap();
    lines
        .map(|line| {
            let line = line.unwrap().replace(folder.to_str().unwrap(), "<folder>");
            prefix.replace_all(&line, |found: &regex::Captures<'_>| number(&found[0])).into_owned()
        })
        .collect()
}

#[test]
fn every_change_is_written_down() {
    let host = Host::new();
    host.key_from(&["create", "alice", "--expires-in", "90d"]);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.key_from(&["refresh", "alice", "--yes"]);
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    assert_eq!(
        events(&host),
        [
            "issued alice #1 expires create",
            "retired alice #1 expires valid until",
            "issued alice #2 expires refresh, in place of #1",
            "revoked alice #2 expires",
            "issued alice #3 expires refresh, in place of #2",
            "revoked alice #3 expires",
            "revoked alice #1 expires",
        ]
    );
}

#[test]
fn the_end_of_a_key_that_had_expired_is_written_down_when_it_is_replaced() {
    let host = Host::new();
    for user in ["alice", "bob"] {
        host.expired_key_of(user);
    }
    host.key_from(&["create", "alice"]);
    host.key_from(&["refresh", "bob", "--yes", "--grace", "1h"]);
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--expires-in", "1d"]).gives(0, "", "");
    host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE user = 'web'");
    host.apikey(&["ensure", "web", "-q"]).gives(0, "", "");
    assert_eq!(
        events(&host)[2..],
        [
            "revoked alice #1 expires",
            "issued alice #3 create, in place of #1",
            "revoked bob #2 expires",
            "issued bob #4 expires refresh, in place of #2",
            "issued web #5 expires create",
            "delivered web #5 expires <folder>/web.key",
            "issued web #6 expires ensure, in place of #5",
            "revoked web #5 expires",
            "delivered web #6 expires <folder>/web.key",
        ]
    );
}

#[test]
fn a_delivery_is_written_down_from_its_beginning_to_its_end() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.apikey(&["refresh", "web", "-yq", "--reload", "true"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    std::fs::write(host.path("web.key"), "").unwrap();
    std::fs::remove_file(host.path("web.key")).unwrap();
    // The file is gone, and may be on a file system that is not mounted: nothing is done.
    host.key_from(&["create", "bob"]);
    host.apikey(&["refresh", "web", "-yq", "--revoke-first", "--no-reload"]).gives(0, "", "");
    assert_eq!(
        events(&host),
        [
            "issued web #1 create",
            "delivered web #1 <folder>/web.key",
            "issued web #2 refresh, in place of #1",
            "revoked web #1",
            "delivered web #2 <folder>/web.key",
            "issued web #3 refresh, in place of #2",
            "issued bob #4 create",
            "revoked web #2",
            "revoked web #3",
            "issued web #5 refresh, in place of #2",
            "delivered web #5 <folder>/web.key",
        ]
    );
}

#[test]
fn a_delivery_that_is_given_up_is_written_down() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let old = std::fs::read(host.path("web.key")).unwrap();
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    host.write("web.key", &old);
    host.key_from(&["create", "bob"]);
    let events = events(&host);
    assert_eq!(events[3..], ["undone web #2", "issued bob #3 create"], "{events:?}");
}

/// uid, login, sudo_user, audit_uid.
type By = (u32, Option<String>, Option<String>, Option<u32>);

#[test]
fn who_did_it_is_written_down() {
    let host = Host::new();
    host.apikey(&["create", "alice", "-q"]).env("SUDO_USER", "carol").gives(0, "<key>\n", "");
    host.apikey(&["create", "bob", "-q"]).env("SUDO_USER", "ca\u{1b}rol").gives(0, "<key>\n", "");
    let sqlite = host.sqlite();
    let mut statement = sqlite.prepare("SELECT uid, login, sudo_user, audit_uid FROM events").unwrap();
    let found: Vec<By> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .map(|row| row.unwrap())
        .collect();
    let login = nix::unistd::User::from_uid(getuid()).unwrap().map(|account| account.name);
    let audit_uid = std::fs::read_to_string("/proc/self/loginuid").ok();
    let audit_uid = audit_uid.and_then(|uid| uid.trim().parse().ok()).filter(|uid| *uid != u32::MAX);
    let by =
        |sudo_user: Option<&str>| (getuid().as_raw(), login.clone(), sudo_user.map(str::to_owned), audit_uid);
    assert_eq!(found, [by(Some("carol")), by(None)]);
}

#[test]
fn what_was_not_done_is_not_written_down_and_no_key_ever_is() {
    let host = Host::new();
    let key = host.key_from(&["create", "alice"]);
    let before = events(&host);
    for args in [
        &["create", "alice"][..],
        &["revoke", "bob", "-y"],
        &["refresh", "alice", "-y", "--key-file", "/none/key"],
        &["show", "alice"],
        &["list"],
    ] {
        let _ = host.apikey(args).run();
    }
    host.apikey(&["verify", "-q"]).input(&*key).run().stdout.clear();
    assert_eq!(events(&host), before);
    let mut files: BTreeSet<_> = host.names().into_iter().collect();
    files.retain(|name| name.starts_with("keys.db"));
    for name in files {
        let content = std::fs::read(host.path(&name)).unwrap();
        assert!(!content.windows(20).any(|window| window == &key.as_bytes()[20..40]), "{name}");
    }
}
