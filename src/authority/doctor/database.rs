//! The database, its side files, and the file system that they are in.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::{About, Check, Each, quoted};
use crate::error::{Code, Error, Result};
use crate::key::listed;
use crate::store::{Location, Store};
use crate::text::count;
use crate::timestamp::Timestamp;

/// With less room than this for each, what is written is soon not.
const FEW_BYTES: u64 = 100 << 20;
const NO_BYTES: u64 = 10 << 20;
/// A log is no longer than this where nobody looks at an old state.
const LONG_LOG: u64 = 64 << 20;
/// Less than this is not worth packing.
const LARGE: u64 = 16 << 20;

/// Checks what can be seen of the files, also where the database cannot be opened.
pub fn check_files(location: &Location, store: Option<&Store>, each: Each<'_>) {
    let path = location.path();
    let subject = path.display().to_string();
    let about = |check| About(check, &subject);
    // What else lies there is nobody's to change.
    if let Some(store) = store {
        let may = if store.is_read_only() { "read, not written" } else { "written" };
        each(about("database").ok(format!("it can be {may} by you")));
        each(about("access").by(|about| access(about, store)));
        // One that was restored has none until it is written.
        for suffix in ["-wal", "-shm"].into_iter().filter(|_| store.has_log()) {
            let file = location.side_file(suffix);
            let subject = file.display().to_string();
            each(About("side file", &subject).by(|about| side_file(about, &file, path)));
        }
    }
    let new = location.side_file("-new");
    if new.exists() {
        let subject = new.display().to_string();
        let message = "a run that was killed while it made a database has left it";
        each(About("side file", &subject).warning(message, format!("rm {}", quoted(&new))));
    }
    each(about("space").by(|about| space(about, location.folder())));
}

/// Checks what the database says.
pub fn check(store: &Store, now: Timestamp, clock: fn() -> Result<Timestamp>, each: Each<'_>) {
    let subject = store.location().path().display().to_string();
    let about = |check| About(check, &subject);
    each(about("integrity").by(|about| integrity(about, store, now)));
    each(about("rows").by(|about| rows(about, store, now)));
    each(about("size").by(|about| size(about, store)));
    each(about("clock").by(|about| is_past(about, store, now, clock)));
}

/// How old what a replica holds is. Whether that is too old, only who knows the original can tell.
pub fn replica(store: &Store, now: Timestamp, each: Each<'_>) {
    let subject = store.location().path().display().to_string();
    let ago = |at: Timestamp| {
        let age = now.since(at).unwrap_or_default();
        format!("{at}, {} ago", count(age.as_secs(), "second"))
    };
    each(About("replica", &subject).by(|about| {
        let newest = store.read_beside_writers(now, |snapshot| snapshot.newest_event())?;
        let newest = newest
            .map_or("it has no change yet".to_owned(), |at| format!("its newest change is of {}", ago(at)));
        let written = store
            .written_at()?
            .map_or(String::new(), |at| format!("; Litestream last wrote it on {}", ago(at)));
        Ok(about.ok(format!("it is a replica, which is only read; {newest}{written}")))
    }));
}

fn look_at(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).map_err(|error| Error::io(&error, "look at", path, Code::DbUnavailable))
}

/// Who may read it, and write it.
fn access(about: About<'_>, store: &Store) -> Result<Check> {
    let found = look_at(store.location().path())?;
    let (mode, uid, gid) = (found.permissions().mode(), found.uid(), found.gid());
    let suffixes: &[&str] = if store.has_log() { &["", "-wal", "-shm"] } else { &[""] };
    let files: Vec<String> =
        suffixes.iter().map(|suffix| quoted(&store.location().side_file(suffix))).collect();
    let files = files.join(" ");
    Ok(if mode & 0o002 != 0 {
        about.problem("everybody may write it", format!("chmod o-rw {files}"))
    } else if mode & 0o004 != 0 {
        let message = "everybody may read who has which key, and the hash of each";
        about.warning(message, format!("chmod o-r {files}"))
    } else if mode & 0o020 != 0 {
        about
            .ok(format!("whoever is in its group, gid {gid}, may issue and revoke like its owner, uid {uid}"))
    } else if mode & 0o040 != 0 {
        about.ok(format!("its owner, uid {uid}, and its group, gid {gid}, may read it"))
    } else {
        about.ok(format!("its owner alone, uid {uid}, may read it"))
    })
}

