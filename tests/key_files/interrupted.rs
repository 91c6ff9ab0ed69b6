//! What the next run makes of a delivery that was interrupted.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use apikey::Key;

use crate::common::Host;
use crate::common::strace::{Call, Fault};
use crate::{content, host_with_key_file, issued_into};

#[test]
fn a_delivery_whose_stage_is_gone_is_undone_and_said() {
    let (host, pending) = host_with_pending("none");
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "Revoked <prefix> of web: its delivery to <folder>/web.key was interrupted, and it is gone or has expired.\n\
         Issued <prefix> to other. The key is shown only once.\n",
    );
    assert_eq!(host.status_of(&pending), "revoked");
    assert_eq!(host.status_of(&content(&host, "web.key")), "active");
}

#[test]
fn a_delivery_that_is_staged_is_finished_and_said() {
    let (host, pending) = host_with_pending("stage");
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "Finished the delivery of <prefix> of web to <folder>/web.key, which was interrupted.\n\
         Issued <prefix> to other. The key is shown only once.\n",
    );
    assert_eq!(content(&host, "web.key"), pending);
    assert_eq!((host.status_of(&pending).as_str(), host.accepted()), ("active", 2));
}

#[test]
fn a_delivery_that_is_in_place_is_finished_and_said() {
    let (host, pending) = host_with_pending("place");
    host.apikey(&["refresh", "web", "-y", "--no-reload"]).gives(
        0,
        "",
        format!(
            "Finished the delivery of <prefix> of web to <folder>/web.key, which was interrupted.\n\
             {}<prefix> is revoked.\n",
            issued_into("web.key")
        ),
    );
    assert_eq!((host.status_of(&pending).as_str(), host.accepted()), ("revoked", 1));
}

#[test]
fn a_delivery_that_cannot_go_on_is_left_alone_and_said() {
    let (host, pending) = host_with_pending("stage");
    fs::rename(host.path("web.key"), host.path("away")).unwrap();
    fs::create_dir(host.path("web.key")).unwrap();
    let stuck = "<prefix> of web is accepted, and still on its way to <folder>/web.key: \
                 <folder>/web.key is a folder, not a key file\n";
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        format!("{stuck}Issued <prefix> to other. The key is shown only once.\n"),
    );
    host.apikey(&["refresh", "web", "--yes"]).fails(
        9,
        format!(
            "{stuck}apikey: <prefix> of web is accepted, and still on its way to <folder>/web.key: \
             <folder>/web.key is a folder, not a key file\n\
             see to that, and the next command that writes goes on from there; or give the key up: \
             `apikey refresh web --revoke-first` replaces it, `apikey revoke web` ends all keys of web\n"
        ),
    );
    assert_eq!((host.status_of(&pending).as_str(), host.accepted()), ("pending", 3));
    host.apikey(&["revoke", "web", "--yes"]).gives(0, "", "Revoked <prefix>, <prefix> of web.\n");
    assert_eq!(host.accepted(), 1);
}

/// A host where a refresh of `web` was interrupted after its first transaction, and the key that
/// it had issued: it is nowhere, in the stage, or in the file's place.
fn host_with_pending(at: &str) -> (Host, String) {
    let host = host_with_key_file();
    let pending = make_pending(&host, at);
    (host, pending)
}

fn make_pending(host: &Host, at: &str) -> String {
    let old = content(host, "web.key");
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    let new = content(host, "web.key");
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    if at != "place" {
        host.write("web.key", old.as_bytes());
    }
    if at == "stage" {
        host.write(&format!(".web.key.{}", &new[..15]), new.as_bytes());
    }
    new
}

#[test]
fn a_pending_key_that_has_expired_takes_no_good_one_s_place() {
    for at in ["stage", "place"] {
        let (host, pending) = host_with_pending(at);
        host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE status = 'pending'");
        let outcome = host.apikey(&["create", "other"]).run();
        assert!(outcome.stderr.starts_with("Revoked ak_"), "{at}: {outcome:?}");
        assert_eq!((host.status_of(&pending).as_str(), host.accepted()), ("revoked", 2), "{at}");
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(host.status_of(&content(&host, "web.key")), "active");
    }
}

