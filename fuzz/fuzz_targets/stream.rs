#![no_main]

use std::io::Write as _;
use std::process::{Command, Stdio};

use checks::scratch::Scratch;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile_input/checks/mod.rs"]
mod checks;

/// The program as `cargo build` leaves it: what it does with its standard streams cannot be had in this process.
fn answer(scratch: &Scratch, input: &[u8]) -> (Vec<u8>, Option<i32>) {
    let mut program = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/apikey"));
    program.args(["verify", "--stream", "--db"]).arg(scratch.database());
    let mut program =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("first: cargo build");
    let mut pipe = program.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input));
        program.wait_with_output().unwrap()
    });
    (output.stdout, output.status.code())
}

fuzz_target!(|data: &[u8]| {
    // A byte above 250 stands for a key that is known.
    let keys = checks::stream::keys();
    let mut input = Vec::new();
    for byte in data {
        match usize::from(*byte).checked_sub(251) {
            Some(known) => input.extend(keys[known % keys.len()].as_bytes()),
            None => input.push(*byte),
        }
    }
    checks::stream::check(&input, answer);
});
