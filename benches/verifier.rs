//! How many keys a service can check: with one thread, with two, and by `verify --stream`.

mod common;

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use apikey::{Timestamp, Verdict, Verifier};
use common::{Table, active, apikey, asked_for, database_with, folder, key, median, ratio, run, time};

const KEYS: u32 = 1_000_000;
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    run(&[("threads", threads), ("stream", stream)])
}

/// One verifier, shared by one thread and by two, in turn: key by key, and many at a time.
fn threads() -> Result<()> {
    let folder = folder()?;
    let database = database_with(KEYS, folder.path())?;
    // A database in use has pages in its log; with none, SQLite asks for the file's size each time.
    time(&mut apikey(&database, &["create", "somebody"]))?;
    let verifier = Verifier::open(&database, Duration::from_secs(10))?;
    let presented: Vec<String> = (0..KEYS).map(key).collect();
    let accepted = |keys: &[String], at_a_time: usize| {
        let now = Timestamp::now()?;
        let mut accepted = 0;
        for keys in keys.chunks(at_a_time) {
            let texts: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let verdicts = match texts[..] {
                [key] => vec![verifier.verify(key, now)?],
                _ => verifier.verify_all(&texts, now)?,
            };
            accepted += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted(_))).count();
        }
        Ok::<usize, apikey::Error>(accepted)
    };
    let mut table = Table::new(["keys at a time", "threads", "verified a second", "ratio", "goal"]);
    for at_a_time in [1, 32] {
        let (mut alone, mut both) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let start = Instant::now();
            ensure!(accepted(&presented, at_a_time)? == active(KEYS) as usize, "a key was not accepted");
            let one = start.elapsed();
            let start = Instant::now();
            let halves = presented.split_at(presented.len() / 2);
            let sum = thread::scope(|scope| {
                let other = scope.spawn(|| accepted(halves.0, at_a_time));
                let own = accepted(halves.1, at_a_time)?;
                Ok::<usize, anyhow::Error>(own + other.join().map_err(|_| anyhow!("a panic"))??)
            })?;
            ensure!(sum == active(KEYS) as usize, "a key was not accepted");
            // The first is to warm up, and writes down that each was used.
            if round > 0 {
                alone.push(one);
                both.push(start.elapsed());
            }
        }
        let rate = |rounds: &[Duration]| format!("{:.0}", f64::from(KEYS) / median(rounds).as_secs_f64());
        let at_a_time = at_a_time.to_string();
        table.row([at_a_time.clone(), "1".into(), rate(&alone), "1".into(), "200,000 a second".into()]);
        table.row([at_a_time, "2".into(), rate(&both), format!("{:.2}", ratio(&alone, &both)), "1.7".into()]);
    }
    table.print("One verifier, 1,000,000 keys, random order");
    Ok(())
}

/// Every key there is through a pipe.
fn stream() -> Result<()> {
    let folder = folder()?;
    let database = database_with(KEYS, folder.path())?;
    let lines = folder.path().join("lines");
    fs::write(&lines, (0..KEYS).map(|n| key(n) + "\n").collect::<String>())?;
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (reader, mut writer) = std::io::pipe()?;
        let mut input = File::open(&lines)?;
        let fed = thread::spawn(move || std::io::copy(&mut input, &mut writer));
        let mut verify = apikey(&database, &["verify", "--stream"]);
        verify.stdin(reader);
        let (taken, output) = time(&mut verify)?;
        drop(verify);
        fed.join().map_err(|_| anyhow!("a panic"))??;
        let accepted =
            output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"valid\":true"));
        ensure!(accepted.count() == active(KEYS) as usize, "a key was not accepted");
        if round > 0 {
            rounds.push(taken);
        }
    }
    let mut table = Table::new(["verified a second", "goal"]);
    table.row([format!("{:.0}", f64::from(KEYS) / median(&rounds).as_secs_f64()), "100,000".into()]);
    table.print("`apikey verify --stream`, 1,000,000 keys, a pipe in and a pipe out");
    Ok(())
}
