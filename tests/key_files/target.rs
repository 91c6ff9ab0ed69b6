//! What a key file may take the place of, and in which folder.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::common::Host;
use crate::common::strace::{Call, Fault};
use crate::{content, empty_host, issued_into};

const REFUSED: &str = "apikey: the key cannot be handed over, so none was issued:";

/// Nothing of it was issued, and the file is as it was.
#[track_caller]
fn refuses(host: &Host, path: &str, why: &str) {
    let before = host.names();
    let outcome = host.apikey(&["create", "web", "--key-file", path, "--quiet"]).run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (8, ""), "{outcome:?}");
    let folder = fs::canonicalize(host.folder()).unwrap();
    let message = outcome.stderr.replace(folder.to_str().unwrap(), "<folder>");
    assert!(message.starts_with(&format!("{REFUSED} {why}")), "{message}");
    assert_eq!(
        host.sqlite().query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, u32>(0)).unwrap(),
        0
    );
    assert_eq!(host.names(), before);
}

#[test]
fn nothing_is_replaced_but_a_key_file() {
    let host = empty_host();
    host.write("notes", b"something else\n");
    host.write("two-keys", &[b'a'; 150]);
    host.write("linked", b"");
    fs::hard_link(host.path("linked"), host.path("link")).unwrap();
    symlink("notes", host.path("symlink")).unwrap();
    symlink("nowhere", host.path("dangling")).unwrap();
    nix::unistd::mkfifo(&host.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(host.path("folder")).unwrap();
    let socket = UnixListener::bind(host.path("socket")).unwrap();
    refuses(&host, "notes", "<folder>/notes holds something else than a key\n");
    refuses(&host, "two-keys", "<folder>/two-keys holds something else than a key\n");
    refuses(&host, "linked", "<folder>/linked has 2 hard links, a key file has one\n");
    refuses(&host, "symlink", "<folder>/symlink is a symbolic link, not a key file\n");
    refuses(&host, "dangling", "<folder>/dangling is a symbolic link, not a key file\n");
    refuses(&host, "fifo", "<folder>/fifo is a FIFO, not a key file\n");
    refuses(&host, "folder", "<folder>/folder is a folder, not a key file\n");
    refuses(&host, "socket", "<folder>/socket is a socket, not a key file\n");
    drop(socket);
    assert_eq!(content(&host, "notes"), "something else\n");
    assert!(fs::symlink_metadata(host.path("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn the_database_and_its_side_files_are_no_key_files() {
    let host = empty_host();
    for name in ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db-lock", "keys.db-journal", "keys.db-new"] {
        refuses(&host, name, &format!("<folder>/{name} belongs to the database"));
    }
}

#[test]
fn a_file_elsewhere_may_be_called_what_the_database_is_called() {
    let host = empty_host();
    fs::DirBuilder::new().mode(0o700).create(host.path("elsewhere")).unwrap();
    for name in ["keys.db", "keys.db-lock"] {
        let file = format!("elsewhere/{name}");
        host.apikey(&["create", name, "-q", "--key-file", &file]).gives(0, "", "");
        assert_eq!(host.status_of(&content(&host, &file)), "active");
    }
}

#[test]
#[ignore = "needs root"] // Nobody else can mount.
fn the_database_and_its_side_files_are_no_key_files_by_another_name_of_their_folder_either() {
    let host = empty_host();
    fs::create_dir(host.path("alias")).unwrap();
    let mount =
        |args: &[&str]| Command::new("mount").args(args).arg(host.path("alias")).status().unwrap().success();
    assert!(mount(&["--bind", host.folder().to_str().unwrap()]));
    let outcome = host.apikey(&["create", "web", "--key-file", "alias/keys.db-lock"]).run();
    assert!(Command::new("umount").arg("--lazy").arg(host.path("alias")).status().unwrap().success());
    assert!(outcome.status == 8 && outcome.stderr.contains("belongs to the database"), "{outcome:?}");
}

#[test]
fn a_file_that_holds_somebody_else_s_key_is_replaced_only_once_that_is_not_accepted() {
    let host = empty_host();
    host.apikey(&["create", "web", "-q", "--key-file", "web.key"]).gives(0, "", "");
    host.apikey(&["create", "other", "--key-file", "web.key"]).fails(
        8,
        format!(
            "{REFUSED} the file holds <prefix> of web, which is accepted\n\
             name another file, or end the keys of web with `apikey revoke web`\n"
        ),
    );
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
    host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    host.apikey(&["create", "other", "-q", "--key-file", "web.key"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, "web.key")).as_str(), host.accepted()), ("active", 1));
}

#[test]
fn a_folder_that_others_or_the_group_may_write_is_refused() {
    let host = empty_host();
    fs::create_dir(host.path("open")).unwrap();
    for (mode, who) in [(0o777, "others"), (0o1777, "others"), (0o770, "its group")] {
        host.chmod("open", mode);
        refuses(&host, "open/web.key", &format!("{who} may write <folder>/open\n"));
    }
    host.chmod("open", 0o755);
    host.apikey(&["create", "web", "--key-file", "open/web.key"]).gives(0, "", issued_into("open/web.key"));
}

#[test]
fn a_path_that_names_a_folder_is_refused() {
    Host::new()
        .apikey(&["create", "web", "--key-file", "web.key/"])
        .fails(8, "apikey: web.key/ names a folder, not a key file\n");
}

#[test]
fn a_dash_is_no_path() {
    let host = Host::new();
    for command in [&["create", "web"][..], &["refresh", "web", "--yes"], &["verify"]] {
        host.apikey(&[command, &["--key-file", "-"]].concat()).fails(
            2,
            "apikey: invalid value '-' for '--key-file <PATH>': leave --key-file out for the standard \
             streams, or write ./- for a file of that name\nFor more information, try '--help'.\n",
        );
    }
    assert_eq!(host.names(), [""; 0], "nothing was made");
    host.apikey(&["create", "web", "--key-file", "./-"]).gives(0, "", issued_into("-"));
    host.apikey(&["verify", "--key-file", "./-"]).gives(
        0,
        "<prefix> is accepted: the active key of web\n",
        "",
    );
}

#[test]
fn a_path_that_is_too_long_is_refused_before_anything_is_made() {
    let host = Host::new();
    let refuses = |path: &str, why: &str| {
        for command in [&["create", "web"][..], &["refresh", "web", "--yes"]] {
            host.apikey(&[command, &["--key-file", path]].concat())
                .fails(2, format!("apikey: the {why}\nname another file\n"));
        }
    };
    refuses(&"a".repeat(239), "name of the key file is 239 bytes long, and may be 238");
    refuses(&format!("{}k", "é".repeat(119)), "name of the key file is 239 bytes long, and may be 238");
    refuses(&format!("/{}k", "a/".repeat(2500)), "path of the key file is 5002 bytes long, and may be 4095");
    assert_eq!(host.names(), [""; 0], "nothing was made");

    let longest = "a".repeat(238);
    host.apikey(&["create", "web", "--key-file", &longest]).gives(0, "", issued_into(&longest));
    host.apikey(&["refresh", "web", "--yes", "--quiet"]).gives(0, "", "");
    assert_eq!((host.status_of(&content(&host, &longest)).as_str(), host.accepted()), ("active", 1));

    // A folder as deep as can be.
    let root = fs::canonicalize(host.folder()).unwrap();
    let mut folder = root.clone();
    while 4095 - 2 - folder.as_os_str().len() > 200 {
        folder.push("b".repeat(150));
    }
    folder.push("c".repeat(4095 - 2 - folder.as_os_str().len() - 1));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).unwrap();
    let file = folder.join("k");
    assert_eq!(file.as_os_str().len(), 4095);
    host.apikey(&["create", "deep", "-q", "--key-file", file.to_str().unwrap()]).gives(0, "", "");
    host.apikey(&["refresh", "deep", "-yq"]).gives(0, "", "");
    assert_eq!(host.status_of(&fs::read_to_string(&file).unwrap()), "active");
    let longer = folder.join("kk");
    refuses(longer.to_str().unwrap(), "path of the key file is 4096 bytes long, and may be 4095");
    // Resolved, it is longer than it was said.
    let relative = longer.strip_prefix(&root).unwrap().to_str().unwrap();
    refuses(relative, "path of the key file is 4096 bytes long, and may be 4095");
}

