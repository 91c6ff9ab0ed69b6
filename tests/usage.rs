//! Arguments that are wrong, hostile or a cry for help.

mod common;

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;

use common::{Host, Outcome};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

const COMMANDS: [&str; 14] = [
    "create",
    "show",
    "refresh",
    "revoke",
    "ensure",
    "edit",
    "renew",
    "verify",
    "list",
    "log",
    "doctor",
    "prune",
    "backup",
    "completions",
];

/// What could steer a terminal or hide in a line.
const HOSTILE: [&str; 14] = [
    "a\nb",
    "a\r\rb",
    "a\n\nb",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;https://example.com\x1b\\link",
    "a\u{7f}b",
    "a\u{9b}31m",
    "a\u{85}b",
    "a\u{202e}b",
    "a\u{2066}b",
    "a\u{200b}b",
    "\u{feff}a",
    "a\u{2028}b",
];

#[track_caller]
fn assert_wrong_usage(outcome: &Outcome) {
    assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{outcome:?}");
    assert!(outcome.stderr.starts_with("apikey: "), "{outcome:?}");
    assert!(outcome.is_printable(), "{outcome:?}");
}

#[test]
fn with_no_command_it_prints_the_short_help_as_an_error() {
    let host = Host::new();
    let help = host.apikey(&["-h"]).run().stdout;
    assert!(help.contains("\n  create "), "{help}");
    host.apikey::<&str>(&[]).fails(2, &help);
    host.apikey(&["--quiet"]).fails(2, &help);
    let outcome = host.apikey(&["--json"]).run();
    assert_eq!((outcome.status, outcome.stdout.as_str(), outcome.code().as_str()), (2, "", "USAGE"));
}

#[test]
fn each_tip_has_a_line_of_its_own() {
    let host = Host::new();
    host.apikey(&["lst"]).fails(
        2,
        "apikey: unrecognized subcommand 'lst'\n\
         tip: a similar subcommand exists: 'list'\n\
         Usage: apikey [OPTIONS] <COMMAND>\n\
         For more information, try '--help'.\n",
    );
    // And has no more than that, whatever it repeats.
    host.apikey(&["create", "--na\n\nme"]).fails(
        2,
        "apikey: unexpected argument '--na\\n\\nme' found\n\
         tip: a similar argument exists: '--name'\n\
         Usage: apikey create [USER] [OPTIONS]\n\
         For more information, try '--help'.\n",
    );
    host.apikey(&["show", "--\nall\n"]).fails(
        2,
        "apikey: unexpected argument '--\\nall\\n' found\n\
         tip: to pass '--\\nall\\n' as a value, use '-- --\\nall\\n'\n\
         Usage: apikey show [USER|PREFIX] [OPTIONS]\n\
         For more information, try '--help'.\n",
    );
}

#[test]
fn what_to_do_about_a_folder_depends_on_why_it_cannot_be_opened() {
    let host = Host::new();
    host.write("file", b"");
    std::fs::create_dir_all(host.path("closed/folder")).unwrap();
    host.chmod("closed", 0);
    let (long, circle) = ("a".repeat(300), host.path("circle"));
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    for (folder, to_do) in [
        ("none", "make the folder"),
        ("closed/folder", "give yourself permission to search the folders on the way to it"),
        ("file/folder", "move away what lies in the place of a folder"),
        (&long, "use shorter names"),
        ("circle", "see to that"),
    ] {
        let (database, key_file) = (format!("{folder}/keys.db"), format!("{folder}/web.key"));
        for (args, instead) in [
            (["create", "web", "--db", &database], "name another database with --db"),
            (["create", "web", "--key-file", &key_file], "name another file"),
        ] {
            let outcome = host.apikey_unprivileged(&args).run();
            assert!(outcome.stderr.ends_with(&format!("\n{to_do}, or {instead}\n")), "{outcome:?}");
            assert!(outcome.stderr.starts_with("apikey: cannot open the folder "), "{outcome:?}");
        }
    }
    host.chmod("closed", 0o700);
}

#[test]
fn what_others_call_a_command_leads_to_it() {
    let host = Host::new();
    for (names, command) in [
        ("rm remove delete del", "revoke"),
        ("rotate regenerate roll", "refresh"),
        ("new add issue generate", "create"),
        ("ls", "list"),
        ("check validate", "verify"),
        ("get info", "show"),
    ] {
        for name in names.split(' ') {
            host.apikey(&[name, "alice"]).fails(
                2,
                format!(
                    "apikey: unrecognized subcommand '{name}'\n\
                     tip: the command is '{command}'\n\
                     Usage: apikey [OPTIONS] <COMMAND>\n\
                     For more information, try '--help'.\n"
                ),
            );
        }
    }
}

