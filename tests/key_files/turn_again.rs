//! What is said of a key after its reload, in which others had their turn.

use crate::{content, host_with_key_file};

#[test]
fn a_database_that_is_put_in_the_place_of_the_other_during_a_reload_is_not_said_to_have_the_key() {
    let host = host_with_key_file();
    let old = content(&host, "web.key");
    host.apikey(&["backup", "copy.db", "-q"]).gives(0, "", "");
    let restore = "mkdir away && mv keys.db keys.db-wal keys.db-shm away && cp -p copy.db keys.db";
    let outcome = host.apikey(&["refresh", "web", "-y", "--reload", restore]).run();
    assert_eq!(outcome.status, 9, "{outcome:?}");
    let said = format!("another file lies at {} than the one", host.database().display());
    assert!(outcome.stderr.contains(&said), "{outcome:?}");
    assert_eq!(host.status_of(&old), "active");
}
