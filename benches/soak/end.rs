//! What must hold when all is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;
use serde_json::Value;

use crate::common::apikey;
use crate::driver::{State, User};
use crate::host::Litestream;
use crate::manner::Manner;
use crate::random::Random;
use crate::rows::Reader;
use crate::soak::{Soak, lock};

/// What is compared with a copy that Litestream restored.
const TABLES: [&str; 3] = ["keys", "settings", "events"];
/// As long the last change may take to be copied.
const COPIED_WITHIN: Duration = Duration::from_secs(60);

/// Checks all, and tells of each fault. Returns a line of what was found.
pub fn check(soak: &Soak, users: &[User], litestream: &Litestream, copy: &Path) -> Result<String> {
    let mut random = Random::new(1);
    // As the timer would, and whoever writes next: nothing is left to go on with.
    for args in [&["renew"][..], &["create", "last"]] {
        let outcome = soak.run(args, Manner::default(), &mut random)?;
        if outcome.status != Some(0) {
            soak.fault(format!("at the end: {outcome}"));
        }
    }
    let reader = Reader::open(&soak.database())?;
    let found: String = reader.0.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if found != "ok" {
        soak.fault(format!("integrity_check: {found}"));
    }
    let accepted = accepted(&reader.0)?;
    check_known(soak, users, &accepted);
    check_files(soak, users, &accepted)?;
    let left = "SELECT count(*) FROM settings WHERE pending_key <> 0";
    let left: u32 = reader.0.query_row(left, [], |row| row.get(0))?;
    if left > 0 {
        soak.fault(format!("{left} deliveries are still under way"));
    }
    let replayed = check_log(soak, &reader.0, &accepted)?;
    check_doctor(soak)?;
    let restored = check_copy(soak, litestream, copy)?;
    let (keys, users, left_out) = (accepted.len(), users.len(), lock(&soak.not_in_log).len());
    let abandoned = lock(&soak.abandoned).len();
    Ok(format!(
        "{keys} keys are accepted, of {users} users; the log says the same of {replayed} keys ({left_out} left \
         out, {abandoned} abandoned); {restored}"
    ))
}

/// The prefixes that are accepted, and whose they are.
fn accepted(connection: &Connection) -> Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT prefix, user FROM accepted_keys")?;
    let pairs = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(pairs.collect::<rusqlite::Result<_>>()?)
}

/// What is accepted is what the drivers know to be.
fn check_known(soak: &Soak, users: &[User], accepted: &BTreeMap<String, String>) {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (prefix, user) in accepted {
        found.entry(user).or_default().insert(prefix.clone());
    }
    for user in users {
        let found = found.remove(user.name.as_str()).unwrap_or_default();
        let fading = |prefix: &String| user.keys.get(prefix).is_some_and(|key| key.state == State::Fading);
        let found: BTreeSet<String> = found.into_iter().filter(|prefix| !fading(prefix)).collect();
        let known = user.accepted();
        if found != known {
            soak.fault(format!("of {} are accepted {found:?}, and should be {known:?}", user.name));
        }
    }
    let abandoned = lock(&soak.abandoned);
    let is_known = |user: &&str| {
        user.starts_with("renewed") || ["first", "last"].contains(user) || abandoned.contains(*user)
    };
    let strangers: Vec<&str> = found.into_keys().filter(|user| !is_known(user)).collect();
    if !strangers.is_empty() {
        soak.fault(format!("{strangers:?} have keys that nobody knows"));
    }
}