#[test]
fn no_message_repeats_a_key_that_was_given_where_none_belongs() {
    let (host, key) = Host::with_key_of("alice");
    let mistyped = key[..74].to_owned() + if key.ends_with('0') { "1" } else { "0" };
    for run in [
        host.apikey(&["list"]).env("APIKEY_DB", &key),
        host.apikey(&["list", "--db", &mistyped]),
        host.apikey(&["verify", &mistyped]),
        host.apikey(&["verify", "--key-file", &mistyped]),
        host.apikey(&["verify", "--key-file", &mistyped, "--json"]),
    ] {
        let outcome = run.run();
        assert_ne!(outcome.status, 0, "{outcome:?}");
        assert!(outcome.stderr.contains(&key[..15]) && !outcome.stderr.contains(&key[..20]), "{outcome:?}");
    }
}

#[test]
fn no_message_repeats_what_may_be_a_part_of_a_key() {
    let (host, key) = Host::with_key_of("alice");
    for part in [&key[3..], &key[3..43], &key[20..60], &key.to_uppercase(), &format!("x_{}_y", &key[3..])] {
        for run in [
            host.apikey(&["list", "--db", &format!("none/{part}/keys.db")]),
            host.apikey(&["verify", part]),
            host.apikey(&["verify", "--key-file", part, "--json"]),
            host.apikey(&["show", &format!("{part}/")]),
            host.apikey(&[part]),
            host.apikey(&["refresh", part]),
        ] {
            let outcome = run.run();
            assert_ne!(outcome.status, 0, "{outcome:?}");
            assert!(outcome.stderr.contains(&format!("{}…", &part[..15])), "{outcome:?}");
            assert!(!outcome.stderr.contains(&part[..16]), "{outcome:?}");
        }
    }
}

#[test]
fn a_non_blocking_standard_error_that_is_full_is_waited_for() {
    let (host, _) = Host::with_key_of("alice");
    let (mut pipe, mut stderr) = std::io::pipe().unwrap();
    fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while stderr.write(&[b'x'; 4096]).is_ok() {}
    let waiting = host.apikey(&["show", "nobody"]).with(|command| {
        command.stderr(stderr);
    });
    let mut waiting = waiting.spawn();
    let mut said = String::new();
    pipe.read_to_string(&mut said).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(4));
    assert!(said.ends_with("xapikey: nobody has no key\n"), "{said}");
}

