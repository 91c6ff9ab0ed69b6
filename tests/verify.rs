//! `apikey verify`

mod common;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{APIKEY, Host, ends_within};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value;

const ACCEPTED: &str = "<prefix> is accepted: the active key of alice\n";
const MALFORMED: &str = "apikey: not accepted: the input is not a well-formed key\n";

/// Long enough for a slow machine, and shorter than the time that a writer is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_key_is_accepted_with_a_line_s_end_and_without() {
    let (host, key) = Host::with_key_of("alice");
    for end in ["", "\n", "\r\n"] {
        host.apikey(&["verify"]).input(format!("{key}{end}")).gives(0, ACCEPTED, "");
    }
}

#[test]
fn with_quiet_it_answers_by_its_status_alone() {
    let (host, revoked) = Host::with_key_of("alice");
    let key = host.key_from(&["refresh", "alice", "--yes"]);
    let (_, unknown) = Host::with_key_of("alice");
    for (input, status) in [(&*key, 0), (&revoked, 5), (&unknown, 5), ("junk", 5)] {
        host.apikey(&["verify", "-q"]).input(input).gives(status, "", "");
        let outcome = host.apikey(&["verify", "-q", "--json"]).input(input).run();
        assert_eq!((outcome.status, outcome.stderr.as_str()), (status, ""));
        assert_eq!(outcome.json()["valid"], status == 0);
    }
    // What is no answer is said.
    Host::new().apikey(&["verify", "-q"]).input(key).fails(
        6,
        "apikey: there is no database at <folder>/keys.db\n`apikey create` makes it, --db names another\n",
    );
    let outcome = host.apikey(&["verify", "-q", "--key-file", "none"]).run();
    assert!(outcome.status != 0 && outcome.stderr.starts_with("apikey: cannot read"), "{outcome:?}");
}

#[test]
fn anything_but_one_whole_key_is_malformed() {
    let (host, key) = Host::with_key_of("alice");
    let inputs = [
        String::new(),
        "\n".into(),
        "\r\n".into(),
        "\0".into(),
        format!("{key}\r"),
        format!("{key}\n\n"),
        format!("{key}\r\n\n"),
        format!("{key}\nx"),
        format!("{key}\n{key}\n"),
        format!("\n{key}"),
        format!(" {key}"),
        format!("\t{key}"),
        format!("{key} "),
        format!("{key} \n"),
        format!("{key}\0"),
        format!("\0{key}"),
        format!("\u{feff}{key}"),
        format!("{key}\u{200b}"),
        format!("{key}{key}"),
        format!("{key}0"),
        format!("\"{key}\""),
        format!("API_KEY={key}"),
        key[..74].into(),
        key[1..].into(),
        key.to_uppercase(),
        key.replacen("ak_", "AK_", 1),
        key[..15].into(),
    ];
    let before = host.contents();
    for input in inputs {
        host.apikey(&["verify"]).input(input).fails(5, MALFORMED);
    }
    host.apikey(&["verify"]).input([0xff; 75]).fails(5, MALFORMED);
    assert!(host.contents() == before);
}

#[test]
fn a_key_that_is_no_longer_accepted_is_said_to_be_whose_it_was() {
    let (host, revoked) = Host::with_key_of("alice");
    host.key_from(&["refresh", "alice", "--yes"]);
    let expired = host.expired_key_of("bob");
    let before = host.contents();
    host.apikey(&["verify"])
        .input(revoked)
        .fails(5, "apikey: not accepted: <prefix>, a key of alice, is revoked\n");
    host.apikey(&["verify"])
        .input(expired)
        .fails(5, "apikey: not accepted: <prefix>, a key of bob, is expired\n");
    assert!(host.contents() == before);
}

#[test]
fn the_key_is_read_before_the_database_is_opened_which_its_writer_may_have_to_make() {
    let host = Host::new();
    let script = "\"$0\" create alice --quiet | \"$0\" verify";
    host.program("/bin/sh", &["-c", script, APIKEY]).gives(0, ACCEPTED, "");
}

#[test]
fn a_key_of_another_database_is_unknown() {
    let (host, _) = Host::with_key_of("alice");
    let (_, key) = Host::with_key_of("alice");
    host.apikey(&["verify"]).input(key).fails(5, "apikey: not accepted: no such key is known here\n");
}

#[test]
fn keys_that_are_retiring_or_pending_are_accepted() {
    let (host, old) = Host::with_key_of("alice");
    let new = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    host.apikey(&["verify"]).input(old).gives(0, "<prefix> is accepted: the retiring key of alice\n", "");
    host.execute("UPDATE keys SET status = 'pending' WHERE status = 'active'");
    host.deliver_pending();
    host.apikey(&["verify"]).input(new).gives(0, "<prefix> is accepted: the pending key of alice\n", "");
}

#[test]
fn a_key_in_an_argument_is_refused_and_is_not_repeated() {
    let (host, key) = Host::with_key_of("alice");
    let before = host.contents();
    for args in [
        &["verify", &key][..],
        &["verify", &format!("--key={key}")],
        &["create", &key],
        &["create", "bob", "--name", &format!("my {key}")],
        &["refresh", "alice", "--yes", "--key-file", &key],
    ] {
        let outcome = host.apikey(args).input(&*key).run();
        assert!(host.contents() == before, "{args:?}");
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""));
        assert!(!outcome.stderr.contains(&key), "{}", outcome.stderr);
    }
}

