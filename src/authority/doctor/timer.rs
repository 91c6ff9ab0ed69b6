//! The package's timer, where there is systemd.

use std::path::Path;
use std::process::Command;

use super::{Check, Each, told};
use crate::error::{Code, Error, Result};
use crate::patience::{A_WHILE, within};
use crate::store::Location;

const TIMER: &str = "apikey-renew.timer";
const SERVICE: &str = "apikey-renew.service";
/// What the service renews where nothing else is said.
const DATABASE: &str = "/var/lib/apikey/keys.db";
/// There where the host was booted with it: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Checks that it renews the keys in this database, of so many users.
pub fn check(location: &Location, renewed: u64, each: Each<'_>) {
    let found = if renewed == 0 {
        Ok(Check::ok("timer", TIMER, "nobody has a renewal age"))
    } else if !Path::new(BOOTED).exists() {
        Ok(Check::ok("timer", TIMER, "there is no systemd here, and nothing is known of cron"))
    } else {
        look(location, renewed)
    };
    each(told("timer", TIMER, found));
}

fn look(location: &Location, renewed: u64) -> Result<Check> {
    let environment = property(SERVICE, "Environment")?;
    let served = environment.split(' ').find_map(|said| said.strip_prefix("APIKEY_DB=")).unwrap_or(DATABASE);
    let is_served = Location::new(Path::new(served)).is_ok_and(|served| served.path() == location.path());
    if !is_served {
        let message = format!(
            "{SERVICE} renews the keys in {served}, and nothing is known to renew those in this database"
        );
        let hint = format!("systemctl edit {SERVICE}: in the unit it says how; or a line for cron");
        return Ok(Check::warning("timer", TIMER, message, hint));
    }
    let (enabled, active) = (property(TIMER, "UnitFileState")?, property(TIMER, "ActiveState")?);
    Ok(if (enabled.as_str(), active.as_str()) == ("enabled", "active") {
        Check::ok("timer", TIMER, format!("it renews the keys of {renewed} users"))
    } else {
        let state =
            if enabled.is_empty() { "not installed".to_owned() } else { format!("{enabled} and {active}") };
        let message = format!("it is {state}, and nothing is known to renew the keys of {renewed} users");
        Check::problem("timer", TIMER, message, format!("systemctl enable --now {TIMER}"))
    })
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
