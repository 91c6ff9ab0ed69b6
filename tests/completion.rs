//! Completion, as shells ask for it and in shells.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{APIKEY, Host, Run, ends_within};
use rexpect::session::{PtySession, spawn_command};

/// What the program answers a shell that asks how the last of `words` may go on.
fn asked<'host>(host: &'host Host, words: &[&str]) -> Run<'host> {
    host.apikey(&[&["--", "apikey"], words].concat())
        .env("APIKEY_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
}

fn host_with_users() -> Host {
    let host = Host::new();
    for user in ["alice", "albert", "bob"] {
        host.key_from(&["create", user]);
    }
    host.apikey(&["revoke", "bob", "-yq"]).gives(0, "", "");
    host
}

#[test]
fn commands_options_and_values_complete() {
    let host = Host::new();
    asked(&host, &["rev"]).gives(0, "revoke", "");
    asked(&host, &["refresh", "--rev"]).gives(0, "--revoke-first", "");
    asked(&host, &["completions", "ba"]).gives(0, "bash", "");
}

#[test]
fn a_command_that_is_given_is_done_although_the_environment_says_that_a_shell_asks() {
    let host = host_with_users();
    for (user, shell) in [("alice", "bash"), ("albert", "nonsense")] {
        host.apikey(&["revoke", user, "-yq"]).env("APIKEY_COMPLETE", shell).gives(0, "", "");
    }
    assert_eq!(host.accepted(), 0);
}

#[test]
fn users_who_have_a_key_complete() {
    let host = host_with_users();
    for command in ["show", "refresh", "revoke", "list"] {
        asked(&host, &[command, "al"]).gives(0, "albert\nalice", "");
        asked(&host, &[command, "b"]).gives(0, "", "");
    }
    asked(&host, &["create", "al"]).gives(0, "", "");
}

#[test]
fn paths_complete_from_the_current_folder() {
    let host = Host::new();
    std::fs::create_dir(host.path("web")).unwrap();
    host.write("web/one.key", b"");
    host.write("web.key", b"");
    for words in
        [&["create", "x", "--key-file", "w"][..], &["verify", "--key-file", "w"], &["list", "--db", "w"]]
    {
        asked(&host, words).gives(0, "web.key\nweb/", "");
    }
    asked(&host, &["verify", "--key-file", "web/"]).gives(0, "web/one.key", "");
    asked(&host, &["verify", "--key-file", "./web.k"]).gives(0, "./web.key", "");
    asked(&host, &["verify", "--key-file=web.k"]).gives(0, "--key-file=web.key", "");
}

#[test]
fn users_complete_from_the_database_that_the_command_line_names() {
    let (host, other) = (host_with_users(), Host::new());
    let path = host.database();
    let path = path.to_str().unwrap();
    asked(&other, &["--db", path, "revoke", "al"]).gives(0, "albert\nalice", "");
    asked(&other, &["revoke", &format!("--db={path}"), "al"]).gives(0, "albert\nalice", "");
}

#[test]
fn a_database_that_is_locked_missing_or_spoilt_is_no_reason_to_wait_write_or_speak() {
    let host = host_with_users();
    let writer = host.sqlite();
    writer.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let lock = std::fs::File::open(host.path("keys.db-lock")).unwrap();
    lock.lock().unwrap();
    let ends_at_once = ends_within(Duration::from_secs(5), || {
        let answer = asked(&host, &["revoke", "al"]).run();
        // Whether it can be read under the lock is SQLite's business; that it ends at once is ours.
        assert_eq!((answer.status, answer.stderr.as_str()), (0, ""));
    });
    assert!(ends_at_once, "it waited");
    drop((writer, lock));

    asked(&Host::new(), &["revoke", "al"]).gives(0, "", "");
    for junk in [&b""[..], b"junk", &[0; 8192]] {
        let host = Host::new();
        host.write("keys.db", junk);
        let before = host.contents();
        asked(&host, &["revoke", "al"]).gives(0, "", "");
        assert_eq!(host.contents(), before);
    }
}

