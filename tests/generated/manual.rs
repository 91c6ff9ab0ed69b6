//! The manual's pages of section 1.

use std::collections::BTreeMap;

use apikey::Code;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::examples;

type Command = apikey::cli::ClapCommand;

/// When this version of the manual was last changed.
const DATE: &str = "2026-11-22";

const FILES: [(&str, &str); 6] = [
    ("/var/lib/apikey/keys.db", "Root's database."),
    ("~/.local/share/apikey/keys.db", "Anyone else's; under $XDG_DATA_HOME where that is set."),
    ("keys.db-wal, keys.db-shm", "The write-ahead log of a database, and its index. They stay."),
    (
        "keys.db-lock",
        "The lock of those who write. It stays; in it is the boot of the host that was noted last.",
    ),
    ("keys.db-new", "A new database while it is made."),
    (".NAME.PREFIX", "A new key on its way into the key file NAME, beside it, for a moment."),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("APIKEY_DB", "The database, where --db does not name one."),
    ("NO_COLOR", "Where it is set and not empty, the help has no colours."),
    ("APIKEY_COMPLETE", "Set by the scripts that complete: which shell asks."),
    ("APIKEY_USER, APIKEY_PREFIX, APIKEY_KEY_FILE", "Set for the command that --reload runs."),
];

/// Every page with its file's name.
pub fn pages(program: Command) -> BTreeMap<String, Vec<u8>> {
    // There is no page on it.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    let names: Vec<String> =
        commands.iter().map(|command| format!("apikey-{}", command.get_name())).collect();
    let mut pages = BTreeMap::new();
    for (command, name) in commands.into_iter().zip(&names) {
        let others = names.iter().filter(|other| *other != name).map(|other| (other.as_str(), "1"));
        let see_also = [("apikey", "1")].into_iter().chain(others).chain([("apikey", "5")]).collect();
        pages.insert(format!("{name}.1"), page(command, see_also));
    }
    let see_also = names.iter().map(|name| (name.as_str(), "1")).chain([("apikey", "5")]).collect();
    pages.insert("apikey.1".into(), page(program, see_also));
    pages
}

fn page(command: Command, see_also: Vec<(&str, &str)>) -> Vec<u8> {
    let examples = examples::with_captions(&command);
    let has_subcommands = command.has_subcommands();
    let usage = command.clone().render_usage().to_string();
    let source = concat!("apikey ", env!("CARGO_PKG_VERSION"));
    let man = |command: Command| Man::new(command).section("1").date(DATE).source(source).manual("apikey");
    let has_arguments = command.get_positionals().next().is_some();
    let only = |positional: bool| {
        man(command
            .clone()
            .mut_args(|arg| if arg.is_positional() == positional { arg } else { arg.hide(true) }))
    };
    let (arguments, options, man) = (only(true), only(false), man(command.clone()));
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]).text([roman(usage.trim_start_matches("Usage: "))]);
    page.extend(synopsis.to_roff().into_bytes());
    man.render_description_section(&mut page).unwrap();
    if has_arguments {
        let mut section = Vec::new();
        arguments.render_options_section(&mut section).unwrap();
        page.extend(String::from_utf8(section).unwrap().replace(".SH OPTIONS", ".SH ARGUMENTS").into_bytes());
    }
    options.render_options_section(&mut page).unwrap();
    if has_subcommands {
        man.render_subcommands_section(&mut page).unwrap();
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    tagged(&mut roff, "0", "Done.");
    for code in Code::ALL {
        tagged(
            &mut roff,
            &code.exit_status().to_string(),
            &format!("{}: {}.", code.as_str(), code.meaning()),
        );
    }
    roff.control("SH", ["FILES"]);
    FILES.iter().for_each(|(tag, text)| tagged(&mut roff, tag, text));
    roff.control("SH", ["ENVIRONMENT"]);
    ENVIRONMENT.iter().for_each(|(tag, text)| tagged(&mut roff, tag, text));
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
    }
    for (at, (caption, command)) in examples.into_iter().enumerate() {
        if at > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(caption)]);
        roff.control("RS", ["4"])
            .control("nf", [])
            .text([roman(command)])
            .control("fi", [])
            .control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    let last = see_also.len() - 1;
    for (at, (name, section)) in see_also.into_iter().enumerate() {
        let end = if at == last { format!("({section})") } else { format!("({section}),") };
        roff.text([bold(name), roman(end)]);
    }
    page.extend(roff.to_roff().into_bytes());
    // What clap_mangen writes around a list of values; mandoc calls the breaks superfluous.
    String::from_utf8(page).unwrap().replace(".br\n\n.br\n", ".sp\n").into_bytes()
}

fn tagged(roff: &mut Roff, tag: &str, text: &str) {
    roff.control("TP", []).text([bold(tag)]).text([roman(text)]);
}
