//! How much the program does to answer, counted by callgrind: the same number whatever else the
//! machine is doing.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{APIKEY, Host};

/// The program as it is released, built where it is missing or old.
fn released() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success());
    Path::new(APIKEY).parent().unwrap().with_file_name("release").join("apikey")
}

fn instructions(host: &Host, program: &Path, args: &[&str]) -> u64 {
    let out = format!("--callgrind-out-file={}", host.path("callgrind").display());
    let valgrind = ["--tool=callgrind", &out, program.to_str().unwrap()];
    let outcome = host.program("/usr/bin/valgrind", &[&valgrind[..], args].concat()).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let collected = outcome.stderr.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected.unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "needs valgrind"]
fn show_and_create_stay_lean() {
    let program = released();
    let (host, _) = Host::with_key_of("alice");
    for (args, reached) in [(&["show", "alice"][..], SHOW), (&["create", "bob"], CREATE)] {
        let found = instructions(&host, &program, args);
        println!("{args:?}: {found} instructions");
        assert!(found <= reached + reached / 10, "{args:?}: {found} instructions, once it was {reached}");
    }
}

#[test]
#[ignore = "needs valgrind"]
fn an_ensure_with_nothing_to_do_costs_little_more_than_a_show() {
    let program = released();
    let host = Host::new();
    let ensure = ["ensure", "web", "--key-file", "web.key", "--renew-after", "30d", "--key-file-mode", "640"];
    host.apikey(&[&ensure[..], &["--quiet", "--reload", "true"]].concat()).gives(0, "", "");
    let show = instructions(&host, &program, &["show", "web"]);
    for args in [&["ensure", "web"][..], &ensure] {
        let found = instructions(&host, &program, args);
        println!("{args:?}: {found} instructions, {:.3} of a show", found as f64 / show as f64);
        assert!(found <= show + show / 5, "{args:?}: {found} instructions, and show {show}");
    }
}

/// What the test counted when these were last set.
const SHOW: u64 = 1_340_000;
const CREATE: u64 = 1_620_000;
