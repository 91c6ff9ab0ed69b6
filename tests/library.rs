//! What a service does that manages keys through the library, with no command line.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use apikey::{
    Authority, Change, Changes, Code, Delivery, Error, Filter, Issued, Key, KeyFilePath, Listed, Order,
    Recipient, Refresh, Result, Status, Subject, Timestamp, Verdict, Verifier,
};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::{Mode, umask};
use tempfile::TempDir;

/// Keeps the keys that it is given; says no where it is told to.
#[derive(Default)]
struct Service {
    keys: Vec<String>,
    heard: Vec<String>,
    refuses: bool,
}

impl Recipient for Service {
    fn check(&self, database_files: &[PathBuf]) -> Result<()> {
        assert!(database_files[0].ends_with("keys.db"), "{database_files:?}");
        Ok(())
    }

    fn take(&mut self, key: &Key, issued: &Issued) -> Result<()> {
        assert_eq!(issued.record.prefix, key.prefix());
        if self.refuses {
            return Err(Error::new(Code::Undeliverable, "nobody is there"));
        }
        self.keys.push(key.expose().to_owned());
        Ok(())
    }

    fn hear(&mut self, delivery: &Delivery) {
        self.heard.push(delivery.to_string());
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T08:19:03.123Z").unwrap()
}

fn clock() -> Result<Timestamp> {
    Ok(now())
}

/// One that nobody else may write, whatever the umask was.
fn folder() -> TempDir {
    umask(Mode::from_bits_truncate(0o022));
    TempDir::new().unwrap()
}

fn authority(folder: &Path) -> Authority {
    Authority::open_or_create(&folder.join("keys.db"), Duration::from_secs(10), clock).unwrap()
}

fn order(user: &str, changes: Changes) -> Order {
    Order { user: user.parse().unwrap(), changes }
}

fn refresh(user: &str, changes: Changes) -> Refresh {
    Refresh { order: order(user, changes), grace: None, revoke_first: false, agreed: None }
}

#[test]
fn a_service_makes_a_database_and_issues_refreshes_and_revokes_keys() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    assert_eq!(Authority::open(&path, Duration::ZERO, clock).unwrap_err().code(), Code::NoDatabase);
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    let changes = Changes {
        name: Change::Set("a label".parse().unwrap()),
        lifetime: Change::Set(Duration::from_secs(3600)),
        ..Changes::default()
    };
    let first = authority.create(&order("alice", changes), &mut service).unwrap();
    assert_eq!(first.record.created_at, now(), "the time is the one that was given");
    assert_eq!(first.record.expires_at.unwrap().to_string(), "2026-11-22T09:19:03.123Z");
    let again = authority.create(&order("alice", Changes::default()), &mut service).unwrap_err();
    assert_eq!(again.code(), Code::KeyExists);

    // What is not to change is kept.
    let second = authority.refresh(&refresh("alice", Changes::default()), &mut service).unwrap();
    assert_eq!(second.record.name.unwrap().as_str(), "a label");
    assert_eq!(second.record.expires_at, first.record.expires_at);
    assert_eq!(second.previous.unwrap().prefix, first.record.prefix);

