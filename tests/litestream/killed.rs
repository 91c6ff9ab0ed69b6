//! A writer that was killed before it had published what is in the log, and that Litestream has copied.

use crate::common::Host;
use crate::common::container::wait_for;
use crate::common::strace::{Call, Fault};
use crate::hosts::Hosts;
use crate::ways::is_accepted;

/// Killed when its frames are in the log, and are to be put on the disk.
fn kill(host: &Host, args: &[&str]) -> String {
    let commit = Call { name: "fsync".into(), number: 1 };
    host.with_fault(args, &commit, Fault::Kill).unwrap().stdout.trim_end().to_owned()
}

#[test]
#[ignore = "needs litestream and strace"]
fn what_a_killed_writer_left_is_on_the_replica_exactly_where_it_is_on_the_authority() {
    let hosts = Hosts::new();
    let (host, replica) = (&hosts.authority, &hosts.replica);
    let first = host.key_from(&["create", "first"]);
    let _replicate = hosts.replicate();
    let _follow = hosts.follow();
    wait_for("the first change", || (replica.apikey(&["list"]).run().status == 0).then_some(()));
    for write in [&["create", "carol"][..], &["refresh", "carol", "-y"], &["verify"]] {
        let bob = kill(host, &["refresh", "bob", "-y"]);
        wait_for("Litestream to copy it", || is_accepted(replica, &bob).then_some(()));
        let outcome = host.apikey(write).input(&*first).run();
        assert_eq!(outcome.status, 0, "{write:?}: {outcome:?}");
        assert!(is_accepted(host, &bob), "{write:?}: the replica accepts what was never issued");
        host.key_from(&["refresh", "dave", "-y"]);
        hosts.agree();
        assert!(is_accepted(replica, &bob), "{write:?}");
    }
    let restored = hosts.restore();
    let list = |host: &Host| host.apikey(&["list", "--all", "--json"]).run().stdout;
    assert_eq!(list(&restored), list(host));
    kill(host, &["revoke", "first", "-y"]);
    host.key_from(&["refresh", "carol", "-y"]);
    assert!(!is_accepted(host, &first));
    hosts.agree();
    assert!(!is_accepted(replica, &first));
}
