//! What may reach a terminal or a log: no character that steers, and no key.

use std::borrow::Cow;
use std::ops::Range;

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

/// `2 keys`, `1 key`.
pub fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// `text` with each key in it, and what may be one that was cut or mistyped, cut to its first 15
/// characters.
pub fn without_keys(text: &str) -> String {
    let text = cut(text, words_with_a_secret(text));
    cut(&text, mistyped_keys(&text))
}

/// `text` with each of `parts`, which are in order and long enough, cut as a key is to its prefix.
fn cut(text: &str, parts: impl Iterator<Item = Range<usize>>) -> String {
    const PREFIX: usize = 15;
    let mut kept = String::with_capacity(text.len());
    let mut end = 0;
    for part in parts {
        kept.push_str(&text[end..part.start + PREFIX]);
        kept.push('…');
        end = part.end;
    }
    kept.push_str(&text[end..]);
    kept
}

/// The words, of `[A-Za-z0-9_]`, with as many hex digits in a row as hardly anything else has.
fn words_with_a_secret(text: &str) -> impl Iterator<Item = Range<usize>> {
    const FEWEST_DIGITS: usize = 40;
    let separates = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut end = 0;
    text.split_inclusive(separates).filter_map(move |piece| {
        let start = end;
        end += piece.len();
        let word = piece.trim_end_matches(separates);
        let mut runs = word.split(|c: char| !c.is_ascii_hexdigit());
        runs.any(|run| run.len() >= FEWEST_DIGITS).then(|| start..start + word.len())
    })
}

/// Whatever begins as a key does and goes on for longer than a name would.
fn mistyped_keys(text: &str) -> impl Iterator<Item = Range<usize>> {
    const TAG: &str = "ak_";
    const LONGEST_NAME: usize = 30;
    text.match_indices(TAG).filter_map(|(start, _)| {
        let rest = &text[start + TAG.len()..];
        let length = TAG.len() + rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        (length > LONGEST_NAME).then(|| start..start + length)
    })
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
    fn forty_hex_digits_in_a_row_are_cut_with_the_word_they_are_in() {
        let digits = "0123456789abcdef".repeat(5);
        for (text, kept) in [
            (digits[..72].to_owned(), "0123456789abcde…"),
            (digits[..40].to_uppercase(), "0123456789ABCDE…"),
            (format!("/a/{}.key", &digits[..40]), "/a/0123456789abcde….key"),
            (format!("AK_{}", &digits[..72].to_uppercase()), "AK_0123456789AB…"),
            (format!("x{}_y-z", &digits[..40]), "x0123456789abcd…-z"),
            (format!("TOKEN_ak_{}=", &digits[..72]), "TOKEN_ak_012345…="),
            (format!("é{}é", &digits[..41]), "é0123456789abcde…é"),
            (format!("{0} {0}", &digits[..64]), "0123456789abcde… 0123456789abcde…"),
            (digits[..39].to_owned(), &digits[..39]),
            (format!("{}g{}", &digits[..39], &digits[..39]), &format!("{}g{}", &digits[..39], &digits[..39])),
            ("01a202c4-2cbf-7a53-9e0f-7ab3a8ba0d35".to_owned(), "01a202c4-2cbf-7a53-9e0f-7ab3a8ba0d35"),
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
