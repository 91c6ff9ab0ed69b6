//! The real Litestream: an authority that it replicates, and followers, as the README has them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(clippy::print_stdout, reason = "figures that were measured, for --nocapture")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use apikey::{Timestamp, Verdict, Verifier};
use common::container::wait_for;
use common::{Host, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const README: &str = include_str!("../README.md");
const USERS: usize = 200;
const WRITERS: usize = 4;
const CHANGES: usize = 1000;
const LIMIT: Duration = Duration::from_secs(5);

/// What the README's unit says for `name`, on this host and with this storage.
fn unit(unit: &str, name: &str, host: &Host, storage: &Path) -> Vec<String> {
    let start = format!("```ini\n# /etc/systemd/system/{unit}\n");
    let text = README.split(start.as_str()).nth(1).unwrap().split("```").next().unwrap();
    let said = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let here = |line: &str| {
        line.replace("/var/lib/apikey", host.folder().to_str().unwrap())
            .replace("s3://example/keys", &format!("file://{}", storage.display()))
            .replace("/usr/local/bin/litestream", "litestream")
    };
    said.map(here).collect()
}

/// Litestream, until it is dropped.
#[derive(Debug)]
struct Litestream(Child);

impl Litestream {
    /// As systemd starts the README's unit, and starts it again.
    fn start(name: &str, host: &Host, storage: &Path) -> Self {
        wait_for("Litestream", || Self::try_to_start(name, host, storage))
    }

    fn try_to_start(name: &str, host: &Host, storage: &Path) -> Option<Self> {
        let said = |key| unit(name, key, host, storage);
        let umask = said("UMask").concat();
        let shell = |line: &str| {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("umask {umask}; {line}"));
            shell
        };
        let runs = |line: String| shell(&line).status().unwrap().success();
        assert!(said("ExecStartPre").into_iter().all(runs));
        let log = File::options().create(true).append(true).open(storage.with_extension("log")).unwrap();
        let mut litestream = shell(&format!("exec {}", said("ExecStart").concat()));
        let litestream = litestream.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let id = litestream.id().to_string();
        let mut litestream = Litestream(litestream);
        let is_done = said("ExecStartPost").into_iter().all(|line| {
            let mut after = shell(&line).env("MAINPID", &id).stderr(Stdio::null()).spawn().unwrap();
            loop {
                // `kill -0` takes one that has ended and that nobody waits for to be there.
                let _ = litestream.0.try_wait();
                if let Some(status) = after.try_wait().unwrap() {
                    return status.success();
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        is_done.then_some(litestream)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Ends as systemd ends it.
    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Litestream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority that is replicated, where its changes are copied to, and a host that follows.
struct Hosts {
    authority: Host,
    replica: Host,
    storage: TempDir,
}

impl Hosts {
    fn new() -> Self {
        Hosts { authority: Host::new(), replica: Host::new(), storage: TempDir::new().unwrap() }
    }

    fn replicate(&self) -> Litestream {
        Litestream::start("apikey-replicate.service", &self.authority, &self.storage.path().join("keys"))
    }

    fn follow(&self) -> Litestream {
        Litestream::start("apikey-follow.service", &self.replica, &self.storage.path().join("keys"))
    }

    /// Waits until the replica says of every key what the authority says.
    fn agree(&self) {
        let list = |host: &Host| host.apikey(&["list", "--all", "--json"]).run();
        wait_for("the replica to agree", || {
            let (here, there) = (list(&self.authority), list(&self.replica));
            (there.status == 0 && here.stdout == there.stdout).then_some(())
        });
    }
}

/// A key that has ended, and since when.
#[derive(Clone)]
struct Ended {
    key: String,
    at: Instant,
}

/// How long it takes until `ask`, who says which of these keys are accepted, knows that a key has ended: of every
/// so-many-th of those that do.
fn watch(
    ended: &Mutex<Vec<Ended>>,
    is_over: &AtomicBool,
    every: usize,
    mut ask: impl FnMut(&[&str]) -> Vec<bool>,
) -> Vec<Duration> {
    let (mut seen, mut waiting, mut times) = (0, Vec::<Ended>::new(), Vec::new());
    loop {
        let over = is_over.load(Ordering::Relaxed);
        {
            let ended = ended.lock().unwrap();
            waiting.extend((seen..ended.len()).filter(|at| at % every == 0).map(|at| ended[at].clone()));
            seen = ended.len();
        }
        if over && waiting.is_empty() {
            return times;
        }
        let accepted = ask(&waiting.iter().map(|ended| ended.key.as_str()).collect::<Vec<_>>());
        let mut accepted = accepted.into_iter();
        waiting.retain(|ended| {
            let is_accepted = accepted.next().unwrap();
            if !is_accepted {
                times.push(ended.at.elapsed());
            }
            assert!(ended.at.elapsed() < Duration::from_secs(60), "it is accepted without end");
            is_accepted
        });
        thread::sleep(Duration::from_millis(5));
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {} revocations, median {median:.2?}, longest {longest:.2?}", times.len());
    assert!(longest < LIMIT, "{what}: {longest:?}");
}

/// A program that is asked line by line, and answers so.
struct Dialogue(Child, BufReader<std::process::ChildStdout>);

impl Dialogue {
    fn begin(mut program: Child) -> Self {
        let answers = BufReader::new(program.stdout.take().unwrap());
        Dialogue(program, answers)
    }

    fn ask(&mut self, keys: &[&str]) -> Vec<String> {
        let mut questions = self.0.stdin.as_ref().unwrap();
        keys.iter().for_each(|key| writeln!(questions, "{key}").unwrap());
        let mut answer = || {
            let mut line = String::new();
            self.1.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        keys.iter().map(|_| answer()).collect()
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The README's Python, with a connection that stays open.
fn python(host: &Host) -> Dialogue {
    let program = README.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let program = program.replace("/var/lib/apikey/keys.db", host.database().to_str().unwrap());
    let asking = "import sys\nfor line in sys.stdin:\n    print(user_of(line.strip()), flush=True)\n";
    let run = host.program("python3", &["-c", &format!("{program}\n{asking}")]);
    #[allow(clippy::disallowed_methods, reason = "where the test finds Python, not what the program reads")]
    let run = run.env("PATH", std::env::var("PATH").unwrap());
    Dialogue::begin(run.stdin_from(Stdio::piped()).with(|command| { command.stderr(Stdio::inherit()); }).spawn())
}

fn stream(host: &Host) -> Dialogue {
    let run = host.apikey(&["verify", "--stream"]);
    Dialogue::begin(run.stdin_from(Stdio::piped()).with(|command| { command.stderr(Stdio::inherit()); }).spawn())
}

/// The status in an answer of `--stream`.
fn status(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    answer["status"].as_str().unwrap().to_owned()
}

/// Whether the key is accepted, by a fresh `apikey verify`.
fn is_accepted(host: &Host, key: &str) -> bool {
    let outcome = host.apikey(&["verify", "-q"]).input(key).run();
    assert!([0, 5].contains(&outcome.status), "{outcome:?}");
    outcome.status == 0
}

/// Replaces and revokes the keys of these users in turn, with a pause between two changes. Every key that
/// was issued is added to `all`.
fn change(
    host: &Host,
    users: &[String],
    pause: Duration,
    changes: usize,
    ended: &Mutex<Vec<Ended>>,
    all: &Mutex<Vec<String>>,
) {
    let mut current: Vec<Option<String>> =
        users.iter().map(|user| Some(host.key_from(&["create", user]))).collect();
    all.lock().unwrap().extend(current.iter().flatten().cloned());
    thread::sleep(LIMIT);
    let start = Instant::now();
    for number in 0..changes {
        thread::sleep((pause * u32::try_from(number).unwrap()).saturating_sub(start.elapsed()));
        let at = number % users.len();
        let new = if number % 3 == 0 && current[at].is_some() {
            host.apikey(&["revoke", &users[at], "-y", "-q"]).gives(0, "", "");
            None
        } else {
            Some(host.key_from(&["refresh", &users[at], "-y", "-q"]))
        };
        let old = std::mem::replace(&mut current[at], new.clone());
        ended.lock().unwrap().extend(old.map(|key| Ended { key, at: Instant::now() }));
        all.lock().unwrap().extend(new);
    }
}

#[test]
#[ignore = "needs litestream"]
fn a_follower_agrees_on_every_key_and_each_way_to_verify_sees_a_revocation_soon() {
    let hosts = Hosts::new();
    let (host, replica) = (&hosts.authority, &hosts.replica);
    host.key_from(&["create", "first"]);
    let _replicate = hosts.replicate();
    let _follow = hosts.follow();
    wait_for("the first change", || (replica.apikey(&["list"]).run().status == 0).then_some(()));
    let (ended, all, is_over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
    let pause = Duration::from_millis(160);
    let verifier = Verifier::open(&replica.database(), LIMIT).unwrap();
    let (mut python, mut stream) = (python(replica), stream(replica));
    let now = || Timestamp::now().unwrap();
    let times = thread::scope(|scope| {
        let (ended, all, is_over) = (&ended, &all, &is_over);
        let fresh = scope.spawn(|| {
            let ask = |keys: &[&str]| keys.iter().map(|key| is_accepted(replica, key)).collect();
            watch(ended, is_over, 10, ask)
        });
        let library = scope.spawn(|| {
            let verify = |key: &&str| verifier.verify(key.as_bytes(), now()).unwrap();
            watch(ended, is_over, 1, |keys| {
                keys.iter().map(verify).map(|verdict| matches!(verdict, Verdict::Accepted(_))).collect()
            })
        });
        let stream = scope.spawn(|| {
            let is_accepted = |answer: String| status(&answer) == "active";
            watch(ended, is_over, 1, |keys| stream.ask(keys).into_iter().map(is_accepted).collect())
        });
        let python = scope.spawn(|| {
            watch(ended, is_over, 1, |keys| python.ask(keys).iter().map(|user| user != "None").collect())
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let users: Vec<String> =
                    (0..USERS / WRITERS).map(|user| format!("w{writer}u{user}")).collect();
                scope.spawn(move || change(host, &users, pause, CHANGES / WRITERS, ended, all))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        [fresh, library, stream, python].map(|watch| watch.join().unwrap())
    });
    let ways =
        ["a fresh apikey verify", "an open Verifier", "verify --stream", "an open connection of Python's"];
    ways.into_iter().zip(times).for_each(|(what, times)| report(what, times));
    hosts.agree();
    let all = all.into_inner().unwrap();
    let keys: Vec<&str> = all.iter().map(String::as_str).collect();
    let statuses = |host: &Host| {
        let answers = host.apikey(&["verify", "--stream"]).input(keys.join("\n")).run();
        answers.stdout.lines().map(status).collect::<Vec<_>>()
    };
    let (here, there) = (statuses(host), statuses(replica));
    assert!(here == there && here.len() == keys.len());
    let accepted = here.iter().filter(|status| *status == "active").count();
    println!("{} keys, of which {accepted} are accepted, are the same on both", keys.len());
}

/// Each file in a folder, and all that a write to it would change.
fn state(host: &Host) -> BTreeSet<(String, u64, i64, i64, i64, Vec<u8>)> {
    let state = |name: String| {
        let path = host.path(&name);
        let found = fs::metadata(&path).unwrap();
        (name, found.ino(), found.mtime(), found.mtime_nsec(), found.ctime_nsec(), fs::read(path).unwrap())
    };
    host.names().into_iter().map(state).collect()
}

#[test]
#[ignore = "needs litestream"]
fn verifying_on_a_follower_changes_no_byte_of_it() {
    let hosts = Hosts::new();
    let key = hosts.authority.key_from(&["create", "alice"]);
    let _replicate = hosts.replicate();
    let _follow = hosts.follow();
    hosts.agree();
    // What is still under way is to arrive first.
    thread::sleep(LIMIT);
    let before = state(&hosts.replica);
    assert_eq!(hosts.replica.names(), ["keys.db", "keys.db-txid"]);
    (0..250).for_each(|_| assert!(is_accepted(&hosts.replica, &key)));
    let library = Verifier::open(&hosts.replica.database(), LIMIT).unwrap();
    assert!(matches!(library.verify(key.as_bytes(), Timestamp::now().unwrap()), Ok(Verdict::Accepted(_))));
    drop(library);
    assert_eq!(status(&stream(&hosts.replica).ask(&[&key])[0]), "active");
    assert!(state(&hosts.replica) == before);
    println!("250 verifications by uid {} changed nothing", nix::unistd::geteuid());
    hosts.authority.apikey(&["revoke", "alice", "-y", "-q"]).gives(0, "", "");
    hosts.agree();
    assert!(!is_accepted(&hosts.replica, &key), "it follows on");
}

#[test]
#[ignore = "needs litestream"]
fn a_follower_that_starts_stands_still_or_is_killed_is_only_read_and_says_nothing_wrong() {
    let hosts = Hosts::new();
    let (host, replica) = (&hosts.authority, &hosts.replica);
    let [kept, ended] = ["alice", "bob"].map(|user| host.key_from(&["create", user]));
    host.apikey(&["revoke", "bob", "-y", "-q"]).gives(0, "", "");
    let _replicate = hosts.replicate();
    let is_over = AtomicBool::new(false);
    let look = |key: &str| -> Option<bool> {
        let outcome = replica.apikey(&["verify", "--timeout", "100ms"]).input(key).run();
        match outcome.status {
            0 => Some(true),
            5 if outcome.stderr.contains("is revoked") => Some(false),
            6 => None,
            _ => panic!("{outcome:?}"),
        }
    };
    let answers = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut answers = [0; 2];
            let expected: BTreeSet<&str> =
                ["keys.db", "keys.db-txid", "keys.db-txid.tmp", "keys.db.tmp"].into();
            while !is_over.load(Ordering::Relaxed) {
                for (key, accepted) in [(&kept, true), (&ended, false)] {
                    let answer = look(key);
                    assert!(answer.is_none_or(|answer| answer == accepted), "{accepted}");
                    answers[usize::from(answer.is_some())] += 1;
                }
                let made: Vec<String> =
                    replica.names().into_iter().filter(|name| !expected.contains(name.as_str())).collect();
                assert!(made.is_empty(), "{made:?}");
            }
            answers
        });
        let writing = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                host.apikey(&["refresh", "carol", "-y", "-q"]).gives(0, "<key>\n", "");
                thread::sleep(Duration::from_millis(50));
            }
        });
        for round in 0..5 {
            let follow = hosts.follow();
            thread::sleep(Duration::from_secs(2));
            for _ in 0..10 {
                follow.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(150));
                follow.signal(Signal::SIGCONT);
                thread::sleep(Duration::from_millis(50));
            }
            if round % 2 == 0 { follow.stop() } else { drop(follow) }
        }
        is_over.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        looking.join().unwrap()
    });
    println!("{} answers while the follower was disturbed, and {} times none", answers[1], answers[0]);
    assert!(answers[1] > answers[0]);
    let _follow = hosts.follow();
    hosts.agree();
}

#[test]
#[ignore = "needs litestream"]
fn an_authority_that_was_killed_is_restored_elsewhere_and_goes_on() {
    let hosts = Hosts::new();
    let host = &hosts.authority;
    let every_command: [&[&str]; 12] = [
        &["create", "alice"],
        &["show", "alice"],
        &["refresh", "alice", "-y", "--grace", "1h"],
        &["edit", "alice", "--name", "laptop"],
        &["revoke", "alice", "-y"],
        &["ensure", "web", "--key-file", "web.key", "--renew-after", "1ms"],
        &["renew"],
        &["list"],
        &["log"],
        &["doctor"],
        &["prune", "--ended-for", "1d", "-y"],
        &["backup", "copy.db"],
    ];
    host.key_from(&["create", "first"]);
    let replicate = hosts.replicate();
    for args in every_command {
        let outcome: Outcome = host.apikey(args).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
    let _follow = hosts.follow();
    let (ended, all, is_over) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()), AtomicBool::new(false));
    wait_for("the first change", || (hosts.replica.apikey(&["list"]).run().status == 0).then_some(()));
    let verifier = Verifier::open(&hosts.replica.database(), LIMIT).unwrap();
    // What the follower has seen when the host is lost was synced.
    let synced = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let users: Vec<String> = (0..50).map(|user| format!("user{user}")).collect();
            change(host, &users, Duration::from_millis(20), 400, &ended, &all);
        });
        writer.join().unwrap();
        replicate.signal(Signal::SIGKILL);
        is_over.store(true, Ordering::Relaxed);
        let now = Timestamp::now().unwrap();
        let is_refused =
            |ended: &Ended| matches!(verifier.verify(ended.key.as_bytes(), now), Ok(Verdict::Refused(_)));
        ended
            .lock()
            .unwrap()
            .iter()
            .filter(|ended| is_refused(ended))
            .map(|ended| ended.key.clone())
            .collect::<Vec<_>>()
    });
    drop(replicate);
    let elsewhere = Host::new();
    let restore = README.split("```sh\n").find(|block| block.contains("litestream restore -o")).unwrap();
    let restore = restore.split("```").next().unwrap();
    let restore: String = restore
        .lines()
        .filter(|line| !line.starts_with("systemctl"))
        .map(|line| format!("{line}\n"))
        .collect();
    let storage = format!("file://{}", hosts.storage.path().join("keys").display());
    let restore = restore
        .replace("/var/lib/apikey", elsewhere.folder().to_str().unwrap())
        .replace("s3://example/keys", &storage);
    let mut shell = Command::new("sh");
    #[allow(
        clippy::disallowed_methods,
        reason = "where the test finds Litestream, not what the program reads"
    )]
    let path = format!(
        "{}:{}",
        Path::new(common::APIKEY).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    shell.args(["-euc", &restore]).env("PATH", path).env("APIKEY_DB", elsewhere.database());
    assert!(shell.status().unwrap().success(), "{restore}");
    let ended = ended.into_inner().unwrap();
    let ask = |host: &Host, keys: &[String]| {
        let answers = host.apikey(&["verify", "--stream"]).input(keys.join("\n")).run().stdout;
        answers.lines().map(status).collect::<Vec<_>>()
    };
    assert!(ask(&elsewhere, &synced).iter().all(|status| status == "revoked"), "what was synced is lost");
    let keys: Vec<String> = ended.iter().map(|ended| ended.key.clone()).collect();
    let known = ask(&elsewhere, &keys).iter().filter(|status| *status == "revoked").count();
    println!(
        "of {} revocations {} were seen elsewhere when the host was lost, and {known} restored",
        keys.len(),
        synced.len()
    );
    assert!(known >= synced.len() && !synced.is_empty());
    assert_eq!(elsewhere.mode("keys.db"), 0o600);
    let storage = TempDir::new().unwrap();
    let moved = Hosts { authority: elsewhere, replica: Host::new(), storage };
    let _replicate = moved.replicate();
    for args in every_command {
        let outcome = moved.authority.apikey(args).run();
        assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
    }
    let _follow = moved.follow();
    moved.agree();
}
