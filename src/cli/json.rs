//! JSON that is safe to print: what could steer a terminal is written as `\u` escapes (RFC 8259,
//! section 7).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::output::{Output, Stopped};
use crate::text::is_unprintable;

struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unprintable(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Writes `value` as one line.
pub fn write_line(writer: &mut (impl Write + ?Sized), value: &impl Serialize) -> io::Result<()> {
    write(writer, value)?;
    writer.write_all(b"\n")
}

/// Writes `value`.
pub fn write(writer: &mut (impl Write + ?Sized), value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, Printable)).map_err(io::Error::from)
}

/// Writes an object whose one member is an array of what `each` hands over, one by one.
pub fn write_array<T: Serialize>(
    output: &Output,
    member: &str,
    each: impl FnOnce(&mut dyn FnMut(T) -> Result<(), Stopped>) -> Result<(), Stopped>,
) -> crate::error::Result<()> {
    output.data(|out| {
        out.write_all(format!("{{\"{member}\":[").as_bytes())?;
        let mut separator: &[u8] = b"";
        each(&mut |item| {
            out.write_all(separator)?;
            separator = b",";
            Ok(write(out, &item)?)
        })?;
        Ok(out.write_all(b"]}\n")?)
    })
}

/// `value` as text.
#[allow(clippy::expect_used, reason = "structs of strings always serialize, to memory and to UTF-8")]
pub fn to_string(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes, value).expect("memory takes every write");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}
