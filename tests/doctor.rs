//! `apikey doctor`

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::container::wait_for;
use common::disk::Mount;
use common::{APIKEY, Host, NOBODY};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A host where web's key is in web.key, is renewed, and its reader is told; and bob has a key.
fn host() -> Host {
    let host = Host::new();
    prepare(&host);
    host
}

fn prepare(host: &Host) {
    let ensure = ["ensure", "web", "-q", "--key-file", "web.key", "--renew-after", "30d", "--reload", "true"];
    host.apikey(&ensure).gives(0, "", "");
    host.key_from(&["create", "bob"]);
}

/// Every check that found more than it should: which, of what (without the folder), and whether it is a warning or
/// a problem. What a host's own timer does is not this test's.
fn found(host: &Host) -> Vec<String> {
    let outcome = host.apikey(&["doctor", "--json"]).run();
    let folder = format!("{}/", fs::canonicalize(host.folder()).unwrap().display());
    let text = |check: &Value, member: &str| check[member].as_str().unwrap().replace(&folder, "");
    let checks = outcome.json()["checks"].as_array().unwrap().clone();
    let bad = checks.iter().filter(|check| check["status"] != "ok" && check["check"] != "timer");
    for check in bad.clone() {
        assert!(!text(check, "message").is_empty() && !text(check, "hint").is_empty(), "{check}");
    }
    let found: Vec<String> =
        bad.map(|check| ["status", "check", "subject"].map(|member| text(check, member)).join(" ")).collect();
    let problem = checks.iter().any(|check| check["status"] == "problem");
    assert_eq!(outcome.status, if problem { 11 } else { 0 }, "{outcome:?}");
    assert_eq!(outcome.stderr.is_empty(), !problem, "{outcome:?}");
    found
}

/// Breaks one thing, and has that found, and only that.
#[track_caller]
fn finds(expected: &str, spoil: impl FnOnce(&Host)) {
    let host = host();
    assert_eq!(found(&host), [""; 0], "something was wrong before");
    spoil(&host);
    assert_eq!(found(&host), [expected]);
}

fn web_is_staged(host: &Host, waits: bool) -> String {
    let old = fs::read_to_string(host.path("web.key")).unwrap();
    assert_eq!(host.apikey(&["refresh", "web", "-yq", "--reload", "false"]).run().status, 9);
    if !waits {
        host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    }
    old
}

#[test]
fn where_all_is_well_one_line_says_so() {
    let host = Host::new();
    host.key_from(&["create", "bob"]);
    host.apikey(&["doctor"]).gives(
        0,
        "ok       11 checks: access, clock, database, end, integrity, rows, side file, size, space, timer\n",
        "",
    );
    let before = (host.names(), host.contents());
    let _ = host.apikey(&["doctor", "--json"]).run();
    assert!((host.names(), host.contents()) == before, "it changed something");
}

#[test]
fn problems_come_first_each_with_what_to_do_about_it() {
    let host = Host::new();
    let ensure = ["ensure", "web", "-q", "--key-file", "web.key", "--expires-in", "10d"];
    host.apikey(&ensure).gives(0, "", "");
    fs::remove_file(host.path("web.key")).unwrap();
    host.apikey(&["doctor"]).gives(
        11,
        "problem  key file, <folder>/web.key: there is no key of web in it\n         \
         apikey ensure web\n\
         warning  end, web: <prefix> ends on <time>\n         \
         apikey refresh web\n\
         ok       10 checks: access, clock, database, integrity, rows, side file, size, space, timer\n",
        "apikey: there is a problem\n",
    );
}

#[test]
fn a_database_that_cannot_be_used_is_a_problem() {
    let host = Host::new();
    assert_eq!(found(&host), ["problem database keys.db"], "there is none");
    host.write("keys.db", &[7; 5000]);
    host.chmod("keys.db", 0o644);
    host.write("keys.db-new", b"");
    let all = ["problem database keys.db", "warning side file keys.db-new"];
    assert_eq!(found(&host), all, "it is something else, and the rest is looked at all the same");
}

