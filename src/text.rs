//! What may reach a terminal or a log: no character that steers, and no key.

use std::borrow::Cow;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Whether `c` could steer a terminal or hide in a line: the control characters (Unicode's Cc,
/// with ESC and the C1 set), the format characters (Cf: bidirectional, zero-width) and the line
/// and paragraph separators (Zl, Zp).
pub fn is_unprintable(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(
        c.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

/// `text` with each unprintable character written as Rust writes it: `\n`, `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// `text` with each key in it, and what looks like one that was cut or mistyped, cut to its prefix:
/// whatever begins as a key does and goes on for longer than a name would.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    const TAG: &str = "ak_";
    const PREFIX: usize = 15;
    const LONGEST_NAME: usize = 30;
    let mut kept = String::new();
    let mut end = 0;
    for (at, _) in text.match_indices(TAG) {
        let rest = &text[at + TAG.len()..];
        let length = TAG.len() + rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if length > LONGEST_NAME {
            kept.push_str(&text[end..at + PREFIX]);
            kept.push('…');
            end = at + length;
        }
    }
    if end == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[end..]);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_to_its_prefix_and_the_rest_is_left() {
        let key = format!("ak_{}", "0123456789abcdef".repeat(5));
        for (text, kept) in [
            (format!("/a/{}/b", &key[..75]), "/a/ak_0123456789ab…/b"),
            (format!("{key} and {key}"), "ak_0123456789ab… and ak_0123456789ab…"),
            (format!("NAME={}", key.to_uppercase().replace("AK_", "ak_")), "NAME=ak_0123456789AB…"),
            (key[..40].to_owned(), "ak_0123456789ab…"),
            (key.replace('0', "O"), "ak_O123456789ab…"),
            ("/srv/peak_performance1/keys".to_owned(), "/srv/peak_performance1/keys"),
            (key[..15].to_owned(), "ak_0123456789ab"),
            (".web.key.ak_0123456789ab".to_owned(), ".web.key.ak_0123456789ab"),
            ("ak_ ak_é".to_owned(), "ak_ ak_é"),
        ] {
            assert_eq!(without_keys(&text), kept);
        }
    }

    #[test]
    fn what_steers_a_terminal_is_escaped_and_the_rest_is_left() {
        assert_eq!(printable("Zoë's key, 鍵 🔑"), "Zoë's key, 鍵 🔑");
        assert_eq!(printable("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert_eq!(printable("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{2028}d"), "a\\u{202e}b\\u{200b}c\\u{2028}d");
        assert_eq!(printable("\0\n\x7f"), "\\u{0}\\n\\u{7f}");
    }
}
