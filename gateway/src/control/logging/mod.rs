//! The log: one sentence a line on stderr, UTC, filtered by `TIDEGATE_LOG` (or `RUST_LOG`), and
//! never a storm: after a burst at most ten lines a minute, with a count of what was left out.
//! Lines of the account (start, ledger, stop) always pass: they are few by construction. DEBUG and
//! TRACE pass too: they are only there when somebody asked for them.

mod bucket;
mod limit;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::Clock;
use limit::RateLimit;
pub use limit::Suppressed;

/// The target of lines that are never left out.
pub const ACCOUNT: &str = "tidegate::account";

/// What is logged when the environment does not say.
const DEFAULT_FILTER: &str = "info";

/// Starts the log. What it returns tells how many lines were left out.
pub fn start(clock: Clock) -> Suppressed {
    let limit = RateLimit::new(clock);
    let suppressed = limit.suppressed();
    let lines = tracing_subscriber::fmt::layer()
        .compact()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = tracing_subscriber::registry()
        .with(lines)
        .with(limit)
        .with(filter())
        .try_init();
    if started.is_err() {
        tracing::debug!("There is a log already; this one is not used");
    }
    suppressed
}

/// A filter that cannot be read is told and not used: a log that fails to start helps nobody.
#[allow(
    clippy::disallowed_methods,
    reason = "the log's door to the environment"
)]
fn filter() -> EnvFilter {
    let wish = ["TIDEGATE_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| Some((name, std::env::var(name).ok()?)));
    match wish {
        Some((name, wish)) if !wish.is_empty() => {
            EnvFilter::try_new(&wish).unwrap_or_else(|error| {
                #[allow(clippy::print_stderr, reason = "there is no log yet")]
                {
                    eprintln!(
                        "warning: {name} is no log filter ({error}); \"{DEFAULT_FILTER}\" is used"
                    );
                }
                EnvFilter::new(DEFAULT_FILTER)
            })
        }
        _ => EnvFilter::new(DEFAULT_FILTER),
    }
}
