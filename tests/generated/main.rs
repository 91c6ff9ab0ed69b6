//! The completions and the manual, made from the definitions of the command line and compared byte
//! for byte with what is committed. `BLESS=1 cargo test --test generated` writes them anew.

#[path = "../common/mod.rs"]
mod common;
mod examples;
mod manual;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{APIKEY, Host};

/// Written by hand, and tested for what it must say below.
const BY_HAND: &str = "apikey.5";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Asserts that the folder holds these files and, but for one written by hand, no other.
fn assert_folder_holds(name: &str, expected: &BTreeMap<String, Vec<u8>>) {
    let folder = folder(name);
    if std::env::var_os("BLESS").is_some() {
        for (file, content) in expected {
            fs::write(folder.join(file), content).unwrap();
        }
    }
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeMap<String, Vec<u8>> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .filter(|(file, _)| file != BY_HAND)
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    for (file, content) in expected {
        assert!(found[file] == *content, "{name}/{file} is not what the program's definitions make");
    }
}

#[test]
fn the_committed_completions_are_those_the_program_prints() {
    let files = [
        ("apikey.bash", "bash"),
        ("apikey.elv", "elvish"),
        ("apikey.fish", "fish"),
        ("_apikey.ps1", "powershell"),
        ("_apikey", "zsh"),
    ];
    let host = Host::new();
    let script = |shell| host.apikey(&["completions", shell]).run().stdout.into_bytes();
    let expected = files.map(|(file, shell)| (file.to_owned(), script(shell)));
    assert_folder_holds("completions", &expected.into());
}

#[test]
fn the_committed_manual_is_made_from_the_definitions_of_the_command_line() {
    assert_folder_holds("man", &manual::pages(apikey::cli::command()));
}

#[test]
fn the_page_on_files_names_each_column_of_the_view_and_each_member_of_the_json() {
    let page = fs::read_to_string(folder("man").join(BY_HAND)).unwrap();
    let (host, _) = Host::with_key_of("alice");
    let view: Vec<String> = {
        let database = host.sqlite();
        let statement = database.prepare("SELECT * FROM accepted_keys").unwrap();
        statement.column_names().map(str::to_owned).collect()
    };
    let mut words = view;
    for args in [
        &["show", "alice"][..],
        &["refresh", "alice", "-y"],
        &["list"],
        &["revoke", "alice", "-y"],
        &["verify"],
    ] {
        let outcome = host.apikey(&[args, &["--json"]].concat()).run();
        words.extend(outcome.json().as_object().unwrap().keys().cloned());
    }
    for word in words {
        assert!(page.contains(&format!("\\fB{word}\\fR")), "{word} is not in {BY_HAND}");
    }
}

#[test]
fn the_readme_says_of_each_code_what_the_program_does() {
    let readme = fs::read_to_string(folder("README.md")).unwrap();
    for code in apikey::Code::ALL {
        let row = format!("| {} | `{}` | {} |", code.exit_status(), code.as_str(), code.meaning());
        assert!(readme.replace("`", "").contains(&row.replace('`', "")), "the README lacks {row}");
    }
}

#[test]
#[ignore = "needs mandoc"]
fn the_manual_is_clean_to_mandoc() {
    for entry in fs::read_dir(folder("man")).unwrap() {
        let page = entry.unwrap().path();
        let output = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&page).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{}", said);
    }
}

#[test]
fn a_command_says_of_itself_what_the_list_of_commands_says_of_it() {
    let about = |command: &apikey::cli::ClapCommand| command.get_about().map(ToString::to_string);
    let listed = apikey::cli::command();
    let mut built = listed.clone();
    built.build();
    for command in listed.get_subcommands() {
        assert_eq!(about(command), about(built.find_subcommand(command.get_name()).unwrap()));
    }
}

#[test]
fn the_examples_of_the_help_run_as_they_stand() {
    let mut program = apikey::cli::command();
    program.build();
    let of_program: Vec<String> =
        examples::with_captions(&program).into_iter().map(|(_, command)| command).collect();
    let of_commands = examples::of(&program);
    assert!(of_program.len() >= 3 && of_commands.len() >= 12, "the help has lost its examples");
    run(of_program);
    run(of_commands);
}

fn run(examples: Vec<String>) {
    let host = Host::new();
    fs::create_dir(host.path("web")).unwrap();
    host.chmod("web", 0o755);
    host.write("keys", b"a line\n");
    let mut script = "set -eu\n".to_owned();
    for command in examples {
        // What is made of the output is another program's.
        let command = command.split(" | jq ").next().unwrap();
        let command = command
            .replace("/etc/web", host.path("web").to_str().unwrap())
            .replace("--key-file-owner web", "--key-file-owner $(id -u):$(id -g)")
            .replace("systemctl restart web", "true")
            .replace("~/.config/fish/", "./")
            .replace("~/", "./");
        script.push_str(&format!("{command}\n"));
    }
    let path = format!("{}:/usr/bin:/bin", Path::new(APIKEY).parent().unwrap().display());
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(host.folder())
        .env_clear()
        .envs([("PATH", path.as_str()), ("APIKEY_DB", host.database().to_str().unwrap())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}
