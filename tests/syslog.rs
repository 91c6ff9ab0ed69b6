//! What the system's log is told.

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use common::container::wait_for;
use common::{APIKEY, Host, Run, generalized};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program where /dev is another folder, with /dev/log where the host's folder has a file `log`.
fn apikey<'a>(host: &'a Host, args: &[&'a str]) -> Run<'a> {
    let script = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && ln -s \"$1\" /dev/log
                  shift && exec \"$@\"";
    let log = host.path("log");
    let shell = ["-m", "sh", "-euc", script, "sh", log.to_str().unwrap(), APIKEY].map(str::to_owned);
    let args = args.iter().map(|arg| (*arg).to_owned());
    host.program("/usr/bin/unshare", &shell.into_iter().chain(args).collect::<Vec<_>>())
        .env("PATH", "/usr/bin:/bin")
}

/// A socket in the place of the system's log.
fn log(host: &Host) -> UnixDatagram {
    let log = UnixDatagram::bind(host.path("log")).unwrap();
    log.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    log
}

/// The lines that came, with what differs from run to run as placeholders.
fn lines(host: &Host, log: &UnixDatagram) -> Vec<String> {
    let process = regex::Regex::new(r"apikey\[[0-9]+\]").unwrap();
    let logged_in = regex::Regex::new(r" \(logged in: uid [0-9]+\)").unwrap();
    let folder = fs::canonicalize(host.folder()).unwrap();
    let mut lines = Vec::new();
    let mut line = [0; 10_000];
    while let Ok(length) = log.recv(&mut line) {
        let line = str::from_utf8(&line[..length]).unwrap();
        let line = logged_in.replace_all(&process.replace(line, "apikey[PID]"), "").into_owned();
        lines.push(generalized(&line.replace(folder.to_str().unwrap(), "<folder>")));
    }
    lines
}

#[test]
#[ignore = "needs root"]
fn each_event_is_a_line_without_a_key() {
    let host = Host::new();
    let log = log(&host);
    assert_eq!(apikey(&host, &["create", "alice"]).run().status, 0);
    assert_eq!(
        apikey(&host, &["refresh", "alice", "-y", "--grace", "1h"]).env("SUDO_USER", "carol").run().status,
        0
    );
    assert_eq!(apikey(&host, &["create", "web", "--key-file", "web.key"]).run().status, 0);
    assert_eq!(apikey(&host, &["list"]).run().status, 0);
    assert_eq!(apikey(&host, &["create", "web"]).run().status, 3);
    host.write("web.key", b"junk");
    assert_eq!(apikey(&host, &["refresh", "web", "-y"]).run().status, 8);
    assert_eq!(apikey(&host, &["revoke", "alice", "-y"]).run().status, 0);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(apikey(&host, &["prune", "--ended-for", "0s", "-y"]).run().status, 0);
    let expected = [
        "issued <prefix> of alice by root: create",
        "retired <prefix> of alice by root (sudo: carol): until <time>",
        "issued <prefix> of alice by root (sudo: carol): refresh, in place of <prefix>",
        "issued <prefix> of web by root: create",
        "delivered <prefix> of web by root: <folder>/web.key",
        "refused of web by root: <folder>/web.key holds something else than a key",
        "revoked <prefix> of alice by root",
        "revoked <prefix> of alice by root",
        "pruned by root: 2 keys, 6 events and the settings of 0 users, from before <time>",
    ];
    assert_eq!(lines(&host, &log), expected.map(|line| format!("<86>apikey[PID]: {line}")));
}

#[test]
#[ignore = "needs root"]
fn a_line_steers_no_terminal_and_is_not_long() {
    let host = Host::new();
    let log = log(&host);
    let path = format!("a\x1b[31m\n{}", "b".repeat(200));
    let folder = host.path(&path);
    let deep = folder.join("c".repeat(250)).join("d".repeat(250));
    fs::create_dir_all(&deep).unwrap();
    let file = deep.join("web.key");
    assert_eq!(apikey(&host, &["create", "web", "--key-file", file.to_str().unwrap()]).run().status, 0);
    let found = lines(&host, &log);
    assert!(found[1].contains(r"/a\u{1b}[31m\nbbb") && found[1].len() < 2100, "{found:?}");
}

#[test]
#[ignore = "needs root"]
fn a_log_that_takes_no_more_or_is_not_there_keeps_nobody_waiting() {
    let host = Host::new();
    // None at all, then one that nobody listens at any more.
    host.key_from(&["create", "somebody"]);
    assert_eq!(apikey(&host, &["create", "nobody"]).run().status, 0);
    drop(log(&host));
    assert_eq!(apikey(&host, &["create", "alice"]).run().status, 0);
    fs::remove_file(host.path("log")).unwrap();
    let log = log(&host);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while filler.send_to(b"full", host.path("log")).is_ok() {
        filled += 1;
    }
    assert!(filled > 0);
    let is_quick = common::ends_within(Duration::from_secs(2), || {
        assert_eq!(apikey(&host, &["refresh", "alice", "-y"]).run().status, 0);
    });
    assert!(is_quick && lines(&host, &log).iter().all(|line| line == "full"));
    assert_eq!(host.apikey(&["log", "alice", "-q"]).run().status, 0);
}

#[test]
#[ignore = "needs root"]
fn a_prune_that_is_ended_on_its_way_says_what_it_has_forgotten() {
    let host = Host::new();
    host.key_from(&["create", "alice"]);
    host.add_revoked_keys(100_000);
    let log = log(&host);
    let mut prune = apikey(&host, &["prune", "--ended-for", "1d", "-y"]).spawn();
    let detail = || {
        let sql = "SELECT detail FROM events WHERE event = 'pruned'";
        host.sqlite().query_row(sql, [], |row| row.get::<_, String>(0)).ok()
    };
    wait_for("a step", detail);
    kill(Pid::from_raw(prune.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(prune.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    let mut line = [0; 10_000];
    let length = log.recv(&mut line).unwrap();
    let line = str::from_utf8(&line[..length]).unwrap();
    assert!(line.contains("pruned by root") && line.ends_with(&detail().unwrap()), "{line}");
}
