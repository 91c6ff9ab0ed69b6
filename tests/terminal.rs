//! What happens where somebody sits at a terminal.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{APIKEY, Host, generalized};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::WaitStatus;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};

const CANCELLED: &str = "apikey: cancelled; nothing changed\r\n";

struct Terminal {
    session: PtySession,
}

impl Terminal {
    /// A terminal that shows what is typed, where `script` runs: `"$0"` is the program.
    fn run(host: &Host, script: &str, environment: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("sh");
        // rexpect turns the terminal's echo off.
        shell.args(["-c", &format!("stty echo; {script}"), APIKEY]);
        shell.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("APIKEY_DB", host.database());
        shell.envs(environment.iter().copied()).current_dir(host.folder());
        Terminal { session: spawn_with_options(shell, Options::new().timeout_ms(Some(60_000))).unwrap() }
    }

    fn apikey(host: &Host, args: &str) -> Self {
        Terminal::run(host, &format!("exec \"$0\" {args}"), &[])
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        self.session.exp_string(text).unwrap();
    }

    fn types(&mut self, text: &str) {
        self.session.send(text).unwrap();
        self.session.flush().unwrap();
    }

    /// What was shown since the last `expect`, and the exit status. Asserts that the terminal is
    /// left as it was.
    #[track_caller]
    fn ends(self) -> (String, i32) {
        match self.ends_somehow() {
            (shown, WaitStatus::Exited(_, status)) => (shown, status),
            (shown, status) => panic!("{status:?}: {shown}"),
        }
    }

    /// The same, for a process that may be killed.
    #[track_caller]
    fn ends_somehow(mut self) -> (String, WaitStatus) {
        let terminal = self.session.process().get_file_handle().unwrap();
        let shown = self.session.exp_eof().unwrap();
        let status = self.session.process().wait().unwrap();
        let flags = tcgetattr(&terminal).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG), "{shown}");
        (shown, status)
    }
}

#[test]
fn a_signal_at_a_question_ends_it_and_leaves_the_terminal_as_it_was() {
    for (args, prompt) in [("refresh alice", "[y/N] "), ("revoke alice", "[y/N] "), ("verify", PROMPT)] {
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT] {
            let (host, key) = Host::with_key_of("alice");
            let mut terminal = Terminal::apikey(&host, args);
            terminal.expect(prompt);
            terminal.session.process_mut().signal(signal).unwrap();
            let (shown, status) = terminal.ends_somehow();
            match status {
                WaitStatus::Exited(_, 10) => assert_eq!(signal, Signal::SIGINT, "{args}: {shown}"),
                WaitStatus::Signaled(_, by, false) => assert_eq!(signal, by, "{args}: {shown}"),
                other => panic!("{args}: {signal}: {other:?}: {shown}"),
            }
            assert_eq!(host.status_of(&key), "active");
        }
    }
}

#[test]
fn a_signal_that_is_ignored_leaves_the_question_as_it_was() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        let (host, key) = Host::with_key_of("alice");
        let mut terminal = Terminal::run(&host, "trap '' HUP TERM INT; exec \"$0\" verify", &[]);
        terminal.expect(PROMPT);
        terminal.session.process_mut().signal(signal).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        terminal.types(&format!("{key}\r"));
        let (shown, status) = terminal.ends();
        assert!(status == 0 && !shown.contains(&key[15..]), "{shown}");
    }
}

#[test]
fn a_signal_ends_a_question_that_is_stopped_in_the_background() {
    let (host, _) = Host::with_key_of("alice");
    let script = "set -m; \"$0\" verify & until grep -q ') T ' /proc/$!/stat; do sleep 0.01; done; \
                  kill -TERM $!; kill -CONT $!; while grep -q ') [^Z] ' /proc/$!/stat; do sleep 0.01; done";
    let (shown, status) = Terminal::run(&host, script, &[]).ends();
    assert_eq!(status, 0, "{shown}");
}

