//! A file where a key is to go, whatever is in it.

use std::fs;

use apikey::{Changes, Code};

use super::key::is_key;
use super::key_file::key_in;
use super::scratch::{Scratch, Taker, refresh};
use super::{ends_as_documented, is_documented};

/// Only one that is empty or holds one key, which is no other user's accepted one, is replaced; and then by the next
/// key. All others stay as they are, and so does the key that there was.
pub fn check(content: &[u8]) {
    let scratch = Scratch::new().with_key_file();
    let file = scratch.path("web.key");
    fs::write(&file, content).unwrap();
    let held = key_in(content);
    let is_anothers = ["active", "retiring", "bob"].iter().any(|of| held == Some(scratch.key(of).as_bytes()));
    let may_be_replaced = content.is_empty() || (held.is_some() && !is_anothers);
    let mut authority = scratch.authority().unwrap();
    let refreshed = authority.refresh(&refresh("web", Changes::default()), &mut Taker::default());
    assert_eq!(refreshed.is_ok(), may_be_replaced, "{content:?}: {refreshed:?}");
    let now = fs::read(&file).unwrap();
    let old = scratch.key("web");
    if let Err(error) = &refreshed {
        is_documented(error);
        assert_eq!(error.code(), Code::Undeliverable, "{error}");
        assert!(now == content && scratch.is_accepted(old), "{content:?}");
    } else {
        assert!(is_key(&now) && scratch.is_accepted(std::str::from_utf8(&now).unwrap()), "{content:?}");
        assert!(!scratch.is_accepted(old), "{content:?}");
    }
    ends_as_documented(refreshed);
}
