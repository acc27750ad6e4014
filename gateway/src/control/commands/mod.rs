//! What the command line can ask for, one room for each.

pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod explain;
mod greeting;
pub mod outage;
pub mod run;
pub mod spool;
pub mod status;

use std::fmt::Display;
use std::io::Write;

/// To standard output. A reader that has gone away (`| head`) is no fault.
fn say(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// To standard error, likewise.
fn complain(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}
