//! Moments, as the database, the JSON and the tables write them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, Utc};
use serde::{Serialize, Serializer};

use crate::error::{Code, Error, Result};

/// A moment in UTC to the millisecond, between the years 0 and 9999, written
/// `2026-11-22T08:19:03.123Z` (RFC 3339, section 5.6). The width never varies, so comparing two
/// as text, as SQL does, compares the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The moment this is called, by the system's clock. Everything else takes the time as an
    /// argument.
    ///
    /// Fails with [`Code::InternalError`] where the clock is before 1970 or past the year 9999: what is
    /// written then could not be told from damage.
    #[allow(clippy::disallowed_methods, reason = "the one clock")]
    pub fn now() -> Result<Self> {
        let wrong = |when| {
            Error::new(Code::InternalError, format!("the clock is {when}")).hint("set the host's clock")
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| wrong("before 1970"))?;
        let millis = u64::try_from(since_1970.as_millis()).ok();
        millis.and_then(Self::from_unix_millis).ok_or_else(|| wrong("past the year 9999"))
    }

    /// The moment that `text` names, in exactly the format above; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        const FORM: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
        // RFC 3339 has other ways to write the same, and a second 60: as text they sort elsewhere.
        let fits =
            |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
        let has_form = text.len() == FORM.len() && text.bytes().zip(FORM).all(fits);
        let moment = DateTime::parse_from_rfc3339(text).ok().filter(|_| has_form && &text[17..19] != "60")?;
        Some(Timestamp(moment.to_utc()))
    }

    /// The moment that `text` names as RFC 3339 has it, with any offset, to the millisecond; without one, in UTC.
    /// Seconds may be left out, and so may the time: a date is its beginning. `None` for anything else.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let parse = |end| DateTime::parse_from_rfc3339(&format!("{text}{end}")).ok();
        let moment = ["", "Z", ":00Z", "T00:00:00Z"].into_iter().find_map(parse)?;
        // A second 60 is the beginning of the next minute.
        let moment = DateTime::from_timestamp_millis(moment.timestamp_millis())?;
        (0..=9999).contains(&moment.year()).then_some(Timestamp(moment))
    }

    /// The moment `duration` earlier, but none before 1970.
    pub fn before(self, duration: Duration) -> Self {
        let earlier =
            chrono::Duration::from_std(duration).ok().and_then(|ago| self.0.checked_sub_signed(ago));
        Timestamp(
            earlier
                .map_or(DateTime::UNIX_EPOCH, |earlier| earlier.max(DateTime::UNIX_EPOCH).trunc_subsecs(3)),
        )
    }

    /// The moment `duration` later, to the millisecond; `None` past the year 9999.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let duration = chrono::Duration::from_std(duration).ok()?;
        let sum = self.0.checked_add_signed(duration)?.trunc_subsecs(3);
        (sum.year() <= 9999).then_some(Timestamp(sum))
    }

    /// How long before this moment `earlier` was; `None` where it was later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.signed_duration_since(earlier.0).to_std().ok()
    }

    /// The moment so many milliseconds after 1970; `None` past the year 9999.
    pub(crate) fn from_unix_millis(millis: u64) -> Option<Self> {
        let moment = DateTime::from_timestamp_millis(i64::try_from(millis).ok()?)?;
        (moment.year() <= 9999).then_some(Timestamp(moment))
    }

    /// Milliseconds since 1970, 0 before.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.timestamp_millis()).unwrap_or(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_read_back_as_it_was_written() {
        for text in ["2026-11-22T08:19:03.123Z", "1970-01-01T00:00:00.000Z", "2038-01-19T03:14:08.000Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T08:19:03Z",
            "2026-11-22T08:19:03.123+00:00",
            "2026-11-22t08:19:03.123Z",
            "2026-11-22T08:19:03.123z",
            "2026-11-22 08:19:03.123Z",
            "2026-11-22T08:19:03,123Z",
            "2026-11-22T08:19:3.1234Z",
            "2026-11-22T08:19:03.12 Z",
            "2026-11-22T08:19:03.１Z",
            "2026-12-31T23:59:60.123Z",
            "2026-02-30T08:19:03.123Z",
            "x026-11-22T08:19:03.123Z",
        ] {
            assert!(Timestamp::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_leap_second_that_somebody_names_is_the_beginning_of_the_next_minute() {
        let named = Timestamp::from_rfc3339("2016-12-31T23:59:60.5Z").unwrap();
        assert_eq!(named.to_string(), "2017-01-01T00:00:00.500Z");
        assert_eq!(Timestamp::parse(&named.to_string()), Some(named));
        assert!(Timestamp::from_rfc3339("9999-12-31T23:59:60Z").is_none());
        let before_1970 = Timestamp::from_rfc3339("1969-12-31T23:59:59.9995Z").unwrap();
        assert_eq!(before_1970.to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn adding_past_the_year_9999_is_refused() {
        let now = Timestamp::parse("2026-11-22T08:19:03.123Z").unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(now.checked_add(day).unwrap().to_string(), "2026-11-23T08:19:03.123Z");
        assert!(now.checked_add(day * 366 * 8000).is_none());
        assert!(now.checked_add(Duration::MAX).is_none());
    }
}
