//! The commands: each with its arguments and what it does.

mod backup;
mod completions;
mod confirm;
mod create;
mod doctor;
mod edit;
mod ensure;
mod list;
mod log;
mod prune;
mod refresh;
mod renew;
mod revoke;
mod show;
mod verify;

use clap::Subcommand;

use super::args::Global;
use super::output::Output;
use crate::error::Result;

// Deferred: only the command that is given has its arguments put together. What the list of commands
// says of each is here therefore, too.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Issue a user's key and print it, once
    Create(create::Create),
    /// Show what is known of a user's current key; never the key
    Show(show::Show),
    /// Replace a user's key and print the new one, once
    Refresh(refresh::Refresh),
    /// Stop accepting a user's keys, or one key, at once and for good
    Revoke(revoke::Revoke),
    /// See to it that a user's key lies in its key file
    Ensure(ensure::Ensure),
    /// Change a key's label and end, and what is kept, with no new key
    Edit(edit::Edit),
    /// Replace every key that is due, as its settings say
    Renew(renew::Renew),
    /// Say whose key standard input holds, or why it is refused
    Verify(verify::Verify),
    /// List the accepted keys of a user, or of everyone
    List(list::List),
    /// Say what was done to whose key, when, and by whom
    Log(log::Log),
    /// Say what is wrong on this host, and what to do about it
    Doctor(doctor::Doctor),
    /// Forget keys that ended long ago, and what the log has of then
    Prune(prune::Prune),
    /// Copy the database into a new file, while others write
    Backup(backup::Backup),
    /// Print the script that makes a shell complete apikey's arguments
    Completions(completions::Completions),
}

impl Command {
    pub fn run(self, global: &Global, output: &Output) -> Result<()> {
        match self {
            Command::Create(args) => create::run(args, global, output),
            Command::Show(args) => show::run(args, global, output),
            Command::Refresh(args) => refresh::run(args, global, output),
            Command::Revoke(args) => revoke::run(args, global, output),
            Command::Ensure(args) => ensure::run(args, global, output),
            Command::Edit(args) => edit::run(args, global, output),
            Command::Renew(args) => renew::run(&args, global, output),
            Command::Verify(args) => verify::run(&args, global, output),
            Command::List(args) => list::run(&args, global, output),
            Command::Log(args) => log::run(&args, global, output),
            Command::Doctor(args) => doctor::run(&args, global, output),
            Command::Prune(args) => prune::run(&args, global, output),
            Command::Backup(args) => backup::run(&args, global, output),
            Command::Completions(args) => completions::run(&args, output),
        }
    }
}
