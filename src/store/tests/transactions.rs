//! What transactions do, and what a connection is after them.

use super::*;

#[test]
fn a_store_whose_reopening_failed_is_no_store() {
    let (folder, path, key) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    let mut witness = None;
    let user: User = "alice".parse().unwrap();
    store
        .write(&Actor::current(), clock, |transaction| {
            let current = transaction.current(&user)?.unwrap();
            transaction.end(&[Held::from(&current)])?;
            transaction.ended(&user, &[Held::from(&current)])?;
            witness = transaction.witness.get();
            Ok(())
        })
        .unwrap();
    assert!(store.took_hold(witness.unwrap(), now(), false).unwrap());
    let without_log = folder.path().join("copy.db");
    std::fs::copy(&path, &without_log).unwrap();
    let found = opened(&without_log, VERSIONS).find(&key, now()).unwrap().unwrap();
    assert_eq!(found.status, Status::Revoked, "it lasts, also where the log is not on the disk");
    std::fs::rename(&path, folder.path().join("away")).unwrap();
    store.took_hold(witness.unwrap(), now(), false).unwrap_err();
    for error in [
        store.find(&Key::generate().unwrap(), now()).unwrap_err(),
        issue(&mut store, "bob").unwrap_err(),
        store.read(now(), |snapshot| snapshot.pending()).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::DbError, "{error}");
        assert!(error.to_string().contains("could not be opened anew"), "{error}");
    }
}

#[test]
fn of_a_commit_that_failed_and_cannot_be_buried_it_is_said_that_nobody_knows() {
    let (_folder, path, _) = database(VERSIONS);
    let mut store =
        Store::open_at(Location::new(&path).unwrap(), Access::Any, Duration::ZERO, VERSIONS).unwrap();
    let mut witness = None;
    let never_done = store.write(&Actor::current(), clock, |transaction| {
        transaction.write_down("refused", None, None, None, None)?;
        witness = transaction.witness.get();
        Err::<(), _>(Error::new(Code::Cancelled, "no"))
    });
    assert_eq!(never_done.unwrap_err().code(), Code::Cancelled);
    let log = || std::fs::metadata(path.with_file_name("keys.db-wal")).unwrap().len();
    let before = log();
    assert!(!store.took_hold(witness.unwrap(), now(), false).unwrap());
    assert!(log() > before, "what may lie there is not buried");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.took_hold(witness.unwrap(), now(), false).unwrap_err();
    assert!(error.to_string().contains("may or may not have been done"), "{error}");
    assert!(error.what_to_do().unwrap().contains("apikey show"), "{error}");
    assert!(!store.took_hold(witness.unwrap(), now(), true).unwrap(), "its frames are cut off");
}

#[test]
fn what_undoes_a_transaction_is_nothing_to_go_on_after() {
    let (_folder, path, _) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    let undone = store.write(&Actor::current(), clock, |transaction| {
        transaction.unless_damaged(transaction.execute("UPDATE keys SET user = NULL", []))?;
        // As long as a statement runs that is to be interrupted, so is every other; and that undoes all of it, as an
        // I/O error does.
        let mut change = transaction.connection.prepare("UPDATE keys SET name = 'x'").unwrap();
        let mut running = transaction.connection.prepare("SELECT * FROM sqlite_schema").unwrap();
        let mut rows = running.query([]).unwrap();
        rows.next().unwrap();
        transaction.connection.get_interrupt_handle().interrupt();
        transaction.unless_damaged(transaction.run(|_| change.execute([])))
    });
    let undone = undone.unwrap_err().to_string();
    assert!(undone.contains("interrupted"), "{undone}");
}

