//! A soak: everything at once, for a while. Users are created, refreshed, edited and revoked by four drivers, keys are
//! renewed, pruned, backed up and looked at, by the program itself; some of its runs are killed, some have a wrong
//! clock; three times the disk is full; Litestream copies all of it. Meanwhile those who check keys in four ways know
//! what they must be told, and at the end everything must fit together.
//!
//! `cargo bench --bench soak -- --minutes 10`, as root. The same `--seed` makes the same choices, though never the same
//! run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its table")]

mod board;
mod check;
mod chores;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod end;
mod host;
mod judge;
mod manner;
mod random;
mod rows;
mod soak;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use apikey::Timestamp;
use check::{be_the_library, by_process, by_sql, check};
use common::{Table, asked_for, ms};
use driver::Driver;
use host::{Host, Litestream, check_what_is_there, fill, move_to_own_namespace};
use manner::Manner;
use nix::sys::signal::{SigSet, Signal};
use random::Random;
use soak::{Soak, lock};
use watch::{Measure, Source, judge, watch};

const DRIVERS: usize = 4;
const USERS: usize = 12;
/// When the disk gets full, as parts of the whole.
const FULL: [f64; 3] = [0.15, 0.45, 0.7];

fn main() -> ExitCode {
    // With no backtrace, whatever the environment says: what is wrong is not in here.
    run().map_or_else(
        |error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, database] = &args[..]
        && first == check::LIBRARY
    {
        return be_the_library(database);
    }
    if !asked_for()? {
        return Ok(());
    }
    let number = |name| -> Result<Option<f64>> {
        let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
        Ok(Some(args.get(at + 1).with_context(|| format!("{name} what?"))?.parse()?))
    };
    let Some(minutes) = number("--minutes")? else {
        eprintln!("run this with `cargo bench --bench soak -- --minutes 10`");
        return Ok(());
    };
    let seed = match number("--seed")? {
        Some(seed) => seed as u64,
        None => Timestamp::now().map_err(|error| anyhow!("{error}"))?.unix_millis() % 100_000,
    };
    check_what_is_there()?;
    move_to_own_namespace()?;
    let is_interrupted = watch_for_signals()?;
    println!("{minutes} minutes, with --seed {seed}");
    soak_for(Duration::from_secs_f64(minutes * 60.0), seed, &is_interrupted)
}

