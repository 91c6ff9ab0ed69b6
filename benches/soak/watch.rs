//! What grows: memory, open files, the database and its log.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::common::Table;
use crate::soak::Soak;

/// In fewer seconds than these all grows.
const LONG: usize = 120;

/// What is measured, of whom; whether it may grow, and how much it may differ from one third to the next, beside
/// a tenth.
pub struct Measure {
    pub what: &'static str,
    pub source: Source,
    pub slack: Option<u64>,
}

pub enum Source {
    Memory(u32),
    Descriptors(u32),
    Size(PathBuf),
    /// What is in use of the log, as the header of its index says: <https://sqlite.org/walformat.html>, section 2.1.
    Pages(PathBuf),
}

impl Source {
    fn value(&self) -> Option<u64> {
        match self {
            Source::Memory(process) => {
                let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
                line.trim().strip_suffix(" kB")?.parse().ok()
            }
            Source::Descriptors(process) => {
                Some(fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64)
            }
            Source::Pages(index) => {
                let mut pages = [0; 4];
                File::open(index).ok()?.read_exact_at(&mut pages, 16).ok()?;
                Some(u32::from_ne_bytes(pages).into())
            }
            Source::Size(path) => Some(fs::metadata(path).ok()?.len() / 1024),
        }
    }
}

/// Looks each second until the last tenth, in which nothing is pruned.
pub fn watch(soak: &Soak, measures: &[Measure]) -> Vec<Vec<u64>> {
    let mut values: Vec<Vec<u64>> = measures.iter().map(|_| Vec::new()).collect();
    while soak.goes_on() {
        if soak.part() < 0.9 {
            for (measure, values) in measures.iter().zip(&mut values) {
                values.extend(measure.source.value());
            }
        }
        thread::sleep(Duration::from_secs(1));
    }
    values
}

pub fn judge(soak: &Soak, measures: &[Measure], values: &[Vec<u64>]) {
    let mut table = Table::new(["", "first third", "second", "last", "most", "samples"]);
    for (measure, values) in measures.iter().zip(values) {
        let third = values.len().div_ceil(3).max(1);
        let medians: Vec<u64> = values.chunks(third).map(median).collect();
        let [first, second, last] = medians[..] else {
            soak.fault(format!("{} was not measured", measure.what));
            continue;
        };
        let most = values.iter().max().copied().unwrap_or_default();
        let numbers = [first, second, last, most, values.len() as u64].map(|number| number.to_string());
        let [first_said, second_said, last_said, most, samples] = numbers;
        table.row([measure.what.to_owned(), first_said, second_said, last_said, most, samples]);
        let is_long = values.len() >= LONG;
        if is_long && measure.slack.is_some_and(|slack| last > second + second / 10 + slack) {
            soak.fault(format!("{} has grown: {first}, {second}, {last}", measure.what));
        }
    }
    table.print("What could grow: medians of the thirds of the first nine tenths, sizes in KiB");
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
