//! The real binary against real brokers and real faults.
//!
//! The first rooms are what the tests stand on: `broker` runs mosquitto, `gateway` runs `tidegate`,
//! `proxy` stands between the two and makes faults, `subscriber` is the far end, `site` puts them
//! together. Load is made by `fleet`, which is one of firmware-sim; single messages, each with what is
//! asked of it, are sent by `device`.
//! `spool_far` and `spool_site` are far end and site for many messages and several lives of one
//! gateway, `disk_mount` is a small disk, and `network` a narrow link. The others are the tests, by
//! what they ask. Everything runs on loopback; each test has its own processes and folders.

#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the gateway: they are its world, clocks and disks included"
)]

mod broker;
mod certificates;
mod device;
mod disk_mount;
mod fleet;
mod gateway;
mod network;
mod proxy;
mod site;
mod spool_far;
mod spool_site;
mod subscriber;
mod wait;
mod wire;

mod bad_input;
mod configuration;
mod crash;
#[cfg(feature = "demo")]
mod demo;
mod disk;
mod disk_quota;
mod floods;
mod from_a_broker;
mod from_devices;
mod held;
mod lost_acknowledgements;
mod offline;
mod offline_calm;
mod offline_replay;
mod overload;
mod own_tools;
mod restarts;
mod shutdown;
mod simulation;
mod slow_link;
mod slow_uplink;
mod source_login;
mod spool_commands;
mod spool_dead;
mod spool_folder;
mod spool_start;
mod thinned;
mod two_connections;
mod uplink_away;
mod uplink_login;
