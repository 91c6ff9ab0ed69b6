#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile_input/checks/mod.rs"]
mod checks;

fuzz_target!(|data: &[u8]| {
    // A place and what is there then, each a byte.
    let changes: Vec<(usize, u8)> =
        data.chunks_exact(2).map(|pair| (usize::from(pair[0]), pair[1])).collect();
    checks::header::check(&changes);
});
