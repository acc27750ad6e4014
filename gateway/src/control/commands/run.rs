//! `tidegate run`: configuration, first lines, state folder, then the gateway until a signal. A
//! wrong configuration never starts; a second signal ends at once.

#![allow(
    clippy::print_stderr,
    reason = "before there is a log, a command speaks"
)]

use std::path::Path;

use tokio::runtime::{Builder, Runtime};

use super::check::tell;
use super::greeting::greeting;
use crate::clock::Clock;
use crate::control::config::file::load;
use crate::control::config::{Config, Findings};
use crate::control::exit::Exit;
use crate::control::logging::{self, ACCOUNT, Suppressed};
use crate::control::shutdown::Shutdown;
use crate::control::state;

/// Runs the gateway with the configuration in this file.
#[must_use]
pub fn run(path: Option<&Path>) -> Exit {
    let (config, warnings) = match load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tell(&error);
            return Exit::Misconfigured;
        }
    };
    let suppressed = logging::start(Clock::start());
    greet(&config, &warnings);
    let _folder = match state::prepare(&config.gateway.state_dir) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::error!(target: ACCOUNT, "{error}");
            return Exit::Failed;
        }
    };
    match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => drive(runtime, config, &suppressed),
        Err(error) => {
            tracing::error!(target: ACCOUNT, "No threads to run on: {error}");
            Exit::Failed
        }
    }
}

fn greet(config: &Config, warnings: &Findings) {
    for line in greeting(config) {
        tracing::info!(target: ACCOUNT, "{line}");
    }
    for warning in &warnings.list {
        let place = warnings.place(warning);
        tracing::warn!(target: ACCOUNT, "{place}: {}; {}", warning.what, warning.hint);
    }
}

fn drive(runtime: Runtime, config: Config, suppressed: &Suppressed) -> Exit {
    let exit = runtime.block_on(until_done(config, suppressed));
    suppressed.report();
    runtime.shutdown_background();
    exit
}

async fn until_done(config: Config, suppressed: &Suppressed) -> Exit {
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => {
            tracing::error!(target: ACCOUNT, "Signals cannot be waited for: {error}");
            return Exit::Failed;
        }
    };
    let second = shutdown.clone();
    tokio::select! {
        ended = crate::run::run(config, shutdown) => match ended {
            Ok(()) => Exit::Done,
            Err(error) => {
                tracing::error!(target: ACCOUNT, "The gateway ends: {error}");
                Exit::Failed
            }
        },
        () = second.second() => {
            tracing::warn!(target: ACCOUNT, "A second signal: ends at once, without the drain");
            Exit::Interrupted
        }
        () = suppressed.report_each_minute() => Exit::Failed,
    }
}
