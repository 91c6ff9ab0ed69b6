//! The program: the library's command line, and nothing else.

#![deny(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

fn main() -> ExitCode {
    apikey::cli::main(std::env::args_os())
}
