//! What the command line can ask for, one room for each.

pub mod check;
pub mod explain;
mod greeting;
pub mod run;