    let verifier = Verifier::open(&path, Duration::ZERO).unwrap();
    let status = |key: &str| match verifier.verify(key.as_bytes(), now()).unwrap() {
        Verdict::Accepted(record) | Verdict::Refused(record) => record.status,
        other => panic!("{other:?}"),
    };
    assert_eq!([status(&service.keys[0]), status(&service.keys[1])], [Status::Revoked, Status::Active]);
    let alice: Subject = "alice".parse().unwrap();
    let shown = authority.show(&alice).unwrap();
    assert_eq!(shown.listed.key.prefix, second.record.prefix);
    assert_eq!(shown.settings.lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(authority.revoke(&alice, None).unwrap().keys[0].prefix, second.record.prefix);
    assert_eq!(status(&service.keys[1]), Status::Revoked);
    assert_eq!(authority.show(&alice).unwrap_err().code(), Code::NoKey);

    let mut statuses = Vec::new();
    let each = |listed: Listed| {
        statuses.push(listed.key.status);
        Ok::<_, Error>(())
    };
    authority.list(|keys| keys.for_each(None, &Filter { all: true, ..Filter::default() }, each)).unwrap();
    assert_eq!(statuses, [Status::Revoked, Status::Revoked]);
}

#[test]
fn a_key_that_nobody_takes_is_not_issued() {
    let folder = folder();
    let mut authority = authority(folder.path());
    let mut service = Service { refuses: true, ..Service::default() };
    let refused = authority.create(&order("alice", Changes::default()), &mut service).unwrap_err();
    assert_eq!(refused.code(), Code::Undeliverable);
    assert_eq!(authority.show(&"alice".parse().unwrap()).unwrap_err().code(), Code::NoKey);
}

#[test]
fn where_a_key_goes_and_whether_a_delivery_is_finished_the_library_decides() {
    let folder = folder();
    let file = folder.path().join("web.key");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    let to_file = Changes { key_file: Change::Set(KeyFilePath::new(&file).unwrap()), ..Changes::default() };
    let content = || std::fs::read_to_string(&file).unwrap();
    authority.create(&order("web", to_file), &mut service).unwrap();
    let first = content();
    // Without being told, to the same file.
    let issued = authority.refresh(&refresh("web", Changes::default()), &mut service).unwrap();
    assert_eq!(issued.key_file.unwrap().path(), file.canonicalize().unwrap().to_str().unwrap());
    // What is returned of the key is what is stored of it.
    let stored = authority.current(&"web".parse().unwrap()).unwrap().unwrap();
    assert_eq!(format!("{:?}", issued.record), format!("{stored:?}"));
    assert!(service.keys.is_empty() && content() != first);

    let reload =
        |command: &str| Changes { reload: Change::Set(command.parse().unwrap()), ..Changes::default() };
    let failed = authority.refresh(&refresh("web", reload("false")), &mut service).unwrap_err();
    assert_eq!(failed.code(), Code::DeliveryPending);
    let waiting = content();
    let finished = authority.refresh(&refresh("web", reload("true")), &mut service).unwrap();
    assert!(finished.was_waiting && content() == waiting, "a third key was issued");
    assert!(service.heard[0].ends_with("but its reader is not told yet"), "{:?}", service.heard);
}

#[test]
fn a_service_that_was_left_running_notices_that_a_backup_was_restored() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    authority.create(&order("alice", Changes::default()), &mut service).unwrap();
    let backup = authority.backup(&folder.path().join("backup.db")).unwrap();
    assert_eq!(backup.keys, 1);
    authority.create(&order("bob", Changes::default()), &mut service).unwrap();
    let verifier = Verifier::open(&path, Duration::ZERO).unwrap();
    let knows_both = || {
        service.keys.iter().all(|key| {
            let verdict = verifier.verify(key.as_bytes(), now()).unwrap();
            matches!(verdict, Verdict::Accepted(_))
        })
    };
    assert!(knows_both());
    // Who may not look at the path any more, as a service that has given up its rights, goes on.
    let away = folder.path().with_extension("away");
    std::fs::rename(folder.path(), &away).unwrap();
    thread::sleep(Duration::from_millis(1100));
    assert!(knows_both());
    std::fs::rename(&away, folder.path()).unwrap();
    // As the README says.
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        std::fs::rename(folder.path().join(name), folder.path().join(format!("away-{name}"))).unwrap();
    }
    std::fs::rename(backup.path, &path).unwrap();
    thread::sleep(Duration::from_millis(1100));
    let verdict = |key: &String| verifier.verify(key.as_bytes(), now()).unwrap();
    assert!(matches!(verdict(&service.keys[0]), Verdict::Accepted(_)));
    assert!(matches!(verdict(&service.keys[1]), Verdict::Unknown));
}

#[test]
fn threads_share_a_verifier_beside_somebody_who_writes() {
    let folder = folder();
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    for user in ["alice", "bob"] {
        authority.create(&order(user, Changes::default()), &mut service).unwrap();
    }
    authority.revoke(&"bob".parse().unwrap(), None).unwrap();
    let verifier = Verifier::open(&folder.path().join("keys.db"), Duration::from_secs(10)).unwrap();
    let (is_over, looks) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let texts: Vec<&[u8]> =
                        service.keys.iter().map(String::as_bytes).chain([&b"x"[..]]).collect();
                    let verdicts = verifier.verify_all(&texts, now()).unwrap();
                    assert!(matches!(
                        verdicts[..],
                        [Verdict::Accepted(_), Verdict::Refused(_), Verdict::Malformed]
                    ));
                    assert!(matches!(verifier.verify(texts[0], now()).unwrap(), Verdict::Accepted(_)));
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..50 {
            authority
                .create(&order(&format!("user-{n}"), Changes::default()), &mut Service::default())
                .unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(looks.into_inner() > 8, "nobody looked");
}

#[test]
fn a_use_is_written_down_behind_the_answer_and_again_when_a_minute_has_passed() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    authority.create(&order("alice", Changes::default()), &mut service).unwrap();
    let last_used_at = || authority.show(&"alice".parse().unwrap()).unwrap().listed.key.last_used_at;
    let verifier = Verifier::open(&path, Duration::ZERO).unwrap();
    let verify = |after: u64| {
        let at = now().checked_add(Duration::from_secs(after)).unwrap();
        assert!(matches!(verifier.verify(service.keys[0].as_bytes(), at).unwrap(), Verdict::Accepted(_)));
        at
    };
    let first = verify(0);
    let start = Instant::now();
    while last_used_at() != Some(first) {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing was written down");
        thread::sleep(Duration::from_millis(20));
    }
    verify(59);
    verifier.write_uses();
    assert_eq!(last_used_at(), Some(first));
    // The machine may stall for as long as the thread collects, but not each time.
    let last = (1..=5).map(|minute| (last_used_at(), verify(60 * minute))).find_map(|(before, used)| {
        let is_written_later = last_used_at() == before;
        is_written_later.then_some(used)
    });
    drop(verifier);
    assert_eq!(last_used_at(), Some(last.expect("it was written before the answer")));
}

