//! What holds for any key, user, name, moment and duration.

mod common;

use std::time::Duration;

use apikey::{Code, Error, Key, Name, Timestamp, User};
use common::Host;
use proptest::prelude::*;
use regex::Regex;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn key() -> impl Strategy<Value = String> {
    Just(()).prop_perturb(|(), _| Key::generate().unwrap().expose().to_owned())
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_999_u64).prop_map(|millis| {
        Timestamp::parse("1970-01-01T00:00:00.000Z")
            .unwrap()
            .checked_add(Duration::from_millis(millis))
            .unwrap()
    })
}

fn is_printable(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'))
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn a_key_is_read_as_it_was_made(key in key()) {
        let parsed = Key::parse(key.as_bytes()).unwrap();
        prop_assert_eq!(parsed.expose(), &*key);
        prop_assert_eq!(parsed.prefix().to_string(), &key[..15]);
        let form = Regex::new("^ak_[0-9a-f]{72}$").unwrap();
        prop_assert!(form.is_match(&key));
    }

    #[test]
    fn a_key_with_one_other_byte_is_refused(key in key(), at in 0..Key::LENGTH, byte: u8) {
        let mut bytes = key.into_bytes();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(Key::parse(&bytes).is_none());
    }

    #[test]
    fn a_key_with_one_other_digit_is_refused(key in key(), at in 3..Key::LENGTH, digit in "[0-9a-f]") {
        prop_assume!(key[at..=at] != digit);
        let changed = format!("{}{digit}{}", &key[..at], &key[at + 1..]);
        prop_assert!(Key::parse(changed.as_bytes()).is_none());
    }

    #[test]
    fn a_key_with_two_characters_swapped_is_refused(key in key(), one in 0..Key::LENGTH, other in 0..Key::LENGTH) {
        let mut bytes = key.into_bytes();
        prop_assume!(bytes[one] != bytes[other]);
        bytes.swap(one, other);
        prop_assert!(Key::parse(&bytes).is_none());
    }

    #[test]
    fn a_key_with_something_more_or_less_is_refused(key in key(), at in 0..=Key::LENGTH, more in "\\PC{1,3}") {
        let longer = format!("{}{more}{}", &key[..at], &key[at..]);
        prop_assert!(Key::parse(longer.as_bytes()).is_none());
        prop_assert!(at == Key::LENGTH || Key::parse(&key.as_bytes()[..at]).is_none());
        prop_assert!(at == 0 || Key::parse(&key.as_bytes()[at..]).is_none());
    }

    #[test]
    fn what_is_no_key_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), digits in "ak_[0-9a-f]{72}") {
        prop_assert!(Key::parse(&bytes).is_none());
        prop_assert!(Key::parse(digits.as_bytes()).is_none());
    }

    #[test]
    fn a_user_is_what_the_contract_says(text in prop_oneof![
        any::<String>(), "[A-Za-z0-9._@+: -]{0,9}", "[a-z][a-z]{126,128}", "\\PC{0,3}[A-Za-z0-9]\\PC{0,3}",
    ]) {
        let expected = Regex::new(r"^[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}\z").unwrap().is_match(&text);
        let user = text.parse::<User>();
        prop_assert_eq!(user.is_ok(), expected);
        if let Ok(user) = user {
            prop_assert_eq!(user.as_str(), &*text);
            prop_assert_eq!(user.to_string(), text);
        }
    }

    #[test]
    fn a_name_is_printable_and_neither_empty_nor_long_nor_padded(text in prop_oneof![
        any::<String>(), "\\PC{0,4}", " ?\\PC{99,101}", "\\PC{0,2}[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{200f}\u{2028}-\u{202e}]\\PC{0,2}",
    ]) {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert_eq!(name.as_str(), &*text);
            prop_assert!(is_printable(&text) && text.trim() == text && !text.is_empty());
            prop_assert!(text.chars().count() <= 100);
        }
    }

    #[test]
    fn a_printable_text_is_a_name(text in "[!-~¡-¬®-˿][ -~¡-¬®-˿À-ÿ一-龥]{0,98}[!-~]") {
        prop_assert!(text.parse::<Name>().is_ok(), "{}", text);
    }

    #[test]
    fn a_moment_is_read_as_it_was_written_and_text_sorts_as_time_does(one in moment(), other in moment()) {
        prop_assert_eq!(Timestamp::parse(&one.to_string()), Some(one));
        prop_assert_eq!(one.to_string().len(), 24);
        prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
    }

    #[test]
    fn a_text_that_is_a_moment_is_written_like_that(text in prop_oneof![
        any::<String>(), "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z",
    ]) {
        if let Some(moment) = Timestamp::parse(&text) {
            prop_assert_eq!(moment.to_string(), text);
        }
    }

    #[test]
    fn an_error_says_nothing_that_steers_a_terminal(text: String) {
        let error = Error::new(Code::Usage, &text).hint(&text);
        prop_assert!(is_printable(&error.to_string()) && is_printable(error.what_to_do().unwrap()));
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_key_lives_as_long_as_it_is_told_to(number in 1..1000_u64, unit in 0..6_usize) {
        let (unit, millis) = [
            ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 7 * 86_400_000),
        ][unit];
        let created = Host::new().apikey(&["create", "x", "--json", "--expires-in", &format!("{number}{unit}")]).run().json();
        let time = |name: &str| Timestamp::parse(created[name].as_str().unwrap()).unwrap();
        let lifetime = time("expires_at").since(time("created_at")).unwrap();
        prop_assert_eq!(lifetime, Duration::from_millis(number * millis));
    }

    #[test]
    fn any_text_is_a_duration_or_wrong_usage(text in prop_oneof!["[^\u{0}]{0,8}", "[0-9]{1,25}[a-z]{1,6}", "[0-9.]{1,6} ?[smhdwMy]"]) {
        let host = Host::new();
        let outcome = host.apikey(&["create", "x", "--json", &format!("--expires-in={text}")]).run();
        match outcome.status {
            0 => prop_assert!(outcome.json()["expires_at"].is_string()),
            2 => prop_assert!(outcome.code() == "USAGE" && host.names().is_empty()),
            other => prop_assert!(false, "{other}: {outcome:?}"),
        }
    }

    #[test]
    fn a_name_comes_back_as_it_was_given(name in "\\PC{1,100}") {
        prop_assume!(name.parse::<Name>().is_ok());
        let host = Host::new();
        let created = host.apikey(&["create", "x", "--json", &format!("--name={name}")]).run();
        prop_assert!(created.is_printable());
        prop_assert_eq!(&created.json()["name"], &name);
        prop_assert_eq!(&host.apikey(&["show", "x", "--json"]).run().json()["name"], &name);
    }
}
