//! What is left when the power goes, and when the disk is full; and what each command costs.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use common::aftermath::{Tally, accepted, goes_on, hash_of, printed};
use common::disk::{Disk, Mount, run};
use common::locks::{Lock, lock_file};
use common::strace::{Call, Fault, at_each_call, kill_at_each_call};
use common::verifier::Verifier;
use common::{APIKEY, Host};

const SYNCS: [&str; 5] = ["fsync", "fdatasync", "sync", "syncfs", "sync_file_range"];

/// What the kernel is made to write to the disk by a command that exits with 0.
fn syncs(host: &Host, args: &[&str], input: &str) -> usize {
    let traced = host.traced(args, |run| run.input(input));
    assert_eq!(traced.outcome.status, 0, "{:?}", traced.outcome);
    traced.count(&SYNCS)
}

#[test]
#[ignore = "needs strace"]
fn a_change_costs_two_fsyncs_and_a_look_none() {
    let (host, _) = Host::with_key_of("bob");
    assert_eq!(syncs(&host, &["create", "alice"], ""), 2);
    assert_eq!(syncs(&host, &["refresh", "alice", "--yes"], ""), 2);
    assert_eq!(syncs(&host, &["revoke", "alice", "--yes"], ""), 2);
    assert_eq!(syncs(&host, &["show", "bob"], ""), 0);
    assert_eq!(syncs(&host, &["list", "--all"], ""), 0);
}

