//! What is said of a key that is revoked while its delivery is looked at.

use std::thread;

use crate::common::strace::{Call, Fault};
use crate::host_with_key_file;

#[test]
#[ignore = "needs strace"]
fn a_key_that_is_revoked_while_its_folder_is_synced_is_not_said_to_be_accepted() {
    // By who goes on with it, for another and for that user.
    for args in [&["create", "bob"][..], &["create", "web", "--no-key-file"]] {
        let host = host_with_key_file();
        assert_eq!(host.apikey(&["refresh", "web", "-y", "--reload", "false"]).run().status, 9);
        let revoke = || {
            host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
        };
        let outcome = host.with_delay(args, "fsync", revoke);
        assert_eq!((outcome.status, host.accepted()), (0, 1), "{args:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("accepted"), "{args:?}: {outcome:?}");
    }
    // By who delivers it, where that fails.
    let refresh = ["refresh", "web", "-y"];
    let calls = host_with_key_file().traced(&refresh, |run| run).calls();
    let renamed = calls.iter().position(|call| call.name == "renameat").unwrap();
    let sync = calls[renamed..].iter().find(|call| call.name == "fsync").unwrap();
    let host = host_with_key_file();
    let revoke = || {
        host.apikey(&["revoke", "web", "-yq"]).gives(0, "", "");
    };
    let outcome = host.with_delay_at(&refresh, sync, ":error=EIO", revoke);
    assert_eq!((outcome.status, host.accepted()), (4, 0), "{outcome:?}");
    assert!(outcome.stderr.contains("was revoked before its delivery was done"), "{outcome:?}");
}

#[test]
#[ignore = "needs strace"]
fn an_ensure_looks_again_where_the_key_that_it_looks_for_is_revoked_meanwhile() {
    let staged = || {
        let host = host_with_key_file();
        let rename = Call { name: "renameat".to_owned(), number: 1 };
        assert!(host.with_fault(&["refresh", "web", "-y"], &rename, Fault::Kill).is_some());
        host
    };
    let check = ["ensure", "web", "--check", "--json"];
    let trace = staged().traced(&check, |run| run).trace;
    let locks = trace
        .lines()
        .take_while(|line| !line.contains("\"web.key\""))
        .filter(|line| line.contains(" fcntl("));
    let last = u32::try_from(locks.count()).unwrap();
    thread::scope(|scope| {
        for number in last - 7..=last {
            scope.spawn(move || {
                let host = staged();
                let revoke = || drop(host.apikey(&["revoke", "web", "-yq"]).run());
                let outcome =
                    host.with_delay_at(&check, &Call { name: "fcntl".to_owned(), number }, "", revoke);
                assert_eq!(outcome.status, 0, "{number} of {last}: {outcome:?}");
            });
        }
    });
}
