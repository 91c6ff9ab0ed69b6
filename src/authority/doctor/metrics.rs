//! What doctor has found, as Prometheus reads it: a file for node_exporter's textfile collector.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, "Text-based format".
//!
//! It replaces nothing but a file that begins as it writes one, keeps the mode and the owner of that, and is put in
//! place whole. It names users, and no prefixes.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use super::super::{Authority, Filter};
use super::{Check, Health};
use crate::error::{Code, Error, Result};
use crate::key_file::Folder;
use crate::signals::HeldOff;
use crate::store::{Location, Status};
use crate::timestamp::Timestamp;

/// The first line, by which a file is known to be one of ours.
const FIRST_LINE: &str = "# What `apikey doctor` has found.\n";
const NEW_MODE: u32 = 0o640;

/// What checks have found, and how many of each.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<(&'static str, Health), u64>);

impl Metrics {
    /// Counts what a check has found.
    pub fn count(&mut self, check: &Check) {
        for health in [Health::Warning, Health::Problem] {
            *self.0.entry((check.check, health)).or_default() += u64::from(check.status == health);
        }
    }

    /// Writes them to a file, with what `authority` says of the keys, where there is one.
    ///
    /// Fails with [`Code::Usage`] where another file is there, with [`Code::Forbidden`] where others may write its
    /// folder.
    pub fn write(
        &self,
        database: &Path,
        authority: Option<&Authority>,
        now: Timestamp,
        path: &Path,
    ) -> Result<()> {
        // What of the keys makes no sense, a check has found.
        let text = self.text(authority, now).or_else(|_| self.text(None, now))?;
        let (folder, path) = Folder::of(path)?;
        let name = path.file_name().unwrap_or_default();
        let failed = |error: io::Error| Error::io(&error, "write", &path, Code::Usage);
        let is_own = |place: Location| place.owns_in(&folder, name);
        if Location::new(database).map_or(Ok(false), is_own).map_err(failed)? {
            let message = format!("{} belongs to the database, or would", path.display());
            return Err(Error::new(Code::Usage, message).hint("name another file"));
        }
        let before = match folder.status(name).map_err(failed)? {
            None => None,
            Some(_) => Some(ours(folder.read(name).map_err(failed)?, &path)?),
        };
        let stage = Folder::unused_name(name)?;
        // Who is ended by one leaves no stage.
        let _signals = HeldOff::those_that_end().map_err(failed)?;
        let write = || {
            let mut file = folder.create(&stage)?;
            if let Some(before) = &before {
                fchown(&file, Some(before.uid()), Some(before.gid()))?;
            }
            let mode = before.as_ref().map_or(NEW_MODE, |before| before.mode() & 0o777);
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            folder.rename(&stage, name)
        };
        write().map_err(|error| {
            drop(folder.remove(&stage));
            failed(error)
        })
    }

    fn text(&self, authority: Option<&Authority>, now: Timestamp) -> Result<String> {
        let mut text = FIRST_LINE.to_owned();
        let mut metric = |name: &str, help: &str, values: &[(String, u64)]| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
            values.iter().for_each(|(labels, value)| text.push_str(&format!("{name}{labels} {value}\n")));
        };
        let seconds = |time: Timestamp| time.unix_millis() / 1000;
        if let Some(authority) = authority {
            let (mut statuses, mut ends) = (BTreeMap::new(), Vec::new());
            let mut overdue = 0;
            authority.list(|keys| {
                let filter = Filter { all: true, ..Filter::default() };
                keys.for_each(None, &filter, |listed| {
                    let key = &listed.key;
                    *statuses.entry(key.status.as_str()).or_default() += 1;
                    if key.stored == Status::Active {
                        let end =
                            key.expires_at.map(|end| (format!("{{user=\"{}\"}}", key.user), seconds(end)));
                        ends.extend(end);
                        overdue += u64::from(listed.due_at.is_some_and(|due_at| due_at <= now));
                    }
                    Ok::<_, Error>(())
                })
            })?;
            let statuses: Vec<(String, u64)> = statuses
                .into_iter()
                .map(|(status, count)| (format!("{{status=\"{status}\"}}"), count))
                .collect();
            let one = |value| [(String::new(), value)];
            metric("apikey_keys", "Keys by status.", &statuses);
            metric("apikey_key_expires_timestamp_seconds", "When the current key of a user ends.", &ends);
            metric("apikey_keys_due", "Current keys that are due.", &one(overdue));
            if let Some(renewed) = authority.last_renewal()? {
                let help = "When a key was last renewed.";
                metric("apikey_last_renewal_timestamp_seconds", help, &one(seconds(renewed)));
            }
            if authority.store.is_replica()?
                && let Some(written) = authority.store.written_at()?
            {
                let help = "When Litestream last wrote this replica.";
                metric("apikey_replica_written_timestamp_seconds", help, &one(seconds(written)));
            }
        }
        let labels = |(check, health): &(&str, Health)| {
            format!("{{check=\"{check}\",status=\"{}\"}}", health.as_str())
        };
        let found: Vec<(String, u64)> = self.0.iter().map(|(of, count)| (labels(of), *count)).collect();
        metric("apikey_checks", "Checks that found a warning or a problem.", &found);
        metric("apikey_doctor_timestamp_seconds", "When this was written.", &[(String::new(), seconds(now))]);
        Ok(text)
    }
}

/// What is known of a file that this program wrote.
fn ours(file: std::fs::File, path: &Path) -> Result<std::fs::Metadata> {
    let failed = |error: io::Error| Error::io(&error, "read", path, Code::Usage);
    let found = file.metadata().map_err(failed)?;
    let mut first = String::new();
    let is_plain = found.is_file() && found.nlink() == 1;
    let is_ours = is_plain
        && file.take(FIRST_LINE.len() as u64).read_to_string(&mut first).is_ok()
        && first == FIRST_LINE;
    match is_ours {
        true => Ok(found),
        false => Err(Error::new(Code::Usage, format!("{} is not a file that doctor wrote", path.display()))
            .hint("name another file")),
    }
}
