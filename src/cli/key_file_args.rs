//! The arguments that say where a key is delivered to.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use nix::unistd::{Group, Uid, User as Account};

use crate::error::Result;
use crate::key_file::{EnvName, KeyFile, Mode, Owner};

/// Where to deliver the key to, instead of standard output.
#[derive(Debug, Args)]
pub struct KeyFileArgs {
    /// Write the key to PATH, not standard output
    ///
    /// At every moment, even if the power fails, the file holds a key that is accepted, until that
    /// expires or is revoked. It is replaced, never rewritten, so that a reader sees all of the old
    /// key or all of the new one.
    /// Nothing is replaced but a key file: a link, a device, a file with something else or another
    /// user's accepted key in it, or one in a folder that others may write is refused before a key is issued.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    key_file: Option<PathBuf>,

    /// Set its permissions
    ///
    /// Three or four octal digits: read and write for owner and group, nothing for others; the owner
    /// must be able to read.
    #[arg(long, value_name = "MODE", requires = "key_file", default_value = "0600")]
    key_file_mode: Mode,

    /// Give it to USER[:GROUP]
    ///
    /// Names or numbers; without GROUP, the user's own group. Without this option the key file is
    /// the caller's.
    #[arg(long, value_name = "OWNER", value_hint = ValueHint::Username, requires = "key_file", value_parser = owner)]
    key_file_owner: Option<Owner>,

    /// Write NAME=key, for EnvironmentFile=
    ///
    /// One line, with a newline at its end; for systemd's EnvironmentFile= and a container's
    /// --env-file. Without this option the file holds the key and nothing else.
    #[arg(long, value_name = "NAME", requires = "key_file")]
    key_file_env: Option<EnvName>,
}

impl KeyFileArgs {
    /// The key file that was asked for.
    pub fn key_file(self) -> Result<Option<KeyFile>> {
        let Some(path) = self.key_file else { return Ok(None) };
        let key_file = KeyFile::new(&path)?;
        Ok(Some(KeyFile {
            mode: self.key_file_mode,
            owner: self.key_file_owner,
            env: self.key_file_env,
            ..key_file
        }))
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