#[test]
fn who_may_read_the_database_is_said() {
    finds("warning access keys.db", |host| {
        for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            host.chmod(name, 0o644);
        }
    });
}

#[test]
fn whether_the_caller_may_write_the_database_is_said() {
    let (host, _) = Host::with_key_of("alice");
    let may = |outcome: common::Outcome| outcome.json()["checks"][0]["message"].clone();
    assert_eq!(may(host.apikey(&["doctor", "--json"]).run()), "it can be written by you");
    host.names().iter().for_each(|name| host.chmod(name, 0o400));
    let only_reads = host.apikey_unprivileged(&["doctor", "--json"]).run();
    assert_eq!(may(only_reads), "it can be read, not written by you");
}

#[test]
fn a_side_file_with_another_mode_is_a_problem() {
    finds("problem side file keys.db-wal", |host| host.chmod("keys.db-wal", 0o640));
    finds("warning side file keys.db-new", |host| host.write("keys.db-new", b""));
}

#[test]
fn damage_is_a_problem() {
    let host = host();
    // It is not about the row of a user that is looked at.
    for change in ["revoked_at = 'x'", "status = 'expired'"] {
        let sql =
            format!("PRAGMA ignore_check_constraints = ON; UPDATE keys SET {change} WHERE user = 'bob'");
        host.execute(&sql);
    }
    assert_eq!(found(&host), ["problem integrity keys.db", "problem rows keys.db"]);
}

#[test]
fn a_file_that_is_mostly_free_or_a_long_log_is_said() {
    const MANY: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 60000)
        INSERT INTO events (at, event, uid, detail) SELECT '2026-01-01T00:00:00.000Z', 'pruned', 0, printf('%.*c', 1000, 'x') FROM n";
    finds("warning size keys.db", |host| {
        host.execute(&format!(
            "{MANY}; DELETE FROM events WHERE event = 'pruned'; PRAGMA wal_checkpoint(TRUNCATE)"
        ));
    });
    let host = host();
    let looks = host.sqlite();
    looks.execute_batch("BEGIN; SELECT count(*) FROM keys").unwrap();
    let writes = host.sqlite();
    writes.execute_batch(&format!("PRAGMA wal_autocheckpoint = 0; {MANY}")).unwrap();
    assert_eq!(found(&host), ["warning size keys.db"]);
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_is_almost_full_is_a_problem() {
    for (size, expected) in [(50 << 20, "warning space keys.db"), (9 << 20, "problem space keys.db")] {
        let disk = Mount::tmpfs(size);
        let host = Host::new_in(disk.path());
        prepare(&host);
        assert_eq!(found(&host), [expected]);
    }
}

#[test]
fn a_clock_that_the_log_contradicts_is_a_problem() {
    finds("problem clock keys.db", |host| {
        host.execute("UPDATE events SET at = '2999-01-01T00:00:00.000Z' WHERE number = 1");
    });
}

#[test]
fn the_end_of_a_key_is_said_in_time() {
    finds("warning end bob", |host| {
        host.apikey(&["edit", "bob", "-q", "--expires-in", "13d"]).gives(0, "", "");
    });
    finds("problem end bob", |host| {
        host.execute("UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE user = 'bob'");
    });
    // One that is renewed before is no trouble, and one that ends later is not yet.
    let host = host();
    host.apikey(&["edit", "web", "-q", "--expires-in", "13d", "--renew-after", "1d"]).gives(0, "", "");
    host.apikey(&["edit", "bob", "-q", "--expires-in", "15d"]).gives(0, "", "");
    assert_eq!(found(&host), [""; 0]);
}

