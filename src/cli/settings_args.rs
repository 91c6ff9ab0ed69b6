//! The arguments that say what is kept of a user from one key to the next.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use nix::unistd::{Group, Uid, User as Account};

use super::args::{duration, key_file_path, lifetime, some_duration};
use super::output::Output;
use crate::error::Result;
use crate::key_file::{EnvName, KeyFilePath, Mode, Owner};
use crate::name::Name;
use crate::settings::{Change, Changes, ReloadCommand};

/// What is to be kept of a user.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    #[command(flatten)]
    editable: EditableArgs,

    /// Write the key to PATH, not standard output
    ///
    /// At every moment, even if the power fails, the file holds a key that is accepted, until that
    /// expires or is revoked. It is replaced, never rewritten, so that a reader sees all of the old
    /// key or all of the new one. Nothing is replaced but a key file: a link, a device, a file with something
    /// else or another user's accepted key in it, or one in a folder that others may write is refused before
    /// a key is issued.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = key_file_path())]
    #[arg(display_order = 22)]
    key_file: Option<PathBuf>,

    /// Print the key again, and write no file
    ///
    /// How the file was written and its reader told is forgotten, too.
    #[arg(long, conflicts_with = "key_file", hide_short_help = true, display_order = 26)]
    #[arg(conflicts_with_all = ["key_file_mode", "key_file_owner", "key_file_env", "reload"])]
    no_key_file: bool,

    /// Write NAME=key, for EnvironmentFile=
    ///
    /// One line, with a newline at its end; for systemd's EnvironmentFile= and a container's
    /// --env-file. Else the file holds the key and nothing else.
    #[arg(long, value_name = "NAME", display_order = 25)]
    key_file_env: Option<EnvName>,

    /// Write the key and nothing else
    #[arg(long, conflicts_with = "key_file_env", hide_short_help = true, display_order = 26)]
    no_key_file_env: bool,
}

/// What of it can be changed with no new key.
#[derive(Debug, Args)]
pub struct EditableArgs {
    /// Label the key
    ///
    /// Up to 100 printable characters. Labels need not differ.
    #[arg(long, value_name = "NAME", display_order = 20)]
    name: Option<Name>,

    /// Have no label
    #[arg(long, conflicts_with = "name", hide_short_help = true, display_order = 20)]
    no_name: bool,

    /// Stop accepting it after, say, 90d or 12h
    ///
    /// The keys that follow it live as long, each from its own issue on. `never` ends that.
    #[arg(long, value_name = "DURATION", value_parser = lifetime, display_order = 21)]
    expires_in: Option<Change<Duration>>,

    /// Set the file's permissions
    ///
    /// 0600 where nothing was ever said. Three or four octal digits: read and write for owner and group, nothing for others; the owner
    /// must be able to read.
    #[arg(long, value_name = "MODE", display_order = 23)]
    key_file_mode: Option<Mode>,

    /// Give the file to USER[:GROUP]
    ///
    /// Names or numbers; without GROUP, the user's own group. It is the caller's where nobody was ever named.
    #[arg(long, value_name = "OWNER", value_hint = ValueHint::Username, value_parser = owner)]
    #[arg(display_order = 24)]
    key_file_owner: Option<Owner>,

