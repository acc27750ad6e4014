//! The door against a real mosquitto, and against far ends that misbehave.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start brokers, write their files and spawn the door"
)]

mod addresses;
mod certificates;
mod ends;
mod misbehaviour;
mod pairs;
mod real;