/// Ctrl-C and the like are to end it with nothing left.
fn watch_for_signals() -> Result<Arc<AtomicBool>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_interrupted);
    thread::spawn(move || {
        while signals.wait().is_ok() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(is_interrupted)
}

fn soak_for(length: Duration, seed: u64, is_interrupted: &AtomicBool) -> Result<()> {
    let host = Host::new()?;
    let soak = Soak::new(host.disk(), host.path("storage"), length);
    let mut random = Random::new(seed);
    let first = soak.run(&["create", "first"], Manner::default(), &mut random)?;
    ensure!(first.status == Some(0), "{first}");
    chores::begin(&soak, &mut random)?;
    let mut litestream = Litestream::start(&soak)?;
    let (mut stream, mut library, by_sql) = (check::stream(&soak)?, check::library(&soak)?, by_sql(&soak)?);
    let measures = measures(&soak, [stream.child.id(), library.child.id(), litestream.child.id()]);
    let (tallies, users, pruned, values) = thread::scope(|scope| {
        let soak = &soak;
        let (stream, library) = (&mut stream, &mut library);
        let random = |number| Random::new(seed + number);
        let checking = [
            scope.spawn(move || check(soak, "a fresh apikey verify", random(1), |key| by_process(soak, key))),
            scope.spawn(move || check(soak, "verify --stream", random(2), |key| stream.ask(key))),
            scope.spawn(move || check(soak, "the library", random(3), |key| library.ask(key))),
            scope.spawn(move || check(soak, "a service's SQL", random(4), by_sql)),
        ];
        let drive = |at| move || Driver::new(soak, at, USERS, random(10 + at as u64))?.drive();
        let driving: Vec<_> = (0..DRIVERS).map(|at| scope.spawn(drive(at))).collect();
        let renewing = scope.spawn(move || chores::renew_and_look(soak, random(5)));
        let pruning = scope.spawn(move || chores::prune_and_copy(soak, random(6)));
        let watching = scope.spawn(|| watch(soak, &measures));
        let gone_through = go_through(soak, &mut litestream, is_interrupted);
        soak.is_over.store(true, Ordering::Relaxed);
        soak.came_of("the disk and Litestream", Ok(gone_through));
        soak.came_of("who renews", renewing.join());
        (
            checking
                .into_iter()
                .map(|checking| soak.came_of("who checks", checking.join().map(Ok)))
                .collect(),
            driving
                .into_iter()
                .flat_map(|driving| soak.came_of("a driver", driving.join()))
                .collect::<Vec<_>>(),
            soak.came_of("who prunes", pruning.join()),
            soak.came_of("who watches", watching.join().map(Ok)),
        )
    });
    if is_interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    // They write down uses until they end.
    soak.came_of("verify --stream", Ok(stream.end()));
    soak.came_of("the library", Ok(library.end()));
    let checked = end::check(&soak, &users, &litestream, &host.path("restored.db"));
    let found = soak.came_of("the look at all of it", Ok(checked));
    soak.came_of("litestream", Ok(litestream.stop()));
    soak.came_of("the look for processes", Ok(end::check_is_alone(&soak)));
    print_commands(&soak);
    check::print(tallies);
    judge(&soak, &measures, &values);
    let chores::Pruned { keys, events } = pruned;
    let (starts, interrupted) = (litestream.starts, soak.interrupted.load(Ordering::Relaxed));
    println!(
        "\nPruned were {keys} keys and {events} events; {interrupted} deliveries were met on their way."
    );
    println!("Litestream was started {starts} times. At the end {found}.");
    let faults = lock(&soak.faults);
    ensure!(faults.is_empty(), "{} things are wrong, the first of them:\n{}", faults.len(), faults[0]);
    println!("All is well.");
    Ok(())
}

/// Lets the time pass, in which the disk gets full now and then.
fn go_through(soak: &Soak, litestream: &mut Litestream, is_interrupted: &AtomicBool) -> Result<()> {
    let goes_on = || soak.part() < 1.0 && !is_interrupted.load(Ordering::Relaxed);
    let mut full = FULL.into_iter().peekable();
    while goes_on() {
        thread::sleep(Duration::from_millis(100));
        litestream.see_to_it()?;
        if let Some(begin) = full.next_if(|&begin| begin < soak.part()) {
            fill(soak, || goes_on() && soak.part() < begin + 0.02)?;
        }
    }
    Ok(())
}

fn measures(soak: &Soak, processes: [u32; 3]) -> Vec<Measure> {
    let [stream, library, litestream] = processes;
    let [log, index] = ["-wal", "-shm"].map(|suffix| common::with(&soak.database(), suffix));
    let measure = |what, source, slack| Measure { what, source, slack };
    vec![
        measure("memory of verify --stream", Source::Memory(stream), Some(512)),
        measure("descriptors of verify --stream", Source::Descriptors(stream), Some(4)),
        measure("memory of the library's process", Source::Memory(library), Some(512)),
        measure("descriptors of the library's process", Source::Descriptors(library), Some(4)),
        measure("memory of litestream", Source::Memory(litestream), None),
        // Litestream starts it anew, every thousand pages or later, and the file keeps the length that it once had.
        measure("pages in use of keys.db-wal", Source::Pages(index), Some(1000)),
        measure("keys.db-wal", Source::Size(log), None),
        measure("keys.db", Source::Size(soak.database()), None),
    ]
}

fn print_commands(soak: &Soak) {
    let mut table = Table::new(["command", "runs", "killed", "wrong clock", "failed", "longest"]);
    for (name, stat) in lock(&soak.stats).iter() {
        let failed: Vec<String> = stat.failed.iter().map(|(code, times)| format!("{times} {code}")).collect();
        let [runs, killed, shifted] = [stat.runs, stat.killed, stat.shifted].map(|number| number.to_string());
        table.row([name.clone(), runs, killed, shifted, failed.join(", "), ms(stat.longest)]);
    }
    table.print("What was run; the codes are those that a command may end with then");
}
