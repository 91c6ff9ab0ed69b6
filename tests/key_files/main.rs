//! Keys that go to a file.

#[path = "../common/mod.rs"]
mod common;
mod interrupted;
mod reload;
mod revoked_meanwhile;
mod settings;
mod target;
mod turn_again;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use common::{APIKEY, Host};

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
    assert_eq!(host.names(), ["keys.db", "keys.db-lock", "keys.db-shm", "keys.db-wal", "web.key"]);
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
}

#[test]
fn a_key_file_that_is_not_there_holds_no_key() {
    let host = host_with_key_file();
    for (path, why) in [
        ("none", "No such file or directory (os error 2)"),
        ("none/web.key", "No such file or directory (os error 2)"),
        ("web.key/x", "Not a directory (os error 20)"),
    ] {
        host.apikey(&["verify", "--key-file", path]).fails(
            4,
            format!(
                "apikey: cannot read the key file {path}: {why}\n\
                 `apikey show` says where the key file of a user is\n"
            ),
        );
        let outcome = host.apikey(&["verify", "--key-file", path, "--json"]).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (4, "NO_KEY"));
    }
    for path in [".", "/dev/null"] {
        assert_eq!(host.apikey(&["verify", "--key-file", path]).run().status, 2, "{path}");
    }
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
        for name in host.names() {
            assert_eq!(host.mode(&name), 0o600, "{name} with umask {umask}");
        }
    }
}

/// A host with a database that has no key.
fn empty_host() -> Host {
    let (host, _) = Host::with_key_of("other");
    host.execute("DELETE FROM keys");
    host
}

#[test]
fn an_empty_file_and_a_key_file_of_either_form_are_replaced() {
    let host = empty_host();
    host.write("web.key", b"");
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let inode = fs::metadata(host.path("web.key")).unwrap().ino();
    host.apikey(&["refresh", "web", "-yq", "--key-file", "web.key", "--key-file-env", "A"]).gives(0, "", "");
    assert_ne!(fs::metadata(host.path("web.key")).unwrap().ino(), inode, "rewritten in place");
    host.apikey(&["refresh", "web", "-yq", "--no-key-file-env"]).gives(0, "", "");
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
fn a_variable_s_name_is_letters_digits_and_underscores_with_no_digit_first() {
    let host = Host::new();
    let longer = "A".repeat(129);
    for name in ["", "1A", "A-B", "A B", "É", &longer] {
        let outcome = host.apikey(&["create", "web", "--key-file", "k", "--key-file-env", name]).run();
        assert_eq!(outcome.status, 2, "{name}: {outcome:?}");
    }
    for name in ["_", "a1", &longer[1..]] {
        host.apikey(&["refresh", "web", "-yq", "--key-file", "k", "--key-file-env", name]).gives(0, "", "");
        assert!(content(&host, "k").starts_with(&format!("{name}=ak_")));
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
fn a_user_whose_key_was_revoked_keeps_the_file() {
    let host = host_with_key_file();
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
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
    let nobody_s = [
        "no-such-user",
        "",
        ":",
        "0:no-such-group",
        "-1",
        "+5:5",
        "5:+5",
        "4294967295",
        "0:4294967295",
        "54321",
    ];
    for owner in nobody_s {
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
        // A number has the group of its account.
        let nobody = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(65_534)).unwrap().unwrap();
        host.apikey(&["refresh", "web", "-yq", "--key-file", "k", "--key-file-owner", "65534"])
            .gives(0, "", "");
        assert_eq!(fs::metadata(host.path("k")).unwrap().gid(), nobody.gid.as_raw());
        // The next one too, though nobody says so again.
        host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
        assert_eq!(fs::metadata(host.path("k")).unwrap().uid(), 65534);
    } else {
        assert_eq!(outcome.status, 8, "{outcome:?}");
        assert!(!host.path("k").exists());
    }
}
