//! Keys that are due: a thousand at once, and none among ten thousand.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use apikey::{Authority, Change, Changes, KeyFilePath, Order, Timestamp};
use common::{
    Files, Table, apikey, apikey_under, asked_for, database_with, folder, median, ms, peak_memory, ratio,
    run, time,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use tempfile::TempDir;

const DUE: u32 = 1_000;
const SLICE: Duration = Duration::from_millis(300);
const LOOKS: usize = 60;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    run(&[("due", all_at_once), ("idle", none_is_due), ("memory", memory)])
}

/// A host where so many users have a key file, each in a folder of its own, and a renewal age.
struct Host(TempDir);

impl Host {
    fn with(users: u32) -> Result<Self> {
        let host = Host(folder()?);
        let mut authority =
            Authority::open_or_create(&host.database(), Duration::from_secs(10), Timestamp::now)
                .map_err(|error| anyhow!("{error}"))?;
        for n in 0..users {
            let folder = host.0.path().join(format!("user-{n}"));
            fs::create_dir(&folder)?;
            let mut create = || {
                let key_file = KeyFilePath::new(&folder.join("key"))?;
                let changes = Changes {
                    key_file: Change::Set(key_file),
                    renew_after: Change::Set(Duration::from_secs(30 * 86_400)),
                    // So that no round has more to say than the first.
                    renew_grace: Some(Duration::ZERO),
                    ..Changes::default()
                };
                authority.create(&Order { user: format!("user-{n}").parse()?, changes }, &mut Files)
            };
            create().map_err(|error| anyhow!("{error}"))?;
        }
        Ok(host)
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("keys.db")
    }

    fn make_due(&self) -> Result<()> {
        let connection = Connection::open(self.database())?;
        connection.execute_batch("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z'")?;
        drop(connection);
        // Else the kernel would still be writing it out while an fsync is timed.
        Ok(File::open(self.database())?.sync_all()?)
    }
}

/// The disk may be slow in one second and fast in the next: so the renewal is stopped for a moment again and
/// again, and the same is done bare in between.
fn all_at_once() -> Result<()> {
    let host = Host::with(DUE)?;
    host.make_due()?;
    let mut bare = Bare::new(DUE)?;
    let (mut renewing, mut bare_time, mut bare_keys) = (Duration::ZERO, Duration::ZERO, 0);
    let mut child = apikey(&host.database(), &["renew", "-q"]).spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let status = loop {
        let start = Instant::now();
        while start.elapsed() < SLICE && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        renewing += start.elapsed();
        if let Some(status) = child.try_wait()? {
            break status;
        }
        kill(pid, Signal::SIGSTOP)?;
        let start = Instant::now();
        while start.elapsed() < SLICE {
            bare.deliver(bare_keys)?;
            bare_keys += 1;
        }
        bare_time += start.elapsed();
        kill(pid, Signal::SIGCONT)?;
    };
    ensure!(status.success(), "{status}");
    let bare = bare_time.mul_f64(f64::from(DUE) / f64::from(bare_keys));
    let mut table = Table::new(["keys due", "renew", "the fsyncs bare", "ratio"]);
    let ratio = renewing.as_secs_f64() / bare.as_secs_f64();
    table.row([DUE.to_string(), ms(renewing), ms(bare), format!("{ratio:.2}")]);
    table.print(
        "All renewed by one process, in turn with the same writes and fsyncs and nothing else; goal: at most 1.5",
    );
    Ok(())
}

/// What a renewal writes and syncs, by strace: the stage and its folder once, the log twice with half of
/// this each; and every four renewals the log is moved to the database and starts anew.
const IN_LOG: usize = 70_000;
const MOVED: usize = 70_000;
const MOVED_EACH: u32 = 4;

/// The same with no database.
struct Bare {
    folder: TempDir,
    log: File,
    database: File,
    end: u64,
    keys: u32,
}

impl Bare {
    fn new(keys: u32) -> Result<Self> {
        let folder = folder()?;
        let (log, database) = (new(&folder.path().join("log"))?, new(&folder.path().join("database"))?);
        log.write_all_at(&vec![7; 1 << 19], 0)?;
        database.write_all_at(&vec![7; 1 << 21], 0)?;
        for n in 0..keys {
            let user = folder.path().join(format!("user-{n}"));
            fs::create_dir(&user)?;
            fs::write(user.join("key"), [7; 75])?;
        }
        log.sync_all()?;
        database.sync_all()?;
        Ok(Bare { folder, log, database, end: 0, keys })
    }

    fn deliver(&mut self, n: u32) -> Result<()> {
        if n.is_multiple_of(MOVED_EACH) {
            self.log.sync_all()?;
            self.database.write_all_at(&[7; MOVED], u64::from(n % 24) * MOVED as u64)?;
            self.database.sync_all()?;
            self.end = 0;
            self.log.write_all_at(&[7; 32], 0)?;
            self.log.sync_all()?;
        }
        let user = self.folder.path().join(format!("user-{}", n % self.keys));
        let stage = user.join(".key.ak_0123456789ab");
        let mut file = new(&stage)?;
        file.write_all(&[7; 75])?;
        file.sync_all()?;
        self.commit()?;
        fs::rename(stage, user.join("key"))?;
        File::open(&user)?.sync_all()?;
        self.commit()
    }

    fn commit(&mut self) -> Result<()> {
        self.log.write_all_at(&[7; IN_LOG / 2], self.end)?;
        self.end += IN_LOG as u64 / 2;
        Ok(self.log.sync_all()?)
    }
}

fn new(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create_new(true).open(path)?)
}

fn none_is_due() -> Result<()> {
    let folder = folder()?;
    let database = database_with(100_000, folder.path())?;
    let connection = Connection::open(&database)?;
    let with_age = connection.execute(
        "INSERT OR REPLACE INTO settings (user, pending_key, key_file, key_file_mode, renew_after_ms, due_at)
         SELECT user, 0, '/etc/' || user || '.key', 384, 2592000000, '2100-01-01T00:00:00.000Z'
         FROM keys WHERE status = 'active'",
        [],
    )?;
    drop(connection);
    let (mut renew, mut show) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        renew.push(time(&mut apikey(&database, &["renew", "-q"]))?.0);
        show.push(time(&mut apikey(&database, &["show", "user-7"]))?.0);
    }
    let mut table = Table::new(["users with a renewal age", "renew, nothing due", "show", "ratio"]);
    table.row([
        with_age.to_string(),
        ms(median(&renew)),
        ms(median(&show)),
        format!("{:.2}", ratio(&renew, &show)),
    ]);
    table.print(&format!("Whole processes in turn, medians of {LOOKS}; goal: at most 3"));
    Ok(())
}

fn memory() -> Result<()> {
    let mut table = Table::new(["keys due", "peak memory of renew"]);
    for due in [10, DUE] {
        let host = Host::with(due)?;
        host.make_due()?;
        let tool = peak_memory()?;
        let output = time(&mut apikey_under(&tool, &host.database(), &["renew", "-q"]))?.1;
        let said = String::from_utf8(output.stderr)?;
        let kib: f64 = said.lines().last().context("nothing was said")?.parse()?;
        table.row([due.to_string(), format!("{:.1} MiB", kib / 1024.0)]);
    }
    table.print("Memory does not grow with them");
    Ok(())
}