/// Each key file holds an accepted key of its user, and nothing is left beside it.
fn check_files(soak: &Soak, users: &[User], accepted: &BTreeMap<String, String>) -> Result<()> {
    let abandoned = lock(&soak.abandoned);
    for entry in fs::read_dir(soak.disk.join("daemons"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if abandoned.contains(&name) || abandoned.iter().any(|user| name.starts_with(&format!(".{user}."))) {
            continue;
        }
        let is_expected = name.starts_with("renewed") || users.iter().any(|user| user.name == name);
        if !is_expected {
            soak.fault(format!("{name} is left"));
            continue;
        }
        let text = fs::read_to_string(entry.path())?;
        let has_key = users.iter().all(|user| user.name != name || user.active.is_some());
        if has_key && accepted.get(text.get(..15).unwrap_or_default()) != Some(&name) {
            soak.fault(format!("the file of {name} holds no accepted key"));
        }
    }
    Ok(())
}

/// From the log alone it follows which keys are accepted.
fn check_log(soak: &Soak, connection: &Connection, accepted: &BTreeMap<String, String>) -> Result<usize> {
    let sql = "SELECT event, printf('ak_%012x', events.prefix), events.expires_at, valid_until
        FROM events JOIN keys USING (prefix) ORDER BY number";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    // Until when each is accepted.
    let mut ends: BTreeMap<String, Option<String>> = BTreeMap::new();
    let left_out = lock(&soak.not_in_log);
    while let Some(row) = rows.next()? {
        let (event, prefix): (String, String) = (row.get(0)?, row.get(1)?);
        if left_out.contains(&prefix) {
            continue;
        }
        match event.as_str() {
            "issued" | "edited" => drop(ends.insert(prefix, row.get(2)?)),
            "retired" => drop(ends.insert(prefix, row.get(3)?)),
            "revoked" | "undone" => drop(ends.insert(prefix, Some(String::new()))),
            _ => {}
        }
    }
    let now: String =
        connection.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", [], |row| row.get(0))?;
    for (prefix, end) in &ends {
        let by_log = end.as_ref().is_none_or(|end| *end > now);
        if by_log != accepted.contains_key(prefix) {
            soak.fault(format!("the log has {prefix} end {end:?}, and accepted is {}", !by_log));
        }
    }
    let unsaid =
        accepted.iter().filter(|(prefix, _)| !ends.contains_key(*prefix) && !left_out.contains(*prefix));
    unsaid.for_each(|(prefix, user)| soak.fault(format!("the log does not know {prefix} of {user}")));
    Ok(ends.len())
}

fn check_doctor(soak: &Soak) -> Result<()> {
    let output = apikey(&soak.database(), &["doctor", "--json"]).output()?;
    let said: Value = serde_json::from_slice(&output.stdout).context("doctor")?;
    let looks = ["database", "access", "side file", "integrity", "rows", "delivery"];
    for check in said["checks"].as_array().context("doctor said nothing")? {
        if check["status"] == "problem" && looks.iter().any(|look| check["check"] == *look) {
            soak.fault(format!("doctor: {check}"));
        }
    }
    Ok(())
}

/// What Litestream has copied is what is here, soon.
fn check_copy(soak: &Soak, litestream: &Litestream, copy: &Path) -> Result<String> {
    let start = Instant::now();
    loop {
        let differs = litestream.restore(copy).and_then(|()| differences(soak, copy));
        match differs {
            Ok(differs) if differs.is_empty() => {
                return Ok(format!(
                    "Litestream's copy is the same after {:.0} s",
                    start.elapsed().as_secs_f64()
                ));
            }
            _ if start.elapsed() < COPIED_WITHIN => thread::sleep(Duration::from_secs(2)),
            differs => {
                let differs = differs.map_or_else(|error| format!("{error:#}"), |differs| differs.join(", "));
                soak.fault(format!("what Litestream restores differs: {differs}"));
                return Ok("Litestream's copy differs".to_owned());
            }
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", copy.display()));
        }
    }
}

/// The rows that only one of the two has, of each table that has some.
fn differences(soak: &Soak, copy: &Path) -> Result<Vec<String>> {
    let connection = Connection::open(copy)?;
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(found == "ok", "the copy: {found}");
    connection.execute("ATTACH ?1 AS here", [soak.database().display().to_string()])?;
    let mut differences = Vec::new();
    for table in TABLES {
        let only = |one: &str, other: &str| {
            let sql = format!(
                "SELECT count(*) FROM (SELECT * FROM {one}.{table} EXCEPT SELECT * FROM {other}.{table})"
            );
            connection.query_row(&sql, [], |row| row.get::<_, u32>(0))
        };
        let (missing, more) = (only("here", "main")?, only("main", "here")?);
        if (missing, more) != (0, 0) {
            differences.push(format!("{table}: {missing} rows are missing, {more} are others"));
        }
    }
    Ok(differences)
}

/// Nothing that was started is left.
pub fn check_is_alone(soak: &Soak) -> Result<()> {
    let processes = Command::new("ps").args(["-eo", "args"]).output()?;
    let disk = soak.disk.display().to_string();
    let left = String::from_utf8_lossy(&processes.stdout).lines().filter(|line| line.contains(&disk)).count();
    ensure!(left == 0, "{left} processes are left");
    Ok(())
}
