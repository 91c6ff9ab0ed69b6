//! What all threads of the soak share: where everything is, how the program is run and judged, and what has broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::board::Board;
use crate::common::apikey_under;
use crate::manner::Manner;
use crate::random::Random;

/// So long after the disk has room again a command may still tell of what it met.
const AFTER_FULL: Duration = Duration::from_secs(2);
/// Each waits so long for others.
const TIMEOUT: &str = "60s";

pub struct Soak {
    /// A file system of its own, which can be full.
    pub disk: PathBuf,
    /// Where Litestream copies to.
    pub storage: PathBuf,
    pub start: Instant,
    pub length: Duration,
    pub is_over: AtomicBool,
    pub board: Board,
    /// Users whose keys could only be made to expire, on a full disk: nobody says more of them.
    pub abandoned: Mutex<BTreeSet<String>>,
    /// Keys whose revocation may not have been written down, since the disk was full.
    pub not_in_log: Mutex<BTreeSet<String>>,
    pub stats: Mutex<BTreeMap<String, Stat>>,
    pub faults: Mutex<Vec<String>>,
    /// Deliveries that were found on their way.
    pub interrupted: AtomicU32,
    /// When the disk was full.
    full: Mutex<Vec<(Instant, Option<Instant>)>>,
}

/// What became of the runs of one command.
#[derive(Default)]
pub struct Stat {
    pub runs: u32,
    pub killed: u32,
    pub shifted: u32,
    pub failed: BTreeMap<String, u32>,
    pub longest: Duration,
    sum: Duration,
}

/// What a run did.
pub struct Outcome {
    pub args: String,
    /// None where it was killed.
    pub status: Option<i32>,
    /// What it said.
    pub answer: Value,
    /// Why it failed.
    pub error: Value,
    pub was_full: bool,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Soak {
    pub fn new(disk: PathBuf, storage: PathBuf, length: Duration) -> Self {
        Soak {
            disk,
            storage,
            start: Instant::now(),
            length,
            is_over: AtomicBool::default(),
            board: Board::default(),
            abandoned: Mutex::default(),
            not_in_log: Mutex::default(),
            stats: Mutex::default(),
            faults: Mutex::default(),
            interrupted: AtomicU32::default(),
            full: Mutex::default(),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.disk.join("keys.db")
    }

    /// Which part of the whole is over, from 0 to 1.
    pub fn part(&self) -> f64 {
        self.start.elapsed().as_secs_f64() / self.length.as_secs_f64()
    }

    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    pub fn fault(&self, what: impl Display) {
        let what = format!("after {:.1} s: {what}", self.start.elapsed().as_secs_f64());
        let mut faults = lock(&self.faults);
        if faults.len() < 50 {
            eprintln!("WRONG {what}");
        }
        faults.push(what);
    }

    /// What became of somebody's work, or nothing, where it has failed.
    pub fn came_of<T: Default>(&self, what: &str, done: thread::Result<Result<T>>) -> T {
        done.unwrap_or_else(|_| Err(anyhow!("a panic"))).unwrap_or_else(|error| {
            self.fault(format!("{what} failed: {error:#}"));
            T::default()
        })
    }

    pub fn begin_full(&self) {
        lock(&self.full).push((Instant::now(), None));
    }

    pub fn end_full(&self) {
        if let Some(last) = lock(&self.full).last_mut() {
            last.1 = Some(Instant::now());
        }
    }

    /// Whether there was no room on the disk at any time since then, or shortly before.
    pub fn was_full_since(&self, then: Instant) -> bool {
        lock(&self.full).iter().any(|(_, end)| end.is_none_or(|end| end + AFTER_FULL > then))
    }

    /// Runs the program and judges how it ended.
    pub fn run(&self, args: &[&str], manner: Manner, random: &mut Random) -> Result<Outcome> {
        let name = args.first().copied().unwrap_or_default();
        let delay = manner.kill.then(|| self.some_of_its_time(name, random));
        let ahead = format!("{:+}s", manner.ahead);
        let tool: &[&str] = if manner.ahead == 0 { &[] } else { &["faketime", "-f", &ahead] };
        let args = [args, &["--json", "--timeout", TIMEOUT]].concat();
        let mut command = apikey_under(tool, &self.database(), &args);
        // Else its time limits, which go by that one, would be an hour longer or none.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").current_dir(&self.disk);
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("apikey")?;
        if let Some(delay) = delay {
            thread::sleep(delay);
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let was_killed = delay.is_some() && output.status.signal() == Some(9);
        // Who answers and fails says why beside the answer; who prints a key and fails has not issued it.
        let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
        let (answer, error) = (json(&output.stdout), json(&output.stderr));
        let outcome = Outcome {
            args: format!("{} at {ahead}", args.join(" ")),
            status: output.status.code().filter(|_| !was_killed),
            answer,
            error,
            was_full: self.was_full_since(start),
        };
        // faketime gives back what it started gave, a signal as 128 and that.
        if !was_killed && output.status.code().is_none_or(|code| code > 100) {
            self.fault(format!("crashed: {outcome}: {output:?}"));
        }
        self.count(name, &outcome, manner, took);
        if !outcome.is_known(name) {
            self.fault(format!("{name}: {outcome}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(outcome)
    }

    fn count(&self, name: &str, outcome: &Outcome, manner: Manner, took: Duration) {
        let mut stats = lock(&self.stats);
        let stat = stats.entry(name.to_owned()).or_default();
        stat.runs += 1;
        stat.killed += u32::from(outcome.status.is_none());
        stat.shifted += u32::from(manner.ahead != 0);
        if outcome.status.is_some_and(|status| status != 0) {
            *stat.failed.entry(outcome.code().to_owned()).or_default() += 1;
        }
        stat.longest = stat.longest.max(took);
        stat.sum += took;
    }

    /// A moment within the time that the command usually takes, or shortly after.
    fn some_of_its_time(&self, name: &str, random: &mut Random) -> Duration {
        let stats = lock(&self.stats);
        let usual = stats.get(name).map_or(Duration::from_millis(20), |stat| stat.sum / stat.runs.max(1));
        usual.mul_f64(random.below(120) as f64 / 100.0)
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Outcome { args, status, answer, error, was_full } = self;
        let full = if *was_full { ", on a full disk" } else { "" };
        write!(f, "`{args}` ended with {status:?}{full}, and said {answer} {error}")
    }
}

impl Outcome {
    pub fn code(&self) -> &str {
        self.error["code"].as_str().unwrap_or_default()
    }

    /// Whether it is known to have changed nothing.
    pub fn changed_nothing(&self) -> bool {
        matches!(self.code(), "NO_KEY" | "KEY_EXISTS" | "UNDELIVERABLE" | "DB_LOCKED" | "USAGE" | "FORBIDDEN")
    }

    /// Whether it may have done something all the same, perhaps not all of it yet.
    pub fn may_be_done_yet(&self) -> bool {
        self.status != Some(0) && !self.changed_nothing()
    }

    /// Whether a command may end so.
    fn is_known(&self, name: &str) -> bool {
        let Some(status @ 1..) = self.status else { return true };
        match (name, status) {
            ("create", 3) | ("revoke" | "edit", 4) | ("refresh" | "ensure" | "edit", 9) | ("doctor", 11) => {
                true
            }
            ("prune", 1)
                if self.error["message"].as_str().is_some_and(|it| it.contains("is not believed")) =>
            {
                true
            }
            (_, 1) => self.was_full && self.code() == "DB_ERROR",
            (_, 6 | 8 | 11) => self.was_full,
            _ => false,
        }
    }
}
