//! A year of a host, whose keys stay fresh by themselves.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use apikey::{Timestamp, Verdict, Verifier};
use common::strace::{Call, Traced};
use common::{APIKEY, Host, Outcome};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::NamedTempFile;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Who reads a key file `USER/key`, how old in days its key may become, and with what else it is made.
const DAEMONS: [(&str, u64, &[&str]); 5] = [
    ("ends", 5, &["--expires-in", "12d", "--renew-grace", "1h"]),
    ("told", 4, &["--reload", "echo $APIKEY_PREFIX >> told.log; ! test -e broken"]),
    ("owned", 2, &["--renew-grace", "0s"]),
    ("gone", 3, &["--reload", "echo $APIKEY_PREFIX >> gone.log", "--renew-grace", "30d"]),
    ("mounted", 7, &["--renew-grace", "1h"]),
];

/// The reload of `told` fails on these days, the folder of `mounted` is away on those.
const BROKEN: std::ops::Range<u64> = 60..67;
const UNMOUNTED: std::ops::Range<u64> = 120..150;
/// `owned` gets another owner on the first of these, and is given back on the second.
const OWNERS: [u64; 2] = [90, 240];
const REVOKED: u64 = 182;
/// The host is cloned, and on the second of these it is said anew how readers are told there.
const CLONE: [u64; 2] = [200, 215];

/// A time in that year, so many seconds after its beginning.
fn time(seconds: u64) -> Timestamp {
    let start = Timestamp::parse("2030-01-01T00:00:00.000Z").unwrap();
    start.checked_add(Duration::from_secs(seconds)).unwrap()
}

/// The program when the clock says that, started by a tool and its options, where there are some.
fn at(host: &Host, seconds: u64, tool: &[&str], args: &[&str]) -> Outcome {
    let clock = format!("@{}", time(seconds).to_string()[..19].replace('T', " "));
    let args = [&["-f", &clock], tool, &[APIKEY], args].concat();
    host.program("/usr/bin/faketime", &args).env("TZ", "UTC").run()
}

#[track_caller]
fn done_at(host: &Host, seconds: u64, args: &[&str]) {
    let outcome = at(host, seconds, &[], args);
    assert_eq!(outcome.status, 0, "{args:?}: {outcome:?}");
}

fn traced(host: &Host, seconds: u64, options: &[&str], args: &[&str]) -> Traced {
    let file = NamedTempFile::new().unwrap();
    let strace = ["/usr/bin/strace", "-f", "-o", file.path().to_str().unwrap()];
    let outcome = at(host, seconds, &[&strace, options, &["--"]].concat(), args);
    Traced { outcome, trace: String::from_utf8_lossy(&fs::read(file.path()).unwrap()).into_owned() }
}

/// The same numbers in each run: xorshift64.
struct Random(u64);

impl Random {
    fn of<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        &among[(self.0 % among.len() as u64) as usize]
    }
}

fn key_file(host: &Host, user: &str) -> PathBuf {
    host.path(user).join("key")
}

/// The daemons: all along they read their files and ask the database.
struct Readers {
    /// What the clock said, and when.
    clock: Mutex<(Timestamp, Instant)>,
    one_is_revoked: AtomicBool,
    over: AtomicBool,
    asked: AtomicU32,
}

impl Readers {
    fn now(&self) -> Timestamp {
        let (then, since) = *self.clock.lock().unwrap();
        then.checked_add(since.elapsed()).unwrap()
    }

    fn set(&self, seconds: u64) {
        *self.clock.lock().unwrap() = (time(seconds), Instant::now());
    }

