//! `apikey verify --stream`: a key a line in, an answer a line out.
//!
//! A batch is the lines that one read has completed. It is answered in one read transaction and written at once, so
//! that who waits for an answer before the next key gets it, and a revocation counts from the next batch on.

use std::io;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{LONGEST, verdict_json, without_end};
use crate::cli::args::Global;
use crate::cli::output::Output;
use crate::cli::{json, stream};
use crate::error::{Code, Error, Result};
use crate::timestamp::Timestamp;
use crate::verifier::{Verdict, Verifier};

/// As much as a pipe holds: pipe(7).
const AT_A_TIME: usize = 64 * 1024;
const A_MOMENT: Duration = Duration::from_millis(50);

pub fn run(global: &Global, output: &Output) -> Result<()> {
    let verifier = global.open_verifier()?;
    let mut input = Input { text: Zeroizing::new(vec![0; LONGEST + AT_A_TIME]), begun: 0..0 };
    output.data(|out| {
        while let Some(lines) = input.next().map_err(cannot_read)? {
            for verdict in verify_all(&verifier, &lines, global.timeout)? {
                json::write_line(out, &verdict_json(&verdict))?;
            }
            out.flush()?;
        }
        Ok(())
    })?;
    verifier.write_uses();
    Ok(())
}

/// What became of each of these. An error of the database is one where it lasts until `timeout` is over.
fn verify_all(verifier: &Verifier, lines: &[&[u8]], timeout: Duration) -> Result<Vec<Verdict>> {
    let start = Instant::now();
    loop {
        match verifier.verify_all(lines, Timestamp::now()?) {
            Err(_) if start.elapsed() < timeout => thread::sleep(A_MOMENT),
            verified => return verified,
        }
    }
}

/// Standard input, line by line.
struct Input {
    text: Zeroizing<Vec<u8>>,
    /// Where in the text the last line has begun, and how far it was read.
    begun: Range<usize>,
}

impl Input {
    /// The lines that one read has completed, without their ends; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Vec<&[u8]>>> {
        // So much of a line is enough to be no key.
        let begun = self.begun.len().min(LONGEST);
        self.text.copy_within(self.begun.start..self.begun.start + begun, 0);
        let read = stream::read(&mut self.text[begun..begun + AT_A_TIME])?;
        let text = &self.text[..begun + read];
        if text.is_empty() {
            return Ok(None);
        }
        let is_end = |byte: &u8| *byte == b'\n';
        let whole = match read {
            0 => text.len(),
            _ => text.iter().rposition(is_end).map_or(0, |end| end + 1),
        };
        self.begun = whole..text.len();
        Ok(Some(text[..whole].split_inclusive(is_end).map(without_end).collect()))
    }
}

fn cannot_read(error: io::Error) -> Error {
    Error::new(Code::InternalError, format!("cannot read keys from standard input: {error}"))
}
