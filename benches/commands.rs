//! Each command as a whole process, beside the `sqlite3` shell that does the same statements.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::{
    Table, apikey, apikey_under, asked_for, folder, is_there, median, ms, peak_memory, ratio, run, time, with,
};
use sha2::{Digest as _, Sha256};

const ROUNDS: u32 = 150;

/// Each round does all of these for a user of its own, in this order.
const COMMANDS: [&str; 6] = ["create", "show", "verify", "verify again", "refresh", "revoke"];

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    run(&[("shell", beside_the_shell), ("resources", what_it_takes)])
}

/// A database, and who writes it.
struct Side {
    database: PathBuf,
    log: Log,
    times: [Vec<Duration>; COMMANDS.len()],
}

/// What becomes of the write-ahead log when the process ends.
#[derive(Clone, Copy, PartialEq)]
enum Log {
    /// `apikey` decides.
    Apikey,
    /// The shell keeps it, as `apikey` does.
    ShellKeeps,
    /// The shell copies it to the database and removes it, as SQLite does unless it is told.
    ShellRemoves,
}

fn beside_the_shell() -> Result<()> {
    let folder = folder()?;
    let original = folder.path().join("keys.db");
    time(&mut apikey(&original, &["create", "somebody"]))?;
    let logs: &[Log] =
        if is_there("sqlite3") { &[Log::Apikey, Log::ShellKeeps, Log::ShellRemoves] } else { &[Log::Apikey] };
    let mut sides = Vec::new();
    for (n, &log) in logs.iter().enumerate() {
        let database = folder.path().join(format!("{n}.db"));
        for suffix in ["", "-wal"] {
            fs::copy(with(&original, suffix), with(&database, suffix))?;
        }
        sides.push(Side { database, log, times: Default::default() });
    }
    for round in 0..ROUNDS {
        // Who comes first changes, so that nobody always meets the cache that another left.
        let first = round as usize % sides.len();
        sides.rotate_left(first);
        for side in &mut sides {
            side.round(round)?;
        }
        sides.rotate_right(first);
    }
    let mut table = Table::new(["command", "apikey", "shell, log kept", "ratio", "shell, as it is", "ratio"]);
    for (n, command) in COMMANDS.into_iter().enumerate() {
        let own = &sides[0].times[n];
        let beside = |side: usize| match sides.get(side) {
            Some(side) => [ms(median(&side.times[n])), format!("{:.2}", ratio(own, &side.times[n]))],
            None => ["no sqlite3 here".into(), "-".into()],
        };
        let ([kept, to_kept], [removed, to_removed]) = (beside(1), beside(2));
        table.row([command.into(), ms(median(own)), kept, to_kept, removed, to_removed]);
    }
    table.print(&format!(
        "Whole processes in turn, medians of {ROUNDS}. The shell: the same statements in one immediate \
         transaction,\nWAL, synchronous=FULL; goal for create: a ratio of 1.0 at the most"
    ));
    Ok(())
}

impl Side {
    fn round(&mut self, round: u32) -> Result<()> {
        let user = format!("user-{round}");
        let mut key = common::key(round);
        for (n, name) in COMMANDS.into_iter().enumerate() {
            let mut command = match self.log {
                Log::Apikey => own(&[], &self.database, name, &user, &key)?,
                log => shell(&self.database, log, &sql(name, round)),
            };
            let (taken, output) = time(&mut command)?;
            self.times[n].push(taken);
            if self.log == Log::Apikey && matches!(name, "create" | "refresh") {
                key = String::from_utf8(output.stdout)?;
            }
        }
        Ok(())
    }
}

/// A command of `apikey`, by its name in [`COMMANDS`], started by a tool where there is one.
fn own(tool: &[String], database: &Path, name: &str, user: &str, key: &str) -> Result<Command> {
    let args: &[&str] = match name {
        "verify" | "verify again" => &["verify"],
        "refresh" | "revoke" => &[name, user, "--yes"],
        _ => &[name, user],
    };
    let mut command = apikey_under(tool, database, args);
    if args == ["verify"] {
        let input = with(database, "-input");
        fs::write(&input, key)?;
        command.stdin(File::open(input)?);
    }
    Ok(command)
}