#[test]
fn a_use_that_cannot_be_written_keeps_nobody_waiting_and_is_written_later() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    authority.create(&order("alice", Changes::default()), &mut service).unwrap();
    let last_used_at = || authority.show(&"alice".parse().unwrap()).unwrap().listed.key.last_used_at;
    let verifier = Verifier::open(&path, Duration::from_secs(10)).unwrap();
    let writer = rusqlite::Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    assert!(matches!(verifier.verify(service.keys[0].as_bytes(), now()).unwrap(), Verdict::Accepted(_)));
    verifier.write_uses();
    assert!(start.elapsed() < Duration::from_secs(5), "it was waited for");
    assert_eq!(last_used_at(), None);
    writer.execute_batch("ROLLBACK").unwrap();
    verifier.write_uses();
    assert_eq!(last_used_at(), Some(now()));
}

#[test]
fn nothing_opens_the_database_as_a_key_file_which_would_end_the_locks_of_this_process() {
    let folder = folder();
    let (path, key_file) = (folder.path().join("keys.db"), folder.path().join("web.key"));
    drop(authority(folder.path()));
    // Opened before SQLite has a lock, and closed when all is over.
    let probe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let is_locked = || {
        // What SQLite locks to read: https://sqlite.org/src/file/src/os.h
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0x4000_0002,
            l_len: 510,
            l_pid: 0,
        };
        fcntl(&probe, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
        lock.l_type != libc::F_UNLCK as libc::c_short
    };
    assert!(!is_locked());
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    let to = |path: &Path| Changes {
        key_file: Change::Set(KeyFilePath::new(path).unwrap()),
        ..Changes::default()
    };
    authority.create(&order("web", to(&key_file)), &mut service).unwrap();
    assert!(is_locked());
    for (check, name) in [(true, "keys.db"), (false, "keys.db"), (false, "keys.db-lock")] {
        let changes = to(&folder.path().join(name));
        let error = authority.ensure(&order("web", changes), check, &mut service).unwrap_err();
        assert_eq!(error.code(), Code::Undeliverable);
        assert!(error.to_string().contains("belongs to the database"), "{error}");
        assert!(is_locked(), "ensure, {name}");
    }
    // By a name in another folder, too.
    let elsewhere = self::folder();
    std::fs::hard_link(&path, elsewhere.path().join("web.key")).unwrap();
    let changes = to(&elsewhere.path().join("web.key"));
    let error = authority.ensure(&order("web", changes), false, &mut service).unwrap_err();
    assert!(error.to_string().contains("belongs to the database"), "{error}");
    assert!(is_locked(), "ensure, a hard link");
    drop(elsewhere);
    // Whatever is kept of a user.
    let database = rusqlite::Connection::open(&path).unwrap();
    let names_it = "UPDATE settings SET key_file = ?1";
    database.execute(names_it, [path.canonicalize().unwrap().to_str().unwrap()]).unwrap();
    Authority::doctor(&path, Duration::from_secs(10), clock, |_| {}).unwrap();
    assert!(is_locked(), "doctor");
    database
        .execute_batch(
            "UPDATE keys SET status = 'pending';
             UPDATE settings SET pending_key = (SELECT prefix FROM keys), grace_ms = 0, reload_pending = 0",
        )
        .unwrap();
    authority.recover(&mut service).unwrap();
    assert!(service.heard[0].contains("belongs to the database"), "{:?}", service.heard);
    assert!(is_locked(), "recover");
    authority.revoke(&"web".parse().unwrap(), None).unwrap();
    assert!(is_locked(), "revoke");
}

