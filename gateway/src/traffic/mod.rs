//! The data plane, in the order in which a message passes: [`accept`], [`classify`], [`queue`],
//! `schedule`, [`send`], [`settle`]; [`spool`] stands beside it. `relay` is the whole path on one page; [`lanes`] is what
//! the doors and the relay say to each other.
//!
//! One task owns all path state. Rooms get the time as an argument and give effects as values; only
//! the doors (`accept/listener`, `accept/source`, `send/upstream`, `drive`) do input and output.

pub mod accept;
pub mod classify;
pub mod drive;
pub mod fingerprint;
pub mod lanes;
pub mod message;
pub mod queue;
pub mod relay;
pub mod schedule;
pub mod send;
pub mod senders;
pub mod settle;
pub mod snapshot;
pub mod spool;
pub mod status;
