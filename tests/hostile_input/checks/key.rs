//! The text of a key, and of its prefix.

use apikey::{Key, Prefix};
use sha2::{Digest as _, Sha256};

/// Whether `text` is a key, worked out as the README says it.
pub fn is_key(text: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.len() == 75
        && text.starts_with(b"ak_")
        && digits(&text[3..])
        && hex::encode(&Sha256::digest(&text[..67])[..4]).as_bytes() == &text[67..]
}

/// The key of these bytes, made as the README says it.
pub fn key_of(random: [u8; 32]) -> String {
    let body = format!("ak_{}", hex::encode(random));
    format!("{body}{}", hex::encode(&Sha256::digest(&body)[..4]))
}

pub fn check(data: &[u8]) {
    let key = Key::parse(data);
    assert_eq!(key.is_some(), is_key(data), "{data:?}");
    if let Some(key) = key {
        assert_eq!(key.expose().as_bytes(), data);
        assert_eq!(key.prefix().to_string().as_bytes(), &data[..15]);
        assert_eq!(key.hash().to_string(), hex::encode(Sha256::digest(data)));
        assert!(!format!("{key:?}").contains(&key.expose()[15..]));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(prefix) = text.parse::<Prefix>()
    {
        assert_eq!(prefix.to_string(), text);
    }
    if let Some(random) = data.first_chunk::<32>() {
        let made = key_of(*random);
        assert!(Key::parse(made.as_bytes()).is_some_and(|key| key.expose() == made));
    }
}