#[test]
fn what_can_only_be_made_to_expire_ends_no_later_than_it_did() {
    for (status, revoked_at) in [("active", None), ("retiring", Some("2026-11-01T00:00:00.000Z"))] {
        let (_folder, path, key) = database(VERSIONS);
        let mut store = opened(&path, VERSIONS);
        let end = "2026-11-02T00:00:00.000Z";
        Connection::open(&path)
            .unwrap()
            .execute(
                "UPDATE keys SET status = ?1, expires_at = ?2, revoked_at = ?3",
                (status, end, revoked_at),
            )
            .unwrap();
        let ends = |transaction: &Transaction<'_>| {
            let held = transaction.held(&"alice".parse()?)?;
            transaction.end_by_time(&held)
        };
        store.write(&Actor::current(), clock, ends).unwrap();
        // It makes sense, too.
        let found = store.find(&key, now()).unwrap().unwrap();
        assert_eq!(found.expires_at.unwrap().to_string(), end, "{status}");
        assert_eq!(found.revoked_at.map(|at| at.to_string()).as_deref(), revoked_at, "{status}");
    }
}

#[test]
fn a_use_leaves_the_connection_as_it_was_however_it_ends() {
    let (_folder, path, key) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    let is_as_it_was = |store: &Store| {
        let pragma = |name| {
            let connection = store.connection.as_ref().unwrap();
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(pragma("synchronous"), 2, "FULL");
        assert_eq!(pragma("busy_timeout"), 10_000);
    };
    is_as_it_was(&store);
    let record = store.find(&key, now()).unwrap().unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let uses = [(record.prefix, now())];
    assert!(!store.write_uses(&uses).unwrap());
    is_as_it_was(&store);
    other.execute_batch("ROLLBACK").unwrap();
    assert!(store.write_uses(&uses).unwrap());
    is_as_it_was(&store);
}

#[test]
fn what_is_asked_often_is_read_from_an_index_in_its_order() {
    let (_folder, path, _) = database(VERSIONS);
    let connection = Connection::open(path).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {}", sql.replace("?1", "'x'"))).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>("detail")).unwrap();
        steps.map(|step| step.unwrap()).collect::<Vec<_>>().join("; ")
    };
    for (sql, expected) in [
        ("SELECT user FROM settings WHERE due_at <= 'x'", "USING COVERING INDEX due_keys"),
        ("SELECT * FROM keys WHERE user = 'x' ORDER BY user, substr(id, 1, 13)", "USING INDEX keys_of_user"),
        ("SELECT * FROM keys WHERE user = 'x' AND status = 'active'", "USING INDEX one_active_key"),
        (held::HELD, "USING INDEX one_active_key"),
        (held::HELD, "USING INDEX one_pending_key"),
        (held::HELD, "USING INDEX retiring_keys"),
        ("SELECT * FROM keys WHERE status = 'pending'", "USING INDEX one_pending_key"),
        ("SELECT id, user, name FROM accepted_keys WHERE key_hash = 'x'", "USING INDEX unique_key_hash"),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(expected), "{sql}: {plan}");
        // Of the few keys that are held the order is no matter.
        assert!(sql == held::HELD || !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

#[test]
fn settings_come_into_force_with_the_key_that_brings_them_and_a_revocation_ends_what_is_due() {
    let (_folder, path, _) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    let user: User = "web".parse().unwrap();
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    let settings = |name: &str, renew_after| Settings {
        name: Some(name.parse().unwrap()),
        lifetime: days(90),
        key_file: Some(KeyFile {
            path: "/etc/web/web.key".into(),
            mode: Mode::from_bits(0o640).unwrap(),
            owner: Some(Owner { uid: 7, gid: 8 }),
            env: Some("API_KEY".parse().unwrap()),
        }),
        reload: Some(Reload {
            command: "true".parse().unwrap(),
            timeout: Some(Duration::from_millis(1500)),
            machine: Some("a hash".into()),
        }),
        renew_after,
        renew_grace: days(1),
    };
    let (first, second) = (settings("first", days(30)), settings("second", days(10)));
    let due = |at: Option<&str>| {
        let sql = "SELECT due_at FROM settings WHERE due_at IS NOT NULL";
        let found: rusqlite::Result<String> =
            Connection::open(&path).unwrap().query_row(sql, [], |row| row.get(0));
        assert_eq!(found.ok().as_deref(), at);
    };
    let in_force = |store: &Store| store.read(now(), |snapshot| snapshot.settings(&user)).unwrap();
    let new = |settings| NewKey { user: &user, settings, detail: "test".into() };
    let mut write = |work: &dyn Fn(&Transaction<'_>) -> Result<()>| {
        Turn::begin(&mut store, clock).unwrap().write(work).unwrap();
        in_force(&store)
    };
    let kept = write(&|transaction| transaction.insert_active(&Key::generate()?, &new(&first)).map(drop));
    assert_eq!(kept, first);
    due(Some("2026-12-22T08:19:03.123Z"));
    let kept = write(&|transaction| {
        let key_file = second.key_file.as_ref().unwrap();
        let delivery = NewDelivery { key_file, grace: Duration::ZERO, reload_pending: true };
        transaction.insert_pending(&Key::generate()?, &new(&second), &delivery).map(drop)
    });
    assert_eq!(kept, first, "the next ones are on their way");
    due(Some("2026-12-22T08:19:03.123Z"));
    let kept = write(&|transaction| {
        let pending = transaction.pending()?.remove(0);
        assert_eq!(pending.settings, second);
        transaction.retire(&user, &transaction.holdings(&user)?.current.unwrap(), Duration::ZERO)?;
        assert!(transaction.activate(&pending)?);
        assert!(!transaction.activate(&pending)?, "it is not pending any more");
        Ok(())
    });
    assert_eq!(kept, second);
    due(Some("2026-12-02T08:19:03.123Z"));
    let kept = write(&|transaction| {
        let current = transaction.current(&user)?.unwrap();
        transaction.end(&[Held::from(&current)])?;
        transaction.ended(&user, &[Held::from(&current)])
    });
    assert_eq!(kept, second, "what is kept outlives the key");
    due(None);
}

#[test]
fn a_key_that_was_retired_is_returned_as_the_database_has_it() {
    for (grace, is_expired) in [(0, false), (3600, false), (3600, true)] {
        let (_folder, path, key) = database(VERSIONS);
        let mut store = opened(&path, VERSIONS);
        if is_expired {
            let end = "UPDATE keys SET expires_at = '2026-11-22T08:19:03.122Z'";
            Connection::open(&path).unwrap().execute(end, []).unwrap();
        }
        let user: User = "alice".parse().unwrap();
        let retired = Turn::begin(&mut store, clock).unwrap().write(|transaction| {
            let current = transaction.holdings(&user)?.current.unwrap();
            transaction.retire(&user, &current, Duration::from_secs(grace))
        });
        let found = store.read(now(), |snapshot| snapshot.held_with_prefix(key.prefix())).unwrap();
        assert_eq!(format!("{:?}", retired.unwrap()), format!("{:?}", found.unwrap().1));
    }
}

#[test]
fn what_is_forgotten_in_steps_is_one_event_which_has_the_sum() {
    let (_folder, path, _) = database(VERSIONS);
    let mut store = opened(&path, VERSIONS);
    let other = Connection::open(&path).unwrap();
    let old = "INSERT INTO events (at, event, uid) VALUES ('2026-01-01T00:00:00.000Z', 'pruned', 0)";
    let mut so_far = Forgotten::default();
    for step in 1..=3 {
        other.execute(old, []).unwrap();
        let found = store.read(now(), |snapshot| snapshot.next_old(Old::Events, now(), None, 9)).unwrap();
        let mut turn = Turn::begin(&mut store, clock).unwrap();
        so_far = turn.write(|transaction| transaction.forget(Old::Events, now(), &found, &so_far)).unwrap();
        let detail = so_far.event.as_ref().unwrap().1.detail.clone().unwrap();
        let stored: String = other
            .query_row("SELECT detail FROM events WHERE detail IS NOT NULL AND event = 'pruned'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(stored, detail);
        assert!(detail.contains(&format!("{step} event")), "{detail}");
    }
}
