//! What it takes to look at ten thousand key files.

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use apikey::{Authority, Change, Changes, KeyFilePath, Order, Timestamp};
use common::{Files, Table, apikey, asked_for, folder, median, ms, ratio, time};
use rusqlite::Connection;

const FILES: u32 = 10_000;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    let mut table = Table::new(["key files", "folders", "doctor", "bare", "ratio"]);
    for folders in [1, FILES] {
        let host = folder()?;
        let (doctor, bare) = in_turn(host.path(), folders)?;
        let ratio = format!("{:.1}", ratio(&doctor, &bare));
        table.row([FILES.to_string(), folders.to_string(), ms(median(&doctor)), ms(median(&bare)), ratio]);
    }
    table.print("doctor, and as many stats and reads of 75 bytes and an integrity_check; goal: at most 2");
    Ok(())
}

/// What doctor takes, and what the bare calls do, with the key files in that many folders.
fn in_turn(host: &Path, folders: u32) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let database = host.join("keys.db");
    let failed = |error: apikey::Error| anyhow!("{error}");
    let mut authority =
        Authority::open_or_create(&database, Duration::from_secs(10), Timestamp::now).map_err(failed)?;
    let path = |n: u32| host.join(format!("{}/key-{n}", n % folders));
    for n in 0..FILES {
        fs::create_dir_all(host.join((n % folders).to_string()))?;
        let key_file = Change::Set(KeyFilePath::new(&path(n)).map_err(failed)?);
        let changes = Changes { key_file, ..Changes::default() };
        let order = Order { user: format!("user-{n}").parse().map_err(failed)?, changes };
        authority.create(&order, &mut Files).map_err(failed)?;
    }
    drop(authority);
    let (mut doctor, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (took, output) = time(&mut apikey(&database, &["doctor"]))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        doctor.push(took);
        let start = Instant::now();
        for n in 0..FILES {
            let path = path(n);
            fs::symlink_metadata(&path)?;
            File::open(&path)?.read_exact(&mut [0; 75])?;
        }
        let checked: String =
            Connection::open(&database)?.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(checked == "ok", "{checked}");
        bare.push(start.elapsed());
    }
    Ok((doctor, bare))
}
