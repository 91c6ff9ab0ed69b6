//! A duration, and a moment that is said by how long ago it was, as the command line reads them.

use std::time::Duration;

use apikey::{Change, Timestamp};

const LONGEST: Duration = Duration::from_secs(1000 * 31_557_600);

/// The duration that `--expires-in` takes `text` for.
fn lifetime(text: &str) -> Option<Change<Duration>> {
    let option = format!("--expires-in={text}");
    let found = apikey::cli::command().try_get_matches_from(["apikey", "create", "alice", &option]);
    found.ok()?.subcommand()?.1.get_one("expires_in").cloned()
}

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match lifetime(text) {
        Some(Change::Set(duration)) => {
            assert!((Duration::from_millis(1)..=LONGEST).contains(&duration), "{text:?}: {duration:?}");
            assert_eq!(u128::from(duration.subsec_nanos()) % 1_000_000, 0, "{text:?}: {duration:?}");
            let again = format!("{}s {}ms", duration.as_secs(), duration.subsec_millis());
            assert_eq!(lifetime(&again), Some(Change::Set(duration)), "{text:?}");
        }
        Some(Change::TakeAway) => assert_eq!(text, "never"),
        Some(Change::Keep) => panic!("{text:?}"),
        None => {}
    }
    let option = format!("--since={text}");
    let since = apikey::cli::command().try_get_matches_from(["apikey", "log", &option]);
    assert!(since.is_ok() || Timestamp::from_rfc3339(text).is_none(), "{text:?}");
}
