//! `apikey verify --stream`

mod common;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use common::Host;
use serde_json::{Value, json};

/// A stream that somebody talks to.
struct Stream {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Stream {
    fn begin(host: &Host, more: &[&str]) -> Self {
        let args = [&["verify", "--stream"], more].concat();
        let mut process = host.apikey(&args).stdin_from(Stdio::piped()).spawn();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Stream { process, input, output: BufReader::new(output) }
    }

    fn answer(&mut self, line: &str) -> Value {
        self.input.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// What it still says when its input ends: on standard output, on standard error, and how it ends.
    fn end(self) -> (String, String, i32) {
        let Stream { mut process, input, mut output } = self;
        drop(input);
        let (mut rest, mut said) = (String::new(), String::new());
        output.read_to_string(&mut rest).unwrap();
        process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (rest, said, process.wait().unwrap().code().unwrap())
    }
}

fn statuses(output: &str) -> Vec<String> {
    let status = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["valid"], json!(answer["status"] == "active"));
        answer["status"].as_str().unwrap().to_owned()
    };
    output.lines().map(status).collect()
}

#[test]
fn each_line_is_answered_in_its_turn() {
    let (host, alice) = Host::with_key_of("alice");
    let revoked = host.key_from(&["create", "bob", "--name", "b"]);
    host.apikey(&["revoke", "bob", "-yq"]).gives(0, "", "");
    let expired = host.expired_key_of("carol");
    let other = Host::with_key_of("alice").1;
    let long = "x".repeat(1_000_000);
    let longer = format!("{alice}{}", "\0".repeat(65_536));
    let lines = format!(
        "{alice}\n{revoked}\r\n{expired}\n{other}\nx\n\n{long}\n{alice}\n{longer}\n{alice}x\n {alice}\n\u{feff}{alice}\n{alice}"
    );
    host.write("lines", lines.as_bytes());
    let outcome =
        host.apikey(&["verify", "--stream"]).stdin_from(File::open(host.path("lines")).unwrap()).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let expected = [
        "active",
        "revoked",
        "expired",
        "unknown",
        "malformed",
        "malformed",
        "malformed",
        "active",
        "malformed",
        "malformed",
        "malformed",
        "malformed",
        "active",
    ];
    assert_eq!(statuses(&outcome.stdout), expected);
    // The same object as one by one, with or without --json.
    for (line, key) in outcome.stdout.lines().zip([&alice, &revoked, &expired, &other]) {
        let alone = host.apikey(&["verify", "--json"]).input(key.as_str()).run();
        assert_eq!(format!("{line}\n"), alone.stdout);
    }
    let with_json = host.apikey(&["verify", "--stream", "--json"]);
    assert_eq!(with_json.stdin_from(File::open(host.path("lines")).unwrap()).run().stdout, outcome.stdout);
}

#[test]
fn an_answer_comes_before_the_next_key_and_a_revocation_counts_from_the_next_one() {
    let (host, alice) = Host::with_key_of("alice");
    let mut stream = Stream::begin(&host, &[]);
    let line = format!("{alice}\n");
    for _ in 0..3 {
        let answer = stream.answer(&line);
        assert_eq!((&answer["valid"], &answer["user"]), (&json!(true), &json!("alice")));
    }
    host.apikey(&["revoke", "alice", "-yq"]).gives(0, "", "");
    assert_eq!(stream.answer(&line)["status"], "revoked");
    // A line that has begun is waited for.
    stream.input.write_all(&alice.as_bytes()[..40]).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(stream.answer(&line[40..])["status"], "revoked");
    stream.input.write_all(alice.as_bytes()).unwrap();
    let (rest, said, status) = stream.end();
    assert_eq!((statuses(&rest), said.as_str(), status), (vec!["revoked".to_owned()], "", 0));
}

#[test]
fn it_does_not_matter_where_a_read_ends() {
    let (host, alice) = Host::with_key_of("alice");
    let mut stream = Stream::begin(&host, &[]);
    let (mut text, mut expected) = (Vec::new(), Vec::new());
    for n in 0..2000 {
        let (line, status) = match n % 7 {
            0 => ("\n".to_owned(), "malformed"),
            3 => ("y".repeat(n) + "\n", "malformed"),
            5 => (format!("{alice}\r\n"), "active"),
            _ => (format!("{alice}\n"), "active"),
        };
        text.extend(line.into_bytes());
        expected.push(status);
    }
    let mut output = stream.output;
    let answers = thread::spawn(move || {
        let mut answers = String::new();
        output.read_to_string(&mut answers).unwrap();
        answers
    });
    let (mut rest, mut length) = (text.as_slice(), 1);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(length.min(rest.len()));
        stream.input.write_all(piece).unwrap();
        (rest, length) = (more, length * 7 % 4093 + 1);
    }
    drop(stream.input);
    assert_eq!(statuses(&answers.join().unwrap()), expected);
    assert!(stream.process.wait().unwrap().success());
}

#[test]
fn the_end_of_input_ends_it_and_so_does_a_reader_that_has_gone() {
    let (host, alice) = Host::with_key_of("alice");
    host.apikey(&["verify", "--stream"]).gives(0, "", "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    host.apikey(&["verify", "--stream"]).input(format!("{alice}\n")).stdout_to(writer).gives(0, "", "");
    let outcome = host.apikey(&["verify", "--stream", "--db", "none.db", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (6, "NO_DATABASE"));
}

#[test]
fn an_error_of_the_database_that_passes_in_time_is_none_and_one_that_lasts_ends_it() {
    let (host, alice) = Host::with_key_of("alice");
    let (line, alice_) = (format!("{alice}\n"), "alice");
    let mut stream = Stream::begin(&host, &["--timeout", "30s"]);
    assert_eq!(stream.answer(&line)["user"], alice_);
    let version = |number: &str| host.execute(&format!("PRAGMA user_version = {number}"));
    let own: i64 = host.sqlite().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    version("99099");
    thread::scope(|scope| {
        let answer = scope.spawn(|| stream.answer(&line));
        thread::sleep(Duration::from_millis(300));
        version(&own.to_string());
        assert_eq!(answer.join().unwrap()["user"], alice_);
    });
    assert_eq!(stream.end(), (String::new(), String::new(), 0));

    let mut stream = Stream::begin(&host, &["--timeout", "100ms"]);
    assert_eq!(stream.answer(&line)["user"], alice_);
    version("99099");
    stream.input.write_all(line.as_bytes()).unwrap();
    let (rest, said, status) = stream.end();
    assert_eq!((rest.as_str(), status), ("", 6));
    assert!(said.contains("has schema 99;"), "{said}");
}

#[test]
fn what_was_used_is_written_down() {
    let (host, alice) = Host::with_key_of("alice");
    let mut stream = Stream::begin(&host, &[]);
    assert_eq!(stream.answer(&format!("{alice}\n"))["valid"], true);
    stream.end();
    let shown = host.apikey(&["show", "alice", "--json"]).run().json();
    assert!(shown["last_used_at"].is_string(), "{shown}");
}

#[test]
fn options_that_exclude_it_are_refused() {
    let (host, _) = Host::with_key_of("alice");
    for other in [&["-q"][..], &["--key-file", "x"]] {
        let outcome = host.apikey(&[&["verify", "--stream", "--json"], other].concat()).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (2, "USAGE"), "{outcome:?}");
    }
}