#[test]
fn a_file_out_of_sight_is_no_reason_to_revoke_the_key_in_it() {
    let (host, pending) = host_with_pending("place");
    fs::rename(host.path("web.key"), host.path("unmounted")).unwrap();
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "<prefix> of web is accepted, and still on its way to <folder>/web.key: neither it nor <folder>/.web.key.<prefix> is there; is their file system mounted?\n\
         Issued <prefix> to other. The key is shown only once.\n",
    );
    assert_eq!(host.status_of(&pending), "pending");
    fs::rename(host.path("unmounted"), host.path("web.key")).unwrap();
    host.apikey(&["refresh", "other", "-yq"]).gives(0, "<key>\n", "");
    assert_eq!(host.status_of(&pending), "active");
}

#[test]
fn another_file_system_at_the_path_is_no_reason_to_revoke_the_key_in_the_file() {
    let host = host_with_key_file();
    let older = content(&host, "web.key");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    let pending = make_pending(&host, "place");
    fs::rename(host.path("web.key"), host.path("unmounted")).unwrap();
    host.write("web.key", older.as_bytes());
    let outcome = host.apikey(&["create", "other"]).run();
    assert!(outcome.status == 0 && outcome.stderr.contains("is another file system mounted?"), "{outcome:?}");
    assert_eq!(host.status_of(&pending), "pending");
    fs::rename(host.path("unmounted"), host.path("web.key")).unwrap();
    host.apikey(&["refresh", "other", "-yq"]).gives(0, "<key>\n", "");
    assert_eq!(host.status_of(&pending), "active");
}

#[test]
fn a_delivery_takes_no_file_that_holds_somebody_else_s_key_by_now() {
    let (host, pending) = host_with_pending("stage");
    host.apikey(&["create", "other", "-q", "--key-file", "other.key"]).gives(0, "", "");
    let theirs = content(&host, "other.key");
    // It is delivered by then.
    assert_eq!((host.status_of(&pending).as_str(), content(&host, "web.key")), ("active", pending));
    let pending = make_pending(&host, "stage");
    fs::rename(host.path("other.key"), host.path("web.key")).unwrap();
    let outcome = host.apikey(&["create", "third"]).run();
    assert!(outcome.stderr.contains("of other, which is accepted\n"), "{outcome:?}");
    assert_eq!((host.status_of(&pending).as_str(), content(&host, "web.key")), ("pending", theirs));
}

#[test]
fn a_key_that_cannot_be_made_the_active_one_keeps_nobody_else_from_theirs() {
    let (host, pending) = host_with_pending("place");
    host.execute("UPDATE settings SET grace_ms = 9000000000000000 WHERE pending_key <> 0");
    let stuck = "<prefix> of web is accepted, and still on its way to <folder>/web.key: a duration ends after the year 9999\n";
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        format!("{stuck}Issued <prefix> to other. The key is shown only once.\n"),
    );
    assert_eq!(host.status_of(&pending), "pending");
    host.apikey(&["revoke", "web", "--yes"]).gives(
        0,
        "",
        "Revoked <prefix>, <prefix> of web. <folder>/web.key holds a key that is no longer accepted.\n",
    );
}

#[test]
fn what_the_database_says_becomes_no_path_that_it_should_not() {
    for spoil in [
        "UPDATE keys SET prefix = prefix | (1 << 50)",
        "UPDATE keys SET prefix = -prefix",
        "UPDATE settings SET key_file = 'relative'",
        "UPDATE settings SET key_file = '/tmp/../etc/key'",
        "UPDATE settings SET key_file_mode = 511",
    ] {
        let host = host_with_key_file();
        host.execute(spoil);
        for args in [&["refresh", "web", "-yq"][..], &["show", "web"]] {
            let outcome = host.apikey(args).run();
            assert_eq!(outcome.status, 1, "{spoil}: {outcome:?}");
            assert!(outcome.stderr.contains("is damaged"), "{spoil}: {outcome:?}");
        }
    }
}