#[test]
fn completing_makes_no_side_file_and_leaves_the_database_as_it_is() {
    let host = host_with_users();
    let before = host.contents();
    asked(&host, &["revoke", "al"]).gives(0, "albert\nalice", "");
    assert!(host.contents() == before);
    for file in ["keys.db-wal", "keys.db-shm"] {
        std::fs::remove_file(host.path(file)).unwrap();
        asked(&host, &["revoke", "al"]).gives(0, "", "");
        assert!(!host.path(file).exists(), "{file} was made");
    }
}

#[test]
fn what_does_not_belong_on_a_terminal_is_not_offered() {
    let host = host_with_users();
    host.execute("UPDATE keys SET user = 'al' || char(27) || '[31m' WHERE user = 'alice'");
    assert_eq!(host.apikey(&["show", "albert"]).run().status, 0);
    asked(&host, &["revoke", "al"]).gives(0, "albert", "");
}

/// An interactive shell that has read the committed script.
fn shell(host: &Host, program: &str, args: &[&str], setup: &str) -> PtySession {
    // rexpect turns the terminal's echo off, and bash takes that as a wish.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "stty echo; exec \"$@\"", "sh", program]);
    let path = format!("{}:/usr/bin:/bin", Path::new(APIKEY).parent().unwrap().display());
    command.args(args).env_clear().current_dir(host.folder());
    command.envs([("PATH", path.as_str()), ("TERM", "dumb"), ("HOME", host.folder().to_str().unwrap())]);
    command.env("APIKEY_DB", host.database());
    host.write("web.key", b"");
    let mut session = spawn_command(command, Some(60_000)).unwrap();
    // bash does not end when it is asked to.
    session.process_mut().set_kill_timeout(Some(0));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    session.send_line(&setup.replace("SCRIPTS", script.to_str().unwrap())).unwrap();
    session.send_line("echo rea''dy").unwrap();
    session.exp_string("ready").unwrap();
    session
}

/// Types the start of a command and a tab, and sees what the shell makes of it.
fn tab(session: &mut PtySession, typed: &str, completed: &str) {
    session.send(typed).unwrap();
    session.send("\t").unwrap();
    session.flush().unwrap();
    session.exp_string(completed).unwrap_or_else(|error| panic!("{typed}: {error}"));
    session.send_control('u').unwrap();
}

fn completes_in(session: &mut PtySession) {
    tab(session, "apikey refr", "apikey refresh");
    tab(session, "apikey refresh --revo", "--revoke-first");
    tab(session, "apikey completions fi", "fish");
    tab(session, "apikey revoke alb", "albert");
    tab(session, "apikey verify --key-file we", "web.key");
}

#[test]
#[ignore = "needs bash"]
fn bash_completes_a_command_an_option_a_value_and_a_user() {
    let host = host_with_users();
    completes_in(&mut shell(&host, "bash", &["--norc", "-i"], "source SCRIPTS/apikey.bash"));
}

const ZSH_SETUP: &str = "fpath=(SCRIPTS $fpath); autoload -U compinit; compinit -u -D";

#[test]
#[ignore = "needs zsh"]
fn zsh_completes_a_command_an_option_a_value_and_a_user() {
    let host = host_with_users();
    completes_in(&mut shell(&host, "zsh", &["-f", "-i"], ZSH_SETUP));
}

#[test]
#[ignore = "needs zsh"]
fn zsh_offers_users_and_other_values_before_options() {
    let host = host_with_users();
    host.key_from(&["create", "a:b"]);
    let mut session = shell(&host, "zsh", &["-f", "-i"], ZSH_SETUP);
    for (typed, offered) in [
        ("apikey revoke ", ["a:b", "albert", "alice", "--yes"]),
        ("apikey completions ", ["bash", "fish", "zsh", "--db"]),
    ] {
        session.send(&format!("{typed}\t")).unwrap();
        session.flush().unwrap();
        for word in offered {
            session.exp_string(word).unwrap_or_else(|error| panic!("{typed}: {word}: {error}"));
        }
        session.send_control('u').unwrap();
    }
}

#[test]
#[ignore = "needs fish"]
fn fish_completes_a_command_an_option_a_value_and_a_user() {
    let host = host_with_users();
    completes_in(&mut shell(&host, "fish", &["--no-config", "-i"], "source SCRIPTS/apikey.fish"));
}
