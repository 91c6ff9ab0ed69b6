//! The package's timer, where there is systemd.

use std::path::Path;
use std::process::Command;

use super::{About, Check, Each};
use crate::error::{Code, Error, Result};
use crate::patience::{A_WHILE, within};
use crate::store::Location;
use crate::text::count;

const TIMER: &str = "apikey-renew.timer";
const SERVICE: &str = "apikey-renew.service";
/// What the service renews where nothing else is said.
const DATABASE: &str = "/var/lib/apikey/keys.db";
/// There where the host was booted with it: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Checks that it renews the keys in this database, of so many users; of an unknown number where that is `None`.
pub fn check(location: &Location, renewed: Option<u64>, each: Each<'_>) {
    let about = About("timer", TIMER);
    each(if renewed == Some(0) {
        about.ok("nobody has a renewal age")
    } else if !Path::new(BOOTED).exists() {
        about.ok("there is no systemd here, and nothing is known of cron")
    } else {
        about.by(|about| look(about, location, renewed))
    });
}

fn look(about: About<'_>, location: &Location, renewed: Option<u64>) -> Result<Check> {
    const CRON: &str = "or a line for cron: the README has both";
    let users = renewed.map_or_else(|| "users".to_owned(), |renewed| count(renewed, "user"));
    let of_users = format!("nothing is known to renew the keys of {users} in this database");
    if property(TIMER, "LoadState")? == "not-found" {
        return Ok(about.warning(
            format!("it is not installed, and {of_users}"),
            format!("install the package, {CRON}"),
        ));
    }
    let environment = property(SERVICE, "Environment")?;
    let served = database_in(&environment).unwrap_or_else(|| DATABASE.to_owned());
    let is_served = Location::new(Path::new(&served)).is_ok_and(|served| served.path() == location.path());
    if !is_served {
        let message = format!("{SERVICE} renews the keys in {served}, and {of_users}");
        return Ok(about.warning(message, format!("systemctl edit {SERVICE}, {CRON}")));
    }
    let (enabled, active) = (property(TIMER, "UnitFileState")?, property(TIMER, "ActiveState")?);
    Ok(if (enabled.as_str(), active.as_str()) == ("enabled", "active") {
        about.ok(format!("it renews the keys of {users}"))
    } else {
        let message = format!("it is {enabled} and {active}, and {of_users}");
        about.problem(message, format!("systemctl enable --now {TIMER}"))
    })
}

/// The database that `environment` names, as systemctl(1) prints that: with quotes around what has a blank.
fn database_in(environment: &str) -> Option<String> {
    let mut is_quoted = false;
    let mut words = environment.split(|c| {
        is_quoted ^= c == '"';
        c == ' ' && !is_quoted
    });
    words.find_map(|word| word.trim_matches('"').strip_prefix("APIKEY_DB=").map(str::to_owned))
}

fn property(unit: &'static str, name: &'static str) -> Result<String> {
    let ask = move || Command::new("systemctl").args(["show", "--value", "--property", name, unit]).output();
    let cannot = |why: String| {
        Error::new(Code::InternalError, format!("systemctl does not say {name} of {unit}: {why}"))
    };
    match within(A_WHILE, ask) {
        Ok(Some(Ok(output))) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(Some(Ok(output))) => Err(cannot(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Ok(None) => Err(cannot("it does not answer".to_owned())),
        Ok(Some(Err(error))) | Err(error) => Err(cannot(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_found_in_an_environment_with_blanks_and_other_names() {
        for (environment, database) in [
            ("", None),
            ("APIKEY_DB=/a/keys.db", Some("/a/keys.db")),
            ("OLD_APIKEY_DB=/b APIKEY_DB=/a", Some("/a")),
            (r#"A=1 "APIKEY_DB=/a b/keys.db" C=2"#, Some("/a b/keys.db")),
            (r#""A=b APIKEY_DB=/b c" APIKEY_DB=/a"#, Some("/a")),
        ] {
            assert_eq!(database_in(environment).as_deref(), database, "{environment}");
        }
    }
}
