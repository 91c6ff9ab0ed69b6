//! What others do while a call of the library is under way: at each moment at which it asks for the time, and while
//! it asks whether somebody is there to take the key.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apikey::{
    Authority, Change, Changes, Code, Delivery, Error, Issued, Key, KeyFilePath, Order, Recipient, Refresh,
    Result, Timestamp,
};
use nix::sys::stat::{Mode, umask};
use rusqlite::Connection;
use tempfile::TempDir;

/// The lock goes to each child that another test of this process starts, for a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does something at the moment with this number; `false` where the clock is to fail then.
type Meanwhile = Box<dyn Fn(u32) -> bool>;

thread_local! {
    static TICKS: Cell<u32> = const { Cell::new(0) };
    static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
}

fn clock() -> Result<Timestamp> {
    Ok(Timestamp::parse("2026-11-22T08:19:03.123Z").unwrap())
}

/// The time, before which something happens; where that says so, there is none.
fn busy_clock() -> Result<Timestamp> {
    TICKS.set(TICKS.get() + 1);
    let goes_on = MEANWHILE.with_borrow(|meanwhile| meanwhile.as_ref().is_none_or(|act| act(TICKS.get())));
    if goes_on { clock() } else { Err(Error::new(Code::InternalError, "the clock is set to no time")) }
}

/// Does `work` with `meanwhile` at each moment at which it asks for the time, the number of which it is told. Returns
/// how many there were, too.
fn with<T>(meanwhile: impl Fn(u32) -> bool + 'static, work: impl FnOnce() -> T) -> (T, u32) {
    TICKS.set(0);
    MEANWHILE.set(Some(Box::new(meanwhile)));
    let done = work();
    MEANWHILE.set(None);
    (done, TICKS.get())
}

/// Hears what earlier runs left; does something where it is asked to take a key.
#[derive(Default)]
struct Service {
    heard: Vec<String>,
    at_check: Option<Box<dyn Fn()>>,
}

impl Recipient for Service {
    fn check(&self, _database_files: &[PathBuf]) -> Result<()> {
        self.at_check.iter().for_each(|act| act());
        Ok(())
    }

    fn take(&mut self, _key: &Key, _issued: &Issued) -> Result<()> {
        Ok(())
    }

    fn hear(&mut self, delivery: &Delivery) {
        self.heard.push(delivery.to_string());
    }
}

fn order(user: &str, changes: Changes) -> Order {
    Order { user: user.parse().unwrap(), changes }
}

fn refresh(user: &str, changes: Changes) -> Refresh {
    Refresh { order: order(user, changes), grace: None, revoke_first: false, agreed: None }
}

/// A folder with a database in which web has a key in a file.
fn folder() -> TempDir {
    umask(Mode::from_bits_truncate(0o022));
    let folder = TempDir::new().unwrap();
    let mut authority = Authority::open_or_create(&folder.path().join("keys.db"), PATIENCE, clock).unwrap();
    let key_file = Change::Set(KeyFilePath::new(&folder.path().join("web.key")).unwrap());
    let to_file = Changes { key_file, ..Changes::default() };
    authority.create(&order("web", to_file), &mut Service::default()).unwrap();
    folder
}

/// The same, with another key of web's, which is in its place and not the current one yet.
fn folder_with_pending() -> TempDir {
    let folder = folder();
    let reload = Changes { reload: Change::Set("false".parse().unwrap()), ..Changes::default() };
    let failed = open(folder.path(), clock).refresh(&refresh("web", reload), &mut Service::default());
    assert_eq!(failed.unwrap_err().code(), Code::DeliveryPending);
    sqlite(folder.path())
        .execute("UPDATE settings SET reload_pending = 0 WHERE pending_key <> 0", [])
        .unwrap();
    folder
}

fn open(folder: &Path, clock: fn() -> Result<Timestamp>) -> Authority {
    Authority::open(&folder.join("keys.db"), PATIENCE, clock).unwrap()
}

fn sqlite(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join("keys.db")).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

fn accepted(folder: &Path) -> u32 {
    sqlite(folder).query_row("SELECT count(*) FROM accepted_keys", [], |row| row.get(0)).unwrap()
}

