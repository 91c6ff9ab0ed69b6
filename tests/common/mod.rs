//! Runs the program as a user does: in a folder of its own, with an environment of its own.
//!
//! What differs from run to run (keys, prefixes, ids, times, the folder) is written as `<key>`,
//! `<prefix>`, `<id>`, `<time>`, `<date>` and `<folder>`, so that a test can say in full what it
//! expects of standard output, standard error and the exit status together.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]
#![allow(clippy::print_stdout, reason = "figures that were measured, for --nocapture")]

pub mod aftermath;
pub mod disk;
pub mod strace;
pub mod verifier;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use regex::Regex;
use rusqlite::Connection;
use tempfile::TempDir;

/// The program under test.
pub const APIKEY: &str = env!("CARGO_BIN_EXE_apikey");

/// The uid and gid that nothing belongs to.
const NOBODY: u32 = 65_534;

/// What `create` and `refresh` say of a new key.
pub fn issued_to(user: &str) -> String {
    format!("Issued <prefix> to {user}. The key is shown only once.\n")
}

/// A folder with, after the first `create`, a database in it.
pub struct Host {
    folder: TempDir,
    program: OnceLock<TempDir>,
}

impl Host {
    pub fn new() -> Self {
        Host { folder: TempDir::new().unwrap(), program: OnceLock::new() }
    }

    /// A host where `user` has a key, and that key.
    pub fn with_key_of(user: &str) -> (Self, String) {
        let host = Host::new();
        let key = host.key_from(&["create", user]);
        (host, key)
    }

    /// A host whose folder is made in this one.
    pub fn new_in(parent: &Path) -> Self {
        Host { folder: TempDir::new_in(parent).unwrap(), program: OnceLock::new() }
    }

    /// Another host with the same files, and the same permissions on them.
    pub fn copy(&self) -> Self {
        self.copy_in(&std::env::temp_dir())
    }

    /// Such a copy, in a folder that is made in `parent`.
    pub fn copy_in(&self, parent: &Path) -> Self {
        let copy = Host::new_in(parent);
        for entry in std::fs::read_dir(self.folder()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.folder().join(entry.file_name())).unwrap();
        }
        let permissions = std::fs::metadata(self.folder()).unwrap().permissions();
        std::fs::set_permissions(copy.folder(), permissions).unwrap();
        copy
    }

    /// Lets every uid read the database, so that it can verify.
    pub fn let_all_read(&self) {
        self.chmod("", 0o755);
        for file in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            if self.path(file).exists() {
                self.chmod(file, 0o644);
            }
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("keys.db")
    }

    /// The database, open for a test to look at it or to spoil it.
    pub fn sqlite(&self) -> Connection {
        Connection::open(self.database()).unwrap()
    }

    pub fn execute(&self, sql: &str) {
        self.sqlite().execute_batch(sql).unwrap();
    }

    /// How many keys a service would accept.
    pub fn accepted(&self) -> u32 {
        self.sqlite().query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get(0)).unwrap()
    }

    /// A key that `user` had, and that is no longer accepted.
    pub fn expired_key_of(&self, user: &str) -> String {
        let key = self.key_from(&["create", user, "--expires-in", "1ms"]);
        std::thread::sleep(Duration::from_millis(2));
        key
    }

    /// What lies in the folder.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    pub fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Every file in the folder with its content: equal before and after a command that changed
    /// nothing. The index of the log (-shm) is no content, and the lock has none.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let ignored =
            |path: &PathBuf| [".db-shm", ".db-lock"].iter().any(|end| path.to_str().unwrap().ends_with(end));
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_file() && !ignored(path));
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// The program with `args`, in this folder, on the database in it; standard input is empty.
    pub fn apikey<S: AsRef<OsStr>>(&self, args: &[S]) -> Run<'_> {
        self.program(APIKEY, args)
    }

    /// Another program in place of it.
    pub fn program<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[S]) -> Run<'_> {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("APIKEY_DB", self.database())
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run { host: self, command, input: None }
    }

    /// The same as somebody who is bound to permissions, which root is not: where the tests run as
    /// root, as another uid, to whom everything in the folder is given.
    pub fn apikey_unprivileged<S: AsRef<OsStr>>(&self, args: &[S]) -> Run<'_> {
        if !geteuid().is_root() {
            return self.apikey(args);
        }
        let inside = self.names().into_iter().map(|name| self.path(&name));
        for path in inside.chain([self.folder().to_owned()]) {
            lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        self.program(self.apikey_for_all(), args).by_nobody()
    }

    /// A copy of the program where everybody can run it: where it was built, others may not be
    /// allowed to look.
    pub fn apikey_for_all(&self) -> PathBuf {
        let folder = self.program.get_or_init(|| {
            let folder = TempDir::new().unwrap();
            std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
            // By another process: what this one has open for writing, a process that another test
            // starts meanwhile has open too, and then it can't be run (ETXTBSY).
            let copied = Command::new("cp").arg(APIKEY).arg(folder.path()).status().unwrap();
            assert!(copied.success());
            folder
        });
        folder.path().join("apikey")
    }

    /// The key that `args` print.
    pub fn key_from(&self, args: &[&str]) -> String {
        let outcome = self.apikey(args).run();
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        outcome.stdout.trim_end().to_owned()
    }

    /// What `verify --json` says the status of `key` is.
    pub fn status_of(&self, key: &str) -> String {
        let verdict = self.apikey(&["verify", "--json"]).input(key).run();
        verdict.json()["status"].as_str().unwrap().to_owned()
    }
}

/// The program, about to be run.
pub struct Run<'host> {
    host: &'host Host,
    command: Command,
    input: Option<Vec<u8>>,
}

impl Run<'_> {
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
            // A program that has read enough closes the pipe; that is no failure of the test.
            let _ = child.stdin.take().unwrap().write_all(&input);
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

    fn shown(&self, text: &str) -> String {
        generalized(&text.replace(&self.folder, "<folder>"))
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
        ]
        .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
        .into()
    });
    VARYING
        .iter()
        .fold(text.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned())
}