#[test]
fn a_user_that_is_none_is_refused() {
    let host = Host::new();
    let too_long = "a".repeat(129);
    let users =
        ["", " ", "  ", "..", ".", "_a", "-", "@", "a b", "a/b", "a\\b", "a'b", "é", "a\u{301}", &too_long];
    for command in ["create", "show", "refresh", "revoke", "list"] {
        for user in users.iter().chain(&HOSTILE) {
            assert_wrong_usage(&host.apikey(&[command, "--", user]).run());
        }
    }
    assert_wrong_usage(&host.apikey(&["create", "-x"]).run());
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn a_user_can_be_all_that_the_contract_says() {
    let host = Host::new();
    let longest = "a".repeat(128);
    for user in
        ["a", "0", "A.b_c@d+e:f-g", "alice@example.com", "..."[1..].replace('.', "a").as_str(), &longest]
    {
        host.apikey(&["create", user, "--quiet"]).gives(0, "<key>\n", "");
    }
}

#[test]
fn a_user_cannot_be_called_what_a_prefix_looks_like() {
    let host = Host::new();
    host.apikey(&["create", "ak_0123456789ab"]).fails(
        2,
        "apikey: invalid value '<prefix>' for '[USER]': a user cannot be called what a key's prefix \
         looks like, ak_ and 12 hex digits\nFor more information, try '--help'.\n",
    );
    for user in ["AK_0123456789AB", "Ak_0123456789aB"] {
        assert_wrong_usage(&host.apikey(&["create", user]).run());
    }
    assert_eq!(host.names(), [""; 0], "nothing was made");
    for user in
        ["ak_0123456789a", "ak_0123456789abc", "ak_0123456789ag", "ak-0123456789ab", "bak_0123456789ab"]
    {
        host.apikey(&["create", user, "--quiet"]).gives(0, "<key>\n", "");
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    let host = Host::new();
    let too_long = "é".repeat(101);
    for name in ["", " ", " a", "a ", "\u{a0}a", "a\t", "a\tb", &too_long].iter().chain(&HOSTILE) {
        assert_wrong_usage(&host.apikey(&["create", "alice", "--name", name]).run());
        assert_wrong_usage(&host.apikey(&["refresh", "alice", "--yes", "--name", name]).run());
    }
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn a_name_can_be_any_text_that_is_printable() {
    let host = Host::new();
    let longest = "é".repeat(100);
    for name in ["x", "..", "Zoë's laptop", "鍵 🔑", "-x", "\"quoted\" \\ <b>", "' OR 1=1 --", &longest] {
        let flag = format!("--name={name}");
        let refreshed = host.apikey(&["refresh", "alice", "--yes", "--json", &flag]).run();
        assert_eq!(refreshed.json()["name"], name);
        assert_eq!(host.apikey(&["show", "alice", "--json"]).run().json()["name"], name);
    }
}

#[test]
fn a_duration_that_is_none_is_refused() {
    let host = Host::new();
    let durations = [
        "",
        " ",
        "5",
        "d",
        "soon",
        "-5d",
        "5 parsecs",
        "1001y",
        "99999999999999999999d",
        "1e9d",
        "0x1d",
        "∞",
    ];
    for command in ["create", "refresh"] {
        for duration in durations.iter().chain(&["0s", "0d 0h", "1us"]).chain(&HOSTILE) {
            let flag = format!("--expires-in={duration}");
            assert_wrong_usage(&host.apikey(&[command, "alice", &flag]).run());
        }
    }
    for duration in durations.iter().chain(&HOSTILE) {
        assert_wrong_usage(&host.apikey(&["refresh", "alice", "-y", &format!("--grace={duration}")]).run());
        assert_wrong_usage(&host.apikey(&["list", &format!("--timeout={duration}")]).run());
    }
    assert_wrong_usage(&host.apikey(&["create", "alice", "--expires-in", "-5d"]).run());
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn a_month_is_no_duration() {
    let host = Host::new();
    for duration in ["1M", "2 M", "1 month", "3months", "1y 2M", "1M30d"] {
        for args in [
            ["create", "alice", "--expires-in", duration],
            ["refresh", "alice", "--grace", duration],
            ["list", "alice", "--timeout", duration],
        ] {
            let outcome = host.apikey(&args).run();
            assert_wrong_usage(&outcome);
            assert!(
                outcome.stderr.contains(": a month is not always as long: write 30d, or 1m for a minute\n"),
                "{outcome:?}"
            );
        }
    }
    let outcome = host.apikey(&["create", "alice", "--expires-in", "5 parsecs"]).run();
    assert!(
        outcome.stderr.contains(": there is no unit \"parsecs\"; write it like 90d, 12h, 30m or 1h 30m\n"),
        "{outcome:?}"
    );
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn a_duration_can_be_written_in_several_units() {
    let host = Host::new();
    for duration in ["1ms", "90d", "12h", "30m", "1h 30m", "1h30m", "1000y"] {
        host.apikey(&["refresh", "alice", "--yes", "--quiet", "--expires-in", duration])
            .gives(0, "<key>\n", "");
    }
    host.apikey(&["list", "bob", "--timeout", "0s", "--quiet"]).gives(0, "", "");
}

#[test]
fn what_no_command_takes_is_refused() {
    let host = Host::new();
    for args in [
        &["frobnicate"][..],
        &[""],
        &["create", "--frobnicate"],
        &["create", "alice", "bob"],
        &["show", "--name", "x"],
        &["create", "--grace", "1h"],
        &["create", "--yes"],
        &["revoke", "--grace", "1h"],
        &["verify", "alice"],
        &["show", "--all"],
        &["create", "alice", "--name", "a", "--name", "b"],
        &["create", "alice", "--name"],
        &["--db"],
        &["--db", "", "list"],
        &["--quiet=yes", "list"],
    ] {
        assert_wrong_usage(&host.apikey(args).run());
    }
    for text in HOSTILE {
        assert_wrong_usage(&host.apikey(&[text]).run());
        assert_wrong_usage(&host.apikey(&["create", &format!("--{text}")]).run());
        assert_wrong_usage(&host.apikey(&["verify", text]).run());
    }
    assert_wrong_usage(&host.apikey(&["list"]).env("APIKEY_DB", "").run());
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn arguments_that_are_not_utf_8_are_refused_unless_they_are_a_path() {
    let host = Host::new();
    let bytes = OsString::from_vec(b"a\xff\x1b[31m".to_vec());
    let with = |args: &[&str]| args.iter().map(OsString::from).chain([bytes.clone()]).collect::<Vec<_>>();
    for args in
        [&[][..], &["create"], &["create", "alice", "--name"], &["create", "--expires-in"], &["verify"]]
    {
        assert_wrong_usage(&host.apikey(&with(args)).run());
    }
    assert_eq!(host.names(), [""; 0], "nothing was made");
    host.apikey(&with(&["create", "alice", "-q", "--db"])).gives(0, "<key>\n", "");
    let missing = OsString::from_vec(b"b\xff\x1b[31m".to_vec());
    let outcome = host.apikey(&[OsStr::new("list"), OsStr::new("--db"), &missing]).run();
    assert!(outcome.status == 6 && outcome.is_printable(), "{outcome:?}");
}

#[test]
fn arguments_as_long_as_the_system_lets_them_be_are_refused() {
    let host = Host::new();
    // Linux takes 128 KiB for one argument, and some more for all of them.
    let long = "a".repeat(100_000);
    for args in [
        &["create", &long][..],
        &["create", "alice", "--name", &long],
        &["create", "alice", "--expires-in", &long],
        &["create", "alice", "--expires-in", &"9".repeat(100_000)],
        &["verify", &long],
        &[&long],
    ] {
        assert_wrong_usage(&host.apikey(args).run());
    }
    let many = vec!["alice"; 10_000];
    assert_wrong_usage(&host.apikey(&[&["create"], &many[..]].concat()).run());
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn nothing_hostile_in_an_argument_reaches_the_terminal() {
    let (host, _) = Host::with_key_of("alice");
    for text in HOSTILE {
        for json in [&[][..], &["--json"]] {
            let assert_printable = |args: &[&str]| {
                let outcome = host.apikey(&[args, json].concat()).run();
                assert!(outcome.status != 0 && outcome.stdout.is_empty(), "{outcome:?}");
                assert!(outcome.is_printable(), "{outcome:?}");
            };
            assert_printable(&["show", text]);
            assert_printable(&["show", "alice", text]);
            assert_printable(&["create", "bob", "--name", text]);
            assert_printable(&["create", "bob", "--expires-in", text]);
            assert_printable(&["list", "--db", text]);
            assert_printable(&["list", "--db", &format!("{text}/keys.db")]);
            assert_printable(&["list", "--db", &format!("{text}/")]);
            assert_printable(&["list", &format!("--{text}")]);
            assert_printable(&["list", &format!("-{text}")]);
        }
    }
}

#[test]
fn a_name_that_the_program_was_called_by_does_not_reach_the_terminal() {
    let host = Host::new();
    for args in [&["create", "-h"][..], &["-h"], &["create", "--frobnicate"], &["--version"]] {
        let outcome = host.apikey(args).with(|command| {
            command.arg0("a\x1b[31m\u{202e}\nb");
        });
        let (outcome, usual) = (outcome.run(), host.apikey(args).run());
        assert_eq!((outcome.stdout, outcome.stderr), (usual.stdout, usual.stderr));
    }
}

#[test]
fn the_short_help_of_every_command_fits_a_terminal() {
    let host = Host::new();
    let commands = COMMANDS.iter().map(|command| vec![*command, "-h"]);
    for args in commands.chain([vec!["-h"]]) {
        let outcome = host.apikey(&args).run();
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}");
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert!(lines.len() <= 24, "{args:?} has {} lines:\n{}", lines.len(), outcome.stdout);
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "{args:?} is {widest} wide:\n{}", outcome.stdout);
    }
}

#[test]
fn help_goes_to_standard_output_and_names_every_command() {
    let host = Host::new();
    for args in [&["-h"][..], &["--help"], &["help"]] {
        let outcome = host.apikey(args).run();
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{args:?}");
        for command in COMMANDS {
            assert!(outcome.stdout.contains(&format!("\n  {command}")), "{command}");
        }
    }
    for command in COMMANDS {
        let long = host.apikey(&[command, "--help"]).run();
        assert_eq!((long.status, long.stderr.as_str()), (0, ""), "{command}");
        assert!(long.stdout.lines().all(|line| line.chars().count() <= 80), "{}", long.stdout);
        assert!(long.is_printable());
        assert_eq!(host.apikey(&["help", command]).run().stdout, long.stdout);
    }
    assert_eq!(host.names(), [""; 0], "nothing was made");
}

#[test]
fn help_does_not_depend_on_the_environment() {
    let host = Host::new();
    let usual = host.apikey(&["list", "--help"]).run().stdout;
    let outcome = host
        .apikey(&["list", "--help"])
        .env("APIKEY_DB", "a\x1b[31m\u{202e}\nb")
        .env("CLICOLOR_FORCE", "1")
        .env("COLUMNS", "200")
        .run();
    assert_eq!(outcome.stdout, usual);
}

#[test]
fn the_version_goes_to_standard_output() {
    for flag in ["--version", "-V"] {
        Host::new().apikey(&[flag]).gives(0, concat!("apikey ", env!("CARGO_PKG_VERSION"), "\n"), "");
    }
}