    /// A daemon keeps its key until that is refused, and then reads its file again.
    fn ask(&self, host: &Host) {
        let verifier = Verifier::open(&host.database(), Duration::from_secs(10)).unwrap();
        let read = |user| fs::read(key_file(host, user)).ok();
        let accepts = |key: &[u8]| {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let verdict = verifier.verify(key, self.now()).unwrap();
            if let Verdict::Accepted(_) = verdict { Ok(()) } else { Err(format!("{verdict:?}")) }
        };
        let mut kept = DAEMONS.map(|(user, ..)| (user, read(user).unwrap()));
        while !self.over.load(Ordering::Relaxed) {
            for (user, kept) in &mut kept {
                // Every other time it has just been started.
                if self.asked.load(Ordering::Relaxed).is_multiple_of(2) {
                    *kept = read(user).unwrap_or_else(|| kept.clone());
                }
                let mut refused = accepts(kept);
                if refused.is_err() {
                    *kept = read(user).unwrap_or_else(|| kept.clone());
                    refused = accepts(kept);
                }
                let is_revoked = *user == "gone" && self.one_is_revoked.load(Ordering::Relaxed);
                assert!(refused.is_ok() || is_revoked, "{user} on {}: {refused:?}", self.now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How old the key in the file is, in seconds, which must be accepted.
fn age(host: &Host, user: &str, seconds: u64) -> u64 {
    let verifier = Verifier::open(&host.database(), Duration::from_secs(10)).unwrap();
    let verdict = verifier.verify(&fs::read(key_file(host, user)).unwrap(), time(seconds)).unwrap();
    let Verdict::Accepted(record) = verdict else { panic!("{user}: {verdict:?}") };
    time(seconds).since(record.created_at).unwrap_or_default().as_secs()
}

/// Another host, made from a backup of the database and of the key files, on another machine.
fn clone_of(host: &Host) -> Host {
    let clone = Host::new();
    host.execute(&format!("VACUUM INTO '{}'", clone.database().display()));
    clone.chmod("keys.db", 0o600);
    for (user, ..) in DAEMONS {
        let copied = Command::new("cp").arg("-a").arg(host.path(user)).arg(clone.folder()).status();
        assert!(copied.unwrap().success());
    }
    // There its files lie in the same place.
    let [old, new] = [host, &clone].map(|host| fs::canonicalize(host.folder()).unwrap());
    clone.execute(&format!(
        "UPDATE settings SET key_file = replace(key_file, '{}', '{}'), reload_machine = 'another'",
        old.display(),
        new.display()
    ));
    clone
}

/// All that a database knows of a user's keys.
fn keys_of(host: &Host, user: &str) -> Vec<(String, String)> {
    let sqlite: Connection = host.sqlite();
    let mut keys = sqlite.prepare("SELECT id, status FROM keys WHERE user = ?1 ORDER BY id").unwrap();
    keys.query_map([user], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// The prefixes that are accepted, as `list` says.
fn accepted_at(host: &Host, seconds: u64) -> BTreeSet<String> {
    let listed = at(host, seconds, &[], &["list", "--json"]).json();
    let keys = listed["keys"].as_array().unwrap().iter();
    let accepted =
        keys.filter(|key| ["active", "pending", "retiring"].contains(&key["status"].as_str().unwrap()));
    accepted.map(|key| key["prefix"].as_str().unwrap().to_owned()).collect()
}

/// The prefixes that were accepted then, as it follows from nothing but what `log` says.
fn accepted_by_log(events: &[Value], then: Timestamp) -> BTreeSet<String> {
    let time = |event: &Value, member: &str| Timestamp::parse(event[member].as_str()?);
    let mut ends = BTreeMap::new();
    for event in events.iter().filter(|event| time(event, "at").unwrap() <= then) {
        let Some(prefix) = event["prefix"].as_str() else { continue };
        match event["event"].as_str().unwrap() {
            "issued" | "edited" => drop(ends.insert(prefix, time(event, "expires_at"))),
            "retired" => {
                let until = time(event, "valid_until");
                ends.insert(prefix, until.into_iter().chain(ends[prefix]).min());
            }
            "revoked" | "undone" => drop(ends.remove(prefix)),
            "delivered" => {}
            other => panic!("{other}"),
        }
    }
    let accepted = ends.into_iter().filter(|(_, end)| end.is_none_or(|end| end > then));
    accepted.map(|(prefix, _)| prefix.to_owned()).collect()
}

#[test]
#[ignore = "needs faketime, strace and root"]
fn for_a_year_every_daemon_has_a_fresh_key_whatever_happens_to_the_host_and_to_renew() {
    let host = Host::new();
    for (user, days, settings) in DAEMONS {
        fs::create_dir(host.path(user)).unwrap();
        let (file, age) = (format!("{user}/key"), format!("{days}d"));
        let create = ["create", user, "-q", "--key-file", &file, "--renew-after", &age];
        done_at(&host, 0, &[&create, settings].concat());
    }
    // All are due; what it takes for one says where to kill it.
    let first = traced(&host, 8 * DAY, &[], &["renew", "owned", "-q"]);
    assert_eq!(first.outcome.status, 0, "{:?}", first.outcome);
    done_at(&host, 8 * DAY, &["renew", "-q"]);
    let calls = first.calls();
    // Before that it is being loaded.
    let calls = &calls[calls.len() / 3..];
    let readers = Readers {
        clock: Mutex::new((time(8 * DAY), Instant::now())),
        one_is_revoked: AtomicBool::new(false),
        over: AtomicBool::new(false),
        asked: AtomicU32::new(0),
    };
    let mut year = Year {
        host: &host,
        readers: &readers,
        clone: None,
        kills: 0,
        not_run: 0,
        accepted: Vec::new(),
        random: Random(20_301_231),
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| readers.ask(&host));
        let over = Over(&readers);
        for day in 9..9 + 365 {
            year.day(day, calls);
            assert!(!asking.is_finished(), "a daemon was refused on day {day}");
        }
        drop(over);
    });
    println!("{} kills of 730, {} questions", year.kills, readers.asked.load(Ordering::Relaxed));
    assert!(year.kills > 150 && year.not_run > 5, "{} kills, {} reloads not run", year.kills, year.not_run);
    let log = host.apikey(&["log", "--json"]).run().json();
    let events = log["events"].as_array().unwrap();
    let refused = |event: &&Value| event["event"] == "refused";
    assert!(year.accepted.len() == 365 && events.iter().any(|event| refused(&event)));
    for (then, accepted) in &year.accepted {
        assert_eq!(accepted_by_log(events, time(*then)), *accepted, "{}", time(*then));
    }
}

/// Lets the readers end, also where a check has failed.
struct Over<'a>(&'a Readers);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

struct Year<'a> {
    host: &'a Host,
    readers: &'a Readers,
    clone: Option<(Host, Vec<(String, String)>)>,
    kills: u32,
    /// How often the clone said that it does not run the reload that is kept.
    not_run: u32,
    /// What was accepted on each day, and when.
    accepted: Vec<(u64, BTreeSet<String>)>,
    random: Random,
}

impl Year<'_> {
    fn day(&mut self, day: u64, calls: &[Call]) {
        let (host, midnight) = (self.host, day * DAY);
        self.readers.set(midnight);
        // The second one goes on from where the first was killed.
        let what = [0; 2]
            .map(|_| {
                let call = self.random.of(calls);
                self.kill(midnight, call)
            })
            .join(", then ");
        let what = format!("day {day}, {what}");
        self.happens(day);
        let now = midnight + HOUR;
        self.readers.set(now);
        let outcome = at(host, now, &[], &["renew", "-q"]);
        let (broken, unmounted) = (BROKEN.contains(&day), UNMOUNTED.contains(&day));
        let may_fail = broken || unmounted;
        assert!(outcome.status == 0 || (may_fail && outcome.status == 11), "{what}, then {outcome:?}");
        for (user, days, _) in DAEMONS {
            if (user == "gone" && day >= REVOKED) || (user == "mounted" && unmounted) {
                continue;
            }
            let age = age(host, user, now + 60);
            // What was waiting was told of when it could be: the key was fresh then, and the next run sees to it.
            let waited = if user == "told" && (broken || day == BROKEN.end) { 7 } else { 0 };
            assert!(age <= (days + waited) * DAY + DAY, "{what}: the key of {user} is {age} s old");
            let left = fs::read_dir(host.path(user)).unwrap().count();
            assert_eq!(left, 1, "{what}: something is left beside the key of {user}");
        }
        if unmounted {
            assert_eq!(fs::read_dir(host.path("mounted")).unwrap().count(), 0, "{what}: not mounted");
        }
        let owner = if (OWNERS[0]..OWNERS[1]).contains(&day) { 65_534 } else { 0 };
        assert_eq!(fs::metadata(key_file(host, "owned")).unwrap().uid(), owner, "{what}");
        self.accepted.push((now + 60, accepted_at(host, now + 60)));
        self.clone_too(day);
    }

    fn kill(&mut self, seconds: u64, call: &Call) -> String {
        let trace = format!("trace=execve,{}", call.name);
        let inject = format!("inject={}:signal=SIGKILL:when={}", call.name, call.number);
        let killed = traced(self.host, seconds, &["-e", &trace, "-e", &inject], &["renew", "-q"]);
        self.kills += u32::from(killed.trace.contains("killed by SIGKILL"));
        format!("killed at {call}: {:?}", killed.outcome)
    }

    /// What an admin does, or a machine.
    fn happens(&self, day: u64) {
        let (host, now) = (self.host, day * DAY + HOUR / 2);
        match day {
            _ if day == BROKEN.start => host.write("broken", b""),
            _ if day == BROKEN.end => fs::remove_file(host.path("broken")).unwrap(),
            _ if day == UNMOUNTED.start => {
                fs::rename(host.path("mounted"), host.path("away")).unwrap();
                fs::create_dir(host.path("mounted")).unwrap();
            }
            _ if day == UNMOUNTED.end => {
                fs::remove_dir(host.path("mounted")).unwrap();
                fs::rename(host.path("away"), host.path("mounted")).unwrap();
            }
            _ if OWNERS.contains(&day) => {
                let owner = if day == OWNERS[0] { "65534:65534" } else { "0:0" };
                done_at(host, now, &["ensure", "owned", "-q", "--key-file-owner", owner]);
            }
            REVOKED => {
                self.readers.one_is_revoked.store(true, Ordering::Relaxed);
                done_at(host, now, &["revoke", "gone", "-yq"]);
            }
            _ => {}
        }
        if day >= REVOKED {
            let keys = keys_of(host, "gone");
            assert!(keys.iter().all(|(_, status)| status != "active" && status != "pending"), "{keys:?}");
        }
    }

    fn clone_too(&mut self, day: u64) {
        let [made, said] = CLONE;
        if day == made {
            self.clone = Some((clone_of(self.host), keys_of(self.host, "gone")));
        }
        let Some((clone, gone)) = &self.clone else { return };
        let now = day * DAY + 2 * HOUR;
        if day == said {
            let reload = "echo $APIKEY_PREFIX >> told.log";
            done_at(clone, now, &["edit", "told", "-q", "--reload", reload]);
        }
        let outcome = at(clone, now, &[], &["renew", "-q"]);
        let not_said = day < said;
        assert!(outcome.status == 0 || (not_said && outcome.status == 11), "{outcome:?}");
        self.not_run += u32::from(outcome.stderr.contains("it was not set on this machine"));
        assert_eq!(clone.path("told.log").exists(), !not_said, "day {day}");
        assert!(!clone.path("gone.log").exists());
        for (user, days, _) in DAEMONS {
            if user != "gone" && !(user == "told" && not_said) {
                let age = age(clone, user, now + 60);
                assert!(age <= days * DAY + DAY, "day {day}: the clone's key of {user} is {age} s old");
            }
        }
        // Once a month it is looked at who never came back.
        if day.is_multiple_of(30) {
            for host in [self.host, clone] {
                assert_eq!(&keys_of(host, "gone"), gone, "day {day}");
            }
        }
    }
}
