//! `tidegate demo`: the whole story in a minute, with nothing installed. A fleet of simulated
//! devices, a cloud inside this process, and between them the real gateway, the same binary as a
//! child process; it is flooded, cut off and killed, and at the end everything is accounted for.
//!
//! - [`story`]: what happens when, as data
//! - [`play`]: the conductor; [`fleet`], [`cloud`], [`child`], [`folder`],
//!   [`ports`]: what it conducts
//! - [`figures`]: how it goes; [`screen`]: the same as lines; [`terminal`]: where they are drawn
//! - [`account`]: what came of it
//!
//! Nothing of the gateway's path is imitated here, and nothing on that path knows of it.

pub mod account;
pub mod child;
pub mod cloud;
pub mod figures;
pub mod fleet;
pub mod folder;
pub mod play;
pub mod ports;
pub mod screen;
pub mod story;
pub mod terminal;
mod written;
