//! A value in a row: of any kind, whatever the column is for.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// What SQLite can store, text that is no UTF-8 among it.
#[derive(Clone, Debug)]
pub enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Text(bytes) => ValueRef::Text(bytes),
            Cell::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Near what a column holds: the words, times in and beside their one form, and numbers at the ends of what is
/// taken.
pub const NEAR: [&str; 34] = [
    "active",
    "pending",
    "retiring",
    "revoked",
    "expired",
    "Active",
    "active ",
    "alice",
    "bob",
    "ak_0123456789ab",
    "2020-11-22T08:19:03.123Z",
    "2099-11-22T08:19:03.123Z",
    "2099-11-22t08:19:03.123Z",
    "2099-11-22T08:19:03.123z",
    "2099-11-22 08:19:03.123Z",
    "2020-11-22t08:19:03.123Z",
    "2020-11-22 08:19:03.123Z",
    "2016-12-31T23:59:60.000Z",
    "2099-12-31T23:59:60.123Z",
    "2099-02-30T08:19:03.123Z",
    "2099-11-22T08:19:03.12Z",
    "2099-11-22T08:19:03.1234Z",
    "2099-11-22T08:19:03Z",
    "2099-11-22T08:19:03.123+00:00",
    "99999-11-22T08:19:03.123Z",
    "-099-11-22T08:19:03.123Z",
    "2099-11-22T08:19:03,123Z",
    "2099-11-22T08:19:03.123Z\0",
    "9",
    "",
    "019b76da-a800-7000-8000-000000000000",
    "019b76da-a800-4000-8000-000000000000",
    "ffffffff-ffff-7fff-bfff-ffffffffffff",
    "\u{202e}x\u{1b}[31m",
];

/// Changes to the columns of a row out of what a fuzzer makes: a byte for the column, one for the kind, and the
/// value.
pub fn changes(mut data: &[u8]) -> Vec<(usize, Cell)> {
    let mut changes = Vec::new();
    while let [column, kind, rest @ ..] = data {
        let (length, rest) =
            rest.split_first().map_or((0, rest), |(length, rest)| (usize::from(*length), rest));
        let (value, more) = rest.split_at(length.min(rest.len()));
        let near = NEAR[length % NEAR.len()].as_bytes().to_vec();
        let mut eight = [0; 8];
        for (to, from) in eight.iter_mut().zip(value) {
            *to = *from;
        }
        let (cell, used) = match kind % 8 {
            0 => (Cell::Null, false),
            1 => (Cell::Integer(i64::from_le_bytes(eight)), true),
            2 => (Cell::Real(f64::from_le_bytes(eight)), true),
            3 => (Cell::Text(value.to_vec()), true),
            4 => (Cell::Blob(value.to_vec()), true),
            5 => (Cell::Blob(near), false),
            _ => (Cell::Text(near), false),
        };
        changes.push((usize::from(*column), cell));
        data = if used { more } else { rest };
    }
    changes
}
