//! A database to be spoiled, a new one each time.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use apikey::{
    Authority, Change, Changes, Issued, Key, KeyFilePath, Order, Recipient, Refresh, Result, Subject,
    Timestamp, Verdict, Verifier,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::ends_as_documented;

/// Takes each key, and keeps the last.
#[derive(Default)]
pub struct Taker(pub String);

impl Recipient for Taker {
    fn check(&self, _: &[PathBuf]) -> Result<()> {
        Ok(())
    }

    fn take(&mut self, key: &Key, _: &Issued) -> Result<()> {
        self.0 = key.expose().to_owned();
        Ok(())
    }
}

/// Nobody but the caller may write it, whatever the umask is.
pub fn private_folder() -> TempDir {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(permissions).tempdir().unwrap()
}

pub fn order(user: &str, changes: Changes) -> Order {
    Order { user: user.parse().unwrap(), changes }
}

pub fn refresh(user: &str, changes: Changes) -> Refresh {
    Refresh { order: order(user, changes), grace: None, revoke_first: false, agreed: None }
}

pub fn user(user: &str) -> Subject {
    Subject::User(user.parse().unwrap())
}

/// The tables of ours with no word of what a value is to be, so that any can be stored.
const LOOSE: [(&str, &str); 2] = [
    (
        "keys",
        "CREATE TABLE keys (prefix INTEGER PRIMARY KEY, key_hash, id, user, name, status, expires_at, revoked_at, \
         last_used_at)",
    ),
    (
        "settings",
        "CREATE TABLE settings (user, pending_key, name, lifetime_ms, key_file, key_file_mode, key_file_uid, \
         key_file_gid, key_file_env, reload, reload_timeout_ms, reload_machine, renew_after_ms, renew_grace_ms, \
         due_at, grace_ms, reload_pending, PRIMARY KEY (user, pending_key)) WITHOUT ROWID",
    ),
];

/// A database, and the keys of those who have some in it.
struct Template {
    database: Vec<u8>,
    /// Alice's: retiring, active, revoked, of which she has one each. Bob's, and web's, which is in a file.
    keys: BTreeMap<&'static str, String>,
    /// The texts of the tables that can be made loose.
    texts: Vec<(&'static str, String)>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let folder = private_folder();
    let path = folder.path().join("keys.db");
    let mut authority = Authority::open_or_create(&path, Duration::ZERO, Timestamp::now).unwrap();
    let mut keys = BTreeMap::new();
    let mut taker = Taker::default();
    authority.create(&order("alice", Changes::default()), &mut taker).unwrap();
    keys.insert("revoked", taker.0.clone());
    authority.refresh(&refresh("alice", Changes::default()), &mut taker).unwrap();
    keys.insert("retiring", taker.0.clone());
    let grace = Some(Duration::from_secs(86_400));
    authority.refresh(&Refresh { grace, ..refresh("alice", Changes::default()) }, &mut taker).unwrap();
    keys.insert("active", taker.0.clone());
    authority.create(&order("bob", Changes::default()), &mut taker).unwrap();
    keys.insert("bob", taker.0.clone());
    let key_file = KeyFilePath::new(&folder.path().join("web.key")).unwrap();
    let key_file = Changes { key_file: Change::Set(key_file), ..Changes::default() };
    authority.create(&order("web", key_file), &mut taker).unwrap();
    keys.insert("web", fs::read_to_string(folder.path().join("web.key")).unwrap());
    drop(authority);
    let connection = Connection::open(&path).unwrap();
    let text = |table| {
        connection
            .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
            .unwrap()
    };
    let texts = LOOSE.map(|(table, _)| (table, text(table))).into();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    Template { database: fs::read(&path).unwrap(), keys, texts }
});

pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self::with(&TEMPLATE.database)
    }

    pub fn with(database: &[u8]) -> Self {
        let scratch = Scratch { folder: private_folder() };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(scratch.database());
        file.unwrap().write_all(database).unwrap();
        // The file is in this folder, and not in that of the template.
        let mut options = OpenOptions::new();
        let key_file = options.write(true).create_new(true).mode(0o600).open(scratch.path("web.key"));
        key_file.unwrap().write_all(scratch.key("web").as_bytes()).unwrap();
        scratch
    }

    /// The database as it is before it is spoiled.
    pub fn bytes() -> Vec<u8> {
        TEMPLATE.database.clone()
    }

    pub fn key(&self, of: &str) -> &'static str {
        &TEMPLATE.keys[of]
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("keys.db")
    }

    pub fn authority(&self) -> Result<Authority> {
        Authority::open(&self.database(), Duration::ZERO, Timestamp::now)
    }

    /// For a change that none of our programs would make.
    pub fn sqlite(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON").unwrap();
        connection
    }

    /// Has web's settings name the file in this folder.
    pub fn with_key_file(self) -> Self {
        let path = fs::canonicalize(self.folder.path()).unwrap().join("web.key");
        let sql = "UPDATE settings SET key_file = ?1 WHERE user = 'web'";
        self.sqlite().execute(sql, [path.to_str().unwrap()]).unwrap();
        self
    }

    /// Lets `change` store whatever it likes in our tables, which are what they were when it is done. `false` where
    /// SQLite says no, as where a unique index stands against it.
    pub fn change(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> bool {
        let connection = self.sqlite();
        let set = |texts: &[(&str, &str)], end: &str| {
            connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
            for (table, text) in texts {
                let sql = "UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1";
                connection.execute(sql, [table, text]).unwrap();
            }
            connection.execute_batch(end).unwrap();
        };
        set(&LOOSE, "PRAGMA writable_schema = RESET");
        let changed = change(&connection).is_ok_and(|rows| rows > 0);
        let texts: Vec<(&str, &str)> =
            TEMPLATE.texts.iter().map(|(table, text)| (*table, text.as_str())).collect();
        set(&texts, "PRAGMA writable_schema = OFF");
        changed
    }

    /// What a service is told that asks through the library.
    pub fn verdict(&self, key: &str) -> Option<Verdict> {
        let verifier = ends_as_documented(Verifier::open_read_only(&self.database(), Duration::ZERO))?;
        ends_as_documented(verifier.verify(key.as_bytes(), Timestamp::now().unwrap()))
    }

    pub fn is_accepted(&self, key: &str) -> bool {
        matches!(self.verdict(key), Some(Verdict::Accepted(_)))
    }

    /// Whether a service that asks the view finds the key, as it says in the README.
    pub fn is_in_view(&self, key: &str) -> bool {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let service = Connection::open_with_flags(self.database(), flags).unwrap();
        let hash = Key::parse(key.as_bytes()).unwrap().hash().to_string();
        let sql = "SELECT id, user, name FROM accepted_keys WHERE key_hash = ?1";
        service.prepare(sql).and_then(|mut statement| statement.exists([hash])).unwrap_or(false)
    }
}
