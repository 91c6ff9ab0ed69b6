//! A host as it is seen from outside: what the database holds, and what lies in the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Write as _};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use apikey::{Key, Status, Timestamp};
use rusqlite::{Connection, OpenFlags, Row};

use crate::step::{FILES, Ms};
use crate::worker::timestamp;

/// The database and the folder; the model keeps the same.
#[derive(Clone, Default, PartialEq)]
pub struct World {
    /// By prefix.
    pub keys: BTreeMap<String, Known>,
    /// What is in force for a user, and when the key is due.
    pub kept: BTreeMap<String, (Kept, Option<Ms>)>,
    /// What is on its way to a user.
    pub pending: BTreeMap<String, Pending>,
    pub files: BTreeMap<String, File>,
    /// By file and prefix: whether the whole key is there.
    pub stages: BTreeMap<(String, String), bool>,
    pub log: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub user: String,
    pub name: Option<String>,
    /// As it is stored.
    pub status: Status,
    pub created: Ms,
    pub expires: Option<Ms>,
    pub revoked: Option<Ms>,
    pub used: Option<Ms>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub name: Option<String>,
    pub lifetime: Option<Ms>,
    pub file: Option<Place>,
    pub reload: Option<bool>,
    pub renew_after: Option<Ms>,
    pub renew_grace: Option<Ms>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub mode: u32,
    pub env: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub prefix: String,
    pub kept: Kept,
    pub grace: Ms,
    /// Its reader is to be told.
    pub tell: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub holds: Content,
    pub mode: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Nothing,
    Junk,
    Key { prefix: String, env: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub at: Ms,
    pub event: String,
    pub user: Option<String>,
    pub prefix: Option<String>,
    pub expires: Option<Ms>,
    pub until: Option<Ms>,
}

impl Known {
    /// Where it stands at that time.
    pub fn status(&self, now: Ms) -> Status {
        let passed = |moment: Option<Ms>| moment.is_some_and(|moment| moment <= now);
        match self.status {
            Status::Retiring if passed(self.revoked) => Status::Revoked,
            stored if stored.is_accepted() && passed(self.expires) => Status::Expired,
            stored => stored,
        }
    }

    pub fn is_accepted(&self, now: Ms) -> bool {
        self.status(now).is_accepted()
    }
}

impl World {
    /// Whether the file holds a key of the user's that is accepted at that time.
    pub fn has_key(&self, place: &Place, user: &str, now: Ms) -> bool {
        let is_good = |known: &Known| known.user == user && known.is_accepted(now);
        self.files.get(&place.name).is_some_and(|file| match &file.holds {
            Content::Key { prefix, .. } => self.keys.get(prefix).is_some_and(is_good),
            _ => false,
        })
    }
}

/// A host in a folder, with the keys that were seen on it.
pub struct Host {
    folder: tempfile::TempDir,
    /// Every key that was ever given out or delivered, in that order.
    pub seen: Vec<String>,
}

fn ms(text: &str) -> Ms {
    Timestamp::parse(text).unwrap_or_else(|| panic!("no time: {text}")).unix_millis().cast_signed()
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Ms>> {
    Ok(row.get::<_, Option<String>>(column)?.map(|text| ms(&text)))
}

fn prefix(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|bits| format!("ak_{bits:012x}")))
}

/// When the key with this id, a UUID of version 7, was issued.
fn created(id: &str) -> Ms {
    Ms::from_str_radix(&id.replace('-', "")[..12], 16).unwrap()
}

