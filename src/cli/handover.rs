//! Handing a new key over to whoever asked for it.

use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use super::output::Output;
use crate::delivery::Reload;
use crate::error::{Code, Error, Result};
use crate::issue::{Issued, Order, Replace};
use crate::key::Key;
use crate::key_file::KeyFile;
use crate::recovery::{End, Recovered};
use crate::store::{Record, Store};
use crate::timestamp::Timestamp;
use crate::writer::Writer;

/// Writes the JSON of a command that issues: of what was issued, and of the key where it is shown.
type ToJson = fn(&mut dyn Write, &Issued, Option<&Key>) -> io::Result<()>;

/// Where a key goes, and what is done when it is there.
pub struct Handover {
    /// To this file; where there is none, to where the user's last key went: standard output, or
    /// the file that was named then.
    pub key_file: Option<KeyFile>,
    /// How the file's reader is told.
    pub reload: Option<Reload>,
}

/// Issues a key and hands it over.
pub fn issue(
    writer: &mut Writer<'_>,
    order: &Order,
    handover: Handover,
    output: &Output,
    to_json: ToJson,
) -> Result<Issued> {
    let remembered = match (&handover.key_file, &order.replace) {
        (None, Replace::Nothing) => None,
        _ => writer.remembered(&order.user)?,
    };
    let reload = handover.reload.as_ref();
    match handover.key_file.or_else(|| remembered.clone()) {
        Some(key_file) => {
            let (issued, done) = match waiting_for_reload(writer, order, &key_file) {
                Some(waiting) => {
                    (writer.finish_delivery(&waiting, order.agreed(), reload)?, "Finished the delivery of")
                }
                None => (writer.issue_to_file(order, &key_file, remembered.as_ref(), reload)?, "Issued"),
            };
            let Record { prefix, user, .. } = &issued.record;
            if output.is_json() {
                output
                    .data(|out| Ok(to_json(out, &issued, None)?))
                    .map_err(|error| error.after("the key is delivered"))?;
            }
            output.note(&format!("{done} {prefix} to {user}. The key is in {}.", key_file.path()));
            Ok(issued)
        }
        None if reload.is_some() => {
            Err(Error::new(Code::Usage, "there is no key file whose reader could be told")
                .hint("--reload goes with --key-file, or with a key that went to one before"))
        }
        None => print(writer, order, output, to_json),
    }
}

/// The key that an earlier refresh delivered to this file, and whose reader was not told: the same
/// refresh again, or one that asks for nothing else, goes on with that one.
fn waiting_for_reload(writer: &Writer<'_>, order: &Order, key_file: &KeyFile) -> Option<Record> {
    let unfinished = writer.unfinished(&order.user).filter(|unfinished| order.is_met_by(&unfinished.key))?;
    let waits =
        matches!(unfinished.end, End::AwaitsReload) && unfinished.key.key_file.as_ref() == Some(key_file);
    waits.then(|| unfinished.key.clone())
}

/// Issues a key and prints it: in one write, from one buffer, which is wiped.
fn print(writer: &mut Writer<'_>, order: &Order, output: &Output, to_json: ToJson) -> Result<Issued> {
    output.check_takes_key()?;
    output.check_is_none_of(&writer.database_files())?;
    let issued = writer.issue(order, |key, issued| {
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

/// Begins to write, and tells what was found unfinished.
pub fn begin<'store>(store: &'store mut Store, output: &Output) -> Result<Writer<'store>> {
    Writer::begin(store, Timestamp::now, |recovered| output.note(&told(recovered)))
}

/// Sees to what earlier runs left, and tells what has come to its end.
pub fn recover(store: &mut Store, output: &Output) -> Result<()> {
    Writer::begin(store, Timestamp::now, |recovered| {
        if matches!(recovered.end, End::Finished | End::Undone) {
            output.note(&told(recovered));
        }
    })?;
    Ok(())
}

fn told(recovered: &Recovered) -> String {
    let Record { prefix, user, .. } = &recovered.key;
    let path = recovered.key.path();
    match &recovered.end {
        End::Finished => {
            format!("Finished the delivery of {prefix} of {user} to {path}, which was interrupted.")
        }
        End::Undone => {
            format!(
                "Revoked {prefix} of {user}: its delivery to {path} was interrupted, and it is gone or has expired."
            )
        }
        End::AwaitsReload => {
            format!(
                "{prefix} of {user} is in {path}, and its reader was not told: \
                 `apikey refresh {user} --reload COMMAND` does that."
            )
        }
        End::Stuck(reason) => format!("{prefix} of {user} is still on its way to {path}: {reason}"),
    }
}

/// How long the JSON can be: a byte of text makes at the most the six of `\u001b`.
fn longest_json(issued: &Issued) -> usize {
    let record = &issued.record;
    let name = record.name.as_ref().map_or(0, String::len);
    let key_file = record.key_file.as_ref().map_or(0, |key_file| key_file.path().len());
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
            key_file: record.key_file.as_ref().map(KeyFile::path),
        }
    }
}
