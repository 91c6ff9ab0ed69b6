//! A moment, as a row has it and as somebody writes it.

use apikey::Timestamp;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // As text, SQL compares it: what is read is in its one form.
    if let Some(moment) = Timestamp::parse(text) {
        assert_eq!(moment.to_string(), text);
    }
    if let Some(moment) = Timestamp::from_rfc3339(text) {
        let written = moment.to_string();
        assert_eq!(written.len(), 24, "{text:?}");
        assert_eq!(Timestamp::parse(&written), Some(moment), "{text:?}");
    }
}
