//! The `tidegate` binary: command line in, exit code out. See the crate's map for the rest.

use std::process::ExitCode;

use clap::Parser;
use tidegate::control::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute().into()
}
