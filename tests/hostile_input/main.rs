//! Input of any kind: arbitrary bytes, and what is right but for a little.
//!
//! What must hold of it is in `checks`, which the targets of fuzz/ call, too.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod checks;
#[path = "../common/mod.rs"]
mod common;
mod drawn;

use checks::cell::Cell;
use common::Host;
use drawn::{bytes, cell, lines, mutated};
use proptest::collection::vec;
use proptest::prelude::*;

/// No file is left behind for a case that failed: it is to become a test.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_text_is_a_moment_in_its_one_form_or_none(text in drawn::time()) {
        checks::time::check(&text);
    }

    #[test]
    fn a_text_is_a_key_to_the_byte_or_none(text in prop_oneof![bytes(100), mutated(drawn::key())]) {
        checks::key::check(&text);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_text_is_a_duration_that_can_be_kept_or_none(text in drawn::duration()) {
        checks::duration::check(&text);
    }

    #[test]
    fn a_key_file_holds_one_key_in_one_of_its_forms_or_none(content in drawn::key_file()) {
        checks::key_file::check(&content);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_database_with_any_header_is_opened_or_refused(changes in vec((0..100_usize, any::<u8>()), 1..4)) {
        checks::header::check(&changes);
    }

    #[test]
    fn a_key_file_with_anything_in_it_is_replaced_or_left(content in drawn::key_file()) {
        checks::delivery::check(&content);
    }

    #[test]
    fn settings_of_any_kind_keep_nobody_from_revoking(changes in vec((0..14_usize, cell()), 1..4)) {
        checks::settings::check(&changes);
    }

    #[test]
    fn a_schema_with_any_text_is_left_alone_unless_it_is_ours((which, text) in drawn::schema(), is_newer: bool) {
        checks::schema::check(which, &text, is_newer);
    }

    #[test]
    fn rows_of_any_kind_are_looked_at_or_refused(row in 0..3_usize, changes in drawn::row()) {
        checks::rows::check_looks(row, &changes);
    }

    #[test]
    fn each_line_of_any_stream_is_answered(input in lines()) {
        checks::stream::check(&input, |scratch, input| {
            let host = Host::new();
            let run = host.apikey(&["verify", "--stream"]).env("APIKEY_DB", scratch.database());
            let outcome = run.input(input).run();
            (outcome.stdout.into_bytes(), Some(outcome.status))
        });
    }
}

#[test]
fn the_schema_that_is_ours_is_written() {
    checks::schema::check(0, checks::schema::text_of(0).as_bytes(), false);
    checks::delivery::check(b"");
}

#[test]
fn a_row_that_was_not_changed_is_accepted_and_revoked() {
    let same = [(3, Cell::Null)];
    for row in 0..3 {
        checks::rows::check_verdict(row, &same);
        checks::rows::check_revocation(row, &same);
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn the_library_and_the_view_accept_the_same_rows(row in 0..3_usize, changes in drawn::row()) {
        checks::rows::check_verdict(row, &changes);
    }

    #[test]
    fn a_revocation_ends_each_row_whatever_it_holds(row in 0..3_usize, changes in drawn::row()) {
        checks::rows::check_revocation(row, &changes);
    }
}

#[test]
fn what_a_newer_database_lacks_is_no_damage() {
    for change in [
        "ALTER TABLE keys DROP COLUMN last_used_at",
        "ALTER TABLE keys RENAME COLUMN name TO label",
        "DROP INDEX keys_of_user",
        "ALTER TABLE settings DROP COLUMN renew_after_ms",
    ] {
        checks::schema::check_newer(change);
    }
}

/// Each was once accepted by the library or by the view and not by the other, or kept a user's keys from being revoked.
#[test]
fn rows_that_were_found_once_are_told_alike_and_revoked() {
    const PAST: &str = "2020-11-22T08:19:03.123Z";
    const FUTURE: &str = "2099-11-22T08:19:03.123Z";
    const ID: (usize, Cell) = (1, Cell::Null);
    let text = |text: &str| Cell::Text(text.into());
    let blob = |text: &str| Cell::Blob(text.into());
    let (status, expires_at, revoked_at) = (4, 5, 6);
    for changes in [
        vec![(status, text("retiring")), (expires_at, text(PAST)), (revoked_at, text(FUTURE))],
        vec![(status, text("active")), (revoked_at, text(PAST))],
        vec![(status, text("retiring")), (revoked_at, Cell::Null)],
        vec![(expires_at, text("2099-11-22t08:19:03.123Z"))],
        vec![(expires_at, text("2016-12-31T23:59:60.000Z"))],
        vec![(expires_at, blob(FUTURE))],
        vec![(0, Cell::Integer(0))],
        vec![(0, Cell::Integer(0)), ID],
        vec![ID],
    ] {
        for row in 0..3 {
            checks::rows::check_verdict(row, &changes);
            checks::rows::check_revocation(row, &changes);
        }
    }
}