fn stage(host: &Host, prefix: &str) -> String {
    let name = format!(".web.key.{prefix}");
    assert!(!host.path(&name).exists());
    name
}

#[test]
fn a_stage_whose_key_was_never_issued_is_removed_by_the_next_delivery_to_that_file() {
    let host = host_with_key_file();
    let key = Key::generate().unwrap();
    let whole = stage(&host, &key.prefix().to_string());
    host.write(&whole, key.expose().as_bytes());
    let part = stage(&host, "ak_0123456789ab");
    host.write(&part, b"ak_0123");
    host.apikey(&["create", "other", "-q", "--key-file", "other.key"]).gives(0, "", "");
    assert!(host.path(&whole).exists() && host.path(&part).exists(), "it is another file");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert!(!host.path(&whole).exists() && !host.path(&part).exists());
}

#[test]
fn the_stage_of_a_key_that_is_on_its_way_is_left_by_another_delivery_to_that_file() {
    let (host, pending) = host_with_pending("stage");
    fs::rename(host.path("web.key"), host.path("away")).unwrap();
    fs::create_dir(host.path("web.key")).unwrap();
    assert_eq!(host.apikey(&["create", "other"]).run().status, 0);
    fs::remove_dir(host.path("web.key")).unwrap();
    host.apikey(&["create", "third", "-q", "--key-file", "web.key"]).fails(
        8,
        "apikey: the key cannot be handed over, so none was issued: \
         the file holds <prefix> of web, which is accepted\n\
         name another file, or end the keys of web with `apikey revoke web`\n",
    );
    assert_eq!(content(&host, "web.key"), pending, "the delivery was finished first");
}

