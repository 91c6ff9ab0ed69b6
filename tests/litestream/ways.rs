//! Ways to verify a key that stay open, and a fresh one.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use crate::common::{Host, Run};

/// A program that is asked line by line, and answers so.
pub struct Dialogue(Child, BufReader<ChildStdout>);

impl Dialogue {
    fn begin(run: Run<'_>) -> Self {
        let run = run.stdin_from(Stdio::piped()).with(|command| {
            command.stderr(Stdio::inherit());
        });
        let mut program = run.spawn();
        let answers = BufReader::new(program.stdout.take().unwrap());
        Dialogue(program, answers)
    }

    pub fn ask(&mut self, keys: &[&str]) -> Vec<String> {
        let mut questions = self.0.stdin.as_ref().unwrap();
        keys.iter().for_each(|key| writeln!(questions, "{key}").unwrap());
        let mut answer = || {
            let mut line = String::new();
            let read = self.1.read_line(&mut line).unwrap();
            assert!(read > 0, "it has ended: {:?}", self.0.try_wait());
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

/// The Python of examples/, with a connection that stays open.
pub fn python(host: &Host) -> Dialogue {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify.py");
    let run = host.program("python3", &[OsStr::new("-u"), program.as_os_str()]);
    #[allow(clippy::disallowed_methods, reason = "where the test finds Python, not what the program reads")]
    let run = run.env("PATH", std::env::var("PATH").unwrap()).env("APIKEY_DB", host.database());
    Dialogue::begin(run)
}

pub fn stream(host: &Host) -> Dialogue {
    let run = host.apikey(&["verify", "--stream"]);
    Dialogue::begin(run)
}

/// The status in an answer of `--stream`.
pub fn status(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    answer["status"].as_str().unwrap().to_owned()
}

/// Whether the key is accepted, by a fresh `apikey verify`.
pub fn is_accepted(host: &Host, key: &str) -> bool {
    let outcome = host.apikey(&["verify", "-q"]).input(key).run();
    assert!([0, 5].contains(&outcome.status), "{outcome:?}");
    outcome.status == 0
}
