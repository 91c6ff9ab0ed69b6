//! What a million keys in the database cost: the program, the library, and a list of them all.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use apikey::{Store, Timestamp, Verdict};
use common::{
    Table, active, apikey, apikey_under, asked_for, database_with, folder, key, median, ms, peak_memory,
    ratio, run, time, user, with,
};

const FEW: u32 = 1_000;
const SOME: u32 = 100_000;
const MANY: u32 = 1_000_000;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    run(&[("processes", processes), ("library", library), ("list", list)])
}

/// Each command as a whole process, on few keys and on many, in turn.
fn processes() -> Result<()> {
    const ROUNDS: u32 = 100;
    let folder = folder()?;
    let databases = [(FEW, database_with(FEW, folder.path())?), (MANY, database_with(MANY, folder.path())?)];
    let names = ["show", "verify", "create", "refresh"];
    let mut times: [[Vec<Duration>; 2]; 4] = Default::default();
    for round in 0..ROUNDS {
        for (name, times) in names.iter().zip(&mut times) {
            let mut order = [0, 1];
            order.rotate_left(round as usize % 2);
            for side in order {
                let (keys, database) = &databases[side];
                times[side].push(time(&mut command(name, database, *keys, round)?)?.0);
            }
        }
    }
    let mut table = Table::new(["command", "1,000 keys", "1,000,000 keys", "ratio", "goal"]);
    for (name, [few, many]) in names.iter().zip(&times) {
        let ratio = format!("{:.2}", ratio(many, few));
        table.row([(*name).into(), ms(median(few)), ms(median(many)), ratio, "1.20".into()]);
    }
    table.print(&format!("Whole processes in turn, medians of {ROUNDS}"));
    Ok(())
}

/// A command on a key that no other round is about.
fn command(name: &str, database: &Path, keys: u32, round: u32) -> Result<Command> {
    // Spread over the users, and so over the pages.
    let n = round * (active(keys) / 100);
    Ok(match name {
        "create" => apikey(database, &["create", &format!("new-{round}")]),
        "refresh" => apikey(database, &["refresh", &user(n, keys), "--yes"]),
        "verify" => {
            let input = with(database, "-input");
            fs::write(&input, key(n))?;
            let mut command = apikey(database, &["verify"]);
            command.stdin(File::open(input)?);
            command
        }
        name => apikey(database, &[name, &user(n, keys)]),
    })
}

/// [`Store::verify`] in one thread, of every key there is, in no order.
fn library() -> Result<()> {
    let mut table = Table::new(["keys", "verified a second", "each", "goal"]);
    for keys in [FEW, SOME, MANY] {
        let folder = folder()?;
        let database = database_with(keys, folder.path())?;
        // A database in use has pages in its log; with none, SQLite asks for the file's size each time.
        time(&mut apikey(&database, &["create", "somebody"]))?;
        let store = Store::open(&database, Duration::from_secs(10))?;
        // The numbers say nothing of where a key's hash lies, so counting up jumps about.
        let presented: Vec<String> = (0..keys).map(key).collect();
        let mut rounds = Vec::new();
        for round in 0..5 {
            let passes = if round == 0 { 1 } else { (SOME / keys).max(1) };
            let now = Timestamp::now();
            let start = Instant::now();
            for _ in 0..passes {
                let mut accepted = 0;
                for key in &presented {
                    accepted += u32::from(matches!(store.verify(key.as_bytes(), now)?, Verdict::Accepted(_)));
                }
                ensure!(accepted == active(keys), "{accepted} of {keys} keys were accepted");
            }
            // The first is to warm up.
            if round > 0 {
                rounds.push(start.elapsed() / (passes * keys));
            }
        }
        let each = median(&rounds);
        let goal = if keys == MANY { "200,000" } else { "-" };
        let rate = format!("{:.0}", 1.0 / each.as_secs_f64());
        table.row([keys.to_string(), rate, format!("{} ns", each.as_nanos()), goal.into()]);
    }
    table.print("The library's verify, one thread, random order");
    Ok(())
}

/// `list --all --json` of many keys.
fn list() -> Result<()> {
    let folder = folder()?;
    let database = database_with(MANY, folder.path())?;
    let mut list = apikey_under(&peak_memory()?, &database, &["list", "--all", "--json"]);
    let listed = folder.path().join("list.json");
    list.stdout(File::create(&listed)?);
    let (taken, output) = time(&mut list)?;
    let size = fs::metadata(&listed)?.len();
    let kib: f64 = String::from_utf8(output.stderr)?.trim().parse().context("peak memory")?;
    let mut table = Table::new(["keys", "time", "output", "peak memory", "goal"]);
    table.row([
        MANY.to_string(),
        ms(taken),
        format!("{} MB", size / 1_000_000),
        format!("{:.1} MiB", kib / 1024.0),
        "30 MiB".into(),
    ]);
    table.print("list --all --json");
    Ok(())
}
