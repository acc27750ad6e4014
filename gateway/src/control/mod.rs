//! The operator's plane: command line, configuration, admin interface, logging, shutdown.

pub mod admin;
pub mod cli;
pub mod commands;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
pub mod logging;
pub mod shutdown;
pub mod spool;
pub mod state;
