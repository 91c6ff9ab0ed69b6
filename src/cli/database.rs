//! Where the database is when nobody says where.

use std::path::PathBuf;

use directories::ProjectDirs;
use nix::unistd::geteuid;

use crate::error::{Code, Error, Result};

/// Where the database is to be.
pub struct Database {
    pub path: PathBuf,
    /// Its folder, where that is to be made for it.
    pub default_folder: Option<PathBuf>,
}

impl Database {
    /// Where it is when nobody says where.
    pub fn default() -> Result<Self> {
        let folder = if geteuid().is_root() {
            PathBuf::from("/var/lib/apikey")
        } else {
            let folders = ProjectDirs::from("", "", "apikey");
            let folders = folders.filter(|folders| folders.data_local_dir().is_absolute());
            let folders = folders.ok_or_else(|| {
                Error::new(Code::Usage, "there is no home folder to keep the database in")
                    .hint("name the database with --db")
            })?;
            folders.data_local_dir().to_owned()
        };
        Ok(Database { path: folder.join("keys.db"), default_folder: Some(folder) })
    }
}
