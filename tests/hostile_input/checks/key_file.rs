//! What a key file holds.

use std::fs;

use apikey::{Code, KeyFile};
use tempfile::TempDir;

use super::key::is_key;

/// The key in it: alone, or as the value of a variable, with or without a line's end.
pub fn key_in(content: &[u8]) -> Option<&[u8]> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let key = line.get(line.len().checked_sub(75)?..)?;
    let before = &line[..line.len() - 75];
    let is_name = match before.split_last() {
        None => true,
        Some((b'=', name)) => {
            let starts = name.first().is_some_and(|byte| !byte.is_ascii_digit());
            starts
                && name.len() <= 128
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        }
        Some(_) => false,
    };
    (is_name && is_key(key)).then_some(key)
}

pub fn check(content: &[u8]) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.key");
    fs::write(&path, content).unwrap();
    let found = KeyFile::read(&path).unwrap();
    assert_eq!(found.as_ref().map(|key| key.expose().as_bytes()), key_in(content), "{content:?}");
    fs::remove_file(&path).unwrap();
    assert_eq!(KeyFile::read(&path).unwrap_err().code(), Code::NoKey);
}
