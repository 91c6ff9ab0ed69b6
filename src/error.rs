//! Why something failed: a code for scripts, a message for people, a hint of what to do.

use std::fmt;
use std::io;
use std::path::Path;

use crate::key::{Prefix, listed};
use crate::text::{printable, without_keys};
use crate::user::User;

/// What kind of failure it was. Part of the contract: scripts match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// A fault of this program's own.
    InternalError,
    /// An I/O error or damage in the database.
    DbError,
    /// Bad arguments, or a question that nobody can be asked.
    Usage,
    /// The user has an active key already.
    KeyExists,
    /// The user has no key to show or revoke, no key has that prefix, or there is no such key file.
    NoKey,
    /// The key that was to be verified is not accepted.
    InvalidKey,
    /// There is no database at that place.
    NoDatabase,
    /// Another process held the database for longer than the caller would wait.
    DbLocked,
    /// Not one of ours, a newer schema, a replica that may not be written, or anything else that keeps the
    /// database from being opened.
    DbUnavailable,
    /// The operating system's permissions, or a database or folder that others may write.
    Forbidden,
    /// The key could not be handed over; nothing changed, but for what `--revoke-first` has ended.
    Undeliverable,
    /// The key is issued and accepted, but not all of its delivery is done.
    DeliveryPending,
    /// The question was answered with no, or Ctrl-C; nothing changed.
    Cancelled,
    /// Something is wrong on the host, or a key that is due could not be renewed.
    Problems,
}

impl Code {
    /// Every code, by exit status.
    pub const ALL: [Code; 14] = [
        Code::InternalError,
        Code::DbError,
        Code::Usage,
        Code::KeyExists,
        Code::NoKey,
        Code::InvalidKey,
        Code::NoDatabase,
        Code::DbLocked,
        Code::DbUnavailable,
        Code::Forbidden,
        Code::Undeliverable,
        Code::DeliveryPending,
        Code::Cancelled,
        Code::Problems,
    ];

    /// The name, the exit status, and when it is that.
    const fn facts(self) -> (&'static str, u8, &'static str) {
        match self {
            Code::InternalError => ("INTERNAL_ERROR", 1, "a fault of the program"),
            Code::DbError => ("DB_ERROR", 1, "an I/O error or damage in the database"),
            Code::Usage => ("USAGE", 2, "bad arguments, or --yes missing where nobody can be asked"),
            Code::KeyExists => ("KEY_EXISTS", 3, "the user has an active key already"),
            Code::NoKey => {
                ("NO_KEY", 4, "the user has no key to show or to revoke; no such prefix; no such key file")
            }
            Code::InvalidKey => ("INVALID_KEY", 5, "verify: the key is not accepted"),
            Code::NoDatabase => ("NO_DATABASE", 6, "there is no database at that place"),
            Code::DbLocked => ("DB_LOCKED", 6, "another process held it past --timeout"),
            Code::DbUnavailable => (
                "DB_UNAVAILABLE",
                6,
                "not one of ours, a newer schema, a replica that may not be written, or anything else that keeps it \
                 from being opened",
            ),
            Code::Forbidden => (
                "FORBIDDEN",
                7,
                "the operating system's permissions, or a database or folder that others may write",
            ),
            Code::Undeliverable => (
                "UNDELIVERABLE",
                8,
                "the key could not be handed over; nothing changed, but for what --revoke-first has ended",
            ),
            Code::DeliveryPending => {
                ("DELIVERY_PENDING", 9, "the key is issued and accepted, but not all of its delivery is done")
            }
            Code::Cancelled => {
                ("CANCELLED", 10, "the question was answered with no, or Ctrl-C; nothing changed")
            }
            Code::Problems => {
                ("PROBLEMS", 11, "doctor: something is wrong; renew: a key that is due could not be renewed")
            }
        }
    }

    /// The code as scripts read it, such as `KEY_EXISTS`.
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The exit status of the program that fails with this code.
    pub const fn exit_status(self) -> u8 {
        self.facts().1
    }

    /// When a failure has this code, in half a sentence.
    pub const fn meaning(self) -> &'static str {
        self.facts().2
    }
}

/// A failure. Its message says what failed and on what, its hint what to do about it.
/// Neither holds a key, nor a character that could steer a terminal.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    hint: Option<String>,
    revoked: Vec<Prefix>,
    interrupted: bool,
}

/// What the fallible functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// How the message begins of a failure after which nothing has changed.
const NONE_ISSUED: &str = "the key cannot be handed over, so none was issued: ";

impl Error {
    /// A failure of kind `code`; `message` says what failed, on what.
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Error { code, message: safe(message.as_ref()), hint: None, revoked: Vec::new(), interrupted: false }
    }

    /// A key that reaches nobody, for this reason, and so was not issued.
    pub(crate) fn undeliverable(why: impl fmt::Display) -> Self {
        Error::new(Code::Undeliverable, format!("{NONE_ISSUED}{why}"))
    }

    /// Why a key reaches nobody, and no more.
    pub(crate) fn why(&self) -> &str {
        self.message.strip_prefix(NONE_ISSUED).unwrap_or(&self.message)
    }

    /// An operating system's error while `doing` something (`"read"`, `"make"`) to `path`:
    /// [`Code::Forbidden`] where permissions are the reason, else `code`.
    pub fn io(error: &io::Error, doing: &str, path: &Path, code: Code) -> Self {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        let forbidden = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem);
        let code = if forbidden { Code::Forbidden } else { code };
        Error::new(code, format!("cannot {doing} {}: {error}", path.display()))
    }

    /// The same failure, of which this was done before it.
    #[must_use]
    pub fn after(mut self, done: &str) -> Self {
        self.message = format!("{done}, but {}", self.message);
        self
    }

    /// The same failure, before which these keys of `user` ended, and `how`.
    pub(crate) fn after_revoking(self, user: &User, keys: Vec<Prefix>, how: &str) -> Self {
        if keys.is_empty() {
            return self;
        }
        let done = format!("{} of {user} {how}", listed(keys.iter().copied()));
        Error { revoked: keys, ..self.after(&done) }
    }

    /// The same failure, which a signal brought about that was to end the process.
    pub(crate) fn interrupted(self) -> Self {
        Error { interrupted: true, ..self }
    }

    /// Whether a signal brought it about that was to end the process.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// The same failure with a line that says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(safe(hint.as_ref()));
        self
    }

    /// The same failure with several such lines.
    #[must_use]
    pub fn hints<S: AsRef<str>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(|line| safe(line.as_ref())).collect();
        self.hint = (!lines.is_empty()).then(|| lines.join("\n"));
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The keys that were revoked before it came to it, and stay revoked.
    pub fn revoked(&self) -> &[Prefix] {
        &self.revoked
    }

    /// What to do about it, where there is something to do: a line or more.
    pub fn what_to_do(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Somebody may have given a key where a path or a user belongs.
fn safe(text: &str) -> String {
    printable(&without_keys(text)).into_owned()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