#[test]
fn nothing_is_removed_that_is_not_a_stage_of_that_file() {
    let host = host_with_key_file();
    let key = Key::generate().unwrap();
    let (own, other) = (key.prefix().to_string(), Key::generate().unwrap().prefix().to_string());
    // Somebody's key, under the name of another; a stage of another file; names that are no stages.
    let somebody_s = stage(&host, &other);
    host.write(&somebody_s, key.expose().as_bytes());
    let names = [
        format!(".other.key.{own}"),
        format!(".web.key.{own}x"),
        format!("web.key.{own}"),
        ".web.key.".into(),
    ];
    names.iter().for_each(|name| host.write(name, b"precious"));
    fs::create_dir(host.path(".web.key.ak_000000000001")).unwrap();
    std::os::unix::fs::symlink("web.key", host.path(".web.key.ak_000000000002")).unwrap();
    nix::unistd::mkfifo(&host.path(".web.key.ak_000000000003"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert_eq!(content(&host, &somebody_s), key.expose());
    names.iter().for_each(|name| assert_eq!(content(&host, name), "precious", "{name}"));
    assert!(host.path(".web.key.ak_000000000001").is_dir());
    assert!(host.path(".web.key.ak_000000000002").is_symlink());
    assert!(host.path(".web.key.ak_000000000003").exists());
}

#[test]
fn what_the_lock_says_removes_nothing() {
    let host = host_with_key_file();
    let part = fs::canonicalize(host.folder()).unwrap().join(".other.key.ak_0123456789ab");
    fs::write(&part, "ak_0123").unwrap();
    host.write("keys.db-lock", part.to_str().unwrap().as_bytes());
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert!(part.exists());
}

#[test]
#[ignore = "needs root"]
fn a_delivery_is_finished_where_the_file_belongs_to_the_previous_owner() {
    let host = Host::new();
    let owned = ["create", "web", "-q", "--key-file", "web.key", "--key-file-owner", "65534:65534"];
    host.apikey(&owned).gives(0, "", "");
    let old = content(&host, "web.key");
    let refresh = ["refresh", "web", "-y", "--key-file-owner", "0:0", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    let new = content(&host, "web.key");
    // As it was before the replacement: the old key in the old owner's file, the new one staged.
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    fs::rename(host.path("web.key"), host.path(&format!(".web.key.{}", &new[..15]))).unwrap();
    host.write("web.key", old.as_bytes());
    std::os::unix::fs::chown(host.path("web.key"), Some(65_534), Some(65_534)).unwrap();
    host.apikey(&["create", "other", "-q"]).gives(0, "<key>\n", "");
    assert_eq!((content(&host, "web.key"), host.status_of(&new)), (new, "active".into()));
    assert_eq!(fs::metadata(host.path("web.key")).unwrap().uid(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_delivery_leaves_the_stage_of_another_one_that_is_stuck() {
    let host = Host::new();
    fs::create_dir(host.path("web")).unwrap();
    host.apikey(&["create", "web", "-q", "--key-file", "web/web.key"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    let new = content(&host, "web/web.key");
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    let stage = host.path(&format!("web/.web.key.{}", &new[..15]));
    fs::rename(host.path("web/web.key"), &stage).unwrap();
    // Whoever owns the folder now is trusted by the other delivery alone.
    std::os::unix::fs::chown(host.path("web"), Some(65_534), Some(65_534)).unwrap();
    let other = ["create", "other", "--key-file", "web/web.key", "--key-file-owner", "65534:65534"];
    let outcome = host.apikey(&other).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("is accepted, and still on its way to"), "{outcome:?}");
    assert_eq!(fs::read_to_string(stage).unwrap(), new);
}

/// A host where the first delivery to `web` was interrupted with the key staged, and that key.
fn host_with_first_delivery_staged() -> (Host, String) {
    let host = Host::new();
    assert_eq!(host.apikey(&["create", "web", "--key-file", "web.key"]).run().status, 0);
    host.execute(
        "UPDATE keys SET status = 'pending';
         UPDATE settings SET pending_key = (SELECT prefix FROM keys), grace_ms = 0, reload_pending = 0",
    );
    let key = content(&host, "web.key");
    fs::rename(host.path("web.key"), host.path(&format!(".web.key.{}", &key[..15]))).unwrap();
    (host, key)
}

#[test]
fn a_key_that_was_to_go_into_a_file_is_never_followed_by_one_on_standard_output() {
    let followed = |host: &Host, why: &str| {
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(host.status_of(&content(host, "web.key")), "active", "{why}");
        let left: Vec<String> = host.names().into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(left.is_empty(), "{why}: {left:?}");
    };
    let (host, _) = host_with_first_delivery_staged();
    fs::create_dir(host.path("web.key")).unwrap();
    let failed = host.apikey(&["refresh", "web", "-y", "--revoke-first"]).run();
    assert!(failed.status == 8 && failed.stderr.contains(" of web ended, but the key cannot be handed over"));
    assert_eq!(host.accepted(), 0);
    fs::remove_dir(host.path("web.key")).unwrap();
    followed(&host, "what was to be issued in its place failed");

    let (host, _) = host_with_first_delivery_staged();
    host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE status = 'pending'");
    assert_eq!(host.apikey(&["create", "bob"]).run().status, 0);
    followed(&host, "it expired on its way");

    let (host, key) = host_with_first_delivery_staged();
    fs::remove_file(host.path(&format!(".web.key.{}", &key[..15]))).unwrap();
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    followed(&host, "it was revoked");
}

#[test]
#[ignore = "needs root"]
fn the_owner_of_a_file_that_was_delivered_to_is_remembered_when_its_key_is_revoked() {
    for how in
        [&["refresh", "web", "-yq", "--revoke-first", "--key-file", "web.key"][..], &["revoke", "web", "-yq"]]
    {
        let host = host_with_key_file();
        let theirs = ["--key-file", "web.key", "--key-file-owner", "65534:65534", "--reload", "false"];
        assert_eq!(host.apikey(&[&["refresh", "web", "-y"], &theirs[..]].concat()).run().status, 9);
        assert!(matches!(host.apikey(how).run().status, 0 | 9));
        host.apikey(&["refresh", "web", "-yq", "--no-reload"]).gives(0, "", "");
        assert_eq!(host.status_of(&content(&host, "web.key")), "active", "{how:?}");
    }
}

#[test]
fn no_file_is_touched_for_a_newer_database_which_may_only_be_read() {
    let (host, pending) = host_with_pending("stage");
    let (old, stage) = (content(&host, "web.key"), host.path(&format!(".web.key.{}", &pending[..15])));
    host.write(".web.key.ak_0123456789ab", b"ak_0123");
    host.execute("PRAGMA user_version = 2001");
    for args in [
        &["create", "other"][..],
        &["refresh", "web", "-y", "--reload", "touch reloaded"],
        &["revoke", "web", "-y"],
        &["create", "third", "--key-file", "web.key"],
    ] {
        assert_eq!(host.apikey(args).run().status, 6, "{args:?}");
        assert_eq!(content(&host, "web.key"), old, "{args:?}");
        assert!(stage.exists() && host.path(".web.key.ak_0123456789ab").exists(), "{args:?}");
        assert!(!host.path("reloaded").exists(), "{args:?}");
    }
}

#[test]
fn the_stage_of_a_key_that_is_accepted_is_left_whatever_the_database_lacks() {
    let (host, pending) = host_with_pending("stage");
    host.execute("DELETE FROM settings WHERE pending_key <> 0");
    assert_ne!(host.apikey(&["refresh", "web", "-y"]).run().status, 0);
    assert_eq!(host.status_of(&pending), "pending");
    assert_eq!(content(&host, &format!(".web.key.{}", &pending[..15])), pending);
}

#[test]
#[ignore = "needs root"]
fn the_owner_of_a_file_that_was_not_delivered_to_yet_is_remembered_when_its_key_is_revoked() {
    for how in [&["refresh", "web", "-y", "--revoke-first"][..], &["revoke", "web", "-yq"]] {
        let host = Host::new();
        let owned_by = |args: &[&str], owner: &str| {
            host.apikey(&[args, &["--key-file", "web.key", "--key-file-owner", owner][..]].concat())
                .run()
                .status
        };
        assert_eq!(owned_by(&["create", "web"], "65533:65533"), 0);
        let old = content(&host, "web.key");
        assert_eq!(owned_by(&["refresh", "web", "-y", "--reload", "false"], "65534:65534"), 9);
        let new = content(&host, "web.key");
        host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
        fs::rename(host.path("web.key"), host.path(&format!(".web.key.{}", &new[..15]))).unwrap();
        host.write("web.key", old.as_bytes());
        std::os::unix::fs::chown(host.path("web.key"), Some(65_533), Some(65_533)).unwrap();
        // While its folder is no place for a key.
        host.chmod("", 0o777);
        let database = tempfile::TempDir::new().unwrap();
        // The log is gone since the test wrote to it.
        fs::copy(host.database(), database.path().join("keys.db")).unwrap();
        let elsewhere = database.path().join("keys.db");
        let elsewhere = ["--db", elsewhere.to_str().unwrap()];
        let outcome = host.apikey(&[how, &elsewhere[..]].concat()).run();
        assert_eq!(outcome.status, if how[0] == "revoke" { 0 } else { 8 }, "{how:?}: {outcome:?}");
        host.chmod("", 0o700);
        host.apikey(&[&["refresh", "web", "-yq"], &elsewhere[..]].concat()).gives(0, "", "");
        assert_ne!(content(&host, "web.key"), old, "{how:?}");
        assert_eq!(fs::metadata(host.path("web.key")).unwrap().uid(), 65_533, "{how:?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_delivery_that_fails_leaves_what_is_kept_as_it_was() {
    let host = Host::new();
    let fails = |args: &[&str]| {
        let renames = Call { name: "renameat".into(), number: 1 };
        let outcome = host.with_fault(args, &renames, Fault::Error("EIO")).unwrap();
        assert_eq!(outcome.status, 8, "{outcome:?}");
    };
    let kept = || -> Vec<(Option<String>, Option<String>)> {
        let sqlite = host.sqlite();
        let mut statement = sqlite.prepare("SELECT name, key_file FROM settings").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    host.key_from(&["create", "other"]);
    fails(&["create", "web", "--key-file", "web.key"]);
    assert_eq!(kept(), []);
    host.apikey(&["create", "web", "-q", "--key-file", "web.key", "--name", "A"]).gives(0, "", "");
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    let before = kept();
    fails(&["create", "web", "--key-file", "other.key", "--name", "B"]);
    assert_eq!(kept(), before);
}

#[test]
fn a_delivery_that_makes_no_sense_is_its_user_s_trouble_alone() {
    for spoil in [
        "UPDATE settings SET key_file = 'relative' WHERE pending_key <> 0",
        "UPDATE settings SET grace_ms = NULL WHERE pending_key <> 0",
        "UPDATE keys SET name = char(27) WHERE status = 'pending'",
        "UPDATE keys SET id = 'none' WHERE status = 'pending'",
        "DELETE FROM settings WHERE pending_key <> 0",
        "UPDATE keys SET name = char(27) WHERE status = 'active'",
    ] {
        let (host, pending) = host_with_pending("stage");
        host.execute(spoil);
        assert_eq!(host.apikey(&["create", "other", "-q"]).run().status, 0, "{spoil}");
        assert_eq!(host.apikey(&["revoke", "other", "-yq"]).run().status, 0, "{spoil}");
        let refused = host.apikey(&["refresh", "web", "-yq"]).run();
        assert!(matches!(refused.status, 1 | 9), "{spoil}: {refused:?}");
        host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
        let accepted: u32 = host.accepted();
        assert_eq!(accepted, 0, "{spoil}: {pending}");
    }
}

#[test]
fn a_revocation_removes_what_was_staged_and_no_other_key_s_stage() {
    let (host, pending) = host_with_pending("stage");
    host.write(".web.key.ak_0123456789ab", b"ak_0123");
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    assert!(!host.path(&format!(".web.key.{}", &pending[..15])).exists());
    assert!(host.path(".web.key.ak_0123456789ab").exists());
}

#[test]
fn what_a_pending_key_was_to_bring_goes_with_it_whichever_way_it_is_revoked() {
    for by_prefix in [false, true] {
        let (host, pending) = host_with_pending("stage");
        let subject = if by_prefix { &pending[..15] } else { "web" };
        let left = || {
            let sql = "SELECT count(*) FROM settings WHERE pending_key <> 0";
            host.sqlite().query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap()
        };
        assert_eq!(left(), 1);
        host.apikey(&["revoke", subject, "-yq"]).gives(0, "", "");
        assert_eq!(left(), 0, "{subject}");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_replacement_that_was_done_is_done_although_it_is_reported_to_have_failed() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let replace = || {
        let stage = host.names().into_iter().find(|name| name.starts_with(".web.key.")).unwrap();
        fs::rename(host.path(&stage), host.path("web.key")).unwrap();
    };
    let call = Call { name: "renameat".into(), number: 1 };
    let outcome = host.with_delay_at(&["refresh", "web", "-y"], &call, ":error=EIO", replace);
    assert_eq!((outcome.status, host.accepted()), (0, 1), "{outcome:?}");
    let new = content(&host, "web.key");
    assert_eq!((host.status_of(&old), host.status_of(&new)), ("revoked".into(), "active".into()));
}