    /// Run COMMAND when the next key is delivered
    ///
    /// It runs when the next key is in the file, and before the old one ends: not at the first delivery,
    /// where there is no reader yet. /bin/sh runs it, with APIKEY_USER, APIKEY_PREFIX and APIKEY_KEY_FILE in
    /// its environment; never the key. What it says on standard error is heard, but not with --json. Where
    /// it fails, both keys stay accepted, the exit status is 9, and the next refresh of that user goes on
    /// from there. It is kept, and run on this machine alone, and only where nobody else may write the
    /// database. For a service that reads its key only when it starts: --reload 'systemctl restart web'.
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString, display_order = 27)]
    reload: Option<ReloadCommand>,

    /// Tell nobody of the next key
    #[arg(long, conflicts_with_all = ["reload", "reload_timeout"], hide_short_help = true)]
    #[arg(display_order = 28)]
    no_reload: bool,

    /// End that command after this long, 2m unless set
    ///
    /// It ends with its children, but for one that has left its process group, and has failed then.
    #[arg(long, value_name = "DURATION", value_parser = some_duration, hide_short_help = true)]
    #[arg(display_order = 28)]
    reload_timeout: Option<Duration>,

    /// Let `renew` replace it from this age on
    ///
    /// It is to be in a key file, and to be renewed before it ends. `never` ends that. The package's timer
    /// runs `renew` each hour.
    #[arg(long, value_name = "DURATION", value_parser = lifetime, display_order = 29)]
    renew_after: Option<Change<Duration>>,

    /// Accept the old key that much longer then, 1d unless set
    ///
    /// At a renewal, and wherever `ensure` replaces a key. It does not outlive its own end.
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    #[arg(display_order = 30)]
    renew_grace: Option<Duration>,
}

impl SettingsArgs {
    /// What becomes of what is kept. Fails where the key file can be at no such path.
    pub fn changes(self) -> Result<Changes> {
        let key_file = self.key_file.as_deref().map(KeyFilePath::new).transpose()?;
        Ok(Changes {
            key_file: change(key_file, self.no_key_file),
            key_file_env: change(self.key_file_env, self.no_key_file_env),
            ..self.editable.changes()
        })
    }
}

impl EditableArgs {
    /// What becomes of what is kept.
    pub fn changes(self) -> Changes {
        Changes {
            name: change(self.name, self.no_name),
            lifetime: self.expires_in.unwrap_or_default(),
            key_file: Change::Keep,
            key_file_mode: self.key_file_mode,
            key_file_owner: self.key_file_owner,
            key_file_env: Change::Keep,
            reload: change(self.reload, self.no_reload),
            reload_timeout: self.reload_timeout,
            renew_after: self.renew_after.unwrap_or_default(),
            renew_grace: self.renew_grace,
        }
    }
}

/// The package's timer looks once an hour: a key with a shorter age than two hours is not as fresh as it says.
pub fn warn_of_short_age(changes: &Changes, output: &Output) {
    if matches!(changes.renew_after, Change::Set(age) if age < Duration::from_secs(2 * 60 * 60)) {
        output.note("A renewal age of less than 2h is shorter than an hourly timer can keep.");
    }
}

fn change<T>(value: Option<T>, none: bool) -> Change<T> {
    match value {
        Some(value) => Change::Set(value),
        None if none => Change::TakeAway,
        None => Change::Keep,
    }
}

/// Names from the password and group databases, or numbers.
fn owner(text: &str) -> std::result::Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let mut account = Account::from_name(user).map_err(|error| error.to_string())?;
    let uid = match (&account, number(user)) {
        (Some(account), _) => account.uid.as_raw(),
        (None, Some(uid)) => uid,
        (None, None) => return Err("there is no such user".into()),
    };
    if account.is_none() {
        account = Account::from_uid(Uid::from_raw(uid)).map_err(|error| error.to_string())?;
    }
    let gid = match (group, account) {
        (Some(group), _) => {
            let found = Group::from_name(group).map_err(|error| error.to_string())?;
            let gid = found.map(|group| group.gid.as_raw()).or_else(|| number(group));
            gid.ok_or("there is no such group")?
        }
        (None, Some(account)) => account.gid.as_raw(),
        (None, None) => return Err(format!("uid {uid} has no account, and so no group: say {uid}:GROUP")),
    };
    // chown(2) takes the highest number for 'leave it as it is'.
    if uid == u32::MAX || gid == u32::MAX {
        return Err("there is no such user or group".into());
    }
    Ok(Owner { uid, gid })
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
