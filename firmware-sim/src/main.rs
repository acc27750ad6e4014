//! The `firmware-sim` binary: command line in, account and exit code out. See the crate's map for
//! the rest.

use std::process::ExitCode;

use clap::Parser;
use firmware_sim::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute()
}
