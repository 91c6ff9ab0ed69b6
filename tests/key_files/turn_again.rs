//! What is said of a key after its reload, in which others had their turn.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::common::{APIKEY, Host, Outcome, generalized};
use crate::{content, host_with_key_file};

#[test]
fn a_key_that_another_run_delivered_and_a_third_replaced_is_not_said_to_be_revoked() {
    let host = host_with_key_file();
    let meanwhile = format!(
        "export APIKEY_DB=keys.db; {APIKEY} refresh web -yq --no-reload && {APIKEY} refresh web -yq --grace 1h; exit 1"
    );
    host.apikey(&["refresh", "web", "-y", "--reload", &meanwhile]).fails(
        4,
        "apikey: <prefix> of web was replaced meanwhile\n`apikey show web` shows the current one\n",
    );
    assert_eq!(host.accepted(), 2);
}

/// Keeps the lock of writers, once it is had, until this is dropped.
fn lock_writers(host: &Host) -> fs::File {
    let lock = fs::File::options().write(true).open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// Runs a refresh of web with a reload command that does this, then waits until `meanwhile` is over, and ends so.
fn while_it_reloads(host: &Host, first: &str, last: &str, meanwhile: impl FnOnce()) -> Outcome {
    let reload = format!("{first}; touch told; until test -e over; do sleep 0.01; done; {last}");
    let refresh = ["refresh", "web", "-y", "--timeout", "100ms", "--reload", &reload];
    thread::scope(|scope| {
        let run = scope.spawn(|| host.apikey(&refresh).run());
        while !host.path("told").exists() && !run.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        meanwhile();
        host.write("over", b"");
        run.join().unwrap()
    })
}

#[test]
fn who_does_not_get_the_turn_again_says_what_has_become_of_the_key() {
    let by_another = |command: &str| format!("{APIKEY} --db keys.db {command}");
    for (first, last, status, said, accepted) in [
        (
            "true",
            "true",
            9,
            "in place, but could not be made the active key: <folder>/keys.db is locked by",
            2,
        ),
        ("true", "exit 1", 9, "not told yet: the reload command failed: exit status: 1, and <folder>", 2),
        (
            &by_another("revoke web -yq"),
            "true",
            4,
            "<prefix> of web was revoked before its delivery was done",
            0,
        ),
        (&by_another("refresh web -yq --no-reload"), "exit 1", 0, "Issued <prefix> to web", 1),
    ] {
        let host = host_with_key_file();
        let mut lock = None;
        let outcome = while_it_reloads(&host, first, last, || lock = Some(lock_writers(&host)));
        drop(lock);
        assert_eq!((outcome.status, host.accepted()), (status, accepted), "{first}: {outcome:?}");
        let folder = fs::canonicalize(host.folder()).unwrap();
        let heard = generalized(&outcome.stderr.replace(folder.to_str().unwrap(), "<folder>"));
        assert!(heard.contains(said), "{first}: {heard}");
    }
}

#[test]
fn a_reload_that_fails_beside_somebody_who_writes_leaves_a_key_that_is_said_to_be_pending() {
    let host = host_with_key_file();
    let sqlite = host.sqlite();
    let begin = || sqlite.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outcome = while_it_reloads(&host, "true", "exit 7", begin);
    assert_eq!(outcome.status, 9, "{outcome:?}");
    assert!(
        outcome.stderr.contains("not told yet: the reload command failed: exit status: 7\n"),
        "{outcome:?}"
    );
    sqlite.execute_batch("ROLLBACK").unwrap();
    host.apikey(&["refresh", "web", "-yq", "--no-reload"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_database_that_is_put_in_the_place_of_the_other_during_a_reload_is_not_said_to_have_the_key() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
    let restore = "mkdir away && mv keys.db keys.db-wal keys.db-shm away && cp -p copy.db keys.db";
    let outcome = host.apikey(&["refresh", "web", "-y", "--reload", restore]).run();
    assert_eq!(outcome.status, 9, "{outcome:?}");
    let said = format!("another file lies at {} than the one", host.database().display());
    assert!(outcome.stderr.contains(&said), "{outcome:?}");
    assert_eq!(host.status_of(&old), "active");
}
