#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile_input/checks/mod.rs"]
mod checks;

fuzz_target!(|data: &[u8]| {
    let Some((row, data)) = data.split_first() else { return };
    let (row, changes) = (usize::from(*row), checks::cell::changes(data));
    checks::rows::check_verdict(row, &changes);
    checks::rows::check_looks(row, &changes);
    checks::rows::check_revocation(row, &changes);
});