/// Whether it could be done: not while somebody writes.
fn revoke(folder: &Path, user: &str) -> bool {
    let mut authority = Authority::open(&folder.join("keys.db"), Duration::ZERO, clock).unwrap();
    authority.revoke(&user.parse().unwrap(), None).is_ok()
}

#[test]
fn a_key_that_is_revoked_while_its_delivery_is_gone_on_with_is_nobody_s_trouble() {
    let (mut at, mut revocations) = (0, 0);
    loop {
        at += 1;
        let (folder, mut service) = (folder_with_pending(), Service::default());
        let path = folder.path().to_owned();
        let meanwhile = move |tick| {
            let _ = tick == at && revoke(&path, "web");
            true
        };
        let mut authority = open(folder.path(), busy_clock);
        let (recovered, ticks) = with(meanwhile, || authority.recover(&mut service));
        recovered.unwrap();
        let is_revoked = accepted(folder.path()) == 0;
        assert_eq!(service.heard.is_empty(), is_revoked, "{at}: {:?}", service.heard);
        revocations += u32::from(is_revoked);
        if at > ticks {
            break;
        }
    }
    assert!(revocations > 1 && revocations < at, "{revocations} of {at}");
}

#[test]
fn a_database_that_is_no_longer_ours_while_deliveries_are_gone_on_with_is_an_error() {
    let (mut at, mut altered) = (0, 0);
    loop {
        at += 1;
        let folder = folder_with_pending();
        let path = folder.path().to_owned();
        let meanwhile = move |tick| {
            let _ = tick == at && sqlite(&path).pragma_update(None, "application_id", 1).is_ok();
            true
        };
        let mut authority = open(folder.path(), busy_clock);
        let (recovered, ticks) = with(meanwhile, || authority.recover(&mut Service::default()));
        let id: u32 = sqlite(folder.path()).query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
        let failed = recovered.map_err(|error| error.code());
        assert_eq!(failed, if id == 1 { Err(Code::DbUnavailable) } else { Ok(()) }, "{at}");
        altered += u32::from(id == 1);
        if at > ticks {
            break;
        }
    }
    assert!(altered > 1 && altered < at, "{altered} of {at}");
}

#[test]
fn a_key_that_is_revoked_while_it_is_to_be_replaced_is_followed_by_none() {
    let folder = folder();
    let path = folder.path().to_owned();
    let mut authority = open(folder.path(), clock);
    authority.create(&order("alice", Changes::default()), &mut Service::default()).unwrap();
    let at_check = move || assert!(revoke(&path, "alice"));
    let mut service = Service { at_check: Some(Box::new(at_check)), ..Service::default() };
    let refused = authority.refresh(&refresh("alice", Changes::default()), &mut service).unwrap_err();
    assert_eq!(refused.code(), Code::NoKey);
    assert!(
        refused.to_string().ends_with(" of alice was revoked meanwhile, so none was issued"),
        "{refused}"
    );
    assert_eq!(accepted(folder.path()), 1, "web's");
}

#[test]
fn a_key_that_is_issued_and_can_be_neither_delivered_nor_undone_is_said_to_be_pending() {
    let (mut at, mut pending) = (0, 0);
    loop {
        at += 1;
        let folder = folder();
        let file = folder.path().join("web.key");
        // Nothing can be put in the place of a folder, and nothing be written with no time.
        let meanwhile = move |tick| {
            if tick == at {
                fs::rename(&file, file.with_extension("away")).unwrap();
                fs::create_dir(&file).unwrap();
            }
            tick <= at
        };
        let mut authority = open(folder.path(), busy_clock);
        let refresh = refresh("web", Changes::default());
        let (refreshed, ticks) = with(meanwhile, || authority.refresh(&refresh, &mut Service::default()));
        if at > ticks {
            break;
        }
        let is_pending = refreshed.is_err_and(|error| error.code() == Code::DeliveryPending);
        assert_eq!(accepted(folder.path()), if is_pending { 2 } else { 1 }, "{at}");
        pending += u32::from(is_pending);
    }
    assert!(pending > 0);
}
