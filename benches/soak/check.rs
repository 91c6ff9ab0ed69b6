//! Those who check keys, and know what they must be told.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use apikey::{Key, Timestamp, Verdict, Verifier};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::{Value, json};

use crate::board::Question;
use crate::common::{APIKEY, Table, apikey, ms};
use crate::random::Random;
use crate::soak::Soak;

/// What those were told who asked in one way.
#[derive(Default)]
pub struct Tally {
    accepted: u32,
    refused: u32,
    wrongly_no: u32,
    wrongly_yes: u32,
    no_answer: u32,
    longest: Duration,
}

/// Asks until the soak is over.
pub fn check(
    soak: &Soak,
    way: &'static str,
    mut random: Random,
    mut ask: impl FnMut(&str) -> Result<bool, String>,
) -> (&'static str, Tally) {
    let mut tally = Tally::default();
    while soak.goes_on() {
        thread::sleep(Duration::from_millis(10));
        let Some(question) = soak.board.question(&mut random) else { continue };
        let start = Instant::now();
        let mut ask = |key: &str| {
            let start = Instant::now();
            let answer = ask(key);
            tally.longest = tally.longest.max(start.elapsed());
            answer
        };
        let answered = match &question {
            Question::Accepted { key, .. } | Question::Ended { key } => ask(key).map(|yes| (yes, true)),
            Question::InFile { path } => ask_as_daemon(path, ask),
        };
        let (answer, is_same) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                tally.no_answer += 1;
                if !soak.was_full_since(start) {
                    soak.fault(format!("{way} gave no answer: {error}"));
                }
                continue;
            }
        };
        *if answer { &mut tally.accepted } else { &mut tally.refused } += 1;
        match question {
            Question::Accepted { key, user, epoch } if !answer && soak.board.is_as_it_was(user, epoch) => {
                tally.wrongly_no += 1;
                soak.fault(format!("{way} refused {}, which is accepted", &key[..15]));
            }
            Question::InFile { path } if !answer && is_same => {
                tally.wrongly_no += 1;
                soak.fault(format!("{way} refused the key that is in {}", path.display()));
            }
            Question::Ended { key } if answer => {
                tally.wrongly_yes += 1;
                soak.fault(format!("{way} accepted {}, which has ended", &key[..15]));
            }
            _ => {}
        }
    }
    (way, tally)
}

/// As a daemon does, which reads its file again where its key is refused: whether the last key was accepted, and
/// whether that is the one which the file holds.
fn ask_as_daemon(
    path: &Path,
    mut ask: impl FnMut(&str) -> Result<bool, String>,
) -> Result<(bool, bool), String> {
    let read = || fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut key = read()?;
    for _ in 0..5 {
        if ask(&key)? {
            return Ok((true, true));
        }
        let now = read()?;
        if now == key {
            return Ok((false, true));
        }
        key = now;
    }
    Ok((false, false))
}

/// Asks a fresh `apikey verify`.
pub fn by_process(soak: &Soak, key: &str) -> Result<bool, String> {
    let mut command = apikey(&soak.database(), &["verify", "--json"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ask = || {
        let mut child = command.spawn()?;
        child.stdin.take().context("no input")?.write_all(key.as_bytes())?;
        Ok::<_, anyhow::Error>(child.wait_with_output()?)
    };
    match ask().map_err(|error| error.to_string())? {
        output if output.status.success() => Ok(true),
        output if output.status.code() == Some(5) => Ok(false),
        output => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// A program that is asked line by line, and answers so, in JSON.
pub struct Dialogue {
    pub child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Dialogue {
    fn begin(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Dialogue { child, questions, answers })
    }

    pub fn ask(&mut self, key: &str) -> Result<bool, String> {
        let mut ask = || {
            writeln!(self.questions, "{key}")?;
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            let answer: Value = serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
            answer["valid"].as_bool().with_context(|| answer.to_string())
        };
        ask().map_err(|error| format!("{error:#}"))
    }

    /// Lets it end, as it does at the end of its input.
    pub fn end(self) -> Result<()> {
        let Dialogue { mut child, questions, .. } = self;
        drop(questions);
        let status = child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// A program that ends with this one, however that ends.
pub fn companion(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

pub fn stream(soak: &Soak) -> Result<Dialogue> {
    let mut command = companion(APIKEY);
    command.args(["verify", "--stream", "--timeout", "60s"]).env("APIKEY_DB", soak.database());
    Dialogue::begin(&mut command)
}

pub const LIBRARY: &str = "--library";

/// A process that has a [`Verifier`] and little else, so that its memory is that of the library.
pub fn library(soak: &Soak) -> Result<Dialogue> {
    let own = std::env::current_exe()?;
    let mut command = companion(own.to_str().context("the path of this program is not UTF-8")?);
    Dialogue::begin(command.arg(LIBRARY).arg(soak.database()))
}

/// What that process does.
pub fn be_the_library(database: &str) -> Result<()> {
    let opened = Verifier::open(database.as_ref(), Duration::from_secs(60));
    let verifier = opened.map_err(|error| anyhow!("{error}"))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let verdict = Timestamp::now().and_then(|now| verifier.verify(line.as_bytes(), now));
        let answer = match verdict {
            Ok(verdict) => json!({"valid": matches!(verdict, Verdict::Accepted(_))}),
            Err(error) => json!({"code": error.code().as_str(), "message": error.to_string()}),
        };
        println!("{answer}");
    }
    Ok(())
}

/// A service's look-up, on a connection that stays open, and once more where it fails.
pub fn by_sql(soak: &Soak) -> Result<impl FnMut(&str) -> Result<bool, String>> {
    let connection = Connection::open_with_flags(soak.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(move |key: &str| {
        let key = Key::parse(key.as_bytes()).ok_or("it is no key")?;
        let look = || {
            let sql = "SELECT id, user, name FROM accepted_keys WHERE key_hash = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row([key.hash().to_string()], |_| Ok(())).optional()
        };
        look().or_else(|_| look()).map(|found| found.is_some()).map_err(|error| error.to_string())
    })
}

pub fn print(tallies: Vec<(&str, Tally)>) {
    let header = ["asked", "accepted", "refused", "wrongly no", "wrongly yes", "no answer", "longest"];
    let mut table = Table::new(header);
    for (way, tally) in tallies {
        let Tally { accepted, refused, wrongly_no, wrongly_yes, no_answer, longest } = tally;
        let numbers =
            [accepted, refused, wrongly_no, wrongly_yes, no_answer].map(|number| number.to_string());
        let [accepted, refused, wrongly_no, wrongly_yes, no_answer] = numbers;
        let longest = ms(longest);
        table.row([way.to_owned(), accepted, refused, wrongly_no, wrongly_yes, no_answer, longest]);
    }
    table.print("Those who checked keys; no answer only while the disk was full");
}