#[test]
fn no_more_is_read_than_a_key_can_be_long() {
    let (host, key) = Host::with_key_of("alice");
    host.apikey(&["verify"]).stdin_from(File::open("/dev/zero").unwrap()).fails(5, MALFORMED);

    // A file's offset is shared with the process that reads from it: it tells how far it read.
    let (mut file, line) = (tempfile::tempfile().unwrap(), format!("{key}\n"));
    file.write_all(line.repeat(1000).as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    host.apikey(&["verify"]).stdin_from(file.try_clone().unwrap()).fails(5, MALFORMED);
    let read = std::io::Seek::stream_position(&mut file).unwrap();
    assert!((77..=80).contains(&read), "{read} bytes were read");
}

#[test]
fn a_writer_that_never_ends_is_not_waited_for() {
    let (host, key) = Host::with_key_of("alice");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let endless = std::thread::spawn(move || {
        loop {
            if let Err(error) = writer.write_all(key.as_bytes()) {
                return error.kind();
            }
        }
    });
    host.apikey(&["verify"]).stdin_from(reader).fails(5, MALFORMED);
    assert_eq!(endless.join().unwrap(), ErrorKind::BrokenPipe);
}

#[test]
fn standard_input_that_is_closed_or_a_folder_holds_no_key() {
    let (host, _) = Host::with_key_of("alice");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" verify <&-", APIKEY]).env("APIKEY_DB", host.database());
    let output = shell.output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(5), MALFORMED.into()));
    host.apikey(&["verify"])
        .stdin_from(File::open(host.folder()).unwrap())
        .fails(1, "apikey: cannot read the key from standard input: Is a directory (os error 21)\n");
}

#[test]
fn a_non_blocking_standard_input_is_waited_for() {
    let (host, key) = Host::with_key_of("alice");
    let (input, mut pipe) = std::io::pipe().unwrap();
    fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let waiting = host.apikey(&["verify", "--quiet"]).stdin_from(input).spawn();
    sleep(Duration::from_millis(100));
    pipe.write_all(key.as_bytes()).unwrap();
    drop(pipe);
    assert!(waiting.wait_with_output().unwrap().status.success());
}

#[test]
fn the_use_of_a_key_is_written_down_at_most_once_a_minute() {
    let (host, key) = Host::with_key_of("alice");
    let last_used = || host.apikey(&["show", "alice", "--json"]).run().json()["last_used_at"].clone();
    let used_ago = |ago: &str| {
        loop {
            let start = Instant::now();
            host.execute(&format!(
                "UPDATE keys SET last_used_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{ago}')"
            ));
            let before = last_used();
            assert_eq!(host.status_of(&key), "active");
            // Not so long ago that what was 50 seconds ago was a minute ago by then.
            if start.elapsed() < Duration::from_secs(9) {
                return last_used() != before;
            }
        }
    };
    assert_eq!(last_used(), Value::Null);
    assert_eq!(host.status_of(&key), "active");
    let first = last_used();
    assert!(first.is_string());
    assert_eq!(host.status_of(&key), "active");
    assert_eq!(last_used(), first);
    assert!(!used_ago("-50 seconds"));
    assert!(used_ago("-61 seconds"));
    assert!(used_ago("+1 hour"), "a use in the future is a clock that went back");
}

#[test]
fn a_writer_that_holds_the_lock_is_neither_waited_for_nor_a_failure() {
    let (host, key) = Host::with_key_of("alice");
    let lock = OpenOptions::new().write(true).open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    let before = host.contents();
    assert!(ends_within(AT_ONCE, || {
        host.apikey(&["verify"]).input(&*key).gives(0, ACCEPTED, "");
    }));
    assert!(host.contents() == before);
}

#[test]
fn a_transaction_of_another_program_is_neither_waited_for_nor_a_failure() {
    let (host, key) = Host::with_key_of("alice");
    let writer = host.sqlite();
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        writer.execute_batch(begin).unwrap();
        let ends_at_once = ends_within(AT_ONCE, || {
            host.apikey(&["verify"]).input(&*key).gives(0, ACCEPTED, "");
        });
        assert!(ends_at_once, "{begin}");
        writer.execute_batch("ROLLBACK").unwrap();
    }
}

#[test]
fn the_answer_comes_although_nobody_reads_it() {
    let (host, key) = Host::with_key_of("alice");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    host.apikey(&["verify"]).input(&*key).stdout_to(writer).gives(0, "", "");
    host.apikey(&["verify"]).input(&*key).stdout_to(Stdio::null()).gives(0, "", "");
}

#[test]
fn without_a_database_no_key_is_accepted_and_none_is_made() {
    let host = Host::new();
    let outcome = host.apikey(&["verify", "--json"]).input("x").run();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "NO_DATABASE"));
    assert_eq!(host.names(), [""; 0]);
}
