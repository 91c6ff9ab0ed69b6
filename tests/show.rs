//! `apikey show`

mod common;

use common::{Host, generalized};

#[test]
fn all_that_is_known_of_the_key_is_shown_but_not_the_key() {
    let host = Host::new();
    let key = host.key_from(&["create", "alice", "--name", "Zoë's laptop", "--expires-in", "90d"]);
    let outcome = host.apikey(&["show", "alice"]).gives(
        0,
        "user       alice\n\
         prefix     <prefix>\n\
         name       Zoë's laptop\n\
         status     active\n\
         id         <id>\n\
         created    <time>\n\
         last used  not recorded\n\
         expires    <time>\n\
         revoked    never\n\
         key file   -\n\
         lifetime   90d\n\
         renewed    never\n",
        "",
    );
    assert!(outcome.stdout.contains(&key[..15]) && !outcome.stdout.contains(&key[..16]));
}

#[test]
fn when_it_was_last_used_is_shown() {
    let (host, key) = Host::with_key_of("alice");
    assert_eq!(host.status_of(&key), "active");
    let outcome = host.apikey(&["show", "alice"]).run();
    assert!(!outcome.stdout.contains("last used  not recorded"), "{outcome:?}");
    assert!(host.apikey(&["show", "alice", "--json"]).run().json()["last_used_at"].is_string());
}

#[test]
fn a_key_that_has_expired_is_shown_until_the_next_one_is_issued() {
    let host = Host::new();
    let old = host.expired_key_of("alice");
    let shown = host.apikey(&["show", "alice", "--json"]).run().json();
    assert_eq!((&shown["status"], &shown["prefix"]), (&"expired".into(), &old[..15].into()));
    let new = host.key_from(&["create", "alice"]);
    let shown = host.apikey(&["show", "alice", "--json"]).run().json();
    assert_eq!((&shown["status"], &shown["prefix"]), (&"active".into(), &new[..15].into()));
}

#[test]
fn the_current_key_is_shown_and_not_the_one_that_is_retiring() {
    let (host, old) = Host::with_key_of("alice");
    let new = host.key_from(&["refresh", "alice", "--yes", "--grace", "1h"]);
    assert_eq!(host.status_of(&old), "retiring");
    assert_eq!(host.apikey(&["show", "alice", "--json"]).run().json()["prefix"], new[..15]);
}

#[test]
fn a_user_without_a_key_has_none_to_show() {
    let (host, _) = Host::with_key_of("alice");
    let none = "apikey: bob has no key\n`apikey list bob --all` lists those that ended\n";
    host.apikey(&["show", "bob"]).fails(4, "apikey: bob has no key\n");
    host.key_from(&["create", "bob"]);
    host.apikey(&["revoke", "bob", "--yes", "--quiet"]).gives(0, "", "");
    host.apikey(&["show", "bob"]).fails(4, none);
}

#[test]
fn with_no_user_it_is_about_the_login_name_of_the_calling_uid() {
    let host = Host::new();
    host.key_from(&["create"]);
    let login = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let shown = host.apikey(&["show", "--json"]).env("USER", "mallory").env("LOGNAME", "mallory").run();
    assert_eq!(shown.json()["user"], *login);
}

#[test]
fn showing_changes_nothing_and_makes_no_database() {
    let (host, _) = Host::with_key_of("alice");
    let before = host.contents();
    assert_eq!(host.apikey(&["show", "alice"]).run().status, 0);
    assert!(host.contents() == before);

    let empty = Host::new();
    empty.apikey(&["show", "alice"]).fails(
        6,
        "apikey: there is no database at <folder>/keys.db\n`apikey create` makes it, --db names another\n",
    );
    assert_eq!(empty.names(), [""; 0]);
}

#[test]
fn output_that_may_not_be_written_is_a_failure() {
    let (host, _) = Host::with_key_of("alice");
    let read_only = std::fs::File::open("/dev/null").unwrap();
    host.apikey(&["show", "alice"])
        .stdout_to(read_only)
        .fails(1, "apikey: cannot write to standard output: Bad file descriptor (os error 9)\n");
}

#[test]
fn the_database_named_by_db_goes_before_the_one_in_the_environment() {
    let (host, _) = Host::with_key_of("alice");
    host.apikey(&["create", "bob", "--db", "other.db", "--quiet"]).gives(0, "<key>\n", "");
    assert_eq!(host.apikey(&["show", "bob"]).run().status, 4);
    assert_eq!(host.apikey(&["show", "bob"]).env("APIKEY_DB", "other.db").run().status, 0);
    assert_eq!(host.apikey(&["--db", "other.db", "show", "bob"]).run().status, 0);
}

#[test]
fn any_key_is_shown_by_its_prefix() {
    let (host, old) = Host::with_key_of("alice");
    let new = host.key_from(&["refresh", "alice", "--yes"]);
    for (key, status) in [(&old, "revoked"), (&new, "active")] {
        let shown = host.apikey(&["show", &key[..15], "--json"]).run().json();
        assert_eq!((&shown["prefix"], &shown["status"]), (&key[..15].into(), &status.into()));
    }
    host.apikey(&["show", "ak_0123456789ab"]).fails(4, "apikey: no key with the prefix <prefix> is known\n");
}

#[test]
fn what_is_kept_for_the_next_key_is_shown_too() {
    let host = Host::new();
    let file = ["--key-file", "web.key", "--key-file-env", "A", "--key-file-owner", "0:0"];
    let file = if nix::unistd::geteuid().is_root() { &file[..] } else { &file[..4] };
    let create = ["create", "web", "-q", "--expires-in", "1h 30m", "--reload", "true"];
    let create = [&create[..], &["--renew-after", "1h", "--renew-grace", "1m"]].concat();
    host.apikey(&[&create[..], file].concat()).gives(0, "", "");
    let outcome = host.apikey(&["show", "web"]).run();
    let owner = if nix::unistd::geteuid().is_root() { "0:0" } else { "-" };
    let kept = format!(
        "lifetime   1h 30m\nrenewed    from <time> on\nmode       0600\nowner      {owner}\nvariable   A\n\
         reload     true\ntimeout    2m\nrenew at   1h\ngrace      1m\n"
    );
    assert!(generalized(&outcome.stdout).ends_with(&kept), "{outcome:?}");
}
