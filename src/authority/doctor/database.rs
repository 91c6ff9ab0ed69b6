//! The database, its side files, and the file system that they are in.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::{Check, Each, told};
use crate::error::{Code, Error, Result};
use crate::store::Store;
use crate::timestamp::Timestamp;

/// With less room than this for each, what is written is soon not.
const FEW_BYTES: u64 = 100 << 20;
const NO_BYTES: u64 = 10 << 20;
/// A log is no longer than this where nobody looks at an old state.
const LONG_LOG: u64 = 64 << 20;
/// Less than this is not worth packing.
const LARGE: u64 = 16 << 20;

pub fn check(store: &Store, now: Timestamp, each: Each<'_>) {
    let path = store.location().path();
    let subject = path.display().to_string();
    let opened =
        if store.is_read_only() { "it can be read, not written by you" } else { "it can be written" };
    each(Check::ok("database", &subject, opened));
    each(told("access", &subject, access(path, &subject)));
    side_files(store, each);
    each(told("integrity", &subject, integrity(store, now, &subject)));
    each(told("size", &subject, size(store, &subject)));
    each(told("space", &subject, space(store.location().folder(), &subject)));
    each(told("clock", &subject, clock(store, now, &subject)));
}

fn look_at(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).map_err(|error| Error::io(&error, "look at", path, Code::DbUnavailable))
}

/// Who may read it.
fn access(path: &Path, subject: &str) -> Result<Check> {
    let found = look_at(path)?;
    let (mode, gid) = (found.permissions().mode() & 0o777, found.gid());
    Ok(if mode & 0o004 != 0 {
        let message = "everybody may read who has which key, and the hash of each";
        Check::warning("access", subject, message, format!("chmod o-r {subject}*"))
    } else if mode & 0o040 != 0 {
        Check::ok(
            "access",
            subject,
            format!("its owner, uid {}, and its group, gid {gid}, may read it", found.uid()),
        )
    } else {
        Check::ok("access", subject, format!("its owner alone, uid {}, may read it", found.uid()))
    })
}

/// Who may read the database is to be able to read the log and its index.
fn side_files(store: &Store, each: Each<'_>) {
    let location = store.location();
    let database = look_at(location.path());
    for suffix in ["-wal", "-shm"] {
        let path = location.side_file(suffix);
        let subject = path.display().to_string();
        let look = || {
            let database = database.as_ref().map_err(|error| Error::new(error.code(), error.to_string()))?;
            let found = look_at(&path)?;
            let is_same = |of: fn(&Metadata) -> u32| of(database) == of(&found);
            let is_same = is_same(Metadata::mode) && is_same(Metadata::uid) && is_same(Metadata::gid);
            let [file, database] = [&path, location.path()].map(|path| path.display().to_string());
            Ok(if is_same {
                Check::ok("side file", &subject, "it has the owner and the mode of the database")
            } else {
                let hint =
                    format!("chown --reference={database} {file}; chmod --reference={database} {file}");
                Check::problem(
                    "side file",
                    &subject,
                    "it has not the owner and the mode of the database",
                    hint,
                )
            })
        };
        each(told("side file", &subject, look()));
    }
    let new = location.side_file("-new");
    if new.exists() {
        let subject = new.display().to_string();
        let message = "a run that was killed while it made a database has left it";
        each(Check::warning("side file", &subject, message, format!("rm {subject}")));
    }
}

fn integrity(store: &Store, now: Timestamp, subject: &str) -> Result<Check> {
    let damage = store.read_beside_writers(now, |snapshot| snapshot.damage())?;
    Ok(match damage.as_slice() {
        [] => Check::ok("integrity", subject, "nothing is damaged"),
        lines => {
            let lines: Vec<&str> = lines.iter().flat_map(|text| text.lines()).collect();
            let hint = "restore it from a backup; until then revoke what must end: a revocation finds keys past damage";
            Check::problem("integrity", subject, format!("it is damaged: {}", lines.join("; ")), hint)
        }
    })
}

fn size(store: &Store, subject: &str) -> Result<Check> {
    let size = store.size()?;
    let (bytes, free, log) =
        (size.pages * size.page_size, size.free * size.page_size, size.in_log * size.page_size);
    let shown = format!("{bytes} bytes, of which {free} are free, and {log} in the log");
    Ok(if log > LONG_LOG {
        let hint = "end who has looked at an old state for long: `fuser -v` names who has the log open";
        Check::warning("size", subject, format!("its log has grown: {shown}"), hint)
    } else if bytes > LARGE && free > bytes / 2 {
        let hint = "put a backup in its place, which is packed: the manual of apikey(1) says how";
        Check::warning("size", subject, format!("most of it is free: {shown}"), hint)
    } else {
        Check::ok("size", subject, shown)
    })
}

fn space(folder: &Path, subject: &str) -> Result<Check> {
    let found = statvfs(folder).map_err(|error| {
        Error::io(&error.into(), "look at the file system of", folder, Code::DbUnavailable)
    })?;
    let left = found.blocks_available() as u64 * found.fragment_size() as u64;
    let message = format!("{left} bytes are left on its file system");
    let hint = format!("make room on the file system of {}", folder.display());
    Ok(if left < NO_BYTES {
        Check::problem("space", subject, message, hint)
    } else if left < FEW_BYTES {
        Check::warning("space", subject, message, hint)
    } else {
        Check::ok("space", subject, message)
    })
}

fn clock(store: &Store, now: Timestamp, subject: &str) -> Result<Check> {
    let newest = store.read_beside_writers(now, |snapshot| snapshot.newest_event())?;
    Ok(match newest {
        Some(newest) if newest > now => {
            let message = format!("the newest event is of {newest}, and it is {now}");
            Check::problem("clock", subject, message, "set the host's clock")
        }
        _ => Check::ok("clock", subject, "nothing was written down that is still to come"),
    })
}