/// Who may read the database is to be able to read the log and its index.
fn side_file(about: About<'_>, file: &Path, database: &Path) -> Result<Check> {
    let (found, of_database) = (look_at(file)?, look_at(database)?);
    let is_same = |of: fn(&Metadata) -> u32| of(&of_database) == of(&found);
    Ok(if is_same(Metadata::mode) && is_same(Metadata::uid) && is_same(Metadata::gid) {
        about.ok("it has the owner and the mode of the database")
    } else {
        let (file, database) = (quoted(file), quoted(database));
        let hint = format!("chown --reference={database} {file}; chmod --reference={database} {file}");
        about.problem("it has not the owner and the mode of the database", hint)
    })
}

fn integrity(about: About<'_>, store: &Store, now: Timestamp) -> Result<Check> {
    const HINT: &str =
        "restore it from a backup; what must end until then, revoke: that finds keys past damage";
    match store.read_at_length(now, |snapshot| snapshot.damage()) {
        Ok(lines) if lines.is_empty() => Ok(about.ok("nothing is damaged")),
        Ok(lines) => {
            let lines: Vec<&str> = lines.iter().flat_map(|text| text.lines()).collect();
            Ok(about.problem(format!("it is damaged: {}", lines.join("; ")), HINT))
        }
        Err(error) if error.code() == Code::DbError => Ok(about.problem(error.to_string(), HINT)),
        Err(error) => Err(error),
    }
}

/// Whether all that is stored can be read.
fn rows(about: About<'_>, store: &Store, now: Timestamp) -> Result<Check> {
    let ([keys, events], first) = store.read_at_length(now, |snapshot| snapshot.senseless())?;
    if (keys, events) == (0, 0) {
        return Ok(about.ok("all that is stored makes sense"));
    }
    let named = if first.is_empty() { String::new() } else { format!(" ({})", listed(first)) };
    let message = format!(
        "{}{named} and {} that are stored make no sense: `apikey list --all` and `apikey log` end there",
        count(keys, "key"),
        count(events, "event")
    );
    Ok(about.problem(message, "restore the database from a backup"))
}

fn size(about: About<'_>, store: &Store) -> Result<Check> {
    let size = store.size()?;
    let [bytes, free] = [size.pages, size.free].map(|pages| pages * size.page_size);
    let log = size.log;
    let shown = format!("{bytes} bytes, of which {free} are free, and {log} in the log");
    Ok(if log > LONG_LOG {
        let hint = "end who has looked at an old state for long: `fuser -v` names who has the log open";
        about.warning(format!("its log has grown: {shown}"), hint)
    } else if bytes > LARGE && free > bytes / 2 {
        about.warning(format!("most of it is free: {shown}"), "put a backup in its place, which is packed")
    } else {
        about.ok(shown)
    })
}

fn space(about: About<'_>, folder: &Path) -> Result<Check> {
    let found = statvfs(folder).map_err(|error| {
        Error::io(&error.into(), "look at the file system of", folder, Code::DbUnavailable)
    })?;
    let left = found.blocks_available() as u64 * found.fragment_size() as u64;
    let message = format!("{left} bytes are left on its file system");
    let hint = format!("make room on the file system of {}", folder.display());
    Ok(if left < NO_BYTES {
        about.problem(message, hint)
    } else if left < FEW_BYTES {
        about.warning(message, hint)
    } else {
        about.ok(message)
    })
}

/// Whether all that was written down is past.
fn is_past(
    about: About<'_>,
    store: &Store,
    now: Timestamp,
    clock: fn() -> Result<Timestamp>,
) -> Result<Check> {
    let newest = store.read_beside_writers(now, |snapshot| snapshot.newest_event())?;
    // Others write meanwhile.
    let now = clock()?;
    Ok(match newest {
        Some(newest) if newest > now => {
            about.problem(format!("the newest event is of {newest}, and it is {now}"), "set the host's clock")
        }
        _ => about.ok("nothing was written down that is still to come"),
    })
}