#[test]
fn a_folder_that_is_not_there_is_refused() {
    Host::new()
        .apikey(&["create", "web", "--key-file", "none/web.key"])
        .fails(8, "apikey: cannot open the folder of none/web.key: No such file or directory (os error 2)\nmake the folder, or name another file\n");
}

#[test]
#[ignore = "needs root"] // Nobody else can mount.
fn a_mounted_file_is_refused_with_the_advice_to_mount_its_folder() {
    let host = empty_host();
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    fs::create_dir(host.path("memory")).unwrap();
    let memory = host.path("memory");
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", memory.to_str().unwrap()]);
    fs::write(memory.join("source"), b"").unwrap();
    host.write("source", b"");
    for source in [host.path("source"), memory.join("source")] {
        host.write("web.key", b"");
        mount(&["--bind", source.to_str().unwrap(), host.path("web.key").to_str().unwrap()]);
        let outcome = host.apikey(&["create", "web", "--key-file", "web.key"]).run();
        assert!(Command::new("umount").arg("--lazy").arg(host.path("web.key")).status().unwrap().success());
        assert_eq!(outcome.status, 8, "{outcome:?}");
        assert!(outcome.stderr.contains("is a mount point"), "{outcome:?}");
        assert!(outcome.stderr.ends_with("\nmount its folder instead of the file\n"), "{outcome:?}");
        let issued = host.sqlite().query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, u32>(0));
        assert_eq!(issued, Ok(0), "it was seen too late");
    }
    assert!(Command::new("umount").arg("--lazy").arg(memory).status().unwrap().success());
}

