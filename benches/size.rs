//! What a million keys in the database cost: the program, the library, and a list of them all.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use apikey::{Timestamp, Verdict, Verifier};
use common::{
    Table, active, apikey, apikey_under, asked_for, database_with, folder, key, median, ms, peak_memory,
    prefix, ratio, run, time, user, with,
};
use rusqlite::{Connection, OpenFlags};

const FEW: u32 = 1_000;
const SOME: u32 = 100_000;
const MANY: u32 = 1_000_000;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    run(&[("processes", processes), ("bytes", bytes), ("library", library), ("list", list), ("prune", prune)])
}

/// Each command as a whole process, on few keys and on many, in turn.
fn processes() -> Result<()> {
    const ROUNDS: u32 = 90;
    let folder = folder()?;
    let databases = [(FEW, database_with(FEW, folder.path())?), (MANY, database_with(MANY, folder.path())?)];
    let names = ["show", "verify", "create", "refresh", "list USER", "first refresh", "create --key-file"];
    let mut times: [[Vec<Duration>; 2]; 7] = Default::default();
    for round in 0..ROUNDS {
        // Every so often a write moves the log: each command's turn comes at another point of that.
        for position in 0..names.len() {
            let at = (position + round as usize) % names.len();
            let (name, times) = (names[at], &mut times[at]);
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
    // Spread over the users, and so over the pages. A daemon is not refreshed, since its file is not here.
    let n = round * (active(keys) / 100);
    let daemon = active(keys) / 10 * 9 + round % (active(keys) / 10);
    Ok(match name {
        "create" => apikey(database, &["create", &format!("new-{round}")]),
        "list USER" => apikey(database, &["list", &user(daemon, keys)]),
        "first refresh" => apikey(database, &["refresh", &format!("first-{round}"), "--yes"]),
        "create --key-file" => {
            let key_file = database.with_file_name(format!("{keys}-{round}.key"));
            let key_file = key_file.to_str().context("a path that is not UTF-8")?;
            apikey(database, &["create", &format!("daemon-{round}"), "--key-file", key_file])
        }
        "refresh" => apikey(database, &["refresh", &user(n, keys), "--yes"]),
        "verify" => {
            let input = with(database, "-input");
            fs::write(&input, key(daemon))?;
            let mut command = apikey(database, &["verify"]);
            command.stdin(File::open(input)?);
            command
        }
        name => apikey(database, &[name, &user(daemon, keys)]),
    })
}

/// What the file takes for each key.
fn bytes() -> Result<()> {
    let folder = folder()?;
    let database = database_with(MANY, folder.path())?;
    let size = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() as f64 / f64::from(MANY));
    let mut table = Table::new(["1,000,000 keys", "bytes a key", "goal"]);
    table.row(["keys, settings, their indexes".into(), format!("{:.0}", size(&database)?), "260".into()]);
    let grown = folder.path().join("grown.db");
    let connection = Connection::open(&database)?;
    let schema: String = connection.query_row(
        "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid)",
        [],
        |row| row.get(0),
    )?;
    let connection = Connection::open(&grown)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -1000000; {schema};
         ATTACH '{}' AS dense; INSERT INTO keys SELECT * FROM dense.keys ORDER BY id;
         INSERT INTO settings SELECT * FROM dense.settings",
        database.display()
    ))?;
    drop(connection);
    table.row(["the same as it grows, key by key".into(), format!("{:.0}", size(&grown)?), "-".into()]);
    table.print("The size of the file; events not counted");
    Ok(())
}

/// [`Verifier::verify`] in one thread, of every key there is, in no order, beside the statement that it
/// comes to.
fn library() -> Result<()> {
    let mut table =
        Table::new(["keys", "verified a second", "each", "goal", "the bare statement", "ratio", "goal"]);
    for keys in [FEW, SOME, MANY] {
        let folder = folder()?;
        let database = database_with(keys, folder.path())?;
        // A database in use has pages in its log; with none, SQLite asks for the file's size each time.
        time(&mut apikey(&database, &["create", "somebody"]))?;
        let verifier = Verifier::open(&database, Duration::from_secs(10))?;
        let bare = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // The numbers say nothing of where a key lies, so counting up jumps about.
        let presented: Vec<(String, i64)> = (0..keys).map(|n| (key(n), prefix(n))).collect();
        let (mut rounds, mut bare_rounds) = (Vec::new(), Vec::new());
        for round in 0..5 {
            let passes = if round == 0 { 1 } else { (SOME / keys).max(1) };
            let now = Timestamp::now()?;
            let start = Instant::now();
            for _ in 0..passes {
                let mut accepted = 0;
                for (key, _) in &presented {
                    accepted +=
                        u32::from(matches!(verifier.verify(key.as_bytes(), now)?, Verdict::Accepted(_)));
                }
                ensure!(accepted == active(keys), "{accepted} of {keys} keys were accepted");
            }
            let taken = start.elapsed() / (passes * keys);
            let start = Instant::now();
            for _ in 0..passes {
                let mut accepted = 0;
                for (_, prefix) in &presented {
                    accepted += u32::from(bare_look_up(&bare, *prefix)?);
                }
                ensure!(accepted == active(keys), "{accepted} of {keys} keys were accepted");
            }
            // The first is to warm up.
            if round > 0 {
                rounds.push(taken);
                bare_rounds.push(start.elapsed() / (passes * keys));
            }
        }
        let rate = |rounds: &[Duration]| format!("{:.0}", 1.0 / median(rounds).as_secs_f64());
        let (goal, ratio_goal) = if keys == MANY { ("200,000", "0.75") } else { ("-", "-") };
        table.row([
            keys.to_string(),
            rate(&rounds),
            format!("{} ns", median(&rounds).as_nanos()),
            goal.into(),
            rate(&bare_rounds),
            format!("{:.2}", ratio(&bare_rounds, &rounds)),
            ratio_goal.into(),
        ]);
    }
    table.print("The library's verify, one thread, random order");
    Ok(())
}

