#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile_input/checks/mod.rs"]
mod checks;

fuzz_target!(|data: &[u8]| {
    // Which of them, whether a newer program says so, and either a text or what of ours is left out and put in.
    let [which, kind, from, length, text @ ..] = data else { return };
    let which = usize::from(*which);
    let text = if kind & 2 == 0 {
        let mut ours = checks::schema::text_of(which).into_bytes();
        let from = (4 * usize::from(*from)).min(ours.len());
        let to = (from + usize::from(*length)).min(ours.len());
        ours.splice(from..to, text.iter().copied());
        ours
    } else {
        text.to_vec()
    };
    checks::schema::check(which, &text, kind & 1 == 1);
});