/// What a command comes to in SQL, without its checks. The shell gets the hash ready made.
fn sql(name: &str, round: u32) -> String {
    let hash = |n: u32| hex::encode(Sha256::digest(common::key(n)));
    let (user, created, refreshed) = (format!("user-{round}"), hash(round), hash(ROUNDS + round));
    let columns = "prefix, key_hash, id, user, name, status, last_used_at, expires_at, revoked_at";
    let now = "'2026-11-22T08:19:03.123Z'";
    let event = |event: &str, n: u32| {
        let prefix = common::prefix(n);
        format!(
            "INSERT INTO events (at, event, user, prefix, uid, login, detail)
             VALUES ({now}, '{event}', '{user}', {prefix}, 0, 'root', '{name}');"
        )
    };
    let insert = |hash: &str, n: u32| {
        format!(
            "INSERT INTO keys (prefix, key_hash, id, user, name, status, expires_at)
             VALUES ({}, x'{hash}', '0199aa3f-0000-7000-8000-{n:012}', '{user}', NULL, 'active', NULL)
             ON CONFLICT (prefix) DO NOTHING RETURNING {columns}; {}",
            common::prefix(n),
            event("issued", n)
        )
    };
    let current = format!("SELECT {columns} FROM keys WHERE user = '{user}' AND status = 'active';");
    let revoke = |n: u32| {
        let prefix = common::prefix(n);
        let update =
            format!("UPDATE keys SET status = 'revoked', revoked_at = {now} WHERE prefix = {prefix};");
        update + &event("revoked", n)
    };
    let find = format!("SELECT {columns} FROM keys WHERE prefix = {};", common::prefix(round));
    let work = match name {
        "create" => current + &insert(&created, round),
        "refresh" => format!("{current} {} {}", revoke(round), insert(&refreshed, ROUNDS + round)),
        "revoke" => format!("{current} {}", revoke(ROUNDS + round)),
        "verify" => {
            return format!(
                "{find} PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE;
                 UPDATE keys SET last_used_at = {now} WHERE prefix = {}; COMMIT;",
                common::prefix(round)
            );
        }
        "verify again" => return find,
        _ => current,
    };
    format!("BEGIN IMMEDIATE; {work} COMMIT;")
}

fn shell(database: &Path, log: Log, sql: &str) -> Command {
    let mut shell = Command::new("sqlite3");
    shell.env_clear().args(["-batch", "-init", "/dev/null"]).stdin(Stdio::null());
    let synchronous = "PRAGMA synchronous = FULL;";
    if log == Log::ShellKeeps {
        shell.args(["-cmd", ".filectrl persist_wal 1", "-cmd", ".dbconfig no_ckpt_on_close on"]);
    }
    shell.arg(database).arg(format!("{synchronous} {sql}"));
    shell
}

/// System calls, fsyncs, instructions and memory of each command.
fn what_it_takes() -> Result<()> {
    let mut table = Table::new(["command", "system calls", "fsyncs", "instructions", "peak memory"]);
    for name in COMMANDS.into_iter().filter(|name| *name != "verify again") {
        let (calls, fsyncs) = system_calls(name)?;
        table.row([name.into(), calls, fsyncs, instructions(name)?, memory(name)?]);
    }
    table.print("What each command takes, with six frames in the log");
    Ok(())
}

fn system_calls(name: &str) -> Result<(String, String)> {
    if !is_there("strace") {
        return Ok(("no strace here".into(), "-".into()));
    }
    let calls = said_by(&["strace".into()], name)?;
    let calls: Vec<&str> = calls.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
    let fsyncs = calls.iter().filter(|call| matches!(**call, "fsync" | "fdatasync")).count();
    Ok((calls.len().to_string(), fsyncs.to_string()))
}

fn instructions(name: &str) -> Result<String> {
    if !is_there("valgrind") {
        return Ok("no valgrind here".into());
    }
    let tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"].map(str::to_owned);
    let said = said_by(&tool, name)?;
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    Ok(line.context("callgrind said nothing")?.1.to_owned())
}

fn memory(name: &str) -> Result<String> {
    let said = said_by(&peak_memory()?, name)?;
    let kib: f64 = said.lines().last().unwrap_or_default().parse()?;
    Ok(format!("{:.1} MiB", kib / 1024.0))
}

/// What a tool that watches the command says on standard error. The database is a new one each
/// time, with the keys of two users and their frames in the log.
fn said_by(tool: &[String], name: &str) -> Result<String> {
    let folder = folder()?;
    let database = folder.path().join("keys.db");
    time(&mut apikey(&database, &["create", "alice"]))?;
    let bob = time(&mut apikey(&database, &["create", "bob"]))?.1;
    let user = if name == "create" { "carol" } else { "bob" };
    let mut command = own(tool, &database, name, user, &String::from_utf8(bob.stdout)?)?;
    Ok(String::from_utf8(time(&mut command)?.1.stderr)?)
}
