//! The whole program against a model of it: sequences of commands, of which some are killed at a system call or held
//! at one for another process, of changes by others, and of a clock that goes on and back. After each step the
//! database, the services' view, the library's verdicts, the files and the log say what the model says.
//!
//! `PROPTEST_CASES=10000 cargo test --test model -- --nocapture` tries more, and prints how much was done.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]
#![allow(clippy::print_stdout, reason = "figures that were measured, for --nocapture")]

mod compare;
mod model;
mod sequence;
mod step;
mod tally;
mod traced;
mod worker;
mod world;

use std::cell::RefCell;
use std::env;
use std::thread;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::sequence::Sequence;
use crate::step::{Change, Command, Fate, Options, Step};
use crate::tally::Tally;
use crate::traced::IS_POSSIBLE;
use crate::worker::Workers;

/// How many are tried unless `PROPTEST_CASES` says otherwise.
const SEQUENCES: u32 = 200;
/// They are shared out.
const THREADS: u32 = 2;

#[test]
fn whatever_is_done_and_whoever_is_killed_all_is_as_the_model_says() {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = SEQUENCES;
    }
    config.cases = config.cases.div_ceil(THREADS);
    let run = |number: u32| {
        // The same sequences in each run.
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[number as u8; 32]);
        let shared = RefCell::new((Workers::default(), Tally::default()));
        let done = TestRunner::new_with_rng(config.clone(), rng).run(&step::sequence(), |steps| {
            let (workers, tally) = &mut *shared.borrow_mut();
            Sequence::new(workers, tally).run(&steps)
        });
        done.map(|()| shared.into_inner().1).map_err(|error| error.to_string())
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let run = &run;
        let start = |number| {
            // What draws a sequence takes much of it.
            let thread = thread::Builder::new().stack_size(64 << 20);
            thread.spawn_scoped(scope, move || run(number)).unwrap()
        };
        let threads = Vec::from_iter((0..THREADS).map(start));
        for thread in threads {
            tally.add(thread.join().unwrap().unwrap_or_else(|error| panic!("{error}")));
        }
    });
    println!("{tally}");
    // A change that leaves some of it out is found out.
    assert!(config.cases * THREADS < SEQUENCES || !IS_POSSIBLE || tally.has_all_kills(), "{tally}");
}

/// Runs the steps for each call at which one command is killed and another is held.
fn killed_and_held_at_each_call(steps: impl Fn(u32, u32) -> Vec<Step>) {
    let (mut workers, mut tally) = (Workers::default(), Tally::default());
    for (killed_at, held_at) in
        (10..20).flat_map(|killed_at| (4..14).map(move |held_at| (killed_at, held_at)))
    {
        let steps = steps(killed_at, held_at);
        let done = Sequence::new(&mut workers, &mut tally).run(&steps);
        done.unwrap_or_else(|wrong| panic!("{steps:?}: {wrong}"));
    }
}

#[test]
fn what_is_revoked_while_it_is_recovered_is_on_its_way_no_more() {
    let to_file = Options { file: Change::Set(0), ..Options::default() };
    let refresh = Command::Refresh { user: 0, grace: None, revoke_first: false, options: Options::default() };
    killed_and_held_at_each_call(|killed_at, held_at| {
        vec![
            Step::Run(Command::Create(0, to_file), Fate::Killed(killed_at, false)),
            Step::Run(refresh.clone(), Fate::Held(held_at, Box::new(Command::Revoke(0)))),
        ]
    });
}

#[test]
fn who_is_revoked_while_a_pending_key_that_has_expired_is_superseded_stays_revoked() {
    let kept = Options { file: Change::Set(0), renew_after: Change::Set(30), ..Options::default() };
    let options = Options { lifetime: Change::Set(60), ..Options::default() };
    let refresh = Command::Refresh { user: 0, grace: None, revoke_first: false, options };
    killed_and_held_at_each_call(|killed_at, held_at| {
        vec![
            Step::Run(Command::Create(0, kept), Fate::Undisturbed),
            Step::Run(refresh.clone(), Fate::Killed(killed_at, false)),
            Step::Clock(90),
            Step::Run(Command::Renew(None), Fate::Held(held_at, Box::new(Command::Revoke(0)))),
        ]
    });
}

/// No test: what the ones above start as another process.
#[test]
fn the_other_process() {
    worker::work();
}
