//! Handing a new key over to whoever asked for it.

use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use super::output::Output;
use crate::error::{Code, Error, Result};
use crate::issue::{Issued, Order, issue};
use crate::key::Key;
use crate::store::Store;
use crate::timestamp::Timestamp;

/// Writes the JSON of a command that issues: of what was issued, and of the key where it is shown.
type ToJson = fn(&mut dyn Write, &Issued, Option<&Key>) -> io::Result<()>;

/// Issues a key and prints it: in one write, from one buffer, which is wiped.
pub fn issue_and_print(store: &mut Store, order: &Order, output: &Output, to_json: ToJson) -> Result<Issued> {
    output.check_is_none_of(&store.location().files())?;
    let issued = issue(store, order, Timestamp::now, |key, issued| {
        // Long enough from the start: a buffer that grows leaves copies behind.
        let mut buffer = Zeroizing::new(vec![0; longest_json(issued)]);
        let mut rest = buffer.as_mut_slice();
        let written = if output.is_json() {
            to_json(&mut rest, issued, Some(key))
        } else {
            rest.write_all(key.expose().as_bytes()).and_then(|()| rest.write_all(b"\n"))
        };
        written.map_err(|error| Error::new(Code::InternalError, format!("cannot write the key: {error}")))?;
        let unused = rest.len();
        output.secret(&buffer[..buffer.len() - unused])
    })?;
    let record = &issued.record;
    output.note(&format!("Issued {} to {}. The key is shown only once.", record.prefix, record.user));
    Ok(issued)
}

/// How long the JSON can be: a byte of text makes at the most the six of `\u001b`.
fn longest_json(issued: &Issued) -> usize {
    let record = &issued.record;
    let name = record.name.as_ref().map_or(0, String::len);
    let key_file = record.key_file.as_ref().map_or(0, String::len);
    1024 + 6 * (record.user.len() + name + key_file)
}

/// The JSON of `create`, and of `refresh` but for its last three members.
#[derive(Serialize)]
pub struct IssuedJson<'a> {
    id: &'a str,
    user: &'a str,
    key: Option<&'a str>,
    prefix: &'a str,
    name: Option<&'a str>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    key_file: Option<&'a str>,
}

impl<'a> IssuedJson<'a> {
    /// The members for a key that is shown, or for one that is not.
    pub fn new(issued: &'a Issued, key: Option<&'a Key>) -> Self {
        let record = &issued.record;
        IssuedJson {
            id: &record.id,
            user: &record.user,
            key: key.map(Key::expose),
            prefix: &record.prefix,
            name: record.name.as_deref(),
            created_at: record.created_at,
            expires_at: record.expires_at,
            key_file: record.key_file.as_deref(),
        }
    }
}
