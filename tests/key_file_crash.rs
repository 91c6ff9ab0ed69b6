//! Key files when the program is killed, and when the kernel fails it, at any system call.

mod common;

use std::collections::BTreeSet;

use common::aftermath::{accepted, hash_of};
use common::disk::Disk;
use common::strace::{Call, Fault, at_each_call, kill_at_each_call};
use common::{Host, Outcome};
use regex::Regex;
use rusqlite::{Connection, OpenFlags};

const CREATE: [&str; 4] = ["create", "web", "--key-file", "web.key"];
const REFRESH: [&str; 5] = ["refresh", "web", "--yes", "--key-file", "web.key"];
/// A command that writes, and has nothing to do with web.
const ANOTHER: [&str; 3] = ["refresh", "bob", "--yes"];

/// bob has a key, and web has none.
fn before_create() -> Host {
    Host::with_key_of("bob").0
}

/// bob has a key, and web has one in web.key.
fn before_refresh() -> Host {
    let host = before_create();
    host.apikey(&CREATE).gives(0, "", "Issued <prefix> to web. The key is in <folder>/web.key.\n");
    host
}

/// The hashes of web's keys that are accepted. Looks only.
fn accepted_of_web(host: &Host) -> BTreeSet<String> {
    let all = accepted(&host.database());
    let sqlite = Connection::open_with_flags(host.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = sqlite.prepare("SELECT lower(hex(key_hash)) FROM keys WHERE user = 'web'").unwrap();
    let of_web: BTreeSet<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    all.intersection(&of_web).cloned().collect()
}

/// The hash of the key in the file, which has a whole one.
fn in_file(host: &Host) -> Option<String> {
    std::fs::read_to_string(host.path("web.key")).ok().map(|content| hash_of(&content))
}

/// At this moment the file, where there is one, holds a key that is accepted.
fn assert_daemon_is_served(host: &Host, at: &str) {
    if let Some(hash) = in_file(host) {
        assert!(accepted_of_web(host).contains(&hash), "{at}: the file's key is refused");
    }
}

/// What was staged by a run that was killed before it issued its key, the next delivery removes.
fn assert_no_stage_outlives_the_next_delivery(host: &Host, at: &str) {
    host.apikey(&["refresh", "web", "-yq", "--key-file", "web.key"]).gives(0, "", "");
    let left: Vec<String> = host.names().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{at}: {left:?}");
}

/// After the next run that writes: web has one key, it is in the file, and nothing else is left.
fn assert_is_settled_by_the_next_run(host: &Host, at: &str) {
    let next = host.apikey(&ANOTHER).run();
    assert_eq!(next.status, 0, "{at}: {next:?}");
    let expected: BTreeSet<String> = in_file(host).into_iter().collect();
    assert_eq!(accepted_of_web(host), expected, "{at}: accepted and in the file: {next:?}");
    let pending: u32 = host
        .sqlite()
        .query_row("SELECT count(*) FROM keys WHERE status = 'pending'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(pending, 0, "{at}: {next:?}");
}

fn prints_no_key(outcome: &Outcome, at: &str) {
    let key = Regex::new("ak_[0-9a-f]{20}").unwrap();
    assert!(!key.is_match(&outcome.stdout) && !key.is_match(&outcome.stderr), "{at}: {outcome:?}");
}

#[test]
#[ignore = "needs strace"]
fn a_create_that_is_killed_leaves_no_file_whose_key_is_refused() {
    let before = before_create();
    let points = kill_at_each_call(
        || before.copy(),
        &CREATE,
        |host, outcome, at| {
            assert_daemon_is_served(host, at);
            prints_no_key(outcome, at);
            assert_is_settled_by_the_next_run(host, at);
            assert_no_stage_outlives_the_next_delivery(host, at);
        },
    );
    println!("{points} points");
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_that_is_killed_leaves_no_file_whose_key_is_refused() {
    let before = before_refresh();
    let old = in_file(&before).unwrap();
    let (mut finished, mut undone) = (0, 0);
    let points = kill_at_each_call(
        || before.copy(),
        &REFRESH,
        |host, outcome, at| {
            assert!(in_file(host).is_some(), "{at}: there is no file");
            assert_daemon_is_served(host, at);
            prints_no_key(outcome, at);
            // Once accepted the new key is not lost: it is staged, or in the file.
            let new: Vec<String> = accepted_of_web(host).into_iter().filter(|hash| *hash != old).collect();
            assert_is_settled_by_the_next_run(host, at);
            match new.first() {
                Some(new) => assert_eq!(in_file(host).as_ref(), Some(new), "{at}: the new key is lost"),
                None => assert_eq!(in_file(host).as_ref(), Some(&old), "{at}: the old key is lost"),
            }
            assert_no_stage_outlives_the_next_delivery(host, at);
            *(if new.is_empty() { &mut undone } else { &mut finished }) += 1;
        },
    );
    assert!(undone > 50 && finished > 10, "{undone} before the first commit, {finished} after it");
    println!("{points} points: {undone} before the first commit, {finished} after it");
}

#[test]
#[ignore = "needs strace"]
fn a_recovery_that_is_killed_leaves_no_file_whose_key_is_refused() {
    let before = before_refresh();
    let mut points = 0;
    // In the stage's write, and at each step that makes something last: five and the rename.
    let steps =
        [("write", 2), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("renameat", 1), ("fsync", 4), ("fsync", 5)];
    for (name, number) in steps {
        let call = Call { name: name.into(), number };
        let killed = || {
            let host = before.copy();
            host.with_fault(&REFRESH, &call, Fault::Kill)
                .unwrap_or_else(|| panic!("it never came to {call}"));
            host
        };
        points += kill_at_each_call(killed, &ANOTHER, |host, outcome, at| {
            let at = format!("killed at {call}, and then: {at}");
            assert!(in_file(host).is_some(), "{at}: there is no file");
            assert_daemon_is_served(host, &at);
            prints_no_web_key(outcome, &at);
            assert_is_settled_by_the_next_run(host, &at);
            assert_no_stage_outlives_the_next_delivery(host, &at);
        });
    }
    println!("{points} points");
}

/// bob's key, which the command is to print, is on standard output alone.
fn prints_no_web_key(outcome: &Outcome, at: &str) {
    assert!(!Regex::new("ak_[0-9a-f]{20}").unwrap().is_match(&outcome.stderr), "{at}: {outcome:?}");
}

/// Kills `ensure web` with `args` at each system call, on hosts that `prepare` makes. Whatever is left, its daemon
/// is served; the same command run again makes it so, with `mode`, and a third run has nothing to do.
fn ensure_is_right_after_a_kill(prepare: impl Fn() -> Host, args: &[&str], mode: u32) {
    let ensure = [&["ensure", "web", "--json"], args].concat();
    // The settings hold the whole path of the file, so that a copy of a host would not do.
    let prepare = || {
        let host = prepare();
        if let Ok(old) = std::fs::read(host.path("web.key")) {
            host.write("old", &old);
        }
        host
    };
    let (mut done, mut to_do) = (0, 0);
    kill_at_each_call(prepare, &ensure, |host, outcome, at| {
        let old = std::fs::read_to_string(host.path("old")).ok().map(|old| hash_of(&old));
        assert_daemon_is_served(host, at);
        assert!(old.is_none() || in_file(host).is_some(), "{at}: there is no file");
        prints_no_key(outcome, at);
        // What the killed run has issued is the key that stays.
        let new = accepted_of_web(host).into_iter().find(|hash| Some(hash) != old.as_ref());
        let again = host.apikey(&ensure).run();
        assert_eq!((again.status, again.stderr.as_str()), (0, ""), "{at}: {again:?}");
        *(if again.json()["changed"] == true { &mut to_do } else { &mut done }) += 1;
        assert!(new.is_none() || in_file(host) == new, "{at}: a key is lost: {again:?}");
        assert_eq!(in_file(host), Some(hash_of_active(host)), "{at}: {again:?}");
        assert_eq!(host.mode("web.key"), mode, "{at}: {again:?}");
        let once_more = host.apikey(&ensure).run();
        assert_eq!(once_more.json()["changed"], false, "{at}: {again:?}, and then {once_more:?}");
        assert_no_stage_outlives_the_next_delivery(host, at);
    });
    assert!(to_do > 50 && done > 5, "{to_do} points, after which there was something to do, {done} others");
    println!("{to_do} points, after which there was something to do, {done} others");
}

/// The hash of web's active key.
fn hash_of_active(host: &Host) -> String {
    let sql = "SELECT lower(hex(key_hash)) FROM keys WHERE user = 'web' AND status = 'active'";
    host.sqlite().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
#[ignore = "needs strace"]
fn a_first_ensure_that_is_killed_is_right_when_it_runs_again() {
    let args = ["--key-file", "web.key", "--key-file-mode", "640", "--renew-after", "30d"];
    ensure_is_right_after_a_kill(before_create, &args, 0o640);
}

#[test]
#[ignore = "needs strace"]
fn an_ensure_that_is_killed_while_it_puts_the_mode_right_is_right_when_it_runs_again() {
    let prepare = || {
        let host = before_refresh();
        host.chmod("web.key", 0o644);
        host
    };
    ensure_is_right_after_a_kill(prepare, &[], 0o600);
}

#[test]
#[ignore = "needs strace"]
fn an_ensure_that_is_killed_while_it_replaces_a_due_key_is_right_when_it_runs_again() {
    let prepare = || {
        let host = before_refresh();
        host.apikey(&["edit", "web", "-q", "--renew-after", "30d"]).gives(0, "", "");
        host.execute(
            "UPDATE keys SET id = '019b76da-a800' || substr(id, 14) WHERE user = 'web';
             UPDATE settings SET due_at = '2026-01-31T00:00:00.000Z' WHERE user = 'web'",
        );
        host
    };
    ensure_is_right_after_a_kill(prepare, &[], 0o600);
}

/// Database and key file on two disks, whose power goes at every system call of `args`.
fn cut_the_power_at_each_call(before: &Host, args: &[&str]) {
    let (database_disk, file_disk) = (Disk::new(), Disk::new());
    let old = in_file(before);
    let prepare = || {
        let host = before.copy_in(database_disk.mount.path());
        let folder = file_disk.mount.path().join(host.folder().file_name().unwrap());
        std::fs::create_dir(&folder).unwrap();
        if old.is_some() {
            std::fs::rename(host.path("web.key"), host.path("copy")).unwrap();
            std::fs::copy(host.path("copy"), folder.join("web.key")).unwrap();
            std::fs::remove_file(host.path("copy")).unwrap();
        }
        std::os::unix::fs::symlink(folder, host.path("elsewhere")).unwrap();
        database_disk.sync();
        file_disk.sync();
        host
    };
    let points = kill_at_each_call(prepare, args, |host, outcome, at| {
        let _cut = (database_disk.after_power_cut_in_place(), file_disk.after_power_cut_in_place());
        let file =
            || std::fs::read_to_string(host.path("elsewhere/web.key")).ok().map(|content| hash_of(&content));
        let (in_file, accepted) = (file(), accepted_of_web(host));
        assert!(in_file.iter().all(|hash| accepted.contains(hash)), "{at}: the file's key is refused");
        assert!(old.is_none() || in_file.is_some(), "{at}: there is no file");
        prints_no_key(outcome, at);
        let new = accepted.into_iter().find(|hash| Some(hash) != old.as_ref());
        let next = host.apikey(&ANOTHER).run();
        assert_eq!(next.status, 0, "{at}: {next:?}");
        let only: BTreeSet<String> = file().into_iter().collect();
        assert_eq!(accepted_of_web(host), only, "{at}: accepted, and in the file: {next:?}");
        // Synced before its key was accepted, the stage is there after a power cut too.
        assert_eq!(file(), new.or(old.clone()), "{at}: a key is lost: {next:?}");
    });
    println!("{points} points");
}

#[test]
#[ignore = "needs root and strace"]
fn a_create_in_a_power_cut_leaves_no_file_whose_key_is_refused() {
    cut_the_power_at_each_call(&before_create(), &["create", "web", "--key-file", "elsewhere/web.key"]);
}

#[test]
#[ignore = "needs root and strace"]
fn a_refresh_in_a_power_cut_leaves_no_file_whose_key_is_refused() {
    cut_the_power_at_each_call(
        &before_refresh(),
        &["refresh", "web", "--yes", "--key-file", "elsewhere/web.key"],
    );
}

/// What may go wrong at a call of the file system.
fn errors(call: &Call) -> Vec<Fault> {
    const FILES: &str = "openat read pread64 write pwrite64 ftruncate fsync rename renameat unlink unlinkat close \
                         fchmod fchown flock statx newfstatat fstat mmap readlink fcntl lseek";
    const NEED_SPACE: &str = "openat write pwrite64 ftruncate fsync renameat";
    const ARE_INTERRUPTED: &str = "openat read pread64 write pwrite64 ftruncate fsync flock close";
    const TRANSFER: &str = "write pwrite64";
    let is_one_of = |names: &str| names.split_ascii_whitespace().any(|name| name == call.name);
    if !is_one_of(FILES) {
        return Vec::new();
    }
    let mut faults = vec![Fault::Error("EIO")];
    if is_one_of(NEED_SPACE) {
        faults.push(Fault::Error("ENOSPC"));
    }
    if is_one_of(ARE_INTERRUPTED) {
        faults.push(Fault::Error("EINTR"));
    }
    if is_one_of(TRANSFER) {
        faults.push(Fault::Return(0));
    }
    faults
}

/// With an error at any call: 0 says that the new key is active and in the file, 9 that it is
/// accepted and on its way, any other status that there is none.
fn answers_truly(before: &Host, command: &[&str]) {
    let old = in_file(before);
    let mut begun = false;
    let faults = |call: &Call| {
        begun |= call.name == "prctl";
        if begun { errors(call) } else { Vec::new() }
    };
    let command = [command, &["--timeout", "100ms"]].concat();
    let mut statuses = BTreeSet::new();
    let points = at_each_call(
        || before.copy(),
        &command,
        faults,
        |host, outcome, at| {
            assert_daemon_is_served(host, at);
            prints_no_key(outcome, at);
            assert!(!outcome.stderr.contains("panicked"), "{at}: {outcome:?}");
            let accepted = accepted_of_web(host);
            let new = accepted.iter().find(|hash| Some(*hash) != old.as_ref());
            match outcome.status {
                0 => {
                    assert!(
                        new.is_some() && in_file(host).as_ref() == new,
                        "{at}: it is not done: {outcome:?}"
                    );
                    assert_eq!(accepted.len(), 1, "{at}: the old key is accepted: {outcome:?}");
                }
                9 => assert!(new.is_some(), "{at}: nothing is pending: {outcome:?}"),
                _ => {
                    assert!(new.is_none() && in_file(host) == old, "{at}: something was issued: {outcome:?}")
                }
            }
            let new = new.cloned();
            assert_is_settled_by_the_next_run(host, at);
            assert_eq!(in_file(host), new.or(old.clone()), "{at}: after the next run: {outcome:?}");
            assert_no_stage_outlives_the_next_delivery(host, at);
            statuses.insert(outcome.status);
        },
    );
    assert!(statuses.contains(&0) && statuses.contains(&8) && statuses.contains(&9), "{statuses:?}");
    println!("{points} points, which ended with {statuses:?}");
}

#[test]
#[ignore = "needs strace"]
fn a_create_exits_0_exactly_where_it_is_done_whatever_fails() {
    answers_truly(&before_create(), &CREATE);
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_exits_0_exactly_where_it_is_done_whatever_fails() {
    answers_truly(&before_refresh(), &REFRESH);
}

#[test]
#[ignore = "needs strace"]
fn a_refresh_costs_five_fsyncs_and_makes_every_file_0600() {
    let host = before_refresh();
    let refresh = [&REFRESH[..], &["--key-file-mode", "640"]].concat();
    let traced = host.traced(&refresh, |run| run);
    assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
    assert_eq!(traced.count(&["fsync", "fdatasync", "sync", "syncfs"]), 5);
    let modes: Vec<&str> = traced.trace.lines().filter(|line| line.contains("O_CREAT")).collect();
    assert!(modes.len() >= 4 && modes.iter().all(|line| line.contains(", 0600)")), "{modes:#?}");
    let stage =
        modes.iter().find(|line| line.contains("/.web.key.") || line.contains("\".web.key.")).unwrap();
    assert!(stage.contains("O_EXCL") && stage.contains("O_NOFOLLOW"), "{stage}");
}

#[test]
#[ignore = "needs strace"]
fn the_key_leaves_the_process_in_one_write_to_its_stage() {
    let writes = Regex::new(r"^[0-9]+ +write\(([0-9]+), ").unwrap();
    let host = before_refresh();
    for args in
        [&REFRESH[..], &["refresh", "web", "-y", "--json"], &["refresh", "web", "-y", "--reload", "env"]]
    {
        let traced = host.traced(args, |run| run);
        assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
        let key = std::fs::read_to_string(host.path("web.key")).unwrap();
        let holds_a_part =
            |line: &&str| key.as_bytes().windows(20).any(|part| line.contains(str::from_utf8(part).unwrap()));
        let lines: Vec<&str> = traced.trace.lines().filter(holds_a_part).collect();
        assert!(lines.len() == 1 && writes.is_match(lines[0]), "{args:?}: {lines:#?}");
        assert!(!["0", "1", "2"].contains(&&writes.captures(lines[0]).unwrap()[1]), "{lines:#?}");
        for (path, content) in host.contents() {
            let is_key_file = path.ends_with("web.key");
            let holds =
                content.windows(20).any(|part| key.as_bytes().windows(20).any(|of_key| of_key == part));
            assert_eq!(holds, is_key_file, "{}", path.display());
        }
    }
}
