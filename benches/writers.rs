//! Many processes that write to one database at the same time.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use common::{Table, apikey, asked_for, folder, ms, quantile, time};

/// Keys that are created in all, however many processes share the work.
const WRITES: u32 = 768;

fn main() -> Result<()> {
    if !asked_for()? {
        return Ok(());
    }
    let mut table = Table::new(["writers", "keys created a second", "p50", "p99", "longest wait"]);
    for writers in [1, 8, 64] {
        let folder = folder()?;
        let database = folder.path().join("keys.db");
        time(&mut apikey(&database, &["create", "somebody"]))?;
        let start = Instant::now();
        let times = create(&database, writers)?;
        let rate = f64::from(WRITES) / start.elapsed().as_secs_f64();
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|part| ms(quantile(&times, part)));
        table.row([writers.to_string(), format!("{rate:.0}"), p50, p99, longest]);
    }
    table.print(&format!("{WRITES} keys, each created by a process of its own, so many at a time"));
    Ok(())
}

/// Creates the keys and says how long each process took.
fn create(database: &Path, writers: u32) -> Result<Vec<Duration>> {
    let next = AtomicU32::new(0);
    let create_some = || {
        let mut times = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= WRITES {
                return Ok(times);
            }
            times.push(time(&mut apikey(database, &["create", &format!("user-{n}")]))?.0);
        }
    };
    let created: Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(create_some)).collect();
        threads.into_iter().flat_map(|thread| thread.join()).collect()
    });
    Ok(created?.concat())
}
