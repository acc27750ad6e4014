//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::systems::System;

/// Seconds of load with `--quick`.
const QUICK_SECONDS: u64 = 2;

/// Measures what overload does to the gateway and to mosquitto's bridges.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench overload --", version)]
pub(crate) struct Options {
    /// Only this case (may be repeated)
    #[arg(long = "case", value_enum)]
    pub(crate) cases: Vec<CaseName>,
    /// Seconds of load in each case; each has its own by default: 20 to 600
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Messages that wait on disk when the case `backlog` begins
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(crate) backlog: u64,
    /// Seconds that the backlog may take to drain, the seconds of load included
    #[arg(long, default_value_t = 2_400)]
    pub(crate) drain_seconds: u64,
    /// Only these systems
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) systems: Vec<System>,
    /// Another program in the place of the gateway that was just built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"), hide_default_value = true)]
    pub(crate) gateway: PathBuf,
    /// Short runs, mosquitto in the first case only: shows that it works, not how well
    #[arg(long)]
    pub(crate) quick: bool,
    /// Show the gateway's log after each of its runs
    #[arg(long)]
    pub(crate) log: bool,
    /// Said by `cargo bench`, not by `cargo test`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// The cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// Ten times more than the uplink takes
    Overload,
    /// A link of 256 kbit/s
    SlowLink,
    /// The same with a reading of 1 MiB now and then
    LargeReading,
    /// A link of 50 kbit/s and an hour of backlog
    Backlog,
    /// One client floods the class `low`
    FloodLow,
    /// One client floods the class `normal`
    FloodNormal,
    /// One client floods the class `critical`
    FloodCritical,
    /// Pressure on and off every 5 s
    OnAndOff,
    /// 10 to 100,000 topics
    Topics,
}

impl Options {
    pub(crate) fn has_case(&self, name: CaseName) -> bool {
        self.cases.is_empty() || self.cases.contains(&name)
    }

    /// The load of a case that takes `seconds` by itself.
    pub(crate) fn length(&self, seconds: u64) -> Duration {
        let by_itself = if self.quick { QUICK_SECONDS } else { seconds };
        Duration::from_secs(self.seconds.unwrap_or(by_itself))
    }

    /// Messages that wait on disk first.
    pub(crate) fn backlog(&self) -> u64 {
        if self.quick {
            self.backlog.min(500)
        } else {
            self.backlog
        }
    }

    /// Who runs in a case.
    pub(crate) fn systems_of(&self, name: CaseName) -> Vec<System> {
        let alone = self.quick && name != CaseName::Overload;
        match self.systems.as_slice() {
            [] if alone => vec![System::Tidegate],
            [] => System::value_variants().to_vec(),
            systems => systems.to_vec(),
        }
    }
}
