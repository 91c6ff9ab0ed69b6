//! A host to run the program on as a user does: in a folder of its own, with an environment of its own.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

pub mod aftermath;
pub mod container;
pub mod disk;
pub mod locks;
mod run;
pub mod strace;
pub mod verifier;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use rusqlite::Connection;
use tempfile::TempDir;

pub use self::run::{Outcome, Run, ends_within, generalized};

/// The program under test.
pub const APIKEY: &str = env!("CARGO_BIN_EXE_apikey");

/// The uid and gid that nothing belongs to.
pub const NOBODY: u32 = 65_534;

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
        Host::new_in(&std::env::temp_dir())
    }

    /// A host where `user` has a key, and that key.
    pub fn with_key_of(user: &str) -> (Self, String) {
        let host = Host::new();
        let key = host.key_from(&["create", user]);
        (host, key)
    }

    /// A host whose folder is made in this one.
    pub fn new_in(parent: &Path) -> Self {
        // Some, such as containers, have one with which whatever a test makes is everybody's to write.
        umask(Mode::from_bits_truncate(0o022));
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

    /// So many keys of others, each revoked long ago.
    pub fn add_revoked_keys(&self, keys: u32) {
        self.execute(&format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {keys})
             INSERT INTO keys (prefix, key_hash, id, user, status, revoked_at)
             SELECT n, randomblob(32), '019b76da-a800-7000-8000-000000000000', 'user' || n, 'revoked', '2026-02-01T00:00:00.000Z' FROM n"
        ));
    }

    /// Puts the pending keys on their way to `/none/key`: those that a test has made pending by hand.
    pub fn deliver_pending(&self) {
        self.execute(
            "INSERT INTO settings (user, pending_key, key_file, key_file_mode, grace_ms, reload_pending)
             SELECT user, prefix, '/none/key', 384, 0, 0 FROM keys WHERE status = 'pending'",
        );
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
    /// nothing. The index of the log (-shm) is no content, and which boot the lock notes is none.
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
        command.args(args).env_clear().env("APIKEY_DB", self.database());
        Run::new(self, command)
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
