//! Keys that go to a file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use common::{APIKEY, Host};

const REFUSED: &str = "apikey: the key cannot be handed over, so none was issued:";

fn issued_into(path: &str) -> String {
    format!("Issued <prefix> to web. The key is in <folder>/{path}.\n")
}

/// A host where `web` has a key in the file `web.key`.
fn host_with_key_file() -> Host {
    let host = Host::new();
    host.apikey(&["create", "web", "--key-file", "web.key"]).gives(0, "", issued_into("web.key"));
    host
}

fn content(host: &Host, name: &str) -> String {
    fs::read_to_string(host.path(name)).unwrap()
}

#[test]
fn the_file_holds_the_key_and_nothing_else_and_standard_output_has_none() {
    let host = host_with_key_file();
    let content = content(&host, "web.key");
    assert_eq!(content.len(), 75);
    assert_eq!(host.status_of(&content), "active");
    assert_eq!(host.mode("web.key"), 0o600);
    assert_eq!(names(&host), ["keys.db", "keys.db-lock", "keys.db-shm", "keys.db-wal", "web.key"]);
}

fn names(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.folder()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn verify_reads_the_key_from_the_file_in_either_form() {
    let host = host_with_key_file();
    let accepted = "<prefix> is accepted: the active key of web\n";
    host.apikey(&["verify", "--key-file", "web.key"]).gives(0, accepted, "");
    host.apikey(&["refresh", "web", "-yq", "--key-file", "web.env", "--key-file-env", "API_KEY"])
        .gives(0, "", "");
    assert!(
        content(&host, "web.env").starts_with("API_KEY=ak_") && content(&host, "web.env").ends_with('\n')
    );
    host.apikey(&["verify", "--key-file", "web.env"]).gives(0, accepted, "");
    host.apikey(&["verify", "--key-file", "web.key"])
        .fails(5, "apikey: not accepted: <prefix>, a key of web, is revoked\n");
    host.write("junk", b"junk");
    host.apikey(&["verify", "--key-file", "junk"])
        .fails(5, "apikey: not accepted: the input is not a well-formed key\n");
    host.apikey(&["verify", "--key-file", "none"])
        .fails(2, "apikey: cannot read the key file none: No such file or directory (os error 2)\n");
}

#[test]
fn a_refresh_delivers_to_where_the_last_key_went_in_the_same_form() {
    let host = Host::new();
    let file = ["--key-file", "web.key", "--key-file-mode", "640", "--key-file-env", "TOKEN"];
    host.apikey(&[&["create", "web", "-q"], &file[..]].concat()).gives(0, "", "");
    let old = content(&host, "web.key");
    // From elsewhere, and with nobody reading standard output.
    let outcome = host
        .apikey(&["refresh", "web", "--yes"])
        .with(|command| {
            command.current_dir("/");
        })
        .stdout_to(File::options().write(true).open("/dev/null").unwrap())
        .run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let new = content(&host, "web.key");
    assert!(new != old && new.starts_with("TOKEN=ak_"));
    assert_eq!(host.mode("web.key"), 0o640);
    assert_eq!(host.status_of(new.strip_prefix("TOKEN=").unwrap()), "active");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn files_are_0600_from_the_start_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let host = Host::new();
        let script = format!("umask {umask}; exec \"$0\" create web --key-file web.key");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, APIKEY]).env("APIKEY_DB", host.database()).current_dir(host.folder());
        assert!(shell.output().unwrap().status.success(), "umask {umask}");
        for name in names(&host) {
            assert_eq!(host.mode(&name), 0o600, "{name} with umask {umask}");
        }
    }
}

/// Nothing of it was issued, and the file is as it was.
#[track_caller]
fn refuses(host: &Host, path: &str, why: &str) {
    let before = names(host);
    let outcome = host.apikey(&["create", "web", "--key-file", path, "--quiet"]).run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (8, ""), "{outcome:?}");
    let folder = fs::canonicalize(host.folder()).unwrap();
    let message = outcome.stderr.replace(folder.to_str().unwrap(), "<folder>");
    assert!(message.starts_with(&format!("{REFUSED} {why}")), "{message}");
    assert_eq!(
        host.sqlite().query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, u32>(0)).unwrap(),
        0
    );
    assert_eq!(names(host), before);
}

