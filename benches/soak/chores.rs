//! What is done on a host beside its users: renewals, pruning, backups, looks at all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::manner::Manner;
use crate::random::Random;
use crate::soak::{Soak, lock};

/// So many daemons have keys that `renew` replaces.
const RENEWED: usize = 6;

/// Gives their keys to the daemons whose keys stay fresh by themselves.
pub fn begin(soak: &Soak, random: &mut Random) -> Result<()> {
    fs::create_dir(soak.disk.join("daemons"))?;
    fs::create_dir(soak.disk.join("backups"))?;
    for user in 0..RENEWED {
        let path = soak.disk.join("daemons").join(format!("renewed{user}"));
        let (user, file) = (format!("renewed{user}"), path.display().to_string());
        let ages = ["--renew-after", "5s", "--renew-grace", "30s", "--reload", "true"];
        let args = [&["ensure", &user, "--key-file", &file], &ages[..]].concat();
        let outcome = soak.run(&args, Manner::default(), random)?;
        ensure!(outcome.status == Some(0), "{outcome}");
        lock(&soak.board.renewed).push(path);
    }
    Ok(())
}

/// What the timer does, and who looks.
pub fn renew_and_look(soak: &Soak, mut random: Random) -> Result<()> {
    while soak.goes_on() {
        let args: &[&str] = match random.below(10) {
            0..5 => &["renew"],
            5 => &["list", "--all"],
            6 => &["list", "--due"],
            7 => &["log"],
            8 => &["show", "renewed0"],
            _ => &["doctor"],
        };
        let manner = Manner::of(soak, 15, &mut random);
        soak.run(args, manner, &mut random)?;
        thread::sleep(Duration::from_millis(700));
    }
    Ok(())
}

/// What is forgotten, in all.
#[derive(Default)]
pub struct Pruned {
    pub keys: u64,
    pub events: u64,
}

pub fn prune_and_copy(soak: &Soak, mut random: Random) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    while soak.goes_on() {
        let manner = Manner::of(soak, 15, &mut random);
        let outcome = soak.run(&["prune", "--ended-for", "20s", "--yes"], manner, &mut random)?;
        pruned.keys += outcome.answer["keys"].as_u64().unwrap_or_default();
        pruned.events += outcome.answer["events"].as_u64().unwrap_or_default();
        back_up(soak, &mut random)?;
        thread::sleep(Duration::from_secs(3));
    }
    Ok(pruned)
}

/// Makes a copy, and looks whether it is whole where it is said to be made.
fn back_up(soak: &Soak, random: &mut Random) -> Result<()> {
    let folder = soak.disk.join("backups");
    let copy = folder.join("copy.db");
    let kill = random.percent(30);
    let path = copy.display().to_string();
    let outcome = soak.run(&["backup", &path], Manner { kill, ahead: 0 }, random)?;
    if outcome.status == Some(0)
        && let Err(wrong) = check_copy(&copy)
    {
        soak.fault(format!("a backup is not whole: {wrong}"));
    }
    let left = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect::<Vec<PathBuf>>();
    if outcome.status.is_some_and(|status| status != 0) && !left.is_empty() {
        soak.fault(format!("a backup that failed has left {left:?}"));
    }
    Ok(left.into_iter().try_for_each(fs::remove_file)?)
}

fn check_copy(copy: &Path) -> Result<()> {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(found == "ok", "{found}");
    Ok(())
}