#[test]
#[ignore = "needs strace"]
fn a_key_in_a_regular_file_is_synced_before_it_is_accepted() {
    let (host, _) = Host::with_key_of("alice");
    let order = regex::Regex::new(r"(?m)^[0-9]+ +(f(?:data)?sync\(\d+\)) += 0").unwrap();
    for args in [&["create", "bob"][..], &["refresh", "alice", "--yes", "--json"]] {
        let file = File::create(host.path("key")).unwrap();
        let traced = host.traced(args, |run| run.stdout_to(file));
        let syncs: Vec<&str> =
            order.captures_iter(&traced.trace).map(|found| found.extract::<1>().1[0]).collect();
        assert!(syncs.len() == 3 && syncs[0] == "fsync(1)", "{args:?}: {syncs:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_key_in_a_regular_file_outlives_a_power_cut() {
    let disk = Disk::new();
    let host = Host::new_in(disk.mount.path());
    for args in [&["create", "alice", "-q"][..], &["refresh", "alice", "-yq"], &["refresh", "alice", "-yq"]] {
        let file = File::create(host.path("alice.key")).unwrap();
        host.apikey(args).stdout_to(file).gives(0, "", "");
        let cut = disk.after_power_cut();
        let folder = cut.mount.path().join(host.folder().file_name().unwrap());
        let key = std::fs::read_to_string(folder.join("alice.key")).unwrap();
        assert_eq!(key.len(), 76, "{args:?}");
        assert_eq!(accepted(&folder.join("keys.db")), BTreeSet::from([hash_of(key.trim_end())]), "{args:?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn verify_waits_for_no_disk_also_where_it_writes_when_the_key_was_used() {
    let (host, key) = Host::with_key_of("bob");
    let last_used = || host.apikey(&["show", "bob", "--json"]).run().json()["last_used_at"].clone();
    assert!(last_used().is_null());
    assert_eq!(syncs(&host, &["verify"], &key), 0);
    let used = last_used();
    assert!(used.is_string());
    assert_eq!(syncs(&host, &["verify"], &key), 0);
    assert_eq!(last_used(), used);
}

#[test]
#[ignore = "needs root"]
fn what_was_acknowledged_outlives_a_power_cut() {
    let disk = Disk::new();
    let host = Host::new_in(disk.mount.path());
    let database_after_power_cut =
        |disk: &Disk| disk.mount.path().join(host.folder().file_name().unwrap()).join("keys.db");
    let mut expected = BTreeSet::new();
    let mut acknowledged = |args: &[&str], gone: Option<&str>| {
        let outcome = host.apikey(args).run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        expected.extend(printed(&outcome));
        gone.map(|key| expected.remove(&hash_of(key)));
        let cut = disk.after_power_cut();
        assert_eq!(accepted(&database_after_power_cut(&cut)), expected, "{args:?}");
        outcome.stdout.trim_end().to_owned()
    };
    // Enough of them for the log to be moved to the database on the way.
    for number in 0..12 {
        let user = format!("user{number}");
        let first = acknowledged(&["create", &user], None);
        let second = acknowledged(&["refresh", &user, "--yes"], Some(&first));
        if number % 2 == 0 {
            acknowledged(&["revoke", &user, "--yes"], Some(&second));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_key_that_was_revoked_before_a_power_cut_is_refused_although_somebody_locks_the_index_of_the_log() {
    let disk = Disk::new();
    let host = Host::new_in(disk.mount.path());
    let key = host.key_from(&["create", "alice"]);
    // A service has the database open for writing, and the kernel writes the index as it is now.
    let service = host.sqlite();
    service.execute("UPDATE keys SET name = 'in use'", []).unwrap();
    disk.sync();
    host.apikey(&["revoke", "alice", "--yes", "--quiet"]).gives(0, "", "");

    host.write("another", b"01234567-89ab-4cde-8f01-23456789abcd\n");
    let another = host.path("another");
    let verify = |database: &Path, boot: &Path| {
        const SCRIPT: &str =
            "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && exec \"$2\" --db \"$3\" verify";
        let args = ["--mount", "sh", "-c", SCRIPT, "sh", boot.to_str().unwrap(), APIKEY];
        let unshare = host.program("/usr/bin/unshare", &[&args[..], &[database.to_str().unwrap()]].concat());
        unshare.input(&*key).run().status
    };
    let this = Path::new("/proc/sys/kernel/random/boot_id");
    // What it would do without noticing that the host was started: believe the old index.
    for (boot, status) in [(this, 0), (&*another, 5)] {
        let cut = disk.after_power_cut();
        let database = cut.mount.path().join(host.folder().file_name().unwrap()).join("keys.db");
        let _reader = lock_file(&database.with_file_name("keys.db-shm"), Lock::Read, 128, 1);
        assert_eq!(verify(&database, boot), status, "{boot:?}");
        // And once more, with what the first run has left; and after a write.
        assert_eq!(verify(&database, boot), status, "{boot:?}");
        let create = host.apikey(&["create", "bob", "--db", database.to_str().unwrap()]).run();
        assert_eq!(create.status, 0, "{create:?}");
        assert_eq!(verify(&database, boot), status, "{boot:?}");
    }
}

#[test]
#[ignore = "needs strace"]
fn a_revocation_that_the_disk_does_not_take_is_not_said_to_have_found_nothing() {
    for args in [&["revoke", "alice", "--yes"][..], &["refresh", "alice", "--yes", "--revoke-first"]] {
        let (host, _) = Host::with_key_of("alice");
        let faults =
            ["-f", "-o", "trace", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        let outcome = host.program("/usr/bin/strace", &[&faults[..], &["--", APIKEY], args].concat()).run();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.stderr.contains("what was asked may or may not have been done"), "{outcome:?}");
    }
}

/// Kills `args` at every system call, cuts the power there, and looks at what the disk holds.
fn kill_and_cut_the_power(before: &Host, args: &[&str], others: &[&str], old: Option<&str>) {
    let verifier = Verifier::new();
    let disk = Disk::new();
    let mut tally = Tally::default();
    let prepare = || {
        let host = before.copy_in(disk.mount.path());
        run(Command::new("sync").arg("--file-system").arg(host.folder()));
        host
    };
    let total = kill_at_each_call(prepare, args, |host, outcome, at| {
        let cut = disk.after_power_cut();
        let database = cut.mount.path().join(host.folder().file_name().unwrap()).join("keys.db");
        for other in others {
            assert!(verifier.accepts(&database, other, at), "{at}");
        }
        tally.add(&database, outcome, others, old, at);
        goes_on(&database, at);
    });
    tally.assert_is_complete(total);
}

#[test]
#[ignore = "needs root and strace"]
fn a_first_create_in_a_power_cut_leaves_no_accepted_key_that_was_not_printed() {
    kill_and_cut_the_power(&Host::new(), &["create", "alice"], &[], None);
}

#[test]
#[ignore = "needs root and strace"]
fn a_create_in_a_power_cut_leaves_no_accepted_key_that_was_not_printed() {
    let (before, bob) = Host::with_key_of("bob");
    before.let_all_read();
    kill_and_cut_the_power(&before, &["create", "alice"], &[&bob], None);
}

#[test]
#[ignore = "needs root and strace"]
fn a_refresh_in_a_power_cut_leaves_the_old_key_accepted_or_the_new_one_that_was_printed() {
    let (before, bob) = Host::with_key_of("bob");
    let alice = before.key_from(&["create", "alice"]);
    before.let_all_read();
    kill_and_cut_the_power(&before, &["refresh", "alice", "--yes"], &[&bob], Some(&alice));
}

#[test]
#[ignore = "needs root and strace"]
fn what_was_acknowledged_outlives_a_power_cut_also_where_a_sync_was_interrupted() {
    let (before, _) = Host::with_key_of("bob");
    let disk = Disk::new();
    let prepare = || {
        let host = before.copy_in(disk.mount.path());
        run(Command::new("sync").arg("--file-system").arg(host.folder()));
        host
    };
    let faults =
        |call: &Call| if SYNCS.contains(&call.name.as_str()) { vec![Fault::Error("EINTR")] } else { vec![] };
    at_each_call(prepare, &["create", "alice"], faults, |host, outcome, at| {
        let cut = disk.after_power_cut();
        let database = cut.mount.path().join(host.folder().file_name().unwrap()).join("keys.db");
        if outcome.status == 0 {
            assert!(accepted(&database).contains(&printed(outcome).unwrap()), "{at}: {outcome:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_loses_no_key_that_was_acknowledged_and_issues_none_that_was_not() {
    // The first sizes have no room for a database, the last ones some for the log to be moved to it.
    for kilobytes in (4..100).step_by(4).chain((100..300).step_by(50)) {
        let mount = Mount::tmpfs(kilobytes << 10);
        let host = Host::new_in(mount.path());
        let mut acknowledged = Vec::new();
        let failure = loop {
            let outcome = host.apikey(&["create", &format!("user{}", acknowledged.len())]).run();
            if outcome.status != 0 {
                break outcome;
            }
            acknowledged.push(outcome.stdout.trim_end().to_owned());
            assert!(acknowledged.len() < 200, "{kilobytes} kB are never full");
        };
        assert_eq!(failure.status, 1, "{kilobytes} kB: {failure:?}");
        assert!(failure.stderr.contains("apikey: ") && !failure.stderr.contains("panicked"), "{failure:?}");
        for key in &acknowledged {
            let verdict = host.apikey(&["verify"]).input(key.as_str()).run();
            assert_eq!(verdict.status, 0, "{kilobytes} kB: {verdict:?}");
        }
        run(Command::new("mount").args(["-o", "remount,size=2m"]).arg(mount.path()));
        goes_on(&host.database(), &format!("{kilobytes} kB"));
        let mut left = accepted(&host.database());
        assert!(acknowledged.iter().all(|key| left.remove(&hash_of(key))), "{kilobytes} kB");
        assert_eq!(left.len(), 2, "{kilobytes} kB: more than alice's and dave's keys: {failure:?}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_loses_no_key_and_issues_none_that_was_not_acknowledged() {
    let (before, bob) = Host::with_key_of("bob");
    let alice = before.key_from(&["create", "alice"]);
    let mut succeeded = BTreeSet::new();
    for blocks in (0..200).step_by(8) {
        for trap in ["trap '' XFSZ", ":"] {
            let host = before.copy();
            let at = format!("{trap}, {blocks} blocks");
            let script = format!("{trap}; ulimit -f {blocks}; exec {APIKEY} refresh alice --yes");
            let outcome = host.program("/bin/sh", &["-c", &script]).run();
            let took_hold = Tally::default().add(&host.database(), &outcome, &[&bob], Some(&alice), &at);
            assert_eq!(outcome.status == 0, took_hold, "{at}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked"), "{at}: {outcome:?}");
            goes_on(&host.database(), &at);
            succeeded.insert(took_hold);
        }
    }
    assert_eq!(succeeded.len(), 2, "every limit did the same");
}

#[test]
fn on_a_full_disk_a_revocation_says_what_it_could_do() {
    let (before, bob) = Host::with_key_of("bob");
    let alice = before.key_from(&["create", "alice"]);
    let said = "They could only be made to expire, since the database is damaged or its disk is full";
    let mut seen = BTreeSet::new();
    for blocks in (0..200).step_by(4) {
        for args in ["revoke alice", "refresh alice --revoke-first"] {
            let host = before.copy();
            let at = format!("{args}, {blocks} blocks");
            let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {APIKEY} {args} --yes");
            let outcome = host.program("/bin/sh", &["-c", &script]).run();
            let status = host.status_of(&alice);
            let by_time =
                outcome.stderr.contains(said) || outcome.stderr.contains("only be made to expire (");
            let by_status =
                !by_time && (outcome.status == 0 || outcome.stderr.contains(" of alice ended, but"));
            assert_eq!(status == "expired", by_time, "{at}: {status}: {outcome:?}");
            assert_eq!(status == "revoked", by_status, "{at}: {status}: {outcome:?}");
            assert_eq!(host.status_of(&bob), "active", "{at}");
            // A write that did not fit into the log was cut off in it, and never comes to life.
            assert!(!outcome.stderr.contains("may or may not have been done"), "{at}: {outcome:?}");
            seen.insert((args, status));
            let _ = host.apikey(&["revoke", "alice", "-yq"]).run();
            assert_eq!(host.status_of(&alice), "revoked", "{at}");
        }
    }
    // Nothing could be done, only that, and all.
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn where_keys_could_only_be_made_to_expire_they_are_not_renewed_unless_that_is_said() {
    let before = Host::new();
    before.apikey(&["create", "web", "-q", "--key-file", "web.key", "--renew-after", "1ms"]).gives(0, "", "");
    let mut seen = BTreeSet::new();
    for blocks in (0..200).step_by(4) {
        for args in ["revoke web", "refresh web --revoke-first"] {
            let host = before.copy();
            let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {APIKEY} {args} --yes");
            let outcome = host.program("/bin/sh", &["-c", &script]).run();
            if outcome.stderr.contains("only be made to expire") {
                let is_said = ["`apikey renew` may issue the next one", "until then they may be renewed"]
                    .iter()
                    .any(|said| outcome.stderr.contains(said));
                let due = host.apikey(&["renew", "--dry-run", "--json"]).run().json()["due"].clone();
                assert_eq!(!due.as_array().unwrap().is_empty(), is_said, "{args}, {blocks}: {outcome:?}");
                seen.insert((args, is_said));
            }
        }
    }
    assert!(
        seen.contains(&("revoke web", true)) && seen.contains(&("refresh web --revoke-first", true)),
        "{seen:?}"
    );
}

#[test]
#[ignore = "needs root and strace"]
fn a_refresh_says_that_what_it_was_to_revoke_first_could_only_be_made_to_expire() {
    let mount = Mount::tmpfs(2 << 20);
    // With less room nothing can be done, and with more it is revoked.
    let with_just_enough_room = |refresh: &[&str]| {
        (0..40).find_map(|pages: u64| {
            let host = Host::new_in(mount.path());
            let to_file = ["--key-file", "web.key", "--renew-after", "30d"];
            host.apikey(&[&["create", "web", "-q"], &to_file[..]].concat()).gives(0, "", "");
            let filler = host.path("filler");
            assert!(std::fs::write(&filler, vec![7; 4 << 20]).is_err());
            let file = File::options().write(true).open(&filler).unwrap();
            file.set_len(file.metadata().unwrap().len() - pages * 4096).unwrap();
            drop(file);
            // There is enough when the next one is issued.
            let outcome = host.with_delay(refresh, "flock", || std::fs::remove_file(&filler).unwrap());
            (outcome.status == 0).then_some(outcome)
        })
    };
    let outcome = with_just_enough_room(&["refresh", "web", "-y", "--revoke-first"]).unwrap();
    let said: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[1].ends_with(" is expired.") && said[2].starts_with("They could only be made"), "{said:?}");
    let outcome = with_just_enough_room(&["refresh", "web", "-y", "--revoke-first", "--json"]).unwrap();
    let json = outcome.json();
    assert!(json["previous_key_prefix"].is_string() && json["previous_key_revoked"] == false, "{json}");
}
