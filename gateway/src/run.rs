//! The wiring.

use crate::control::config::Config;
use crate::control::shutdown::Shutdown;

/// Why the gateway could not go on.
#[derive(Debug)]
pub enum RunError {}

impl std::fmt::Display for RunError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

/// Runs the gateway until it is asked to end.
///
/// # Errors
/// It cannot go on.
pub async fn run(_config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    shutdown.first().await;
    Ok(())
}