#[test]
fn a_renewal_that_did_not_take_place_is_a_problem() {
    finds("problem renewal web", |host| {
        host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z'");
    });
    finds("problem renewal web", |host| host.execute("UPDATE settings SET due_at = NULL"));
    // The timer comes each hour.
    let host = host();
    host.execute("UPDATE settings SET due_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-30 minutes')");
    assert_eq!(found(&host), [""; 0]);
}

#[test]
fn a_reload_command_that_would_not_run_is_a_problem() {
    finds("problem reload web", |host| host.execute("UPDATE settings SET reload_machine = 'another'"));
}

#[test]
fn a_key_file_that_is_not_as_it_should_be_is_found() {
    let key = |host: &Host| host.path("web.key");
    finds("problem key file web.key", |host| fs::remove_file(key(host)).unwrap());
    finds("problem key file web.key", |host| host.write("web.key", b""));
    finds("problem key file web.key", |host| host.write("web.key", b"junk"));
    finds("problem key file web.key", |host| {
        let other = host.key_from(&["refresh", "bob", "-y"]);
        host.write("web.key", other.as_bytes());
    });
    finds("problem key file web.key", |host| {
        let line = format!("KEY={}\n", fs::read_to_string(key(host)).unwrap());
        host.write("web.key", line.as_bytes());
    });
    finds("problem key file web.key", |host| host.chmod("web.key", 0o604));
    finds("warning key file web.key", |host| host.chmod("web.key", 0o400));
    finds("problem key file web.key", |host| {
        fs::rename(key(host), host.path("away")).unwrap();
        std::os::unix::fs::symlink("away", key(host)).unwrap();
    });
}

#[test]
fn a_delivery_that_is_under_way_or_stuck_is_found() {
    finds("warning delivery web", |host| drop(web_is_staged(host, true)));
    finds("warning delivery web", |host| drop(web_is_staged(host, false)));
    finds("warning delivery web", |host| {
        let old = web_is_staged(host, false);
        host.write("web.key", old.as_bytes());
    });
    finds("problem delivery web", |host| {
        web_is_staged(host, false);
        fs::remove_file(host.path("web.key")).unwrap();
    });
}

#[test]
fn what_a_killed_delivery_has_left_is_found() {
    finds("warning stage .web.key.ak_0123456789ab", |host| leave(host, ".web.key.ak_0123456789ab"));
    // One that was just made may be somebody's who delivers, and of another file it may be another database's.
    let host = host();
    host.write(".web.key.ak_0123456789ab", b"");
    leave(&host, ".other.key.ak_0123456789ab");
    fs::create_dir(host.path(".web.key.ak_0123456789ac")).unwrap();
    assert_eq!(found(&host), [""; 0]);
}

