//! What the benchmarks share: databases of any size, times in turn, and one table.
//!
//! The machine that runs this is noisy, and may be slow or fast. So what is compared runs in turn,
//! and what is judged is a ratio of medians, never a time.
#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use apikey::{Issued, Key, Recipient};
use nix::sys::resource::{UsageWho, getrusage};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The program, built as it is released.
pub const APIKEY: &str = env!("CARGO_BIN_EXE_apikey");

/// Whether `cargo bench` asked for this, and not `cargo test --all-targets`, which would wait long.
pub fn asked_for() -> Result<bool> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(PEAK_MEMORY) {
        let status = Command::new(args.next().context("no program")?).args(args).status()?;
        ensure!(status.success(), "{status}");
        eprintln!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
        return Ok(false);
    }
    let asked = std::env::args().any(|arg| arg == "--bench");
    if !asked {
        eprintln!("run this with `cargo bench`");
    }
    Ok(asked)
}

/// A part of a benchmark and its name.
pub type Part = (&'static str, fn() -> Result<()>);

/// Runs the parts that are named on the command line, or all: `cargo bench --bench size -- list`.
pub fn run(parts: &[Part]) -> Result<()> {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|other| other == name);
    parts.iter().filter(|(name, _)| wanted(name)).try_for_each(|(_, run)| run())
}

const PEAK_MEMORY: &str = "--peak-memory-of";

/// How to start this very program so that it says how many KiB of memory another took at the most:
/// from a process as small as can be, for whoever is started begins with what its starter has.
pub fn peak_memory() -> Result<[String; 2]> {
    let own = std::env::current_exe()?.into_os_string().into_string();
    Ok([own.map_err(|name| anyhow!("{} is not UTF-8", name.display()))?, PEAK_MEMORY.into()])
}

/// A folder for databases, on the disk that the build is on: /tmp may be memory, with a free fsync.
pub fn folder() -> Result<TempDir> {
    Ok(TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// The program on `database`, with nothing on standard input.
pub fn apikey(database: &Path, args: &[&str]) -> Command {
    apikey_under::<&str>(&[], database, args)
}

/// The program, started by a tool and its options, where there are some.
pub fn apikey_under<S: AsRef<OsStr>>(tool: &[S], database: &Path, args: &[&str]) -> Command {
    let mut words = tool.iter().map(AsRef::as_ref).chain([APIKEY.as_ref()]);
    let mut command = Command::new(words.next().unwrap_or(APIKEY.as_ref()));
    command.args(words).args(args).stdin(Stdio::null());
    // cargo's own variables would send the loader to look for libraries in more places.
    command.env_clear().env("APIKEY_DB", database).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// Runs `command` to its end, which must be success, and says how long that took.
pub fn time(command: &mut Command) -> Result<(Duration, Output)> {
    let start = Instant::now();
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let taken = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok((taken, output))
}

/// Whether a tool can be started. The benchmarks do without those that are not there, and say so.
pub fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

/// The value below which `part` of `values` lie.
pub fn quantile(values: &[Duration], part: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

pub fn median(values: &[Duration]) -> Duration {
    quantile(values, 0.5)
}

pub fn ratio(of: &[Duration], to: &[Duration]) -> f64 {
    median(of).as_secs_f64() / median(to).as_secs_f64()
}

pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// Rows of text, printed with their columns in line.
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Table(vec![header.map(str::to_owned).into()])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into());
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}\n");
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.0[0].len()).map(width).collect();
        let print = |row: &[String]| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            println!("| {} |", cells.join(" | "));
        };
        print(&self.0[0]);
        print(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
        self.0[1..].iter().for_each(|row| print(row));
    }
}

/// The key number `n`: the same in each run, so that a database that is kept can be asked for it.
pub fn key(n: u32) -> String {
    let body = format!("ak_{}", hex::encode(Sha256::digest(n.to_be_bytes())));
    let checksum = hex::encode(&Sha256::digest(&body)[..4]);
    body + &checksum
}