/// What a service would write by hand that knows the table: no key is hashed, no hash compared.
fn bare_look_up(connection: &Connection, prefix: i64) -> Result<bool> {
    let mut find = connection.prepare_cached(
        "SELECT key_hash, id, user, name, status, last_used_at, expires_at, revoked_at
         FROM keys WHERE prefix = ?1",
    )?;
    Ok(find.query_row([prefix], |row| {
        let hash = row.get_ref(0)?.as_blob()?.len();
        let user: String = row.get(2)?;
        Ok(hash == 32 && !user.is_empty() && row.get_ref(4)?.as_str()? == "active")
    })?)
}

/// Lists of many keys.
fn list() -> Result<()> {
    let folder = folder()?;
    let database = database_with(MANY, folder.path())?;
    let mut table = Table::new(["list of 1,000,000", "time", "output", "peak memory", "goal"]);
    let mut json_took = Duration::ZERO;
    for (args, memory_goal) in
        [(&["list", "--all", "--json"][..], "30 MiB"), (&["list", "--all"], "64 MiB, 3 times as long")]
    {
        let mut list = apikey_under(&peak_memory()?, &database, args);
        let listed = folder.path().join("listed");
        list.stdout(File::create(&listed)?);
        let (taken, output) = time(&mut list)?;
        let size = fs::metadata(&listed)?.len();
        let kib: f64 = String::from_utf8(output.stderr)?.trim().parse().context("peak memory")?;
        let in_words = if json_took.is_zero() {
            ms(taken)
        } else {
            format!("{} ({:.2})", ms(taken), taken.as_secs_f64() / json_took.as_secs_f64())
        };
        json_took = taken;
        table.row([
            args.join(" "),
            in_words,
            format!("{} MB", size / 1_000_000),
            format!("{:.1} MiB", kib / 1024.0),
            memory_goal.into(),
        ]);
    }
    table.print("Lists");
    Ok(())
}

/// Nine keys in ten ended long ago: all of those are forgotten, while another process writes again and again.
fn prune() -> Result<()> {
    let folder = folder()?;
    let database = database_with(MANY, folder.path())?;
    let refresh = || time(&mut apikey(&database, &["refresh", "writer", "-yq"])).map(|(took, _)| took);
    let alone = (0..100).map(|_| refresh()).collect::<Result<Vec<_>>>()?;
    let before = fs::metadata(&database)?.len();
    let start = Instant::now();
    let mut child = apikey(&database, &["prune", "--ended-for", "1d", "-yq"]).spawn()?;
    let mut beside = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        beside.push(refresh()?);
    };
    let took = start.elapsed();
    ensure!(status.success(), "{status}");
    let packed = folder.path().join("packed.db");
    time(&mut apikey(&database, &["backup", packed.to_str().context("a path in UTF-8")?, "-q"]))?;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let sizes = [before, fs::metadata(&database)?.len(), fs::metadata(&packed)?.len()].map(mib);
    let longest = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    let mut table = Table::new([
        "forgotten",
        "took",
        "a refresh alone",
        "beside it",
        "longest",
        "file",
        "after",
        "a backup",
    ]);
    let [file, after, backup] = sizes;
    let times = [median(&alone), median(&beside), longest(&beside)].map(ms);
    let [alone, median_beside, longest_beside] = times;
    let took = format!("{:.0} s", took.as_secs_f64());
    table.row(["900,000".into(), took, alone, median_beside, longest_beside, file, after, backup]);
    table.print(
        "900,000 of 1,000,000 keys forgotten beside another writer; its longest wait is to be under 100 ms",
    );
    Ok(())
}