#[test]
#[ignore = "needs root and strace"]
fn a_file_system_that_does_not_answer_is_waited_for_once_and_the_others_are_looked_at() {
    let (host, dead) = (Host::new(), Mount::tmpfs(100_000));
    let folders = [dead.path().join("1"), host.path("well"), dead.path().join("2")];
    folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for (user, folder) in [("a", 0), ("b", 1), ("c", 2), ("d", 1)] {
        let file = folders[folder].join(user);
        host.apikey(&["create", user, "-q", "--key-file", file.to_str().unwrap()]).gives(0, "", "");
    }
    leave(&host, "well/.b.ak_0123456789ab");
    // It hangs at the first file only: the other one is not looked at.
    let delay = "inject=getdents64:delay_enter=9000000";
    let strace = ["-f", "-o", "/dev/null", "-P", folders[0].to_str().unwrap(), "-e", delay];
    let apikey = [env!("CARGO_BIN_EXE_apikey"), "--db", "keys.db", "doctor", "--json"];
    let outcome = host.program("strace", &[&strace[..], &apikey[..]].concat()).run();
    let checks = outcome.json()["checks"].as_array().unwrap().clone();
    let of_files = checks.iter().filter(|check| check["check"] == "key file" || check["check"] == "stage");
    let found: Vec<(&str, &str, bool)> = of_files
        .map(|check| {
            let subject = check["subject"].as_str().unwrap().rsplit('/').next().unwrap();
            let is_silent = check["message"].as_str().unwrap().contains("does not answer");
            (subject, check["status"].as_str().unwrap(), is_silent)
        })
        .collect();
    let expected = [
        ("a", "problem", true),
        (".b.ak_0123456789ab", "warning", false),
        ("b", "ok", false),
        ("c", "problem", true),
        ("d", "ok", false),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_row_of_the_log_that_makes_no_sense_is_found() {
    finds("problem rows keys.db", |host| {
        host.execute("UPDATE events SET user = 'bad user' WHERE number = 2")
    });
}

#[test]
fn a_damaged_index_hides_no_user() {
    let host = host();
    host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z'; PRAGMA wal_checkpoint(TRUNCATE)");
    fs::remove_file(host.path("web.key")).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'one_active_key'";
    let root: u32 = host.sqlite().query_row(sql, [], |row| row.get(0)).unwrap();
    let mut database = fs::read(host.database()).unwrap();
    database[(root as usize - 1) * 4096] = 0xff;
    host.write("keys.db", &database);
    let expected = ["problem integrity keys.db", "problem renewal web", "problem key file web.key"];
    assert_eq!(found(&host), expected);
}

#[test]
#[ignore = "needs root"]
fn who_may_only_read_the_database_is_told_nothing_but_what_is() {
    let host = Host::new();
    host.key_from(&["create", "bob"]);
    host.let_all_read();
    let outcome = host.apikey_unprivileged(&["doctor"]).run();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.stdout.starts_with("warning  access, "), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.lines().count(), 3, "{}", outcome.stdout);
}

#[test]
#[ignore = "needs strace"]
fn a_run_that_is_ended_while_it_writes_metrics_leaves_no_stage() {
    let host = host();
    let slowly = ["-f", "-o", "/dev/null", "-e", "inject=fsync:delay_enter=1000000"];
    let apikey = [env!("CARGO_BIN_EXE_apikey"), "--db", "keys.db", "doctor", "--metrics", "x.prom"];
    let mut run = host.program("strace", &[&slowly[..], &apikey[..]].concat()).spawn();
    let stage = || host.names().into_iter().find(|name| name.starts_with(".x.prom."));
    wait_for("a stage", stage);
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let child: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(child), Signal::SIGTERM).unwrap();
    run.wait().unwrap();
    assert_eq!(stage(), None);
}

/// Makes a file that is two hours old.
fn leave(host: &Host, name: &str) {
    host.write(name, b"");
    let then = std::time::SystemTime::UNIX_EPOCH
        + Duration::from_millis(apikey::Timestamp::now().unwrap().unix_millis())
        - Duration::from_secs(7200);
    fs::File::options().write(true).open(host.path(name)).unwrap().set_modified(then).unwrap();
}

#[test]
fn no_hint_is_more_than_one_word_to_a_shell_where_it_names_a_file() {
    let host = Host::new();
    let file = "a $(touch it) ' b";
    host.apikey(&["create", "web", "-q", "--key-file", file]).gives(0, "", "");
    leave(&host, &format!(".{file}.ak_0123456789ab"));
    let said = host.apikey(&["doctor", "--json"]).run().json();
    let checks = said["checks"].as_array().unwrap();
    let stage = checks.iter().find(|check| check["check"] == "stage").unwrap();
    let remove = stage["hint"].as_str().unwrap().split("or: ").nth(1).unwrap();
    let removed = host.program("/bin/sh", &["-euc", remove]).env("PATH", "/bin:/usr/bin").run();
    assert_eq!((removed.status, host.path("it").exists()), (0, false), "{removed:?}");
    assert_eq!(found(&host), [""; 0]);
}