/// The user whose key the number `n` is. One key in ten is active, and each user has one of those.
pub fn user(n: u32, keys: u32) -> String {
    format!("user-{}", n % active(keys))
}

/// The file beside `path` whose name is that with `suffix` at its end.
pub fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How many of `keys` are active: those with the lowest numbers.
pub fn active(keys: u32) -> u32 {
    keys / 10
}

/// A new copy, in `folder`, of a database with this many keys.
pub fn database_with(keys: u32, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("{keys}.db"));
    fs::copy(kept_database(keys)?, &path)?;
    // Else the kernel would still be writing it out while an fsync is timed.
    File::open(&path)?.sync_all()?;
    Ok(path)
}

/// A database with this many keys, built once for each schema and kept in the target folder.
fn kept_database(keys: u32) -> Result<PathBuf> {
    let folder = folder()?;
    let new = folder.path().join("keys.db");
    time(&mut apikey(&new, &["create", "somebody"]))?;
    let connection = Connection::open(&new)?;
    let schema: String =
        connection.query_row("SELECT group_concat(sql, ';') FROM sqlite_schema", [], |row| row.get(0))?;
    let version = hex::encode(&Sha256::digest(schema)[..4]);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{keys}-keys-{version}.db"));
    if !kept.exists() {
        eprintln!("building a database with {keys} keys, once ...");
        fill(&connection, keys).context("cannot fill the database")?;
        drop(connection);
        fs::rename(&new, &kept)?;
    }
    Ok(kept)
}

/// Replaces what is in the database by `keys` keys, in the order in which the file holds them, and
/// leaves no log. The last user in ten is a daemon, with a key file and what
/// else is kept with one.
fn fill(connection: &Connection, keys: u32) -> Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;
         BEGIN; DELETE FROM keys; DELETE FROM settings; DELETE FROM events",
    )?;
    let mut by_prefix: Vec<(i64, u32)> = (0..keys).map(|n| (prefix(n), n)).collect();
    by_prefix.sort_unstable();
    let mut insert = connection.prepare(
        "INSERT INTO keys (prefix, key_hash, id, user, status, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (prefix, n) in by_prefix {
        let mut random = [0; 10];
        random.copy_from_slice(&Sha256::digest(n.to_le_bytes())[..10]);
        let id = uuid::Builder::from_unix_timestamp_millis(1_767_225_600_000 + u64::from(n), &random);
        let is_active = n < active(keys);
        insert.execute(params![
            prefix,
            Sha256::digest(key(n)).as_slice(),
            id.into_uuid().to_string(),
            user(n, keys),
            if is_active { "active" } else { "revoked" },
            (!is_active).then_some("2026-02-02T00:00:00.000Z"),
        ])?;
    }
    let mut settings = connection.prepare(
        "INSERT INTO settings (user, pending_key, lifetime_ms, key_file, key_file_mode, key_file_uid,
             key_file_gid, reload, reload_timeout_ms, renew_after_ms, renew_grace_ms, due_at)
         VALUES (?1, 0, 7776000000, ?2, 384, 1000, 1000, ?3, 120000, 2592000000, 3600000,
             '2026-01-31T00:00:00.000Z')",
    )?;
    for n in active(keys) / 10 * 9..active(keys) {
        let user = user(n, keys);
        let (key_file, reload) = (format!("/etc/{user}/{user}.key"), format!("systemctl reload {user}"));
        settings.execute(params![user, key_file, reload])?;
    }
    connection.execute_batch("COMMIT; VACUUM")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "the journal mode is {mode}");
    Ok(())
}

/// The 48 bits of the prefix of the key number `n`.
pub fn prefix(n: u32) -> i64 {
    i64::from_str_radix(&key(n)[3..15], 16).unwrap_or_default()
}

/// Nobody: the keys go to files.
pub struct Files;

impl Recipient for Files {
    fn check(&self, _: &[PathBuf]) -> apikey::Result<()> {
        Ok(())
    }

    fn take(&mut self, _: &Key, _: &Issued) -> apikey::Result<()> {
        Ok(())
    }
}