/// What `list` shows in so many columns, a line each.
fn listed(host: &Host, columns: usize) -> Vec<String> {
    let (shown, status) =
        Terminal::run(host, &format!("stty rows 24 cols {columns}; exec \"$0\" list"), &[]).ends();
    assert_eq!(status, 0, "{shown}");
    // rexpect takes each byte for a character.
    let shown = String::from_utf8(shown.chars().map(|c| c as u8).collect()).unwrap();
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn a_list_has_a_line_a_key_that_is_no_wider_than_the_terminal() {
    let host = Host::new();
    let (long_user, long_name, wide_name) = ("u".repeat(128), "n".repeat(100), "鍵".repeat(100));
    let keys = [
        host.key_from(&["create", "alice", "--name", &long_name, "--expires-in", "90d"]),
        host.key_from(&["create", "bob", "--name", &wide_name]),
        host.key_from(&["create", &long_user, "--name", "e\u{301}".repeat(50).as_str()]),
        host.key_from(&["create", "web-frontend@example.com"]),
    ];
    host.status_of(&keys[0]);
    host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    for (columns, headers) in [
        (200, "USER PREFIX NAME STATUS CREATED ENDS LAST USED"),
        (80, "USER PREFIX NAME STATUS ENDS LAST USED"),
        (60, "USER PREFIX NAME STATUS ENDS"),
        (50, "USER PREFIX STATUS ENDS"),
    ] {
        let lines = listed(&host, columns);
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), headers);
        assert_eq!(lines.len(), 6, "{lines:#?}");
        let widest = lines.iter().map(|line| console::measure_text_width(line)).max().unwrap();
        assert!(widest <= columns && widest + 2 > columns, "{widest}: {lines:#?}");
        for key in &keys {
            assert!(lines.iter().any(|line| line.contains(&format!("  {}  ", &key[..15]))), "{lines:#?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("uuuu") && line.contains("u…u")), "{lines:#?}");
        for cut in ["  nnn", "n…n", "  鍵鍵", "鍵…鍵", "  e\u{301}e\u{301}"] {
            let is_shown = lines.iter().any(|line| line.contains(cut));
            assert_eq!(is_shown, headers.contains("NAME"), "{cut}: {lines:#?}");
        }
        // When the old key of alice ends.
        assert!(generalized(&lines[1]).contains("  retiring  ") && lines[1].contains(':'), "{lines:#?}");
    }
}

#[test]
fn a_list_that_fits_is_whole() {
    let host = Host::new();
    host.key_from(&["create", "alice", "--name", "laptop"]);
    let lines = listed(&host, 80);
    assert_eq!(lines[0], "USER   PREFIX           NAME    STATUS  CREATED      ENDS   LAST USED");
    assert_eq!(generalized(&lines[1]), "alice  <prefix>  laptop  active  <minute>  never  not recorded");
    // By one column too narrow, and by one more.
    let width = lines[1].len();
    assert_eq!(listed(&host, width), lines);
    let lines = listed(&host, width - 1);
    assert_eq!(lines[0], "USER   PREFIX           NAME    STATUS  ENDS   LAST USED");
    assert_eq!(generalized(&lines[1]), "alice  <prefix>  laptop  active  never  not recorded");
}

/// A prompt, and how it is answered with no, where the key of `alice` is at stake.
const QUESTIONS: [(&str, &str); 2] = [("refresh alice", "Replace "), ("revoke alice", "Revoke ")];

#[test]
fn the_question_names_the_key_and_yes_replaces_it() {
    let (host, old) = Host::with_key_of("alice");
    let mut terminal = Terminal::apikey(&host, "refresh alice");
    terminal.expect(&format!("Replace {}, the key of alice? [y/N]", &old[..15]));
    terminal.types("y\r");
    let (shown, status) = terminal.ends();
    assert_eq!(status, 0, "{shown}");
    let keys = generalized(&shown);
    assert_eq!(keys.matches("<key>").count(), 1, "the key is printed exactly once: {keys}");
    assert!(
        keys.ends_with(
            "<key>\r\nIssued <prefix> to alice. The key is shown only once.\r\n<prefix> is revoked.\r\n"
        ),
        "{keys}"
    );
    assert_eq!((host.status_of(&old), host.accepted()), ("revoked".into(), 1));
}

#[test]
fn yes_revokes() {
    let (host, key) = Host::with_key_of("alice");
    let mut terminal = Terminal::apikey(&host, "revoke alice");
    terminal.expect(&format!("Revoke {}, the key of alice? [y/N]", &key[..15]));
    terminal.types("y\r");
    let (shown, status) = terminal.ends();
    assert!(status == 0 && shown.ends_with(&format!("Revoked {} of alice.\r\n", &key[..15])), "{shown}");
    assert_eq!(host.status_of(&key), "revoked");
}

#[test]
fn anything_but_yes_changes_nothing() {
    const CTRL_C: &str = "\x03";
    const CTRL_D: &str = "\x04";
    let long = format!("y{}, no, wait\r", " ".repeat(15));
    for (args, verb) in QUESTIONS {
        for answer in [
            "n\r",
            "N\r",
            "\r",
            "apikey\r",
            "yes, please\r",
            CTRL_C,
            CTRL_D,
            &format!("y{CTRL_D}{CTRL_D}"),
            &long,
        ] {
            let (host, key) = Host::with_key_of("alice");
            let before = host.contents();
            let mut terminal = Terminal::apikey(&host, args);
            terminal.expect(verb);
            terminal.expect("[y/N]");
            terminal.types(answer);
            let (shown, status) = terminal.ends();
            assert!(status == 10 && shown.ends_with(CANCELLED), "{args}: {answer:?}: {status}: {shown}");
            assert!(host.contents() == before, "{args}: {answer:?}");
            assert_eq!(host.status_of(&key), "active");
        }
    }
}

#[test]
fn what_was_typed_before_the_question_is_no_answer_to_it() {
    for (args, _) in QUESTIONS {
        let (host, key) = Host::with_key_of("alice");
        let mut terminal = Terminal::run(&host, &format!("echo wait; sleep 1; exec \"$0\" {args}"), &[]);
        terminal.expect("wait");
        terminal.types("y\ry\r");
        terminal.expect("[y/N]");
        terminal.types("\r");
        let (shown, status) = terminal.ends();
        assert!(status == 10 && shown.ends_with(CANCELLED), "{args}: {status}: {shown}");
        assert_eq!(host.status_of(&key), "active");
    }
}

#[test]
#[ignore = "needs strace"]
fn an_answer_that_comes_before_the_terminal_is_ready_for_it_counts() {
    for (answer, expected) in [("n\r", 10), ("y\r", 0), ("yes\r", 0), ("\x03", 10)] {
        let (host, _) = Host::with_key_of("alice");
        // Whatever is done to the terminal takes its time.
        let slowly = "exec strace -o /dev/null -e trace=ioctl -e inject=ioctl:delay_enter=100000";
        let mut terminal = Terminal::run(&host, &format!("{slowly} \"$0\" revoke alice"), &[]);
        terminal.expect("[y/N]");
        terminal.types(answer);
        let (shown, status) = terminal.ends();
        assert_eq!(status, expected, "{answer:?}: {shown}");
    }
}

#[test]
fn cancelling_is_an_object_where_json_is_asked_for() {
    let (host, _) = Host::with_key_of("alice");
    let mut terminal = Terminal::apikey(&host, "revoke alice --json");
    terminal.expect("[y/N]");
    terminal.types("n\r");
    let (shown, status) = terminal.ends();
    let object = "{\"code\":\"CANCELLED\",\"message\":\"cancelled; nothing changed\",\"hint\":null}\r\n";
    assert!(status == 10 && shown.ends_with(object), "{shown}");
}

#[test]
fn yes_said_beforehand_and_nothing_to_end_ask_nothing() {
    let (host, _) = Host::with_key_of("alice");
    for args in ["refresh alice --yes", "revoke alice -y", "revoke carol"] {
        let (shown, status) = Terminal::apikey(&host, args).ends();
        assert_eq!(status, if args == "revoke carol" { 4 } else { 0 }, "{shown}");
        assert!(!shown.contains('?'), "{args}: {shown}");
    }
}

#[test]
fn a_refresh_of_who_has_no_key_asks_and_says_so() {
    let (host, _) = Host::with_key_of("alice");
    for (answer, expected) in [("n\r", 10), ("y\r", 0)] {
        let mut terminal = Terminal::apikey(&host, "refresh alcie");
        terminal.expect("alcie has no key. Issue one? [y/N]");
        terminal.types(answer);
        let (shown, status) = terminal.ends();
        assert_eq!(status, expected, "{shown}");
    }
    assert_eq!(host.accepted(), 2);
}

#[test]
fn a_refresh_that_is_cancelled_makes_no_database() {
    let host = Host::new();
    let mut terminal = Terminal::apikey(&host, "refresh alice");
    terminal.expect("alice has no key. Issue one? [y/N]");
    terminal.types("n\r");
    let (shown, status) = terminal.ends();
    assert_eq!((status, host.names().len()), (10, 0), "{shown}");
}

#[test]
fn standard_output_holds_the_key_alone_where_it_is_no_terminal() {
    let (host, _) = Host::with_key_of("alice");
    let mut terminal = Terminal::run(&host, "exec \"$0\" refresh alice >key", &[]);
    terminal.expect("[y/N]");
    terminal.types("y\r");
    let (shown, status) = terminal.ends();
    assert_eq!(status, 0, "{shown}");
    let key = std::fs::read_to_string(host.path("key")).unwrap();
    assert_eq!(generalized(&key), "<key>\n");
    assert!(!shown.contains(&key[..16]), "{shown}");
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn nobody_is_asked_who_would_not_see_the_question() {
    let (host, key) = Host::with_key_of("alice");
    for script in ["exec \"$0\" revoke alice 2>errors", "exec \"$0\" revoke alice </dev/null"] {
        let (shown, status) = Terminal::run(&host, script, &[]).ends();
        assert_eq!(status, 2, "{script}: {shown}");
    }
    assert_eq!(host.status_of(&key), "active");
}

#[test]
fn an_answer_about_a_key_that_was_replaced_meanwhile_counts_for_nothing() {
    for (args, verb) in QUESTIONS {
        let (host, _) = Host::with_key_of("alice");
        let mut terminal = Terminal::apikey(&host, args);
        terminal.expect(verb);
        terminal.expect("[y/N]");
        let new = host.key_from(&["refresh", "alice", "--yes", "--timeout", "1s"]);
        terminal.types("y\r");
        let (shown, status) = terminal.ends();
        let message = format!("apikey: {} of alice is new: it was issued while you were asked", &new[..15]);
        assert!(status == 10 && shown.contains(&message), "{shown}");
        assert_eq!((host.status_of(&new), host.accepted()), ("active".into(), 1));
    }
}

#[test]
fn the_question_is_about_a_key_on_its_way_too() {
    let (host, old) = Host::with_key_of("web");
    let refresh = ["refresh", "web", "-y", "--key-file", "web.key", "--reload", "false"];
    assert_eq!(host.apikey(&refresh).run().status, 9);
    let key = std::fs::read_to_string(host.path("web.key")).unwrap();
    let mut terminal = Terminal::apikey(&host, "revoke web");
    terminal.expect(&format!("Revoke {}, {}, the keys of web? [y/N]", &old[..15], &key[..15]));
    terminal.types("n\r");
    assert_eq!(terminal.ends().1, 10);
    assert_eq!(host.status_of(&key), "pending");
}

#[test]
fn the_question_is_about_what_is_there_once_an_interrupted_delivery_is_finished() {
    let host = Host::new();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
    host.execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0");
    let key = std::fs::read_to_string(host.path("web.key")).unwrap();
    let mut terminal = Terminal::apikey(&host, "refresh web --no-reload");
    terminal.expect("Finished the delivery of");
    terminal.expect(&format!("Replace {}, the key of web? [y/N]", &key[..15]));
    terminal.types("y\r");
    assert_eq!(terminal.ends().1, 0);
    assert_eq!((host.status_of(&key).as_str(), host.accepted()), ("revoked", 1));
}

const PROMPT: &str = "Key (it is not shown): ";

/// What `verify` shows after its prompt where `text` is typed at it, and the exit status.
fn verify(host: &Host, text: &str) -> (String, i32) {
    let mut terminal = Terminal::apikey(host, "verify");
    terminal.expect(PROMPT);
    terminal.types(text);
    let (shown, status) = terminal.ends();
    (generalized(&shown), status)
}

#[test]
fn a_key_that_is_typed_is_not_shown() {
    let (host, key) = Host::with_key_of("alice");
    let accepted = ("\r\n<prefix> is accepted: the active key of alice\r\n".to_owned(), 0);
    for end in ["\r", "\n", "\x04\x04"] {
        assert_eq!(verify(&host, &format!("{key}{end}")), accepted, "{end:?}");
    }
    assert_eq!(verify(&host, &format!("{key}x\x7f\r")), accepted, "a character taken back");
    let malformed = ("\r\napikey: not accepted: the input is not a well-formed key\r\n".to_owned(), 5);
    assert_eq!(verify(&host, &format!("{}\r", &key[..40])), malformed);
    assert_eq!(verify(&host, "\r"), malformed);
    assert_eq!(verify(&host, &format!("{key}{key}\r")), malformed);
}

#[test]
fn ctrl_c_at_the_prompt_for_a_key_ends_it() {
    let (host, key) = Host::with_key_of("alice");
    let before = host.contents();
    assert_eq!(verify(&host, &format!("{}\x03", &key[..40])), (format!("\r\n{CANCELLED}"), 10));
    assert!(host.contents() == before);
}

#[test]
fn help_is_coloured_at_a_terminal_unless_no_color_is_set() {
    let host = Host::new();
    // Also where it says what was wrong.
    for (environment, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let (shown, status) = Terminal::run(&host, "exec \"$0\" >/dev/null", environment).ends();
        assert!(status == 2 && shown.contains("\x1b[1m") == coloured, "{shown:?}");
    }
    let hostile = ("APIKEY_DB", "\x1b[31m\x1b]0;title\x07");
    let (shown, status) = Terminal::run(&host, "exec \"$0\" create -h", &[hostile]).ends();
    assert!(status == 0 && shown.contains("\x1b[1m") && !shown.contains("title"), "{shown:?}");
    let (shown, _) = Terminal::run(&host, "exec \"$0\" create -h", &[hostile, ("NO_COLOR", "1")]).ends();
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn a_renewal_that_takes_longer_than_a_second_shows_who_is_at_work_on_a_terminal_alone() {
    let host = Host::new();
    for (user, reload) in [("quick", "true"), ("slow-one", "sleep 4")] {
        let file = format!("{user}.key");
        let create = ["create", user, "-q", "--key-file", &file, "--renew-after", "1d", "--reload", reload];
        host.apikey(&create).gives(0, "", "");
    }
    let make_due = || host.execute("UPDATE settings SET due_at = '2026-01-01T00:00:00.000Z'");
    make_due();
    let mut terminal = Terminal::apikey(&host, "renew");
    terminal.expect("to quick, renewed from");
    terminal.expect("1/2 ");
    terminal.expect("slow-one");
    terminal.expect("to slow-one, renewed from");
    assert_eq!(terminal.ends().1, 0);
    for args in ["renew 2>said", "renew --json", "renew --quiet"] {
        make_due();
        let (shown, status) = Terminal::apikey(&host, args).ends();
        assert!(status == 0 && !shown.contains("1/2") && !shown.contains('\x1b'), "{args}: {shown}");
        let said = std::fs::read_to_string(host.path("said")).unwrap();
        assert!(!said.contains("1/2") && !said.contains('\x1b'), "{said}");
    }
}
