//! The package's timer, and the service that it starts.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::container::{Container, wait_for};
use common::{APIKEY, Host};
use tempfile::TempDir;

const README: &str = include_str!("../README.md");
const OVERRIDE: &str = include_str!("../examples/systemd/override.conf");
const UNITS: [&str; 2] = ["apikey-renew.service", "apikey-renew.timer"];

/// The README's fenced block that has `part` in it, without its fences.
fn block(part: &str) -> &'static str {
    let block = README.split("```").skip(1).step_by(2).find(|block| block.contains(part));
    block.unwrap_or_else(|| panic!("the README has no {part}")).split_once('\n').unwrap().1
}

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("debian").join(name)).unwrap()
}

#[test]
#[ignore = "needs systemd"]
fn the_units_are_right_and_so_is_what_the_readme_puts_beside_them() {
    let host = Host::new();
    fs::create_dir(host.path("apikey-renew.service.d")).unwrap();
    host.write("apikey-renew.service.d/override.conf", OVERRIDE.as_bytes());
    for name in UNITS {
        host.write(name, unit(name).replace("/usr/bin/apikey", APIKEY).as_bytes());
    }
    for name in UNITS {
        // The manual is not installed here.
        let mut verify = Command::new("systemd-analyze");
        let output = verify.args(["--man=no", "verify"]).arg(host.path(name)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
#[ignore = "needs systemd"]
fn the_service_says_of_each_door_that_is_left_open_why() {
    let service = unit("apikey-renew.service");
    let host = Host::new();
    host.write("apikey-renew.service", service.replace("/usr/bin/apikey", APIKEY).as_bytes());
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--json=short"]).arg(host.path("apikey-renew.service"));
    let table: serde_json::Value = serde_json::from_slice(&security.output().unwrap().stdout).unwrap();
    let open = table.as_array().unwrap().iter().filter(|row| !row["exposure"].is_null());
    let names: Vec<&str> = open.map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names.len() > 10, "{table}");
    for directive in names.iter().flat_map(|name| name.split('/')) {
        // Of address families and capabilities only some are let through: they stand in the directive.
        let (directive, _) = directive.split_once('=').unwrap();
        assert!(service.contains(&format!("{directive}=")), "{directive}= is left out, and nothing says why");
    }
}

/// Builds the package.
fn package(folder: &TempDir, revision: &str) -> PathBuf {
    let path = folder.path().join(format!("apikey-{revision}.deb"));
    let mut build = Command::new(env!("CARGO"));
    build.args(["deb", "--locked", "--quiet", "--deb-revision", revision, "--output"]).arg(&path);
    let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// What `renew` returns of a run that renewed all that was due, and of one that did not take place.
const DONE: &str = "success 0 yes";
const SKIPPED: &str = "success 0 no";

/// Longer than the shortest renewal age here.
const AGE: Duration = Duration::from_millis(2100);

/// Starts the service, and waits for its end. Returns how it ended, its exit status, and whether its
/// conditions held.
fn renew(host: &Container) -> String {
    // It is not to be counted how often it is started here.
    host.run(&["systemctl", "reset-failed", "apikey-renew.service"]);
    host.run(&["systemctl", "start", "apikey-renew.service"]);
    let asked = ["Result", "ExecMainStatus", "ConditionResult"];
    asked
        .map(|name| host.succeeds(&["systemctl", "show", "--value", "--property", name, "apikey-renew"]))
        .join(" ")
}

fn state(host: &Container, unit: &str) -> (String, String) {
    let ask = |question| host.run(&["systemctl", question, unit]).1;
    (ask("is-enabled"), ask("is-active"))
}

fn is_accepted(host: &Container, key: &str) -> bool {
    host.write("/root/key", key);
    host.run(&["apikey", "verify", "--quiet", "--key-file", "/root/key"]).0 == 0
}

/// The key that the service web has been given.
fn key_of_web(host: &Container) -> String {
    assert_eq!(state(host, "web.service").1, "active");
    host.succeeds(&["cat", "/run/credentials/web.service/api-key"])
}

#[test]
#[ignore = "needs root, cargo-deb, debootstrap and systemd-container"]
fn a_host_with_the_package_keeps_the_keys_of_its_services_fresh() {
    let folder = TempDir::new().unwrap();
    let (older, newer) = (package(&folder, "1"), package(&folder, "2"));
    let host = Container::boot();
    let install = |package: &Path| {
        host.copy(package, "/root/apikey.deb");
        host.succeeds(&["dpkg", "--install", "/root/apikey.deb"]);
    };
    install(&older);
    let started = ("enabled".to_owned(), "active".to_owned());
    assert_eq!(state(&host, "apikey-renew.timer"), started);
    no_database_is_no_failure(&host);
    a_service_has_a_new_key_and_the_old_one_is_refused(&host);
    doctor_knows_of_the_timer(&host);
    the_timer_starts_the_service(&host);
    a_reload_command_can_tell_a_service_in_many_ways(&host);
    a_key_that_is_due_and_cannot_be_renewed_is_a_failure_of_the_unit(&host);
    a_replica_is_left_alone(&host);
    a_database_elsewhere_is_found_as_the_readme_says(&host);

    install(&newer);
    assert_eq!(state(&host, "apikey-renew.timer"), started);
    host.succeeds(&["systemctl", "disable", "--now", "apikey-renew.timer"]);
    install(&newer);
    assert_eq!(state(&host, "apikey-renew.timer"), ("disabled".into(), "inactive".into()));
    host.succeeds(&["systemctl", "enable", "--now", "apikey-renew.timer"]);
    host.succeeds(&["dpkg", "--remove", "apikey"]);
    assert_eq!(host.run(&["systemctl", "is-active", "apikey-renew.timer"]).1, "inactive");
    install(&newer);
    assert_eq!(state(&host, "apikey-renew.timer"), started);
    host.succeeds(&["dpkg", "--purge", "apikey"]);
    assert_eq!(host.run(&["systemctl", "is-active", "apikey-renew.timer"]).1, "inactive");
    let find = ["find", "/etc", "/usr", "/var", "-name", "apikey*", "-o", "-name", "stamp-apikey*"];
    assert_eq!(host.succeeds(&find), "", "left by a purge");
}

fn no_database_is_no_failure(host: &Container) {
    assert_eq!(renew(host), SKIPPED);
}

/// A service as in the README, with its key as in the README.
fn a_service_has_a_new_key_and_the_old_one_is_refused(host: &Container) {
    host.write("/usr/local/bin/web", "#!/bin/sh\nexec sleep infinity\n");
    host.succeeds(&["chmod", "755", "/usr/local/bin/web"]);
    host.write("/etc/systemd/system/web.service", block("web.service\n"));
    host.succeeds(&["mkdir", "/etc/web"]);
    host.succeeds(&["sh", "-euc", block("apikey ensure web --key-file /etc/web/web.key --renew-after")]);
    host.succeeds(&["systemctl", "enable", "--now", "web.service"]);
    let old = key_of_web(host);
    assert_eq!(renew(host), DONE);
    assert_eq!(key_of_web(host), old, "it is not due");

    host.succeeds(&["apikey", "edit", "web", "--renew-after", "2s", "--renew-grace", "0s"]);
    thread::sleep(AGE);
    assert_eq!(renew(host), DONE);
    let new = key_of_web(host);
    assert_eq!(host.succeeds(&["cat", "/etc/web/web.key"]), new);
    assert!(new != old && is_accepted(host, &new) && !is_accepted(host, &old));
    let journal = host.succeeds(&["journalctl", "--no-pager"]);
    assert!(journal.contains(&new[..15]) && !journal.contains(&new) && !journal.contains(&old));
    // What was done is in the system's log, too, and from within the service's sandbox.
    let told = ["journalctl", "--no-pager", "--identifier=apikey", "--facility=authpriv", "--output=cat"];
    let told = host.succeeds(&told);
    let issued = format!("issued {} of web by root: renew, in place of {}", &new[..15], &old[..15]);
    for line in [issued, format!("delivered {} of web by root: /etc/web/web.key", &new[..15])] {
        assert_eq!(told.lines().filter(|told| **told == line).count(), 1, "{line}: {told}");
    }
}

/// What doctor says of the timer.
fn timer_check(host: &Container, args: &[&str]) -> (String, String) {
    let said = host.run(&[&["apikey", "doctor", "--json"], args].concat()).1;
    let said: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let checks = said["checks"].as_array().unwrap();
    let timer = checks.iter().find(|check| check["check"] == "timer").unwrap();
    let text = |member: &str| timer[member].as_str().unwrap_or_default().to_owned();
    (text("status"), text("hint"))
}

fn doctor_knows_of_the_timer(host: &Container) {
    assert_eq!(timer_check(host, &[]), ("ok".into(), String::new()));
    host.succeeds(&["systemctl", "disable", "--now", "apikey-renew.timer"]);
    let enable = "systemctl enable --now apikey-renew.timer";
    assert_eq!(timer_check(host, &[]), ("problem".into(), enable.into()));
    host.succeeds(&enable.split(' ').collect::<Vec<_>>());
    let elsewhere = ["--db", "/srv/other.db"];
    let ensure = ["apikey", "ensure", "other", "--key-file", "/srv/other.key", "--renew-after", "30d"];
    host.succeeds(&[&ensure[..], &elsewhere].concat());
    assert_eq!(timer_check(host, &elsewhere).0, "warning");
}

fn the_timer_starts_the_service(host: &Container) {
    let old = key_of_web(host);
    thread::sleep(AGE);
    let sooner = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nAccuracySec=100ms\nRandomizedDelaySec=0\n";
    host.write("/etc/systemd/system/apikey-renew.timer.d/sooner.conf", sooner);
    host.succeeds(&["systemctl", "daemon-reload"]);
    host.succeeds(&["systemctl", "restart", "apikey-renew.timer"]);
    wait_for("the timer", || (host.succeeds(&["cat", "/etc/web/web.key"]) != old).then_some(()));
    wait_for("the end of the run", || (state(host, "apikey-renew.service").1 == "inactive").then_some(()));
    assert_ne!(key_of_web(host), old);
    fs::remove_dir_all(host.path("/etc/systemd/system/apikey-renew.timer.d")).unwrap();
    host.succeeds(&["systemctl", "daemon-reload"]);
    host.succeeds(&["systemctl", "restart", "apikey-renew.timer"]);
}

/// And no more than that.
fn a_reload_command_can_tell_a_service_in_many_ways(host: &Container) {
    let reload = "set -e
        [ \"$(stat -c %U:%a \"$APIKEY_KEY_FILE\")\" = games:400 ]
        runuser -u games -- test -r \"$APIKEY_KEY_FILE\"
        systemctl kill --signal CONT web.service
        kill -CONT \"$(systemctl show --property MainPID --value web.service)\"
        grep '^NoNewPrivs:.*1' /proc/self/status
        ! touch /usr/sbin/new
        ! unshare --mount true
        systemd-run --quiet --wait --collect unshare --mount true";
    host.write("/root/reload", reload);
    host.succeeds(&["install", "--directory", "--owner", "games", "/home/games"]);
    let settings = ["--key-file-owner", "games", "--key-file-mode", "400", "--renew-after", "2s"];
    let create = ["apikey", "create", "app", "--key-file", "/home/games/key", "--reload", "sh /root/reload"];
    host.succeeds(&[&create[..], &settings].concat());
    let old = host.succeeds(&["cat", "/home/games/key"]);
    thread::sleep(AGE);
    assert_eq!(renew(host), DONE);
    assert_ne!(host.succeeds(&["cat", "/home/games/key"]), old);
}

fn a_key_that_is_due_and_cannot_be_renewed_is_a_failure_of_the_unit(host: &Container) {
    let create = ["apikey", "create", "broken", "--key-file", "/etc/web/broken.key"];
    host.succeeds(&[&create[..], &["--renew-after", "2s", "--reload", "false"]].concat());
    thread::sleep(AGE);
    assert_eq!(renew(host), "exit-code 11 yes");
    host.succeeds(&["apikey", "revoke", "broken", "--yes"]);
    assert_eq!(renew(host), DONE);
}

fn a_replica_is_left_alone(host: &Container) {
    let old = key_of_web(host);
    host.write("/var/lib/apikey/keys.db-txid", "");
    thread::sleep(AGE);
    assert_eq!(renew(host), SKIPPED);
    assert_eq!(key_of_web(host), old);
    fs::remove_file(host.path("/var/lib/apikey/keys.db-txid")).unwrap();
}

fn a_database_elsewhere_is_found_as_the_readme_says(host: &Container) {
    let old = key_of_web(host);
    host.succeeds(&["mv", "/var/lib/apikey", "/srv/apikey"]);
    host.write("/etc/systemd/system/apikey-renew.service.d/override.conf", OVERRIDE);
    host.succeeds(&["systemctl", "daemon-reload"]);
    assert_eq!(renew(host), DONE);
    assert_ne!(key_of_web(host), old);
    fs::remove_dir_all(host.path("/etc/systemd/system/apikey-renew.service.d")).unwrap();
    host.succeeds(&["systemctl", "daemon-reload"]);
    host.succeeds(&["mv", "/srv/apikey", "/var/lib/apikey"]);
}
