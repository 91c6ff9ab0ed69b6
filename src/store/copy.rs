//! A copy of the whole database, as it stands at one moment.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Store, failure};
use crate::error::{Code, Error, Result};

impl Store {
    /// Writes all of the database into the empty file at `path`, which is to be `copy`: packed, and not to the disk
    /// yet. Writers do not wait for it. Returns how many keys are in it. <https://sqlite.org/lang_vacuum.html>, "VACUUM with an INTO
    /// clause".
    ///
    /// Fails with [`Code::DbError`] where it cannot be written, or the database not be read to its end.
    pub fn copy_into(&self, path: &Path, copy: &Path) -> Result<u64> {
        self.check()?;
        let (database, copy) = (self.location.path().display(), copy.display());
        let target = path.to_string_lossy().into_owned();
        let cannot = |error: rusqlite::Error| match failure::is_lock(&error) {
            true => self.failed(&error),
            false => Error::new(Code::DbError, format!("cannot copy {database} into {copy}: {error}"))
                .hint("see that there is room for the copy"),
        };
        self.connection()?.execute("VACUUM INTO ?1", [target]).map_err(cannot)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let written = Connection::open_with_flags(path, flags).map_err(cannot)?;
        let keys = written.query_one("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0));
        keys.map(i64::unsigned_abs).map_err(cannot)
    }
}
