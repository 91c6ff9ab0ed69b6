//! A copy of the whole database, as it stands at one moment.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::PollTimeout;
use rusqlite::ErrorCode::OperationInterrupted;
use rusqlite::{Connection, OpenFlags};

use super::{Store, failure};
use crate::error::{Code, Error, Result};
use crate::signals::{HeldOff, Woken};

impl Store {
    /// Writes all of the database into the empty file at `path`, which is to be `copy`: packed, and not to the disk
    /// yet. Writers do not wait for it. Returns how many keys are in it. <https://sqlite.org/lang_vacuum.html>, "VACUUM with an INTO
    /// clause".
    ///
    /// Fails with [`Code::DbError`] where it cannot be written, or the database not be read to its end, and with
    /// [`Code::Cancelled`] when a signal comes that is held off.
    pub fn copy_into(&self, path: &Path, copy: &Path, signals: &HeldOff) -> Result<u64> {
        self.check()?;
        let (database, copy) = (self.location.path().display(), copy.display());
        let target = path.to_string_lossy().into_owned();
        let cannot = |error: rusqlite::Error| match error.sqlite_error_code() {
            _ if failure::is_lock(&error) => self.failed(&error),
            Some(OperationInterrupted) => Error::new(Code::Cancelled, "no copy was made"),
            _ => Error::new(Code::DbError, format!("cannot copy {database} into {copy}: {error}"))
                .hint("see that there is room for the copy"),
        };
        let connection = self.connection()?;
        let (copying, end) =
            io::pipe().map_err(|error| Error::io(&error, "make a pipe for", path, Code::DbError))?;
        let (interrupt, is_over) = (connection.get_interrupt_handle(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let woken = signals.wait(copying.as_fd(), PollTimeout::NONE);
                // SQLite is not interrupted before it has begun.
                while matches!(woken, Ok(Woken::ByInterrupt | Woken::ByEnding))
                    && !is_over.load(Ordering::Relaxed)
                {
                    interrupt.interrupt();
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let copied = connection.execute("VACUUM INTO ?1", [target]).map_err(cannot);
            is_over.store(true, Ordering::Relaxed);
            drop(end);
            copied
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let written = Connection::open_with_flags(path, flags).map_err(cannot)?;
        let keys = written.query_one("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0));
        keys.map(i64::unsigned_abs).map_err(cannot)
    }
}
