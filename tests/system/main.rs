//! The real binary against real brokers and real faults.
//!
//! The first rooms are what the tests stand on: `broker` runs mosquitto, `gateway` runs `tidegate`,
//! `proxy` stands between the two and makes faults, `device` sends, `subscriber` is the far end.
//! The others are the tests, by what they promise. Everything runs on loopback; each test has its
//! own processes and folders.

#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the gateway: they are its world, clocks and disks included"
)]

mod broker;
mod certificates;
mod device;
mod gateway;
mod proxy;
mod subscriber;
mod wait;
mod wire;

mod own_tools;