#[test]
fn nothing_is_found_beside_somebody_who_writes() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                host.apikey(&["refresh", "web", "-yq"]).gives(0, "", "");
            }
        });
        for _ in 0..40 {
            let found = found(&host);
            // A delivery that is under way is one.
            assert!(found.iter().all(|found| found == "warning delivery web"), "{found:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_backup_that_was_just_restored_is_well() {
    let (host, _) = Host::with_key_of("bob");
    host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
    let outcome = host.apikey(&["doctor", "--db", "copy.db"]).run();
    assert_eq!((outcome.status, outcome.stdout.lines().count()), (0, 1), "{outcome:?}");
}

#[test]
fn a_row_that_makes_no_sense_is_no_reason_to_leave_out_another() {
    let host = host();
    host.key_from(&["create", "alice"]);
    host.execute("UPDATE keys SET user = CAST(x'61ff' AS TEXT) WHERE user = 'alice'");
    fs::remove_file(host.path("web.key")).unwrap();
    let mut all = found(&host);
    all.sort();
    assert_eq!(all, ["problem key a\u{fffd}", "problem key file web.key", "problem rows keys.db"]);
    // Nor to leave Prometheus with what was so before.
    assert_eq!(host.apikey(&["doctor", "--metrics", "apikey.prom"]).run().status, 11);
    assert!(metrics(&host).contains(&r#"apikey_checks{check="key",status="problem"} 1"#.to_owned()));
}

#[test]
fn a_delivery_of_which_the_rest_makes_no_sense_is_found() {
    finds("problem delivery web", |host| {
        web_is_staged(host, true);
        host.execute("UPDATE settings SET key_file_mode = 4095 WHERE pending_key <> 0");
    });
}

#[test]
fn each_key_file_is_looked_at_in_its_own_folder_however_the_folders_lie() {
    let host = host();
    // In the order of the users: down, up, and beside, where the last part of the way is the same.
    for (user, file) in [("a", "one/in/a.key"), ("b", "one/b.key"), ("c", "two/in/c.key"), ("d", "d.key")] {
        let folder = host.path(file).parent().unwrap().to_owned();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).unwrap();
        host.apikey(&["create", user, "-q", "--key-file", file]).gives(0, "", "");
    }
    assert_eq!(found(&host), [""; 0]);
    fs::remove_file(host.path("two/in/c.key")).unwrap();
    assert_eq!(found(&host), ["problem key file two/in/c.key"]);
}

#[test]
fn all_that_is_wrong_is_found_at_once() {
    let host = host();
    for user in ["gone", "open", "stuck", "waits"] {
        let file = format!("{user}.key");
        host.apikey(&["create", user, "-q", "--key-file", &file]).gives(0, "", "");
    }
    fs::remove_file(host.path("gone.key")).unwrap();
    host.chmod("open.key", 0o644);
    for user in ["stuck", "waits"] {
        assert_eq!(host.apikey(&["refresh", user, "-yq", "--reload", "false"]).run().status, 9);
    }
    host.execute(
        "UPDATE settings SET reload_pending = 0 WHERE user = 'stuck' AND pending_key <> 0;
         UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z', reload_machine = 'another' WHERE user = 'web';
         UPDATE keys SET expires_at = '2026-01-01T00:00:00.000Z' WHERE user = 'bob';
         UPDATE events SET at = '2999-01-01T00:00:00.000Z' WHERE number = 1",
    );
    fs::remove_file(host.path("stuck.key")).unwrap();
    leave(&host, ".gone.key.ak_0123456789ab");
    host.write("keys.db-new", b"");
    // Of an empty log, SQLite itself puts the mode right.
    host.key_from(&["create", "last"]);
    for name in ["keys.db", "keys.db-shm"] {
        host.chmod(name, 0o644);
    }
    let mut found = found(&host);
    found.sort();
    let expected = [
        "problem clock keys.db",
        "problem delivery stuck",
        "problem end bob",
        "problem key file gone.key",
        "problem key file open.key",
        "problem reload web",
        "problem renewal web",
        "problem side file keys.db-wal",
        "warning access keys.db",
        "warning delivery waits",
        "warning side file keys.db-new",
        "warning stage .gone.key.ak_0123456789ab",
    ];
    assert_eq!(found, expected);
}

#[test]
fn nothing_in_it_steers_a_terminal() {
    let host = host();
    host.execute("INSERT INTO keys (prefix, key_hash, id, user, status)
        VALUES (1, randomblob(32), '019b76da-a800-7000-8000-000000000000', 'a' || char(27) || '[31m', 'active')");
    let outcome = host.apikey(&["doctor"]).run();
    assert!(outcome.status == 11 && outcome.is_printable(), "{outcome:?}");
    assert!(host.apikey(&["doctor", "--json"]).run().is_printable());
}

fn metrics(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.path("apikey.prom")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn metrics_say_what_was_found_and_what_keys_there_are() {
    let host = host();
    host.apikey(&["edit", "bob", "-q", "--expires-in", "10d"]).gives(0, "", "");
    host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z' WHERE user = 'web'");
    host.apikey(&["renew", "-q"]).gives(0, "", "");
    fs::remove_file(host.path("web.key")).unwrap();
    let doctor = ["doctor", "--metrics", "apikey.prom"];
    assert_eq!(host.apikey(&doctor).run().status, 11);
    let found = metrics(&host);
    for line in [
        r#"apikey_keys{status="active"} 2"#,
        r#"apikey_keys{status="retiring"} 1"#,
        "apikey_keys_due 0",
        r#"apikey_checks{check="key file",status="problem"} 1"#,
        r#"apikey_checks{check="key file",status="warning"} 0"#,
        r#"apikey_checks{check="end",status="warning"} 1"#,
        r#"apikey_checks{check="integrity",status="problem"} 0"#,
    ] {
        assert!(found.iter().any(|found| found == line), "{line}: {found:#?}");
    }
    let now = apikey::Timestamp::now().unwrap().unix_millis() / 1000;
    let value = |start: &str| {
        let line = found.iter().find(|line| line.starts_with(start)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    for (metric, expected) in [
        (r#"apikey_key_expires_timestamp_seconds{user="bob"}"#, now + 864_000),
        ("apikey_last_renewal_timestamp_seconds", now),
        ("apikey_doctor_timestamp_seconds", now),
    ] {
        assert!(value(metric).abs_diff(expected) < 60, "{metric}: {found:#?}");
    }
    assert!(!found.join(" ").contains("ak_"));
    assert_eq!(host.mode("apikey.prom"), 0o640);
    // Its mode is kept.
    host.chmod("apikey.prom", 0o644);
    host.apikey(&["ensure", "web", "-q"]).gives(0, "", "");
    assert_eq!(host.apikey(&doctor).run().status, 0);
    assert_eq!(host.mode("apikey.prom"), 0o644);
    assert!(metrics(&host).contains(&r#"apikey_checks{check="key file",status="problem"} 0"#.to_owned()));
}

#[test]
fn metrics_replace_nothing_but_metrics() {
    let host = host();
    host.write("file", b"content");
    fs::create_dir(host.path("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", host.path("link")).unwrap();
    assert_eq!(host.apikey(&["doctor", "--metrics", "apikey.prom"]).run().status, 0);
    fs::hard_link(host.path("apikey.prom"), host.path("second.prom")).unwrap();
    let before = (host.names(), host.contents());
    for path in [
        "file",
        "folder",
        "folder/",
        "link",
        "keys.db",
        "keys.db-journal",
        "web.key",
        "second.prom",
        "none/apikey.prom",
    ] {
        let outcome = host.apikey(&["doctor", "--json", "--metrics", path]).run();
        assert_eq!((outcome.status, outcome.code().as_str()), (2, "USAGE"), "{path}: {outcome:?}");
    }
    assert!((host.names(), host.contents()) == before);
    fs::create_dir(host.path("open")).unwrap();
    host.chmod("open", 0o777);
    assert_eq!(host.apikey(&["doctor", "--metrics", "open/apikey.prom"]).run().status, 7);
}

#[test]
fn metrics_say_also_that_there_is_no_database() {
    let host = Host::new();
    assert_eq!(host.apikey(&["doctor", "--metrics", "apikey.prom"]).run().status, 11);
    assert_eq!(metrics(&host)[1], r#"apikey_checks{check="database",status="problem"} 1"#);
}

#[test]
fn metrics_stay_where_nothing_was_looked_at() {
    let host = Host::new();
    for args in [&["doctor"][..], &["doctor", "--json"]] {
        let doctor = [args, &["--metrics", "apikey.prom"]].concat();
        let run = host.apikey_unprivileged(&doctor).env_remove("APIKEY_DB").env("HOME", "here");
        let outcome = run.run();
        assert_eq!(outcome.status, 2, "{args:?}: {outcome:?}");
        assert_eq!(host.names(), [""; 0], "{args:?}");
    }
}

#[test]
#[ignore = "needs prometheus"]
fn metrics_are_clean_to_promtool() {
    let host = host();
    host.apikey(&["edit", "bob", "-q", "--expires-in", "10d"]).gives(0, "", "");
    assert_eq!(host.apikey(&["doctor", "--metrics", "apikey.prom"]).run().status, 0);
    let text = fs::read(host.path("apikey.prom")).unwrap();
    let outcome = host.program("/usr/bin/promtool", &["check", "metrics"]).input(text).run();
    assert_eq!((outcome.status, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
}

/// node_exporter, until it is dropped.
struct NodeExporter(Child);

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root and prometheus-node-exporter"]
fn the_help_says_how_node_exporter_gets_metrics_as_debian_has_it() {
    let host = host();
    // As the package makes them: the upper one is prometheus's.
    fs::create_dir_all(host.path("prometheus/node-exporter")).unwrap();
    chown(host.path("prometheus"), Some(NOBODY), Some(NOBODY)).unwrap();
    host.chmod("", 0o755);
    let refused = host.apikey(&["doctor", "--metrics", "prometheus/node-exporter/apikey.prom"]).run();
    assert_eq!(refused.status, 7, "{refused:?}");
    let help = host.apikey(&["doctor", "--help"]).run().stdout;
    let recipe = help.split_once("For Prometheus,").unwrap().1;
    let commands: Vec<&str> = recipe.lines().filter_map(|line| line.trim().strip_prefix("# ")).collect();
    let manual = include_str!("../man/apikey.5").replace("\\-", "-");
    assert!(manual.contains(&commands.join("\n")), "apikey(5) says something else");
    let script = commands.join("\n").replace("/var/lib", host.folder().to_str().unwrap());
    let script =
        script.replace("-g prometheus", &format!("-g {NOBODY}")).replace("apikey doctor", "\"$0\" doctor");
    assert_eq!(commands.len(), 3, "{script}");
    let outcome = host.program("sh", &["-euc", &script, APIKEY]).env("PATH", "/usr/bin:/bin").run();
    assert_eq!(outcome.status, 0, "{script}: {outcome:?}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let options = [
        "--collector.disable-defaults".to_owned(),
        "--collector.textfile".to_owned(),
        format!("--collector.textfile.directory={}", host.path("prometheus/node-exporter").display()),
        format!("--web.listen-address={address}"),
    ];
    let exporter = host.program("/usr/bin/prometheus-node-exporter", &options).by_nobody();
    let _exporter = NodeExporter(exporter.with(|command| _ = command.stderr(Stdio::null())).spawn());
    let answer = wait_for("node_exporter", || {
        let mut connection = TcpStream::connect(&address).ok()?;
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok().map(|_| answer)
    });
    let metric = r#"apikey_checks{check="integrity",status="problem"} 0"#;
    assert!(answer.contains(metric) && answer.contains("node_textfile_scrape_error 0"), "{answer}");
}
