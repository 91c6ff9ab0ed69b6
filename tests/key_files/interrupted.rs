//! What the next run makes of a delivery that was interrupted.

use std::fs;

use crate::common::Host;
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
    host.apikey(&["revoke", "nobody", "--yes"]).fails(
        4,
        "Finished the delivery of <prefix> of web to <folder>/web.key, which was interrupted.\n\
         apikey: nobody has no active key\n`apikey create nobody` issues one\n",
    );
    assert_eq!(content(&host, "web.key"), pending);
    assert_eq!((host.status_of(&pending).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_delivery_that_is_in_place_is_finished_and_said() {
    let (host, pending) = host_with_pending("place");
    host.apikey(&["refresh", "web", "-y"]).gives(
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
    let stuck = "<prefix> of web is still on its way to <folder>/web.key: \
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
    host.apikey(&["revoke", "web", "--yes"]).gives(
        0,
        "",
        format!("{stuck}Revoked <prefix>, <prefix> of web.\n"),
    );
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
    host.execute("UPDATE keys SET reload_pending = 0 WHERE status = 'pending'");
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
        host.execute("UPDATE keys SET expires_at = created_at WHERE status = 'pending'");
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
        "<prefix> of web is still on its way to <folder>/web.key: neither it nor <folder>/.web.key.<prefix> is there; is their file system mounted?\n\
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
    host.execute("UPDATE keys SET grace_ms = 9000000000000000 WHERE status = 'pending'");
    let stuck =
        "<prefix> of web is still on its way to <folder>/web.key: a duration ends after the year 9999\n";
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        format!("{stuck}Issued <prefix> to other. The key is shown only once.\n"),
    );
    assert_eq!(host.status_of(&pending), "pending");
    host.apikey(&["revoke", "web", "--yes"]).gives(
        0,
        "",
        format!("{stuck}Revoked <prefix>, <prefix> of web.\n"),
    );
}

#[test]
fn what_the_database_says_becomes_no_path_that_it_should_not() {
    for spoil in [
        "prefix = 'x/../priv/kkkkk'",
        "prefix = 'ak_01234567890/'",
        "key_file = 'relative', key_file_mode = 384",
        "key_file = '/tmp/../etc/key', key_file_mode = 384",
        "key_file_mode = 511",
        "grace_ms = -1",
    ] {
        let host = host_with_key_file();
        host.execute(&format!("UPDATE keys SET {spoil}"));
        for args in [&["refresh", "web", "-yq"][..], &["show", "web"]] {
            let outcome = host.apikey(args).run();
            assert_eq!(outcome.status, 1, "{spoil}: {outcome:?}");
            assert!(outcome.stderr.contains("is damaged"), "{spoil}: {outcome:?}");
        }
    }
}

#[test]
fn a_stage_whose_key_was_never_issued_is_removed_by_the_next_run_that_writes() {
    let host = host_with_key_file();
    let stage = fs::canonicalize(host.folder()).unwrap().join(".web.key.ak_0123456789ab");
    fs::write(&stage, "ak_0123").unwrap();
    host.write("keys.db-lock", stage.to_str().unwrap().as_bytes());
    assert_eq!(host.apikey(&["show", "web"]).run().status, 0);
    assert!(stage.exists(), "show is no command that writes");
    host.apikey(&["create", "other", "-q"]).gives(0, "<key>\n", "");
    assert!(!stage.exists());
    assert_eq!(content(&host, "keys.db-lock"), "");
}

#[test]
fn a_stage_that_cannot_be_removed_yet_is_removed_later() {
    let host = host_with_key_file();
    let stage = fs::canonicalize(host.folder()).unwrap().join(".web.key.ak_0123456789ab");
    fs::create_dir(&stage).unwrap();
    host.write("keys.db-lock", stage.to_str().unwrap().as_bytes());
    host.apikey(&["create", "other", "-q"]).gives(0, "<key>\n", "");
    assert!(stage.exists());
    fs::remove_dir(&stage).unwrap();
    fs::write(&stage, "ak_0123").unwrap();
    host.apikey(&["refresh", "other", "-yq"]).gives(0, "<key>\n", "");
    assert!(!stage.exists());
}

#[test]
fn a_note_that_names_no_stage_removes_nothing() {
    let host = host_with_key_file();
    host.write("precious", b"precious");
    for note in [host.path("precious").to_str().unwrap(), "precious", "\0", "/"] {
        host.write("keys.db-lock", note.as_bytes());
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(content(&host, "precious"), "precious");
    }
}
