//! The firmware of one sensor device, without the hardware: what happens between its converter and
//! its gateway. In come samples, the time and what the link reports; out go steps for whoever owns
//! the socket. It never allocates, never reads a clock, never opens anything, and needs no `std`,
//! so that the same code runs on a microcontroller, in a test, and ten thousand times in a fleet.
//!
//! ```text
//! interrupt:  Sampler  --- alarms (spsc::Queue) --->  Outbox  :main loop
//!                      --- samples ---------------->  (latest of each channel)
//! ```
//!
//! * [`Sampler`] says when a channel is due and watches its [`Threshold`].
//! * [`Outbox`] keeps what waits, sends it once more until it is acknowledged, and reconnects.
//! * [`Device`] is both in one piece, for those who have no interrupts.
//! * [`payload`] writes a [`Message`] as JSON or in 40 bytes.

#![no_std]

pub mod backoff;
pub mod chance;
mod counts;
pub mod device;
mod flight;
mod latest;
pub mod message;
pub mod outbox;
pub mod payload;
pub mod sampler;
mod threshold;
mod tick;

pub use counts::{ByKind, Counts};
pub use device::{Device, Settings};
pub use message::{Body, Kind, Message, Value};
pub use outbox::{Outbox, Outgoing, Session, Step};
pub use sampler::{ALARMS_MAX, AlarmQueue, CHANNELS_MAX, Channel, Due, Sampler};
pub use threshold::{Crossing, Threshold};
pub use tick::Tick;
