//! What is drawn: arbitrary bytes, and what is right but for a few of them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::checks::cell::{Cell, NEAR};
use crate::checks::{key, schema, stream};

pub fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

/// With up to three bytes replaced, put in, taken away or said twice, or with its end cut off.
pub fn mutated(right: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let near = prop_oneof![any::<u8>(), select(b" \t\r\n=_-:.+,0159afgAFTZtz\0\x1b\xc3\xff".as_slice())];
    let edits = vec((any::<prop::sample::Index>(), 0..6_u8, near), 0..4);
    (right, edits).prop_map(|(mut bytes, edits)| {
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match (edit, bytes.get(at).copied()) {
                (0, Some(_)) => bytes[at] = byte,
                (1, Some(_)) => drop(bytes.remove(at)),
                (2, Some(said)) => bytes.insert(at, said),
                (3, Some(said)) => bytes[at] = said ^ 0x20,
                (4, _) => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

pub fn key() -> impl Strategy<Value = Vec<u8>> {
    any::<[u8; 32]>().prop_map(|random| key::key_of(random).into_bytes())
}

/// One of those in the database, too.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![key(), select(stream::keys()).prop_map(|key| key.as_bytes().to_vec())]
}

pub fn time() -> impl Strategy<Value = Vec<u8>> {
    let right =
        "[0-9]{4}-(0[0-9]|1[0-3])-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:([0-5][0-9]|60)\\.[0-9]{3}(Z|z)";
    let said = "[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{1,9})?)?)?(Z|[+-][0-2][0-9]:[0-6][0-9])?";
    let text = |form: &'static str| form.prop_map(String::into_bytes);
    let near = select(NEAR.as_slice()).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![bytes(30), text(right), text(said), mutated(text(right)), mutated(near)]
}

pub fn duration() -> impl Strategy<Value = Vec<u8>> {
    let text = |form: &'static str| form.prop_map(String::into_bytes);
    let right = "([0-9]{1,3}(ms|s|m|h|d|w|y|us|ns) ?){1,3}";
    prop_oneof![
        bytes(12),
        text(right),
        mutated(text(right)),
        text("[0-9]{1,25}(ns|us|ms|s|sec|min|m|h|hr|d|day|days|w|M|months|y|years|never)"),
        text("\\PC{0,8}"),
        mutated(Just(b"never".to_vec())),
        time(),
    ]
}

pub fn key_file() -> impl Strategy<Value = Vec<u8>> {
    let name = "([A-Za-z_][A-Za-z0-9_]{0,20}=)?".prop_map(String::into_bytes);
    let end = select(vec!["", "\n", "\r\n", "\n\n", "\r", " ", "\0"]);
    let form = (name, any_key(), end).prop_map(|(name, key, end)| [name, key, end.into()].concat());
    prop_oneof![1 => bytes(300), 2 => any_key(), 3 => form.boxed(), 2 => mutated(any_key())]
}

pub fn lines() -> impl Strategy<Value = Vec<u8>> {
    let end = select(vec!["\n", "\n", "\n", "\r\n", "\r", "", "\0", "\n\n"]);
    let text =
        prop_oneof![4 => any_key(), 2 => mutated(any_key()), 2 => bytes(200), 1 => vec(any::<u8>(), 70_000)];
    vec((text, end).prop_map(|(text, end)| [text, end.into()].concat()), 0..12)
        .prop_map(|lines| lines.concat())
}

pub fn cell() -> impl Strategy<Value = Cell> {
    let near = || select(NEAR.as_slice()).prop_map(|text| text.as_bytes().to_vec());
    let numbers = vec![0, 1, -1, 384, 4095, 1 << 48, 86_400_000, i64::MAX, i64::MIN, u32::MAX.into()];
    let path = "(/[a-z./]{0,12}|/none/x|web\\.key)".prop_map(String::into_bytes);
    prop_oneof![
        2 => Just(Cell::Null),
        2 => select(numbers).prop_map(Cell::Integer),
        1 => any::<i64>().prop_map(Cell::Integer),
        1 => any::<f64>().prop_map(Cell::Real),
        6 => near().prop_map(Cell::Text),
        2 => mutated(near()).prop_map(Cell::Text),
        1 => bytes(20).prop_map(Cell::Text),
        1 => path.prop_map(Cell::Text),
        1 => Just(Cell::Text(vec![b'x'; 5000])),
        2 => near().prop_map(Cell::Blob),
        1 => vec(any::<u8>(), 32).prop_map(Cell::Blob),
    ]
}

/// Changes to a row of keys: of any kind, or another status and other times, each of which could be stored.
pub fn row() -> impl Strategy<Value = Vec<(usize, Cell)>> {
    let any = vec((0..8_usize, cell()), 1..4);
    let status = select(vec!["active", "pending", "retiring", "revoked", "expired"]);
    let time = || {
        let past_or_future = select(vec!["2020-11-22T08:19:03.123Z", "2099-11-22T08:19:03.123Z"]);
        prop_oneof![Just(None), past_or_future.prop_map(Some), select(NEAR.as_slice()).prop_map(Some)]
    };
    let text = |text: Option<&str>| text.map_or(Cell::Null, |text| Cell::Text(text.into()));
    let near = (status, time(), time()).prop_map(move |(status, expires_at, revoked_at)| {
        vec![(4, text(Some(status))), (5, text(expires_at)), (6, text(revoked_at))]
    });
    prop_oneof![any, near]
}

pub fn schema() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (0..11_usize).prop_flat_map(|which| {
        let ours = || Just(schema::text_of(which).into_bytes());
        // As SQLite reads it the same, or nearly so.
        let words =
            vec![(" ", "  "), ("TEXT", "text"), ("status", "Status"), ("active", "pending"), (" STRICT", "")];
        let near = (ours(), select(words)).prop_map(|(ours, (word, another))| {
            String::from_utf8(ours).unwrap().replacen(word, another, 1).into_bytes()
        });
        let text = prop_oneof![1 => bytes(60), 2 => mutated(ours()), 1 => ours(), 2 => near];
        (Just(which), text)
    })
}