#[test]
fn one_that_only_reads_writes_down_no_use() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    authority.create(&order("alice", Changes::default()), &mut service).unwrap();
    let content = || ["keys.db", "keys.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let before = content();
    let verifier = Verifier::open_read_only(&path, Duration::from_secs(10)).unwrap();
    assert!(matches!(verifier.verify(service.keys[0].as_bytes(), now()).unwrap(), Verdict::Accepted(_)));
    verifier.write_uses();
    drop(verifier);
    assert!(content() == before);
    authority.revoke(&"alice".parse().unwrap(), None).unwrap();
    let verifier = Verifier::open_read_only(&path, Duration::from_secs(10)).unwrap();
    assert!(matches!(verifier.verify(service.keys[0].as_bytes(), now()).unwrap(), Verdict::Refused(_)));
}

#[test]
fn uses_are_written_once_a_restored_database_has_a_log() {
    let folder = folder();
    let (mut original, mut service) = (authority(folder.path()), Service::default());
    original.create(&order("alice", Changes::default()), &mut service).unwrap();
    std::fs::create_dir(folder.path().join("restored")).unwrap();
    let restored = folder.path().join("restored/keys.db");
    original.backup(&restored).unwrap();
    let verifier = Verifier::open(&restored, Duration::from_secs(10)).unwrap();
    let verify = || {
        assert!(matches!(verifier.verify(service.keys[0].as_bytes(), now()).unwrap(), Verdict::Accepted(_)));
        verifier.write_uses();
    };
    verify();
    let mut authority = Authority::open(&restored, Duration::from_secs(10), clock).unwrap();
    let last_used_at =
        |authority: &Authority| authority.show(&"alice".parse().unwrap()).unwrap().listed.key.last_used_at;
    assert_eq!(last_used_at(&authority), None, "there is no log to write it to");
    authority.create(&order("bob", Changes::default()), &mut Service::default()).unwrap();
    thread::sleep(Duration::from_millis(1100));
    verify();
    assert_eq!(last_used_at(&authority), Some(now()));
}

#[test]
fn a_schema_that_is_not_to_be_read_is_noticed() {
    let folder = folder();
    let path = folder.path().join("keys.db");
    let (mut authority, mut service) = (authority(folder.path()), Service::default());
    authority.create(&order("alice", Changes::default()), &mut service).unwrap();
    let verifier = Verifier::open(&path, Duration::from_secs(10)).unwrap();
    let verify = || verifier.verify(service.keys[0].as_bytes(), now());
    assert!(matches!(verify().unwrap(), Verdict::Accepted(_)));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99099).unwrap();
    thread::sleep(Duration::from_millis(1100));
    for _ in 0..2 {
        assert_eq!(verify().unwrap_err().code(), Code::DbUnavailable);
    }
}

#[test]
fn uses_that_are_written_at_the_end_are_not_lost_to_the_thread_that_writes() {
    const KEYS: u32 = 2000;
    let folder = folder();
    let path = folder.path().join("keys.db");
    drop(authority(folder.path()));
    let mut database = rusqlite::Connection::open(&path).unwrap();
    let keys: Vec<Key> = (0..KEYS).map(|_| Key::generate().unwrap()).collect();
    let transaction = database.transaction().unwrap();
    for (n, key) in keys.iter().enumerate() {
        let prefix = i64::from_str_radix(&key.expose()[3..15], 16).unwrap();
        let hash: String = key.hash().to_string();
        let sql = "INSERT INTO keys (prefix, key_hash, id, user, status) \
                   VALUES (?1, unhex(?2), '019b76da-a800-7000-8000-000000000000', ?3, 'active')";
        transaction.execute(sql, rusqlite::params![prefix, hash, format!("user-{n}")]).unwrap();
    }
    transaction.commit().unwrap();
    let verifier = Verifier::open(&path, Duration::from_secs(10)).unwrap();
    let verify = |keys: &[Key]| {
        for key in keys {
            assert!(matches!(verifier.verify_key(key, now()).unwrap(), Verdict::Accepted(_)));
        }
    };
    verify(&keys[..1500]);
    // When the thread begins to write.
    thread::sleep(Duration::from_millis(1000));
    verify(&keys[1500..]);
    verifier.write_uses();
    let sql = "SELECT count(*) FROM keys WHERE last_used_at IS NOT NULL";
    let written: u32 = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(written, KEYS);
}
