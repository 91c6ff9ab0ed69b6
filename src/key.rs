//! The secret: how it is made, read, named and hashed.
//!
//! A key is `ak_`, 64 lowercase hex digits (32 bytes from the operating system's generator) and 8
//! hex digits of checksum (the first 4 bytes of the SHA-256 of everything before them): 75
//! characters. A typo or a cut paste is caught before any look-up, and a secret scanner that knows
//! `^ak_[0-9a-f]{72}$` gets no false hit.
//!
//! - A key lies in one heap buffer that is wiped when it is dropped; moving it copies a pointer.
//! - It is neither `Clone` nor `Display`, and its `Debug` shows the prefix alone.
//! - Only [`Key::expose`] gives it out: for the one write to standard output or to a key file.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::random;

const TAG: &[u8] = b"ak_";
const RANDOM_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_START: usize = TAG.len() + 2 * RANDOM_BYTES;

/// An API key in clear.
pub struct Key(Box<Zeroizing<[u8; Key::LENGTH]>>);

impl Key {
    /// How long a key is, in bytes and in characters.
    pub const LENGTH: usize = CHECKSUM_START + 2 * CHECKSUM_BYTES;

    /// A new key from the operating system's generator. Fails where that fails.
    pub fn generate() -> Result<Self> {
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        random::fill(&mut *random)?;
        Ok(Self::from_random_bytes(&random))
    }

    fn from_random_bytes(random: &[u8; RANDOM_BYTES]) -> Self {
        let mut key = Key(Box::new(Zeroizing::new([0; Key::LENGTH])));
        let (body, checksum) = key.0.split_at_mut(CHECKSUM_START);
        let (tag, digits) = body.split_at_mut(TAG.len());
        tag.copy_from_slice(TAG);
        encode_hex(random, digits);
        encode_hex(&checksum_of(body), checksum);
        key
    }

    /// The key that `text` is, to the byte. `None` where it is malformed: another length, another
    /// character, or a checksum that does not fit.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes: &[u8; Key::LENGTH] = text.try_into().ok()?;
        let (body, checksum) = bytes.split_at(CHECKSUM_START);
        let digits = body.strip_prefix(TAG)?;
        let mut expected = [0; 2 * CHECKSUM_BYTES];
        encode_hex(&checksum_of(body), &mut expected);
        if !is_lowercase_hex(digits) || checksum != expected {
            return None;
        }
        let mut key = Key(Box::new(Zeroizing::new([0; Key::LENGTH])));
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// Its first 15 characters, by which it is named from here on.
    #[allow(clippy::expect_used, reason = "both constructors write hex digits there")]
    pub fn prefix(&self) -> Prefix {
        self.expose()[..Prefix::LENGTH].parse().expect("a key starts with its prefix")
    }

    /// What is stored of the key.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_slice()).into())
    }

    /// The key itself.
    #[allow(clippy::expect_used, reason = "both constructors write nothing but ASCII")]
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).expect("a key is ASCII")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}…)", self.prefix())
    }
}

/// The first 15 characters of a key, `ak_` and 12 hex digits: unique in a database, never masked, safe
/// to print, to log, and to be part of a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(u64);

impl Prefix {
    /// How long a prefix is, in bytes and in characters.
    pub const LENGTH: usize = TAG.len() + 12;

    /// The 48 bits that its digits are, which is how the database has it. `None` for a larger number.
    pub(crate) fn from_bits(bits: i64) -> Option<Self> {
        u64::try_from(bits).ok().filter(|bits| *bits < 1 << 48).map(Prefix)
    }

    pub(crate) fn bits(self) -> i64 {
        self.0.cast_signed()
    }
}

/// Prefixes in a sentence.
pub(crate) fn listed(prefixes: impl IntoIterator<Item = Prefix>) -> String {
    prefixes.into_iter().map(|prefix| prefix.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ak_{:012x}", self.0)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    /// Fails with [`Code::Usage`] on anything that is not a prefix.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.as_bytes().strip_prefix(TAG).filter(|digits| is_lowercase_hex(digits));
        let digits = digits.filter(|_| text.len() == Self::LENGTH);
        digits.and_then(|_| u64::from_str_radix(&text[TAG.len()..], 16).ok()).map(Prefix).ok_or_else(|| {
            Error::new(
                Code::Usage,
                "a prefix is ak_ and 12 of the digits 0-9 a-f, the first 15 characters of a key",
            )
        })
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The SHA-256 of a key's text, written as 64 lowercase hex digits.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(KeyHash)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `other` is the same, in a time that does not tell where they differ.
    pub fn matches(&self, other: &KeyHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

fn is_lowercase_hex(digits: &[u8]) -> bool {
    digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::digest(body);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    checksum
}

#[allow(clippy::expect_used, reason = "every caller's two lengths are constants that fit")]
fn encode_hex(bytes: &[u8], digits: &mut [u8]) {
    hex::encode_to_slice(bytes, digits).expect("two digits a byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bytes, key and hash, worked out by hand:
    /// `body=ak_$(…64 digits…); key=$body$(printf %s $body | sha256sum | cut -c1-8); printf %s $key | sha256sum`.
    #[rustfmt::skip]
    const VECTORS: [([u8; 32], &str, &str); 3] = [
        ([0x00; 32],
         "ak_00000000000000000000000000000000000000000000000000000000000000003bc04add",
         "7191ddf563bd2568c5d7a2a2b445fd3f9cc614b73fde9f353e5eb41607c6bf5a"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
          16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
         "ak_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fc4bc36b9",
         "b85901687581dd47ea7bd1f0a0af124470812f429ae7cd46b4fb7d920b96c009"),
        ([0xff; 32],
         "ak_ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff55ca260e",
         "4cd44db70b7d3c1d842e417d594215f57d5586d8b8439b7100f190071cb3cf4c"),
    ];

    #[test]
    fn keys_are_made_parsed_and_hashed_as_the_published_vectors_say() {
        for (random, text, hash) in VECTORS {
            let made = Key::from_random_bytes(&random);
            assert_eq!(made.expose(), text);
            assert_eq!(made.prefix().to_string(), &text[..15]);
            let parsed = Key::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.hash().to_string(), hash);
            assert!(parsed.hash().matches(&made.hash()));
            assert!(!parsed.hash().matches(&Key::from_random_bytes(&[7; 32]).hash()));
        }
    }

    #[test]
    fn a_prefix_is_twelve_lowercase_digits_and_48_bits() {
        for text in ["ak_000000000000", "ak_0123456789ab", "ak_ffffffffffff"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
            assert_eq!(Prefix::from_bits(prefix.bits()), Some(prefix));
        }
        for text in [
            "",
            "ak_",
            "ak_0123456789a",
            "ak_0123456789abc",
            "ak_0123456789AB",
            "ak_+123456789ab",
            "ak_é0000000000",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        assert_eq!(Prefix::from_bits(-1), None);
        assert_eq!(Prefix::from_bits(1 << 48), None);
    }

    #[test]
    fn debug_output_of_a_key_does_not_hold_it() {
        let shown = format!("{:?}", Key::from_random_bytes(&[0; 32]));
        assert_eq!(shown, "Key(ak_000000000000…)");
    }

    #[test]
    fn two_generated_keys_differ() {
        assert_ne!(Key::generate().unwrap().expose(), Key::generate().unwrap().expose());
    }
}
