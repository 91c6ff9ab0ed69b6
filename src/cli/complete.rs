//! Completion: the shell asks the program, which answers from the definitions of its own command
//! line and, for users, from the database. It never waits, writes, or says a word.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use super::database::Database;
use crate::authority::Authority;
use crate::error::{Code, Error, Result};
use crate::store::Location;
use crate::timestamp::Timestamp;
use crate::user::User;

/// The variable by which a shell's script says that it asks, and which shell it is.
const VARIABLE: &str = "APIKEY_COMPLETE";

/// The shells that there is a script for.
pub const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// More than anybody reads.
const MOST_USERS: u32 = 200;

/// Answers a shell, where one is asking, as every script asks: with `--` before what was typed. A
/// command that was given is done, whatever the environment says. What goes wrong is nothing to tell
/// somebody who is typing.
pub fn answer(args: &[OsString]) -> bool {
    let asks = args.get(1).is_some_and(|arg| arg == "--") && std::env::var_os(VARIABLE).is_some();
    if asks {
        let complete = CompleteEnv::with_factory(super::command).var(VARIABLE);
        let folder = std::env::current_dir().ok();
        drop(complete.try_complete(args.iter().cloned(), folder.as_deref()));
    }
    asks
}

/// The script that makes `shell` ask `apikey`.
pub fn script(shell: &str) -> Result<Vec<u8>> {
    let shells = Shells::builtins();
    let unknown = || Error::new(Code::Usage, format!("there is no completion for {shell}"));
    let completer = shells.completer(shell).ok_or_else(unknown)?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "apikey", "apikey", "apikey", &mut script).map_err(|error| {
        Error::new(Code::InternalError, format!("cannot write the completion for {shell}: {error}"))
    })?;
    if shell == "zsh" {
        let made = String::from_utf8_lossy(&script).replace(ZSH_DESCRIBES_ALL, ZSH_VALUES_FIRST);
        return Ok((made + ZSH_FIRST_TIME).into_bytes());
    }
    Ok(script)
}

/// zsh lists what has a description first, in whichever order it gets it: options, and then users. And
/// it is the first that another Tab takes.
const ZSH_DESCRIBES_ALL: &str = "        [[ -n $other ]] && _describe -V 'values' other\n";

/// What has no description gets a group of its own, with the colons and backslashes that are escaped
/// for `_describe` as they were.
const ZSH_VALUES_FIRST: &str = r"        local -a values=(${other:#*[^\\]:*}) described=(${(M)other:#*[^\\]:*})
        if [[ -n $values ]]; then compadd -V values -- ${${values//\\:/:}//\\\\/\\}; fi
        if [[ -n $described ]]; then _describe -V 'values' described; fi
";

/// zsh reads a script that lies in its `fpath` when it is first asked to complete, and expects an
/// answer then already.
const ZSH_FIRST_TIME: &str = "
if [[ ${funcstack[1]} == _apikey ]]; then
    _clap_dynamic_completer_apikey \"$@\"
fi
";

/// The users who have a key, and whose names start with `current`.
pub fn users_with_a_key(current: &OsStr) -> Vec<CompletionCandidate> {
    let users = current.to_str().and_then(|current| users(current).ok());
    users.unwrap_or_default().iter().map(|user| CompletionCandidate::new(user.as_str())).collect()
}

fn users(start: &str) -> Result<Vec<User>> {
    let path = match named_database() {
        Some(path) => path,
        None => Database::default()?.path,
    };
    // SQLite would make a side file that is missing.
    let location = Location::new(&path)?;
    if location.files()[..3].iter().any(|file| !file.exists()) {
        return Ok(Vec::new());
    }
    Authority::open(&path, Duration::ZERO, Timestamp::now)?.users(start, MOST_USERS)
}

/// The database that the command line names so far, or the environment.
fn named_database() -> Option<PathBuf> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let after_flag = args.iter().position(|arg| arg == "--db").and_then(|at| args.get(at + 1));
    let in_flag = || args.iter().find_map(|arg| arg.to_str()?.strip_prefix("--db=").map(OsString::from));
    let named = after_flag.cloned().or_else(in_flag).or_else(|| std::env::var_os("APIKEY_DB"));
    named.map(PathBuf::from)
}
