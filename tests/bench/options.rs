//! The command line of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::systems::System;

/// Measures the gateway beside mosquitto's bridge, in one run.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench forward --", version)]
pub(crate) struct Options {
    /// Rounds; in each, every system runs once. Figures are medians over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Only this case (may be repeated)
    #[arg(long = "case", value_enum)]
    pub(crate) cases: Vec<CaseName>,
    /// Seconds of light load in each round
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Seconds of each run flat out
    #[arg(long, default_value_t = 4.0, value_parser = flat_seconds)]
    pub(crate) flat_seconds: f64,
    /// Unacknowledged messages of each of the 20 connections at QoS 1
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=28))]
    pub(crate) window: u8,
    /// Only these systems
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) systems: Vec<System>,
    /// Another program in the place of the gateway that was just built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"), hide_default_value = true)]
    pub(crate) gateway: PathBuf,
    /// One short round: shows that it works, not how fast
    #[arg(long)]
    pub(crate) quick: bool,
    /// Said by `cargo bench`, not by `cargo test`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// The cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// QoS 1 in, QoS 1 out, MQTT 3.1.1
    #[value(name = "mqtt311")]
    Mqtt311,
    /// QoS 1 in, QoS 1 out, MQTT 5 with message ids
    #[value(name = "mqtt5")]
    Mqtt5,
    /// QoS 0 in, flat out
    #[value(name = "qos0")]
    Qos0,
    /// 1,000 messages and 10 alarms a second
    #[value(name = "light")]
    Light,
    /// Many rules and topics beside few
    #[value(name = "rules")]
    Rules,
    /// All guaranteed, acknowledged from disk while the uplink is away
    #[value(name = "outage")]
    Outage,
}

impl Options {
    /// With `--quick` made short.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            self.rounds = 1;
            self.flat_seconds = self.flat_seconds.min(1.0);
            self.seconds = self.seconds.min(3);
        }
        self
    }

    pub(crate) fn has_case(&self, name: CaseName) -> bool {
        self.cases.is_empty() || self.cases.contains(&name)
    }

    pub(crate) fn has_system(&self, system: System) -> bool {
        self.systems.is_empty() || self.systems.contains(&system)
    }
}

/// A run that is shorter measures its start, a longer one fills a slow system's memory at QoS 0.
fn flat_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.5..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.5 to 60 seconds".to_owned()),
    }
}
