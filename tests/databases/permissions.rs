//! Who may read and write a database, and whose it may be.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, chown, lchown};
use std::os::unix::process::CommandExt as _;

use crate::common::Host;
use crate::common::locks::{Lock, lock_file};
use crate::{COMMANDS, ISSUING, WRITING, assert_all_fail};

#[test]
fn what_others_may_write_is_forbidden() {
    for name in ["", "keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        let (host, _) = Host::with_key_of("alice");
        host.chmod(name, host.mode(name) | 0o002);
        assert_all_fail(&host, 7);
        let path = host.path(name).display().to_string();
        let path = path.trim_end_matches('/').replace(host.folder().to_str().unwrap(), "<folder>");
        let hint = match name {
            "" => "use a folder that nobody else may write".to_owned(),
            _ => format!("chmod o-w {path}"),
        };
        host.apikey(&["list"]).fails(7, format!("apikey: others may write {path}\n{hint}\n"));
    }
    let host = Host::new();
    fs::create_dir(host.path("open")).unwrap();
    host.chmod("open", 0o1777);
    let outcome = host.apikey(&["create", "alice", "--db", "open/keys.db", "--json"]).run();
    assert_eq!((outcome.status, outcome.code().as_str()), (7, "FORBIDDEN"));
    assert!(fs::read_dir(host.path("open")).unwrap().next().is_none(), "nothing was made");
}

const READING: [&[&str]; 2] = [&["show", "alice"], &["list"]];

#[test]
fn a_database_that_may_only_be_read_is_read_and_not_written() {
    for folder_mode in [0o500, 0o700] {
        let (host, key) = Host::with_key_of("alice");
        for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
            host.chmod(name, 0o400);
        }
        host.chmod("", folder_mode);
        let before = host.contents();
        for args in READING {
            assert_eq!(host.apikey_unprivileged(args).run().status, 0, "{args:?}");
        }
        host.apikey_unprivileged(&["verify"]).input(key).gives(
            0,
            "<prefix> is accepted: the active key of alice\n",
            "",
        );
        for args in WRITING {
            host.apikey_unprivileged(args).fails(
                7,
                "apikey: <folder>/keys.db may not be written\nrun apikey as a user who may write it\n",
            );
        }
        assert!(host.contents() == before);
        host.chmod("", 0o700);
    }
}

#[test]
fn a_database_that_may_not_be_read_is_forbidden() {
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let (host, key) = Host::with_key_of("alice");
        host.chmod(name, 0);
        for args in COMMANDS {
            host.apikey_unprivileged(args).input(&*key).fails(
                7,
                format!(
                    "apikey: <folder>/{name} may not be read\n\
                     who verifies keys needs read permission for the database, its -wal and its -shm\n"
                ),
            );
        }
    }
}

#[test]
fn who_may_only_read_an_index_that_was_left_half_written_is_told_who_can_help() {
    let (host, key) = Host::with_key_of("alice");
    // As a writer leaves it that is killed at the wrong moment, while a reader has it open.
    let index = OpenOptions::new().read(true).write(true).open(host.path("keys.db-shm")).unwrap();
    index.write_all_at(&[7; 40], 0).unwrap();
    let _reader = lock_file(&host.path("keys.db-shm"), Lock::Read, 128, 1);
    host.chmod("keys.db-shm", 0o400);
    host.apikey_unprivileged(&["verify"]).input(&*key).fails(
        7,
        "apikey: the index of <folder>/keys.db is to be made anew by who may write it\n\
         run `apikey list` as a user who may write it\n",
    );
    host.chmod("keys.db-shm", 0o600);
    let verify = || host.apikey_unprivileged(&["verify"]).input(&*key).run().status;
    assert_eq!(host.apikey_unprivileged(&["list"]).run().status, 0);
    host.chmod("keys.db-shm", 0o400);
    assert_eq!(verify(), 0);
}

