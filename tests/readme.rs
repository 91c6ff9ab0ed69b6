//! The README's examples, run.

mod common;

use std::process::Command;

use common::{APIKEY, Host, generalized};

const README: &str = include_str!("../README.md");

/// The contents of the README's fenced blocks in `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Where a shell finds the program, and its own.
fn search_path() -> String {
    format!("{}:/usr/bin:/bin", std::path::Path::new(APIKEY).parent().unwrap().display())
}

/// Each command of a session with the output that the README shows for it.
fn session() -> Vec<(&'static str, &'static str)> {
    let commands = blocks("console").into_iter().flat_map(|block| block.split("$ ").skip(1));
    commands.map(|step| step.split_once('\n').unwrap()).collect()
}

#[test]
fn each_command_prints_what_the_readme_shows() {
    let host = Host::new();
    let path = search_path();
    let steps = session();
    assert!(steps.len() >= 8, "the README has lost its examples");
    for (command, shown) in steps {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1; {command}")]).current_dir(host.folder());
        shell.env_clear().env("PATH", &path).env("APIKEY_DB", host.database());
        let printed = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        // The README's host keeps its key files in /etc/web.
        let folder = std::fs::canonicalize(host.folder()).unwrap();
        let printed = printed.replace(host.database().to_str().unwrap(), "/var/lib/apikey/keys.db");
        let printed = printed.replace(folder.to_str().unwrap(), "/etc/web");
        assert_eq!(generalized(&printed), generalized(shown), "{command}");
    }
}

#[test]
fn the_query_of_the_readme_finds_an_accepted_key_and_no_other() {
    let (host, key) = Host::with_key_of("alice");
    let hash = apikey::Key::parse(key.as_bytes()).unwrap().hash().to_string();
    let sql = blocks("sql")[0];
    let user_of = |hash: &str| -> Option<String> {
        host.sqlite().query_row(sql, &[(":sha256_hex", hash)], |row| row.get("user")).ok()
    };
    assert_eq!(user_of(&hash).as_deref(), Some("alice"));
    assert_eq!(user_of(&"0".repeat(64)), None);
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");
    assert_eq!(user_of(&hash), None);
}

#[test]
fn the_files_that_the_readme_links_to_are_there() {
    let links = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let files: Vec<&str> = links.filter(|link| !link.starts_with(['#', 'h'])).collect();
    assert!(files.iter().all(|file| std::fs::exists(file).unwrap()), "{files:?}");
    let examples = std::fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().file_name());
    for example in examples.filter(|name| name.to_str().unwrap().starts_with("verify")) {
        assert!(files.iter().any(|file| file.ends_with(example.to_str().unwrap())), "no link to {example:?}");
    }
}

#[test]
#[ignore = "needs systemd"]
fn the_units_of_the_readme_are_right() {
    let host = Host::new();
    let units = blocks("ini").into_iter().filter(|block| block.starts_with("# /etc/systemd/system/"));
    for unit in units {
        let name = unit.lines().next().unwrap().rsplit('/').next().unwrap();
        // The services of the examples are not installed here.
        let unit = unit.replace("/usr/local/bin/web", "/bin/true");
        host.write(name, unit.replace("/usr/local/bin/litestream", "/bin/true").as_bytes());
    }
    for name in ["web.service", "apikey-replicate.service", "apikey-follow.service"] {
        let output = Command::new("systemd-analyze").arg("verify").arg(host.path(name)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
#[ignore = "needs ansible-core"]
fn the_ansible_tasks_of_the_examples_change_what_is_to_be_changed_and_say_so() {
    let host = Host::new();
    let web = host.path("web");
    let caller = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
    let tasks = include_str!("../examples/ansible/key.yml").replace("/etc/web", web.to_str().unwrap());
    let tasks = tasks.replace("--key-file-owner web", &format!("--key-file-owner {caller}"));
    host.write("key.yml", tasks.replace("systemctl restart web", "touch told").as_bytes());
    host.write(
        "play.yml",
        b"- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.import_tasks: key.yml\n",
    );
    // How many tasks have changed something, or would; and how many have failed.
    let play = |args: &[&str], expected: (u32, u32)| {
        let mut ansible = Command::new("ansible-playbook");
        ansible.args([
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            "ansible_python_interpreter=/usr/bin/python3",
        ]);
        ansible.arg("play.yml").args(args);
        #[allow(
            clippy::disallowed_methods,
            reason = "where the test finds Ansible, not what the program reads"
        )]
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", std::path::Path::new(APIKEY).parent().unwrap().display());
        ansible.current_dir(host.folder()).env_clear().env("PATH", path).env("HOME", host.folder());
        ansible.env("LANG", "C.UTF-8").env("ANSIBLE_NOCOLOR", "1").env("APIKEY_DB", host.database());
        let output = ansible.output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        let (changed, failed) = (format!("changed={} ", expected.0), format!("failed={} ", expected.1));
        assert!(said.contains(&changed) && said.contains(&failed), "{args:?}, {expected:?}: {said}");
    };
    play(&["--check"], (1, 1));
    assert!(!web.exists() && !host.database().exists(), "check mode has made something");
    std::fs::create_dir(&web).unwrap();
    host.chmod("web", 0o755);
    play(&["--check"], (1, 0));
    assert!(!host.path("web/web.key").exists() && !host.database().exists(), "check mode has made something");
    play(&[], (1, 0));
    let key = || std::fs::read_to_string(host.path("web/web.key")).unwrap();
    let (first, state) = (key(), host.contents());
    play(&[], (0, 0));
    play(&["--check"], (0, 0));
    assert!(host.contents() == state && key() == first);
    host.chmod("web/web.key", 0o644);
    play(&["--check"], (1, 0));
    assert_eq!(host.mode("web/web.key"), 0o644, "check mode has changed something");
    play(&[], (1, 0));
    play(&[], (0, 0));
    assert_eq!((host.mode("web/web.key"), key()), (0o600, first));
    host.write("web/web.key", b"something else");
    play(&[], (0, 1));
}

#[test]
fn a_backup_as_the_readme_makes_it_can_be_restored_as_the_readme_says() {
    let (host, revoked_later) = Host::with_key_of("alice");
    let backup = blocks("sh").into_iter().find(|block| block.contains("apikey backup")).unwrap();
    let made = host.program("/bin/sh", &["-euc", backup]).env("PATH", search_path()).run();
    assert_eq!(made.status, 0, "{made:?}");
    let copy = host.names().into_iter().find(|name| name.starts_with("keys-20")).unwrap();
    assert_eq!(host.mode(&copy), 0o600);
    let issued_later = host.key_from(&["refresh", "alice", "--yes"]);
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        std::fs::rename(host.path(name), host.path(&format!("away-{name}"))).unwrap();
    }
    std::fs::rename(host.path(&copy), host.database()).unwrap();
    assert_eq!(host.apikey(&["list"]).run().status, 0);
    assert_eq!(host.status_of(&revoked_later), "active", "accepted again, as the README warns");
    assert_eq!(host.status_of(&issued_later), "unknown");
    // It is a database as before: a key that went to a file is refreshed, and side files are there again.
    host.key_from(&["refresh", "alice", "--yes", "--revoke-first"]);
    assert!(host.path("keys.db-wal").exists() && host.path("keys.db-shm").exists());
    assert_eq!((host.status_of(&revoked_later).as_str(), host.accepted()), ("revoked", 1));
}
