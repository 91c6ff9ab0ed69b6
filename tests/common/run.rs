//! A run of the program, and what it did.
//!
//! What differs from run to run (keys, prefixes, ids, times, the folder) is written as `<key>`,
//! `<prefix>`, `<id>`, `<time>`, `<date>`, `<minute>` and `<folder>`, so that a test can say in full what it
//! expects of standard output, standard error and the exit status together.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;

use super::{Host, NOBODY};

/// The program, about to be run.
pub struct Run<'host> {
    host: &'host Host,
    command: Command,
    input: Option<Vec<u8>>,
}

impl<'host> Run<'host> {
    pub fn new(host: &'host Host, mut command: Command) -> Self {
        command.current_dir(host.folder());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Run { host, command, input: None }
    }

    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self.command.stdin(Stdio::piped());
        self
    }

    pub fn stdin_from(mut self, file: impl Into<Stdio>) -> Self {
        self.command.stdin(file);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn stdout_to(mut self, file: impl Into<Stdio>) -> Self {
        self.command.stdout(file);
        self
    }

    /// Changes how the process is started in a way that has no method of its own.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// As a uid that nothing belongs to. Only root can.
    pub fn by_nobody(self) -> Self {
        self.with(|command| {
            command.uid(NOBODY).gid(NOBODY);
        })
    }

    pub fn spawn(mut self) -> Child {
        let mut child = self.command.spawn().unwrap();
        if let Some(input) = self.input {
            let mut stdin = child.stdin.take().unwrap();
            // Beside it: a program that answers as it reads waits until its answers are read, too. One that has read
            // enough closes the pipe; that is no failure of the test.
            std::thread::spawn(move || drop(stdin.write_all(&input)));
        }
        child
    }

    /// Runs it, for a minute at the most: status -1 is a process that was killed, by us or by itself.
    #[must_use]
    pub fn run(self) -> Outcome {
        let folder = self.host.folder().to_str().unwrap().to_owned();
        let child = self.spawn();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (done, waiting) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if waiting.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                kill(pid, Signal::SIGKILL).unwrap();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(done);
        Outcome {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            folder,
        }
    }

    /// Runs it, and asserts everything that it does.
    #[track_caller]
    pub fn gives(self, status: i32, stdout: impl AsRef<str>, stderr: impl AsRef<str>) -> Outcome {
        let outcome = self.run();
        let found = (outcome.status, outcome.shown(&outcome.stdout), outcome.shown(&outcome.stderr));
        let (_, found_stdout, found_stderr) = &found;
        assert!(
            found == (status, stdout.as_ref().to_owned(), stderr.as_ref().to_owned()),
            "expected status {status}\n--- standard output\n{}--- standard error\n{}\
             found status {}\n--- standard output\n{found_stdout}--- standard error\n{found_stderr}",
            stdout.as_ref(),
            stderr.as_ref(),
            outcome.status,
        );
        outcome
    }

    /// Runs it, and asserts that it fails, and how, and that it writes nothing to standard output.
    #[track_caller]
    pub fn fails(self, status: i32, stderr: impl AsRef<str>) -> Outcome {
        self.gives(status, "", stderr)
    }
}

/// What the program did.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    folder: String,
}

impl Outcome {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code in the JSON object on standard error.
    #[track_caller]
    pub fn code(&self) -> String {
        let failure: serde_json::Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        failure["code"].as_str().unwrap().to_owned()
    }

    /// Whether nothing that it wrote, but for the ends of lines, steers a terminal or hides in one.
    pub fn is_printable(&self) -> bool {
        // Not the program's own list, so that a hole in that is found.
        let hidden = |c: char| {
            matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}')
        };
        !format!("{}{}", self.stdout, self.stderr)
            .contains(|c: char| (c.is_control() && c != '\n') || hidden(c))
    }

    /// Without what the first run on each host says of its database.
    fn shown(&self, text: &str) -> String {
        let text = text.replace(&self.folder, "<folder>");
        generalized(&text.replace("Made the database <folder>/keys.db.\n", ""))
    }
}

/// Whether `run` ends within `limit`. Where it does not it is run again, a few times: a machine may
/// stall for that long, but not each time.
pub fn ends_within(limit: Duration, mut run: impl FnMut()) -> bool {
    (0..5).any(|_| {
        let start = Instant::now();
        run();
        start.elapsed() < limit
    })
}

/// `text` with what differs from run to run written as placeholders.
pub fn generalized(text: &str) -> String {
    static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            ("ak_[0-9a-f]{72}", "<key>"),
            ("ak_[0-9a-f]{12}", "<prefix>"),
            ("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "<id>"),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", "<time>"),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "<date>"),
            (r"[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", "<minute>"),
        ]
        .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
        .into()
    });
    VARYING
        .iter()
        .fold(text.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned())
}
