//! The operator's plane: command line, configuration, logging, shutdown.

pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod logging;
pub mod shutdown;
pub mod state;
