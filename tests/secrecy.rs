//! Where a key goes, and that it goes nowhere else.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{APIKEY, Host, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;

/// The lines of a trace that hold any 20 characters of the key.
fn lines_with<'trace>(key: &str, trace: &'trace str) -> Vec<&'trace str> {
    let holds_a_part =
        |line: &&str| key.as_bytes().windows(20).any(|part| line.contains(str::from_utf8(part).unwrap()));
    trace.lines().filter(holds_a_part).collect()
}

#[test]
#[ignore = "needs strace"]
fn the_key_leaves_the_process_in_one_write_to_standard_output() {
    let (host, _) = Host::with_key_of("alice");
    let key_in = Regex::new("ak_[0-9a-f]{72}").unwrap();
    let to_stdout = Regex::new("^[0-9]+ +write\\(1, ").unwrap();
    for args in [
        &["create", "bob"][..],
        &["create", "carol", "--json"],
        &["refresh", "alice", "--yes"],
        &["refresh", "alice", "--yes", "--json"],
        &["refresh", "alice", "--yes", "--quiet", "--grace", "1h"],
    ] {
        let traced = host.traced(args, |run| run);
        assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
        let key = key_in.find(&traced.outcome.stdout).unwrap().as_str();
        let lines = lines_with(key, &traced.trace);
        assert!(lines.len() == 1 && to_stdout.is_match(lines[0]), "{args:?}: {lines:#?}");
        assert!(lines[0].contains(key), "{args:?}: {lines:#?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn verify_reads_the_key_and_hands_it_to_nobody() {
    let (host, key) = Host::with_key_of("alice");
    let traced = host.traced(&["verify"], |run| run.input(key.as_str()));
    assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
    let lines = lines_with(&key, &traced.trace);
    let from_stdin = Regex::new("^[0-9]+ +read\\(0, ").unwrap();
    assert!(lines.len() == 1 && from_stdin.is_match(lines[0]), "{lines:#?}");
}

/// A process that waits for its input, and is ended with the test.
struct Waiting(Child);

impl Waiting {
    /// Starts it, and waits until `ready`, for a minute at the least.
    fn new(run: Run<'_>, ready: impl Fn(&Waiting) -> bool) -> Self {
        let waiting = Waiting(
            run.with(|command| {
                command.stdin(Stdio::piped());
            })
            .spawn(),
        );
        for _ in 0..12_000 {
            if ready(&waiting) {
                return waiting;
            }
            sleep(Duration::from_millis(5));
        }
        panic!("it was never ready");
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    /// Whether it is the program under test by now. To be asked first: what is seen before that may be
    /// what the process was when another program, or none, ran in it.
    fn is_apikey(&self) -> bool {
        let command = fs::read_to_string(self.file("cmdline")).unwrap_or_default();
        command.split('\0').next().is_some_and(|program| program.ends_with("apikey"))
    }

    fn dumps_no_core(&self) -> bool {
        let no_core = Regex::new(r"Max core file size +0 ").unwrap();
        self.is_apikey() && no_core.is_match(&fs::read_to_string(self.file("limits")).unwrap_or_default())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_crash_leaves_no_core() {
    let (host, _) = Host::with_key_of("alice");
    let script = format!("ulimit -S -c $(ulimit -H -c); exec {APIKEY} verify");
    for signal in [Signal::SIGSEGV, Signal::SIGABRT] {
        let mut waiting = Waiting::new(host.program("/bin/sh", &["-c", &script]), Waiting::dumps_no_core);
        let status = loop {
            // The first SIGSEGV may go to Rust's own handler, which looks for a stack overflow.
            kill(Pid::from_raw(waiting.0.id().cast_signed()), signal).unwrap();
            sleep(Duration::from_millis(5));
            if let Some(status) = waiting.0.try_wait().unwrap() {
                break status;
            }
        };
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal as i32), false));
    }
    let mut names: Vec<_> =
        fs::read_dir(host.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["keys.db", "keys.db-lock", "keys.db-shm", "keys.db-wal"]);
}

#[test]
#[ignore = "needs root"]
fn other_processes_of_the_same_user_cannot_read_its_memory() {
    let (host, _) = Host::with_key_of("alice");
    host.let_all_read();
    let look = |waiting: &Waiting, name: &str| {
        host.program("/usr/bin/head", &["-c", "1", &waiting.file(name)]).by_nobody().run()
    };
    let other = Waiting::new(host.program("/bin/cat", &["-"]).by_nobody(), |_| true);
    assert_eq!(look(&other, "environ").status, 0);
    // proc(5): what is not dumpable belongs to root. The limit of cores may have been 0 from the start.
    // A process that has changed its uid is not dumpable either, until another program runs in it.
    let is_hardened =
        |waiting: &Waiting| waiting.is_apikey() && fs::metadata(waiting.file("mem")).unwrap().uid() == 0;
    let hardened = Waiting::new(host.program(host.apikey_for_all(), &["verify"]).by_nobody(), is_hardened);
    for name in ["mem", "environ", "maps"] {
        let outcome = look(&hardened, name);
        assert!(outcome.status == 1 && outcome.stderr.contains("Permission denied"), "{name}: {outcome:?}");
    }
}