impl Host {
    pub fn new() -> Self {
        // Nothing here is about a power cut.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        // Whatever the umask is.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Host { folder, seen: Vec::new() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection that changes nothing, not even when it is closed.
    pub fn sqlite(&self) -> Connection {
        let database = self.folder().join("keys.db");
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    pub fn has_seen(&mut self, key: &str) {
        if self.seen.iter().all(|seen| seen != key) {
            self.seen.push(key.to_owned());
        }
    }

    /// All of it, as it is now.
    pub fn look(&mut self) -> World {
        let (mut world, sqlite) = (World::default(), self.sqlite());
        let all = |sql: &str, each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>| {
            let mut statement = sqlite.prepare(sql).unwrap();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                each(row).unwrap();
            }
        };
        all("SELECT * FROM keys", &mut |row| {
            let known = Known {
                user: row.get("user")?,
                name: row.get("name")?,
                status: row.get::<_, String>("status")?.parse().unwrap(),
                created: created(&row.get::<_, String>("id")?),
                expires: time(row, "expires_at")?,
                revoked: time(row, "revoked_at")?,
                used: time(row, "last_used_at")?,
            };
            world.keys.insert(prefix(row, "prefix")?.unwrap(), known);
            Ok(())
        });
        all("SELECT * FROM settings", &mut |row| {
            let (user, kept) = (row.get("user")?, kept(row)?);
            if row.get::<_, i64>("pending_key")? == 0 {
                world.kept.insert(user, (kept, time(row, "due_at")?));
            } else {
                let prefix = prefix(row, "pending_key")?.unwrap();
                let (grace, tell) = (row.get("grace_ms")?, row.get("reload_pending")?);
                let another = world.pending.insert(user, Pending { prefix, kept, grace, tell });
                assert_eq!(another, None, "one at a time");
            }
            Ok(())
        });
        all("SELECT * FROM events ORDER BY number", &mut |row| {
            world.log.push(Event {
                at: time(row, "at")?.unwrap(),
                event: row.get("event")?,
                user: row.get("user")?,
                prefix: prefix(row, "prefix")?,
                expires: time(row, "expires_at")?,
                until: time(row, "valid_until")?,
            });
            Ok(())
        });
        self.look_at_files(&mut world);
        world
    }

    fn look_at_files(&mut self, world: &mut World) {
        for entry in fs::read_dir(self.folder()).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("keys.db") {
                continue;
            }
            let content = fs::read_to_string(entry.path()).unwrap();
            let key = content.strip_prefix("KEY=").unwrap_or(&content).trim_end();
            let prefix = Key::parse(key.as_bytes()).map(|key| key.prefix().to_string());
            if prefix.is_some() {
                self.has_seen(key);
            }
            if let Some((file, of)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) {
                let is_whole = prefix.is_some_and(|prefix| prefix == of);
                world.stages.insert((file.to_owned(), of.to_owned()), is_whole);
                continue;
            }
            assert!(FILES.contains(&&*name), "{name}");
            let holds = match prefix {
                Some(prefix) => Content::Key { prefix, env: content.starts_with("KEY=") },
                None if content.is_empty() => Content::Nothing,
                None => Content::Junk,
            };
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            world.files.insert(name, File { holds, mode });
        }
    }

    /// The prefixes of the keys that a service would accept at each of these times: by the view's own text.
    pub fn accepted(&self, times: &[Ms]) -> Vec<BTreeSet<String>> {
        let sqlite = self.sqlite();
        let sql = "SELECT sql FROM sqlite_schema WHERE name = 'accepted_keys'";
        let view: String = sqlite.query_row(sql, [], |row| row.get(0)).unwrap();
        let (_, select) = view.split_once(" AS\n").unwrap();
        let select = format!("SELECT prefix FROM ({})", select.replace("'now'", "?1"));
        let mut accepted = sqlite.prepare(&select).unwrap();
        let mut at = |time: &Ms| {
            let rows = accepted.query_map([timestamp(*time).to_string()], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        times.iter().map(&mut at).collect()
    }
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let path: Option<String> = row.get("key_file")?;
    let name = path.map(|path| Path::new(&path).file_name().unwrap().to_str().unwrap().to_owned());
    let (mode, env) = (row.get("key_file_mode")?, row.get::<_, Option<String>>("key_file_env")?.is_some());
    Ok(Kept {
        name: row.get("name")?,
        lifetime: row.get("lifetime_ms")?,
        file: match (name, mode) {
            (Some(name), Some(mode)) => Some(Place { name, mode, env }),
            _ => None,
        },
        reload: row.get::<_, Option<String>>("reload")?.map(|command| command == "true"),
        renew_after: row.get("renew_after_ms")?,
        renew_grace: row.get("renew_grace_ms")?,
    })
}

/// One thing a line, so that two can be compared by their lines.
impl Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut lines =
            |what: &str, which: &dyn Debug, it: &dyn Debug| writeln!(text, "{what} {which:?}: {it:?}");
        self.keys.iter().try_for_each(|(prefix, it)| lines("key", prefix, it))?;
        self.kept.iter().try_for_each(|(user, it)| lines("settings", user, it))?;
        self.pending.iter().try_for_each(|(user, it)| lines("pending", user, it))?;
        self.files.iter().try_for_each(|(name, it)| lines("file", name, it))?;
        self.stages.iter().try_for_each(|(name, it)| lines("stage", name, it))?;
        self.log.iter().enumerate().try_for_each(|(number, it)| lines("event", &number, it))?;
        f.write_str(&text)
    }
}