/// A host with a database that has no key.
fn empty_host() -> Host {
    let (host, _) = Host::with_key_of("other");
    host.execute("DELETE FROM keys");
    host
}

#[test]
fn nothing_is_replaced_but_a_key_file() {
    let host = empty_host();
    host.write("notes", b"something else\n");
    host.write("two-keys", &[b'a'; 150]);
    host.write("linked", b"");
    fs::hard_link(host.path("linked"), host.path("link")).unwrap();
    std::os::unix::fs::symlink("notes", host.path("symlink")).unwrap();
    std::os::unix::fs::symlink("nowhere", host.path("dangling")).unwrap();
    nix::unistd::mkfifo(&host.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(host.path("folder")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(host.path("socket")).unwrap();
    refuses(&host, "notes", "<folder>/notes holds something else than a key\n");
    refuses(&host, "two-keys", "<folder>/two-keys holds something else than a key\n");
    refuses(&host, "linked", "<folder>/linked has 2 hard links, a key file has one\n");
    refuses(&host, "symlink", "<folder>/symlink is a symbolic link, not a key file\n");
    refuses(&host, "dangling", "<folder>/dangling is a symbolic link, not a key file\n");
    refuses(&host, "fifo", "<folder>/fifo is a FIFO, not a key file\n");
    refuses(&host, "folder", "<folder>/folder is a folder, not a key file\n");
    refuses(&host, "socket", "<folder>/socket is a socket, not a key file\n");
    drop(socket);
    assert_eq!(content(&host, "notes"), "something else\n");
    assert!(fs::symlink_metadata(host.path("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn the_database_and_its_side_files_are_no_key_files() {
    let host = empty_host();
    for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock", "keys.db-journal", "keys.db-new"] {
        refuses(&host, name, &format!("<folder>/{name} belongs to the database"));
    }
}

#[test]
fn a_folder_that_others_or_the_group_may_write_is_refused() {
    let host = empty_host();
    fs::create_dir(host.path("open")).unwrap();
    for (mode, who) in [(0o777, "others"), (0o1777, "others"), (0o770, "its group")] {
        host.chmod("open", mode);
        refuses(&host, "open/web.key", &format!("{who} may write <folder>/open\n"));
    }
    host.chmod("open", 0o755);
    host.apikey(&["create", "web", "--key-file", "open/web.key"]).gives(0, "", issued_into("open/web.key"));
}

#[test]
fn a_path_that_names_a_folder_is_refused() {
    Host::new()
        .apikey(&["create", "web", "--key-file", "web.key/"])
        .fails(8, "apikey: web.key/ names a folder, not a key file\n");
}

#[test]
fn a_folder_that_is_not_there_is_refused() {
    Host::new()
        .apikey(&["create", "web", "--key-file", "none/web.key"])
        .fails(8, "apikey: cannot open the folder of none/web.key: No such file or directory (os error 2)\nmake the folder, or name another file\n");
}

#[test]
fn an_empty_file_and_a_key_file_of_either_form_are_replaced() {
    let host = empty_host();
    host.write("web.key", b"");
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let inode = fs::metadata(host.path("web.key")).unwrap().ino();
    host.apikey(&["refresh", "web", "-yq", "--key-file", "web.key", "--key-file-env", "A"]).gives(0, "", "");
    assert_ne!(fs::metadata(host.path("web.key")).unwrap().ino(), inode, "rewritten in place");
    host.apikey(&["refresh", "web", "-yq", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!(host.status_of(&content(&host, "web.key")), "active");
}

#[test]
fn a_mode_is_for_owner_and_group_to_read_and_write() {
    let host = Host::new();
    for mode in ["0644", "700", "0601", "4600", "60", "00600", "6oo", "", "+600", "0060", "u=r"] {
        let outcome = host.apikey(&["create", "web", "--key-file", "k", "--key-file-mode", mode]).run();
        assert_eq!(outcome.status, 2, "{mode}: {outcome:?}");
    }
    for mode in ["600", "0600", "640", "0660", "400", "0440"] {
        let outcome =
            host.apikey(&["refresh", "web", "-yq", "--key-file", "k", "--key-file-mode", mode]).run();
        assert_eq!(outcome.status, 0, "{mode}: {outcome:?}");
        assert_eq!(host.mode("k"), u32::from_str_radix(mode, 8).unwrap());
    }
}

#[test]
fn options_of_a_key_file_need_one() {
    for option in [["--key-file-mode", "0600"], ["--key-file-env", "A"], ["--key-file-owner", "root"]] {
        for command in ["create", "refresh"] {
            let outcome = Host::new().apikey(&[&[command, "web"], &option[..]].concat()).run();
            assert_eq!(outcome.status, 2, "{option:?}: {outcome:?}");
        }
    }
}

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
         --reload goes with --key-file, or with a key that went to one before\n",
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
         {APIKEY} verify --db keys.db --key-file web.key >&2"
    );
    let outcome = host.apikey(&["refresh", "web", "--yes", "--reload", &look, "--json"]).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(outcome.json()["key"], serde_json::Value::Null);
    assert!(outcome.stderr.ends_with("is accepted: the pending key of web\n"), "{outcome:?}");
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
fn a_reload_that_fails_leaves_both_keys_accepted_and_the_next_refresh_goes_on_from_there() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.apikey(&["refresh", "web", "--yes", "--reload", "exit 7"]).fails(
        9,
        "apikey: <prefix> of web is accepted, but its delivery to <folder>/web.key is not done: \
         it is in place, but the reload command failed: exit status: 7\n\
         run the same command again to go on from there, or end all keys of web with `apikey revoke web`\n",
    );
    let new = content(&host, "web.key");
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&new).as_str()), ("active", "pending"));
    // Whatever else is written meanwhile does not take the old key from the daemon that still has it.
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "<prefix> of web is in <folder>/web.key, and its reader was not told: see `apikey refresh web`.\n\
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
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
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
fn with_grace_the_old_key_retires_when_the_new_one_is_in_its_file() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    let outcome = host.apikey(&["refresh", "web", "--yes", "--grace", "1h", "--json"]).run().json();
    assert_eq!(outcome["previous_key_revoked"], false);
    assert!(outcome["previous_key_valid_until"].is_string());
    assert_eq!((host.status_of(&old).as_str(), host.accepted()), ("retiring", 2));
}

#[test]
fn a_grace_period_may_be_as_long_as_any_duration() {
    let host = host_with_key_file();
    host.apikey(&["refresh", "web", "-yq", "--grace", "1000y"]).gives(0, "", "");
    assert_eq!(host.accepted(), 2);
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
                 <folder>/web.key is a folder, not a key file.\n";
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
             see to that and run it again, or end the keys of web with `apikey revoke web`\n"
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
    let old = content(&host, "web.key");
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    let new = content(&host, "web.key");
    host.execute("UPDATE keys SET reload_pending = 0 WHERE status = 'pending'");
    if at != "place" {
        host.write("web.key", old.as_bytes());
    }
    if at == "stage" {
        host.write(&format!(".web.key.{}", &new[..15]), new.as_bytes());
    }
    (host, new)
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
fn a_key_that_expires_while_it_waits_for_its_reload_is_not_made_the_active_one() {
    let host = host_with_key_file();
    let refresh = ["refresh", "web", "-yq", "--expires-in", "1ms", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    host.apikey(&["refresh", "web", "-yq", "--reload", "true"]).gives(0, "", "");
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
         the old key is still accepted; run `apikey refresh web` again\n",
    );
    assert_eq!(host.status_of(&old), "active");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_file_out_of_sight_is_no_reason_to_revoke_the_key_in_it() {
    let (host, pending) = host_with_pending("place");
    fs::rename(host.path("web.key"), host.path("unmounted")).unwrap();
    host.apikey(&["create", "other"]).gives(
        0,
        "<key>\n",
        "<prefix> of web is still on its way to <folder>/web.key: neither it nor <folder>/.web.key.<prefix> is there; is their file system mounted?.\n\
         Issued <prefix> to other. The key is shown only once.\n",
    );
    assert_eq!(host.status_of(&pending), "pending");
    fs::rename(host.path("unmounted"), host.path("web.key")).unwrap();
    host.apikey(&["refresh", "other", "-yq"]).gives(0, "<key>\n", "");
    assert_eq!(host.status_of(&pending), "active");
}

#[test]
fn revoke_first_ends_a_key_that_waits_for_its_reload_too() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    let waiting = content(&host, "web.key");
    host.apikey(&["refresh", "web", "-y", "--revoke-first"]).gives(
        0,
        "",
        "<prefix> of web is in <folder>/web.key, and its reader was not told: see `apikey refresh web`.\n\
         Issued <prefix> to web. The key is in <folder>/web.key.\n\
         <prefix> is revoked.\n<prefix> is revoked.\n",
    );
    assert_eq!((host.status_of(&old).as_str(), host.status_of(&waiting).as_str()), ("revoked", "revoked"));
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_refresh_that_asks_for_more_does_not_go_on_with_a_key_that_waits() {
    let host = host_with_key_file();
    assert_eq!(host.apikey(&["refresh", "web", "--yes", "--reload", "false"]).run().status, 9);
    for more in [
        &["--name", "new"][..],
        &["--expires-in", "1d"],
        &["--grace", "1h"],
        &["--key-file", "other.key"],
        &["--key-file", "web.key", "--key-file-mode", "640"],
    ] {
        host.apikey(&[&["refresh", "web", "-yq"], more].concat()).fails(
            9,
            "apikey: <prefix> of web is in <folder>/web.key and accepted, but its reader has not been told\n\
             finish that with `apikey refresh web --reload COMMAND` and no other option, \
             or end the keys of web with `apikey revoke web`\n",
        );
    }
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_user_whose_key_was_revoked_keeps_the_file() {
    let host = host_with_key_file();
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
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
#[ignore = "needs root: nobody else can mount"]
fn a_mounted_file_is_refused_with_the_advice_to_mount_its_folder() {
    let host = empty_host();
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    fs::create_dir(host.path("memory")).unwrap();
    let memory = host.path("memory");
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", memory.to_str().unwrap()]);
    fs::write(memory.join("source"), b"").unwrap();
    host.write("source", b"");
    for source in [host.path("source"), memory.join("source")] {
        host.write("web.key", b"");
        mount(&["--bind", source.to_str().unwrap(), host.path("web.key").to_str().unwrap()]);
        let outcome = host.apikey(&["create", "web", "--key-file", "web.key"]).run();
        assert!(Command::new("umount").arg("--lazy").arg(host.path("web.key")).status().unwrap().success());
        assert_eq!(outcome.status, 8, "{outcome:?}");
        assert!(outcome.stderr.contains("is a mount point"), "{outcome:?}");
        assert!(outcome.stderr.ends_with("\nmount its folder instead of the file\n"), "{outcome:?}");
        assert_eq!(host.accepted(), 0);
    }
    assert!(Command::new("umount").arg("--lazy").arg(memory).status().unwrap().success());
}

#[test]
fn a_link_of_the_caller_is_followed() {
    let host = empty_host();
    fs::create_dir(host.path("keys")).unwrap();
    host.chmod("keys", 0o755);
    std::os::unix::fs::symlink("../keys/.", host.path("keys/self")).unwrap();
    std::os::unix::fs::symlink("keys/self", host.path("link")).unwrap();
    host.apikey(&["create", "web", "--key-file", "link/../keys/web.key"]).gives(
        0,
        "",
        issued_into("keys/web.key"),
    );
}

#[test]
#[ignore = "needs root: nobody else can act for two users"]
fn root_follows_no_link_of_somebody_else() {
    let host = empty_host();
    for folder in ["theirs", "roots"] {
        fs::create_dir(host.path(folder)).unwrap();
        host.chmod(folder, 0o755);
    }
    std::os::unix::fs::symlink(host.path("roots"), host.path("theirs/link")).unwrap();
    std::os::unix::fs::symlink(host.path("roots"), host.path("link")).unwrap();
    for path in ["theirs", "theirs/link", "link"] {
        std::os::unix::fs::lchown(host.path(path), Some(65_534), Some(65_534)).unwrap();
    }
    for link in ["theirs/link", "link"] {
        let file = format!("{link}/web.key");
        let command = ["create", "web", "--key-file", &file, "--key-file-owner", "65534:65534"];
        assert_eq!(host.apikey(&command).run().status, 8, "{link}");
        let database = format!("{link}/keys.db");
        assert_eq!(host.apikey(&["create", "web", "--db", &database]).run().status, 7, "{link}");
    }
    assert!(fs::read_dir(host.path("roots")).unwrap().next().is_none());
}

#[test]
#[ignore = "needs root: nobody else can act for two users"]
fn root_delivers_into_no_folder_that_somebody_else_can_swap() {
    let host = empty_host();
    fs::create_dir_all(host.path("theirs/keys")).unwrap();
    host.chmod("theirs", 0o755);
    host.chmod("theirs/keys", 0o755);
    for (uid, gid, mode) in [(65_534, 0, 0o755), (0, 65_534, 0o775)] {
        std::os::unix::fs::chown(host.path("theirs"), Some(uid), Some(gid)).unwrap();
        host.chmod("theirs", mode);
        let outcome = host.apikey(&["create", "web", "--key-file", "theirs/keys/web.key"]).run();
        assert_eq!(outcome.status, 8, "{outcome:?}");
        // The database neither.
        let outcome = host.apikey(&["create", "web", "--db", "theirs/keys/keys.db"]).run();
        assert_eq!(outcome.status, 7, "{outcome:?}");
    }
    assert!(fs::read_dir(host.path("theirs/keys")).unwrap().next().is_none());
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
fn a_note_that_names_no_stage_removes_nothing() {
    let host = host_with_key_file();
    host.write("precious", b"precious");
    for note in [host.path("precious").to_str().unwrap(), "precious", "\0", "/"] {
        host.write("keys.db-lock", note.as_bytes());
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(content(&host, "precious"), "precious");
    }
}

#[test]
fn refreshes_of_one_user_and_file_at_once_all_end_well() {
    let host = host_with_key_file();
    let runs: Vec<_> =
        (0..64).map(|_| host.apikey(&["refresh", "web", "-yq", "--timeout", "60s"]).spawn()).collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(host.status_of(&content(&host, "web.key")), "active");
    assert_eq!(host.accepted(), 1);
    assert_eq!(
        host.sqlite().query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, u32>(0)).unwrap(),
        65
    );
}

#[test]
fn the_owner_of_the_file_is_kept_to_those_who_may() {
    let host = empty_host();
    for owner in ["no-such-user", "", ":", "0:no-such-group", "-1", "4294967295", "0:4294967295"] {
        let outcome = host.apikey(&["create", "web", "--key-file", "k", "--key-file-owner", owner]).run();
        assert_eq!(outcome.status, 2, "{owner}: {outcome:?}");
    }
    let uid = nix::unistd::getuid();
    let outcome =
        host.apikey(&["create", "web", "-q", "--key-file", "k", "--key-file-owner", "65534:65534"]).run();
    if uid.is_root() {
        assert_eq!(outcome.status, 0, "{outcome:?}");
        let found = fs::metadata(host.path("k")).unwrap();
        assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o7777), (65534, 65534, 0o600));
        // The next one too, though nobody says so again.
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(fs::metadata(host.path("k")).unwrap().uid(), 65534);
    } else {
        assert_eq!(outcome.status, 8, "{outcome:?}");
        assert!(!host.path("k").exists());
    }
}