#[test]
fn a_folder_that_may_not_be_written_gets_no_database() {
    let host = Host::new();
    host.chmod("", 0o500);
    host.apikey_unprivileged(&["create", "alice"]).fails(
        7,
        "apikey: cannot lock <folder>/keys.db-lock: Permission denied (os error 13)\n\
         run apikey as a user who may write the folder\n",
    );
    host.chmod("", 0o700);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_lock_that_may_not_be_taken_keeps_those_out_who_issue_and_nobody_else() {
    let (host, key) = Host::with_key_of("alice");
    host.chmod("keys.db-lock", 0o400);
    for args in READING {
        assert_eq!(host.apikey_unprivileged(args).run().status, 0, "{args:?}");
    }
    assert_eq!(host.apikey_unprivileged(&["verify"]).input(key).run().status, 0);
    for args in ISSUING {
        host.apikey_unprivileged(args).fails(
            7,
            "apikey: cannot lock <folder>/keys.db-lock: Permission denied (os error 13)\n\
             give it the group and the mode of the database\n",
        );
    }
}

#[test]
#[ignore = "needs root"] // Nobody else can give a file away.
fn root_uses_no_database_that_another_user_could_swap() {
    assert!(nix::unistd::geteuid().is_root());
    for name in ["", "keys.db", "keys.db-wal", "keys.db-lock"] {
        let (host, _) = Host::with_key_of("alice");
        lchown(host.path(name), Some(65_534), None).unwrap();
        assert_all_fail(&host, 7);
    }
}

#[test]
#[ignore = "needs root"] // Nobody else can act as two users.
fn a_group_that_may_write_the_database_shares_it_and_root_keeps_out() {
    let host = Host::new();
    let member = |uid: u32, args: &[&str]| {
        let run = host.program(host.apikey_for_all(), args).with(|command| {
            command.uid(uid).gid(1000);
        });
        run.run()
    };
    chown(host.folder(), Some(1001), Some(1000)).unwrap();
    host.chmod("", 0o2750);
    let created = member(1001, &["create", "alice"]);
    assert_eq!(created.status, 0);
    // Who shares it says so by the database's own mode.
    host.chmod("", 0o2770);
    assert_eq!(member(1001, &["list"]).status, 7);
    host.write("alice.key", created.stdout.trim().as_bytes());
    host.chmod("alice.key", 0o644);
    let key_file = host.path("alice.key");
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        host.chmod(name, 0o660);
    }
    fs::remove_file(host.path("keys.db-lock")).unwrap();
    // What is missing is made by one of them, and used by both: by who only verifies, too.
    assert_eq!(member(1002, &["verify", "--key-file", key_file.to_str().unwrap()]).status, 0);
    assert_eq!(host.mode("keys.db-lock"), 0o660);
    for side_file in ["keys.db-wal", "keys.db-shm", "keys.db-lock"] {
        fs::remove_file(host.path(side_file)).unwrap();
    }
    for (uid, args) in [
        (1002, &["list"][..]),
        (1002, &["create", "bob"]),
        (1001, &["create", "carol"]),
        (1002, &["refresh", "alice", "--yes"]),
        (1001, &["list"]),
    ] {
        let outcome = member(uid, args);
        assert_eq!(outcome.status, 0, "{uid} {args:?}: {outcome:?}");
    }
    assert_eq!(host.mode("keys.db-lock"), 0o660);
    assert_eq!(member(1003, &["list"]).status, 0);
    assert_eq!(host.apikey(&["list"]).run().status, 7, "root would write what a member can swap");
}

#[test]
#[ignore = "needs root"] // Nobody else can act as somebody in another group.
fn a_folder_that_another_group_may_write_is_forbidden_before_there_is_a_database() {
    let host = Host::new();
    chown(host.folder(), Some(1001), Some(1003)).unwrap();
    for (mode, status) in [(0o770, 7), (0o750, 0)] {
        host.chmod("", mode);
        let run = host.program(host.apikey_for_all(), &["create", "alice"]).with(|command| {
            command.uid(1001).gid(1001);
        });
        assert_eq!(run.run().status, status, "{mode:o}");
    }
}

#[test]
#[ignore = "needs root"] // Nobody else can act as somebody in another group.
fn a_folder_that_the_caller_s_own_group_may_write_will_do_where_the_group_is_the_caller_s_alone() {
    // Debian's account of that name has a group to itself; `users` is for all of them.
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    for (gid, code) in [(daemon.gid.as_raw(), 0), (100, 7)] {
        let host = Host::new();
        fs::create_dir(host.path("keys")).unwrap();
        for name in ["", "keys"] {
            chown(host.path(name), Some(daemon.uid.as_raw()), Some(gid)).unwrap();
            host.chmod(name, 0o775);
        }
        let run = |args: &[&str]| {
            let run = host.program(host.apikey_for_all(), args);
            run.with(|command| {
                command.uid(daemon.uid.as_raw()).gid(gid);
            })
            .run()
        };
        assert_eq!(run(&["create", "alice"]).status, code, "{gid}");
        host.chmod("", 0o755);
        let elsewhere = run(&["create", "web", "--key-file", "keys/web.key"]);
        assert_eq!(elsewhere.status, if code == 0 { 0 } else { 8 }, "{elsewhere:?}");
    }
}

#[test]
#[ignore = "needs root"] // Nobody else can change who there is.
fn a_group_that_somebody_else_has_as_their_own_is_not_the_caller_s_alone() {
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    let (uid, gid) = (daemon.uid.to_string(), daemon.gid.to_string());
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    for (more, code) in [("", 0), (&*format!("eve:x:4242:{gid}::/:/bin/sh\n"), 7)] {
        let host = Host::new();
        chown(host.folder(), Some(daemon.uid.as_raw()), Some(daemon.gid.as_raw())).unwrap();
        host.chmod("", 0o775);
        let accounts = Host::new();
        accounts.write("passwd", format!("{passwd}{more}").as_bytes());
        const SCRIPT: &str = "mount --bind \"$1\" /etc/passwd && exec setpriv --reuid \"$2\" --regid \"$3\" --clear-groups \"$4\" create a";
        let (accounts, program) = (accounts.path("passwd"), host.apikey_for_all());
        let args = ["--mount", "sh", "-c", SCRIPT, "sh", accounts.to_str().unwrap(), &uid, &gid];
        let args = [&args[..], &[program.to_str().unwrap()]].concat();
        let outcome = host.program("/usr/bin/unshare", &args).env("PATH", "/usr/bin:/bin:/usr/sbin").run();
        assert_eq!(outcome.status, code, "{more}: {outcome:?}");
    }
}

#[test]
#[ignore = "needs root"] // To anybody else it is a group's database.
fn root_uses_no_database_that_its_group_may_write() {
    // Of the root group, too: it may have an access control list.
    for gid in [0, 1000] {
        let (host, _) = Host::with_key_of("alice");
        chown(host.folder(), None, Some(gid)).unwrap();
        host.chmod("", 0o750);
        for name in ["", "keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock"] {
            let mode = host.mode(name);
            chown(host.path(name), None, Some(gid)).unwrap();
            assert_eq!(host.apikey(&["list"]).run().status, 0);
            host.chmod(name, mode | 0o020);
            assert_all_fail(&host, 7);
            host.chmod(name, mode);
        }
    }
}
