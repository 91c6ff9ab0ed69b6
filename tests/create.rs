//! `apikey create`

mod common;

use std::fs::{File, OpenOptions};

use common::{Host, issued_to};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

#[test]
fn the_key_alone_goes_to_standard_output_and_the_rest_to_standard_error() {
    Host::new().apikey(&["create", "alice"]).gives(0, "<key>\n", issued_to("alice"));
}

#[test]
fn quiet_says_nothing_but_the_key() {
    Host::new().apikey(&["create", "alice", "--quiet"]).gives(0, "<key>\n", "");
}

#[test]
fn a_user_with_an_active_key_gets_no_second_one() {
    let (host, key) = Host::with_key_of("alice");
    let before = host.contents();
    host.apikey(&["create", "alice"]).fails(
        3,
        "apikey: alice has an active key already: <prefix>\n\
         `apikey refresh alice` replaces it, `apikey revoke alice` ends it\n",
    );
    assert_eq!(host.contents(), before);
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn a_user_whose_key_has_expired_gets_a_new_one() {
    let host = Host::new();
    let old = host.key_from(&["create", "alice", "--expires-in", "1ms"]);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let had_expired = issued_to("alice") + "<prefix> had expired.\n";
    host.apikey(&["create", "alice"]).gives(0, "<key>\n", had_expired);
    assert_eq!(host.status_of(&old), "expired");
    assert_eq!(host.accepted(), 1);
}

#[test]
fn the_key_is_accepted_and_is_nowhere_in_the_files_of_the_database() {
    let (host, key) = Host::with_key_of("alice");
    assert_eq!(host.status_of(&key), "active");
    for (path, content) in host.contents() {
        let found = content.windows(32).any(|window| key.as_bytes().windows(32).any(|part| part == window));
        assert!(!found, "{} holds a part of the key", path.display());
    }
}

#[test]
fn the_database_and_its_side_files_are_0600_whatever_the_umask() {
    for umask in ["000", "022", "077", "0777"] {
        let host = Host::new();
        let script = format!("umask {umask}; exec \"$0\" create alice");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, common::APIKEY]).env("APIKEY_DB", host.database());
        assert!(shell.output().unwrap().status.success(), "umask {umask}");
        for file in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
            assert_eq!(host.mode(file), 0o600, "{file} with umask {umask}");
        }
    }
}

#[test]
fn standard_output_that_leads_nowhere_is_refused_before_anything_is_issued() {
    let message = "apikey: the key cannot be handed over, so none was issued: standard output is closed or /dev/null\n\
                   send standard output to where the key is to go, or name a file with --key-file\n";
    let host = Host::new();
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    host.apikey(&["create", "alice"]).stdout_to(null).fails(8, message);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" create alice >&-", common::APIKEY]).env("APIKEY_DB", host.database());
    let output = shell.output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()),
        (Some(8), message)
    );
    assert!(!host.database().exists());
}

#[test]
fn a_key_that_standard_output_does_not_take_is_not_issued() {
    let host = Host::new();
    for _ in 0..2 {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        host.apikey(&["create", "alice"]).stdout_to(full).fails(
            8,
            "apikey: the key cannot be handed over, so none was issued: \
             cannot write to standard output: No space left on device (os error 28)\n\
             send standard output to where the key is to go, or name a file with --key-file\n",
        );
        assert_eq!(host.accepted(), 0);
    }
    let read_only = File::open("/dev/zero").unwrap();
    assert_eq!(host.apikey(&["create", "alice"]).stdout_to(read_only).run().status, 8);
    assert_eq!(host.accepted(), 0);
}

#[test]
fn a_reader_that_is_gone_gets_no_key_issued() {
    let host = Host::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let outcome = host.apikey(&["create", "alice"]).stdout_to(writer).run();
    assert_eq!(outcome.status, 8, "{outcome:?}");
    assert_eq!(host.accepted(), 0);
}