#[test]
#[ignore = "needs strace"]
fn a_file_that_turns_out_to_be_mounted_when_it_is_replaced_gets_the_same_advice() {
    let host = empty_host();
    host.write("web.key", b"");
    // As where the kernel is older than openat2(2), or somebody mounts it meanwhile.
    let call = Call { name: "renameat".into(), number: 1 };
    let command = ["create", "web", "--key-file", "web.key"];
    let outcome = host.with_fault(&command, &call, Fault::Error("EBUSY")).unwrap();
    assert_eq!(outcome.status, 8, "{outcome:?}");
    assert!(outcome.stderr.contains("is a mount point"), "{outcome:?}");
    assert!(outcome.stderr.contains("mount its folder instead of the file"), "{outcome:?}");
    assert_eq!(host.accepted(), 0);
}

#[test]
fn a_link_of_the_caller_is_followed() {
    let host = empty_host();
    fs::create_dir(host.path("keys")).unwrap();
    host.chmod("keys", 0o755);
    symlink("../keys/.", host.path("keys/self")).unwrap();
    symlink("keys/self", host.path("link")).unwrap();
    host.apikey(&["create", "web", "--key-file", "link/../keys/web.key"]).gives(
        0,
        "",
        issued_into("keys/web.key"),
    );
}

#[test]
#[ignore = "needs root"] // Nobody else can act for two users.
fn root_follows_no_link_of_somebody_else() {
    let host = empty_host();
    for folder in ["theirs", "roots"] {
        fs::create_dir(host.path(folder)).unwrap();
        host.chmod(folder, 0o755);
    }
    symlink(host.path("roots"), host.path("theirs/link")).unwrap();
    symlink(host.path("roots"), host.path("link")).unwrap();
    for path in ["theirs", "theirs/link", "link"] {
        lchown(host.path(path), Some(65_534), Some(65_534)).unwrap();
    }
    for link in ["theirs/link", "link"] {
        let file = format!("{link}/web.key");
        let command = ["create", "web", "--key-file", &file, "--key-file-owner", "65534:65534"];
        assert_eq!(host.apikey(&command).run().status, 8, "{link}");
        let database = format!("{link}/keys.db");
        assert_eq!(host.apikey(&["create", "web", "--db", &database]).run().status, 7, "{link}");
    }
    assert!(fs::read_dir(host.path("roots")).unwrap().next().is_none());
}

#[test]
#[ignore = "needs root"] // Nobody else can act for two users.
fn root_delivers_into_no_folder_that_somebody_else_can_swap() {
    let host = empty_host();
    fs::create_dir_all(host.path("theirs/keys")).unwrap();
    host.chmod("theirs", 0o755);
    host.chmod("theirs/keys", 0o755);
    for (uid, gid, mode) in [(65_534, 0, 0o755), (0, 65_534, 0o775), (0, 0, 0o775)] {
        chown(host.path("theirs"), Some(uid), Some(gid)).unwrap();
        host.chmod("theirs", mode);
        let outcome = host.apikey(&["create", "web", "--key-file", "theirs/keys/web.key"]).run();
        assert_eq!(outcome.status, 8, "{outcome:?}");
        // The database neither.
        let outcome = host.apikey(&["create", "web", "--db", "theirs/keys/keys.db"]).run();
        assert_eq!(outcome.status, 7, "{outcome:?}");
    }
    assert!(fs::read_dir(host.path("theirs/keys")).unwrap().next().is_none());
}
