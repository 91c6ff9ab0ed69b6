//! Which characters may reach a terminal.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_the_rest_is_left() {
        assert_eq!(printable("Zoë's key, 鍵 🔑"), "Zoë's key, 鍵 🔑");
        assert_eq!(printable("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert_eq!(printable("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{2028}d"), "a\\u{202e}b\\u{200b}c\\u{2028}d");
        assert_eq!(printable("\0\n\x7f"), "\\u{0}\\n\\u{7f}");
    }
}
