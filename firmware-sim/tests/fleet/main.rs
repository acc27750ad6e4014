//! The fleet as its users run it: the real binary against a real mosquitto.

mod bad_input;
mod broker;
mod command;
mod runs;
