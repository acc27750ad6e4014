//! A fleet of real firmware on one machine: devices of [`tidegate_device`], each with a TCP connection
//! of its own, that go through a scenario and account for every message. In come an order and a
//! gateway, out comes an [`account::Account`].
//!
//! * [`scenario`]: what the fleet goes through, and what a phase asks of one device
//! * [`fleet`]: the devices, a task for each, all in one thread
//! * [`watch`]: the far end, in a thread of its own
//! * [`ledger`], [`account`]: what was sent against what arrived
//! * [`run`]: all of it on one page
//!
//! Doors, the only ones that touch the world: [`clock`], [`limits`], [`address`], [`probe`],
//! [`watch`], [`run`], [`cli`], and each device's connection.

pub mod account;
pub mod address;
pub mod cli;
pub mod clock;
pub mod fleet;
pub mod ledger;
pub mod limits;
pub mod marks;
pub mod names;
pub mod probe;
pub mod progress;
pub mod run;
pub mod scenario;
pub mod signal;
pub mod watch;
pub mod wire;

pub use tidegate_device::{CHANNELS_MAX, Kind, Tick};
