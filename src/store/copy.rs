//! A copy of the whole database, as it stands at one moment.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::Store;
use crate::error::{Code, Error, Result};

impl Store {
    /// Writes all of the database into the empty file at `path`, packed, and not to the disk yet. Writers do not
    /// wait for it. Returns how many keys are in it. <https://sqlite.org/lang_vacuum.html>, "VACUUM with an INTO
    /// clause".
    pub fn copy_into(&self, path: &Path) -> Result<u64> {
        self.check()?;
        let shown = path.display();
        let target = path.to_str().ok_or_else(|| Error::new(Code::Usage, format!("{shown} is not UTF-8")))?;
        let cannot = |error: rusqlite::Error| match self.failed(&error) {
            error if error.code() == Code::DbError => error.after(&format!("{shown} was begun")),
            error => error,
        };
        self.connection()?.execute("VACUUM INTO ?1", [target]).map_err(cannot)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let copy = Connection::open_with_flags(path, flags).map_err(cannot)?;
        let keys = copy.query_one("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0));
        keys.map(i64::unsigned_abs).map_err(cannot)
    }
}
