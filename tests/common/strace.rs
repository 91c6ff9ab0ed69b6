//! Runs the program under strace: lists its system calls, and kills it at one of them or makes
//! that one fail.
//!
//! strace counts the calls of each name on their own, in each thread from 1 on, and from the
//! program's own `execve`. What it names as the K-th `rename` of one run is the K-th of the next,
//! as far as the two runs do the same.
//!
//! A fault that did not happen proves nothing. So every run is traced, and its trace says whether
//! the fault happened.

use std::collections::HashMap;
use std::fmt;

use regex::Regex;
use tempfile::NamedTempFile;

use super::{APIKEY, Host, Outcome, Run};

/// The N-th system call of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub number: u32,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} number {}", self.name, self.number)
    }
}

/// What happens at a call, in place of it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The call fails with this error, such as `EIO`, and does nothing.
    Error(&'static str),
    /// The call returns this and does nothing.
    Return(u32),
}

/// A run that is over, and what strace wrote of it.
pub struct Traced {
    pub outcome: Outcome,
    pub trace: String,
}

impl Traced {
    /// The system calls in their order; each one once, however many threads made it. Left out are
    /// those that strace can do nothing to.
    pub fn calls(&self) -> Vec<Call> {
        const LEFT_OUT: [&str; 4] = ["execve", "exit", "exit_group", "vfork"];
        let line = Regex::new(r"(?m)^([0-9]+) +([a-z0-9_]+)\(").unwrap();
        let mut counts = HashMap::new();
        let mut calls = Vec::new();
        for found in line.captures_iter(&self.trace) {
            let (thread, name) = (found[1].to_owned(), found[2].to_owned());
            if LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            let number = counts.entry((thread, name.clone())).or_insert(0);
            *number += 1;
            let call = Call { name, number: *number };
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        calls
    }

    /// How many calls have one of these names.
    pub fn count(&self, names: &[&str]) -> usize {
        self.calls().iter().filter(|call| names.contains(&call.name.as_str())).count()
    }
}

impl Host {
    fn under_strace(
        &self,
        options: &[&str],
        args: &[&str],
        change: impl FnOnce(Run<'_>) -> Run<'_>,
    ) -> Traced {
        let file = NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let strace = [&["-f", "-o", path], options, &["--", APIKEY], args].concat();
        let outcome = change(self.program("/usr/bin/strace", &strace)).run();
        let trace = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        assert!(trace.contains(" execve("), "strace did not start it: {outcome:?}");
        Traced { outcome, trace: with_each_call_whole(&trace) }
    }

    /// Runs the program with `args`, and notes everything that it asks of the kernel, with all
    /// that it hands over. `change` has the last word on how it is started.
    pub fn traced(&self, args: &[&str], change: impl FnOnce(Run<'_>) -> Run<'_>) -> Traced {
        self.under_strace(&["-s", "100000"], args, change)
    }

    /// Runs the program with `args`, and `meanwhile` when it is about to do its first call of this name,
    /// which waits for three seconds.
    pub fn with_delay(&self, args: &[&str], name: &str, meanwhile: impl FnOnce()) -> Outcome {
        let first = Call { name: name.to_owned(), number: 1 };
        self.with_delay_at(args, &first, "", meanwhile)
    }

    /// The same at this call, to which that is done, too: `:error=EIO`.
    pub fn with_delay_at(
        &self,
        args: &[&str],
        Call { name, number }: &Call,
        and: &str,
        meanwhile: impl FnOnce(),
    ) -> Outcome {
        let trace = NamedTempFile::new().unwrap();
        let path = trace.path().to_str().unwrap();
        let only = format!("trace={name}");
        let inject = format!("inject={name}:delay_enter=3000000{and}:when={number}");
        let strace = [&["-f", "-o", path, "-e", &only, "-e", &inject, "--", APIKEY], args].concat();
        let run = self.program("/usr/bin/strace", &strace);
        std::thread::scope(|scope| {
            let run = scope.spawn(move || run.run());
            let calls = || std::fs::read_to_string(path).unwrap().matches(&format!(" {name}(")).count();
            while calls() < *number as usize && !run.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            meanwhile();
            run.join().unwrap()
        })
    }

    /// Runs the program with `args` and with `fault` at `call`. `None` where it never came to that
    /// call.
    #[must_use]
    pub fn with_fault(&self, args: &[&str], call: &Call, fault: Fault) -> Option<Outcome> {
        let what = match fault {
            Fault::Kill => "signal=SIGKILL".to_owned(),
            Fault::Error(error) => format!("error={error}"),
            Fault::Return(value) => format!("retval={value}"),
        };
        let trace = format!("trace=execve,{}", call.name);
        let inject = format!("inject={}:{what}:when={}", call.name, call.number);
        let traced = self.under_strace(&["-e", &trace, "-e", &inject], args, |run| run);
        let happened = match fault {
            Fault::Kill => "+++ killed by SIGKILL +++",
            Fault::Error(_) | Fault::Return(_) => "(INJECTED)",
        };
        traced.trace.contains(happened).then_some(traced.outcome)
    }
}

/// The trace with each call on one line, where it began: strace cuts one in two where another thread
/// made a call, or ended, before it returned.
fn with_each_call_whole(trace: &str) -> String {
    const CUT: &str = " <unfinished ...>";
    let resumed = Regex::new(r"^([0-9]+) +<\.\.\. [a-z0-9_]+ resumed>(.*)").unwrap();
    let mut lines: Vec<String> = Vec::new();
    let mut cut_in = HashMap::new();
    for line in trace.lines() {
        let end = resumed.captures(line);
        if let Some((begun, end)) = end.and_then(|end| Some((cut_in.remove(&end[1])?, end[2].to_owned()))) {
            let begun: &mut String = &mut lines[begun];
            begun.truncate(begun.len() - CUT.len());
            begun.push_str(&end);
            continue;
        }
        if line.ends_with(CUT) {
            let thread = line.split(' ').next().unwrap_or_default();
            cut_in.insert(thread.to_owned(), lines.len());
        }
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

/// Runs the program with `args` once for every system call that it makes and every fault that
/// `faults` names for it, each time on a host of its own that `prepare` makes, and has `check`
/// look at what is left. Returns how many faults there were.
///
/// To kill what cleans up after a kill, let `prepare` return a host where the program was killed.
pub fn at_each_call(
    prepare: impl Fn() -> Host,
    args: &[&str],
    mut faults: impl FnMut(&Call) -> Vec<Fault>,
    mut check: impl FnMut(&Host, &Outcome, &str),
) -> usize {
    let traced = prepare().traced(args, |run| run);
    assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
    let mut count = 0;
    for call in traced.calls() {
        for fault in faults(&call) {
            // Two runs may differ by a call of the allocator or the loader, or by a page that a random
            // key happens to fall into or to split; but not for long.
            let (host, outcome) = (0..200)
                .find_map(|_| {
                    let host = prepare();
                    let outcome = host.with_fault(args, &call, fault)?;
                    Some((host, outcome))
                })
                .unwrap_or_else(|| panic!("{args:?} never came to {call}"));
            check(&host, &outcome, &format!("{fault:?} at {call}"));
            count += 1;
        }
    }
    count
}

/// [`at_each_call`], where the fault is a kill.
pub fn kill_at_each_call(
    prepare: impl Fn() -> Host,
    args: &[&str],
    check: impl FnMut(&Host, &Outcome, &str),
) -> usize {
    at_each_call(prepare, args, |_| vec![Fault::Kill], check)
}
