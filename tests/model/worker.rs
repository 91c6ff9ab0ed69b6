//! The program: a process of its own that does one command after the other through the library, at the time that
//! it is told, and that can be killed.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use apikey::{
    Authority, Changes, Issued, Key, KeyFilePath, Recipient, Refresh, Renewal, Result, Step, Timestamp,
    Verdict, Verifier,
};
use nix::unistd::{Pid, gettid};
use serde::{Deserialize, Serialize};

use crate::step::{Change, Command, FILES, MINUTE, Ms, Options, USERS};

/// What a worker is to do.
#[derive(Clone, Serialize, Deserialize)]
pub struct Task {
    pub folder: PathBuf,
    pub now: Ms,
    pub command: Command,
    /// The key that the command picks, where it picks one.
    pub key: String,
    pub timeout: Duration,
}

/// What it said: the codes of what failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer(pub Vec<String>);

impl Answer {
    pub fn of(codes: &[apikey::Code]) -> Self {
        Answer(codes.iter().map(|code| code.as_str().to_owned()).collect())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("done") } else { f.write_str(&self.0.join(", ")) }
    }
}

const IS_WORKER: &str = "MODEL_WORKER";

/// Those that wait for work.
#[derive(Default)]
pub struct Workers(Vec<Worker>);

impl Workers {
    pub fn one(&mut self) -> Worker {
        self.0.pop().unwrap_or_else(Worker::start)
    }

    pub fn back(&mut self, worker: Worker) {
        self.0.push(worker);
    }
}

/// A worker, as the test has it.
pub struct Worker {
    child: Child,
    pub thread: Pid,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub fn start() -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env(IS_WORKER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut from = BufReader::new(from).lines();
        // The test's own first words come before.
        let is_it = |line: io::Result<String>| line.unwrap().strip_prefix("thread ")?.parse().ok();
        let thread = Pid::from_raw(from.find_map(is_it).unwrap());
        Worker { child, thread, to, from }
    }

    pub fn process(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn tell(&mut self, task: &Task) {
        writeln!(self.to, "{}", serde_json::to_string(task).unwrap()).unwrap();
    }

    /// The keys that it gave out, and its answer, where it lived to give one.
    pub fn hear(&mut self) -> (Vec<String>, Option<Answer>) {
        let mut keys = Vec::new();
        for line in self.from.by_ref().map_while(io::Result::ok) {
            match line.strip_prefix("key ") {
                Some(key) => keys.push(key.to_owned()),
                None => return (keys, serde_json::from_str(&line).ok()),
            }
        }
        (keys, None)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other process does, where this is one.
pub fn work() {
    if std::env::var_os(IS_WORKER).is_none() {
        return;
    }
    say(&format!("thread {}", gettid()));
    for line in io::stdin().lines() {
        let task: Task = serde_json::from_str(&line.unwrap()).unwrap();
        NOW.store(task.now, Ordering::Relaxed);
        let answer = match run(&task) {
            Ok(failed) => failed,
            Err(error) => vec![error.code().as_str().to_owned()],
        };
        say(&serde_json::to_string(&Answer(answer)).unwrap());
    }
}

fn say(line: &str) {
    io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

static NOW: AtomicI64 = AtomicI64::new(0);

pub fn timestamp(ms: Ms) -> Timestamp {
    let start = Timestamp::parse("1970-01-01T00:00:00.000Z").unwrap();
    start.checked_add(Duration::from_millis(ms.unsigned_abs())).unwrap()
}

fn clock() -> Result<Timestamp> {
    Ok(timestamp(NOW.load(Ordering::Relaxed)))
}

struct Reader;

impl Recipient for Reader {
    fn check(&self, _: &[PathBuf]) -> Result<()> {
        Ok(())
    }

    fn take(&mut self, key: &Key, _: &Issued) -> Result<()> {
        say(&format!("key {}", key.expose()));
        Ok(())
    }
}

/// Does it, and returns the codes of what failed where others did not.
fn run(task: &Task) -> Result<Vec<String>> {
    let database = task.folder.join("keys.db");
    let mut authority = Authority::open_or_create(&database, task.timeout, clock)?;
    let order = |user: &usize, options| {
        let changes = changes(&task.folder, options)?;
        Ok(apikey::Order { user: USERS[*user].parse()?, changes })
    };
    let mut failed = Vec::new();
    match &task.command {
        Command::Create(user, options) => drop(authority.create(&order(user, options)?, &mut Reader)?),
        Command::Refresh { user, grace, revoke_first, options } => {
            let refresh = Refresh {
                order: order(user, options)?,
                grace: grace.map(minutes),
                revoke_first: *revoke_first,
                agreed: None,
            };
            authority.refresh(&refresh, &mut Reader)?;
        }
        Command::Ensure(user, options) => {
            drop(authority.ensure(&order(user, options)?, false, &mut Reader)?)
        }
        Command::Edit(user, options) => drop(authority.edit(&order(user, options)?, &mut Reader)?),
        Command::Renew(user) => {
            let user = user.map(|user| USERS[user].parse()).transpose()?;
            authority.renew(user.as_ref(), &mut Reader, |step| {
                if let Step::Ends(Renewal::Failed(_, error)) = step {
                    failed.push(error.code().as_str().to_owned());
                }
            })?;
        }
        Command::Revoke(user) => drop(authority.revoke(&USERS[*user].parse()?, None)?),
        Command::RevokeKey(_) => drop(authority.revoke(&task.key[..15].parse()?, None)?),
        Command::Prune(ended_for) => drop(authority.prune(minutes(*ended_for), |_| {})?),
        Command::Verify(_) => {
            let verifier = Verifier::open(&database, task.timeout)?;
            if !matches!(verifier.verify(task.key.as_bytes(), clock()?)?, Verdict::Accepted(_)) {
                failed.push("INVALID_KEY".to_owned());
            }
            verifier.write_uses();
        }
    }
    Ok(failed)
}

fn minutes(minutes: Ms) -> Duration {
    Duration::from_millis((minutes * MINUTE).unsigned_abs())
}

fn changes(folder: &Path, options: &Options) -> Result<Changes> {
    fn map<T, U>(change: &Change<T>, to: impl FnOnce(&T) -> Result<U>) -> Result<apikey::Change<U>> {
        Ok(match change {
            Change::Keep => apikey::Change::Keep,
            Change::Set(value) => apikey::Change::Set(to(value)?),
            Change::TakeAway => apikey::Change::TakeAway,
        })
    }
    Ok(Changes {
        name: map(&options.name, |name| format!("label {name}").parse())?,
        lifetime: map(&options.lifetime, |lifetime| Ok(minutes(*lifetime)))?,
        key_file: map(&options.file, |file| KeyFilePath::new(&folder.join(FILES[*file])))?,
        key_file_mode: options.mode.map(|mode| format!("{mode:04o}").parse()).transpose()?,
        key_file_env: map(&options.env, |()| "KEY".parse())?,
        reload: map(&options.reload, |works| works.to_string().parse())?,
        renew_after: map(&options.renew_after, |age| Ok(minutes(*age)))?,
        renew_grace: options.renew_grace.map(minutes),
        ..Changes::default()
    })
}
