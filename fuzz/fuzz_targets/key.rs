#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile_input/checks/mod.rs"]
mod checks;

fuzz_target!(|data: &[u8]| {
    checks::key::check(data);
});
