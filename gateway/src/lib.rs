//! Tidegate: the gateway that an edge box runs between its sensors and the cloud.
//!
//! This page is the map. A message goes through the rooms of [`traffic`] in this order:
//!
//! ```text
//!   accept -> classify -> queue -> schedule -> send -> settle
//! ```
//!
//! - [`traffic`] is the data plane: pure code that is told the time and answers with effects, and
//!   the few *doors* that do the real input and output for it.
//! - [`control`] is the operator's plane: command line, configuration, logging, shutdown.
//! - [`run`] wires the two together; [`clock`] is the only reader of clocks.
//!
//! `traffic` never names `control`. The files that may read a clock, open a socket, touch a disk or
//! spawn a task are listed in `gateway/ARCHITECTURE.md`, and a test holds the code to that list.

pub mod clock;
pub mod control;
pub mod run;
pub mod traffic;