#[test]
fn the_database_itself_is_no_place_for_the_key() {
    let (host, _) = Host::with_key_of("alice");
    for name in ["keys.db", "keys.db-wal", "keys.db-lock"] {
        let before = host.contents();
        let file = OpenOptions::new().append(true).open(host.path(name)).unwrap();
        let outcome = host.apikey(&["create", "bob"]).stdout_to(file).run();
        assert_eq!(outcome.status, 8, "{name}: {outcome:?}");
        assert!(host.contents() == before, "{name}");
    }
}

#[test]
fn with_no_user_the_key_is_for_the_login_name_of_the_calling_uid() {
    let account = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
    Host::new().apikey(&["create"]).env("USER", "mallory").env("LOGNAME", "mallory").gives(
        0,
        "<key>\n",
        issued_to(&account.name),
    );
}

#[test]
fn names_and_times_are_stored_as_they_were_given() {
    let host = Host::new();
    let created =
        host.apikey(&["create", "alice", "--name", "Zoë's laptop", "--expires-in", "1h 30m", "--json"]).run();
    let created = created.json();
    let shown = host.apikey(&["show", "alice", "--json"]).run().json();
    for member in ["id", "user", "prefix", "name", "created_at", "expires_at", "key_file"] {
        assert_eq!(created[member], shown[member], "{member}");
    }
    assert_eq!(created["name"], "Zoë's laptop");
}

#[test]
fn the_first_key_says_which_database_was_made_and_no_other_does() {
    let host = Host::new();
    let first = host.apikey(&["create", "alice"]).run();
    let path = std::fs::canonicalize(host.database()).unwrap();
    assert!(first.stderr.starts_with(&format!("Made the database {}.\n", path.display())), "{first:?}");
    let second = host.apikey(&["create", "bob"]).run();
    assert!(!second.stderr.contains("Made the database"), "{second:?}");
}

#[test]
fn the_end_of_a_key_is_said_when_it_is_issued() {
    let host = Host::new();
    host.apikey(&["create", "alice", "--expires-in", "90d"]).gives(
        0,
        "<key>\n",
        "Issued <prefix> to alice, accepted until <time>. The key is shown only once.\n",
    );
}

#[test]
fn an_older_key_that_is_still_accepted_is_named() {
    let (host, old) = Host::with_key_of("alice");
    let current = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.apikey(&["revoke", &current[..15], "-yq"]).gives(0, "", "");
    let issued = host.apikey(&["create", "alice", "--json"]).run().json();
    let accepted = &issued["still_accepted"][0];
    assert_eq!((&accepted["prefix"], &accepted["status"]), (&old[..15].into(), &"retiring".into()));
    assert!(accepted["until"].is_string(), "{issued}");
}

#[test]
fn a_reader_that_does_not_read_is_waited_for_as_long_as_was_said_and_no_key_is_issued() {
    let (host, _) = Host::with_key_of("other");
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    host.apikey(&["create", "alice", "--timeout", "200ms"]).stdout_to(writer).fails(
        8,
        "apikey: the key cannot be handed over, so none was issued: nobody reads standard output\n\
         send standard output to where the key is to go, or name a file with --key-file\n",
    );
    drop(reader);
    assert_eq!(host.accepted(), 1);
}

#[test]
fn a_long_answer_that_nobody_reads_keeps_nobody_waiting_either() {
    let (host, _) = Host::with_key_of("alice");
    host.execute(
        "WITH RECURSIVE numbers (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers LIMIT 60)
         INSERT INTO keys (prefix, key_hash, id, user, status, revoked_at)
         SELECT value, randomblob(32), printf('01a202c4-2cbf-7a53-9e0f-%012x', value), 'alice', 'retiring',
             '2999-01-01T00:00:00.000Z'
         FROM numbers",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let refresh = ["refresh", "alice", "--yes", "--json", "--timeout", "300ms"];
    let outcome = host.apikey(&refresh).stdout_to(writer).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (8, "UNDELIVERABLE"), "{outcome:?}");
    drop(reader);
    assert_eq!(host.accepted(), 61);
}
