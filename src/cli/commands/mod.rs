//! The commands: each with its arguments and what it does.

mod completions;
mod confirm;
mod create;
mod list;
mod refresh;
mod revoke;
mod show;
mod verify;

use clap::Subcommand;

use super::args::Global;
use super::output::Output;
use crate::error::Result;

#[derive(Debug, Subcommand)]
pub enum Command {
    Create(create::Create),
    Show(show::Show),
    Refresh(refresh::Refresh),
    Revoke(revoke::Revoke),
    Verify(verify::Verify),
    List(list::List),
    Completions(completions::Completions),
}

impl Command {
    pub fn run(self, global: &Global, output: &Output) -> Result<()> {
        match self {
            Command::Create(args) => create::run(args, global, output),
            Command::Show(args) => show::run(args, global, output),
            Command::Refresh(args) => refresh::run(args, global, output),
            Command::Revoke(args) => revoke::run(args, global, output),
            Command::Verify(args) => verify::run(&args, global, output),
            Command::List(args) => list::run(&args, global, output),
            Command::Completions(args) => completions::run(&args, output),
        }
    }
}
