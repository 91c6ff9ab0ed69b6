//! What the house asks of its own tests.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

const HOUSE: &str = env!("CARGO_MANIFEST_DIR");

/// The Rust files in the folder, and in those in it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    sources.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// What stands in the lines of `.ci/run` that install something: the packages, and a few words more.
fn installed() -> HashSet<String> {
    let run = fs::read_to_string(Path::new(HOUSE).join(".ci/run")).unwrap();
    let function = run.split("\ninstall_what_is_needed() {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let whole_lines = function.replace("\\\n", " ");
    let installing = Regex::new(r"(?m)^ *(need |missing\+=|run .*(install|fetch)).*$").unwrap();
    let word = Regex::new("[a-z0-9-]+").unwrap();
    let words = installing.find_iter(&whole_lines).flat_map(|line| word.find_iter(line.as_str()));
    words.map(|word| word.as_str().to_owned()).collect()
}

#[test]
fn an_ignored_test_names_what_it_needs_and_the_run_installs_that() {
    let form =
        Regex::new(r#"^#\[ignore = "needs ([a-z0-9-]+(?:(?:, [a-z0-9-]+)* and [a-z0-9-]+)?)"\]( // .+)?$"#)
            .unwrap();
    let separator = Regex::new(", | and ").unwrap();
    let ignore = Regex::new(r"^#\[.*\bignore\b").unwrap();
    let installed = installed();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for path in ["src", "tests"].iter().flat_map(|folder| sources(&Path::new(HOUSE).join(folder))) {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().map(str::trim).filter(|line| ignore.is_match(line)) {
            found += 1;
            let is_there = |word: &str| word == "root" || installed.contains(word);
            let is_right = form.captures(line).is_some_and(|found| separator.split(&found[1]).all(is_there));
            if !is_right {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(found > 0, "nothing was looked at");
    assert!(wrong.is_empty(), "not `needs WORD, WORD and WORD`, each installed by .ci/run: {wrong:#?}");
}
