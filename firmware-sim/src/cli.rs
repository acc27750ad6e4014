//! The command line: what it says is turned into an order, and what comes of it into an exit code.
//! The door to files, signals and the terminal.
#![allow(
    clippy::disallowed_methods,
    reason = "reads the scenario's file, before anything runs"
)]

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use tidegate_device::Kind;

use crate::account::Account;
use crate::address::Address;
use crate::progress::Progress;
use crate::run::{Order, play};
use crate::scenario::{STORY, Scenario};
use crate::wire::Protocol;

/// One address has ports for some 28,000 connections to another; a part of them is for others.
const DEVICES_MAX: i64 = 20_000;
/// Names have five digits.
const FIRST_DEVICE_MAX: i64 = 99_999 - DEVICES_MAX;
/// Between two lines where nobody watches the terminal.
const QUIET_LINE_EVERY: Duration = Duration::from_secs(10);

/// A fleet of simulated devices that publishes over MQTT, and accounts for every message.
#[derive(Debug, Parser)]
#[command(
    name = "firmware-sim",
    version,
    after_help = "Exit codes: 0 the account is printed; 1 an acknowledged message of a guaranteed kind (alarms, unless \
                  --guaranteed says more) is missing at the far end; 2 the run did not start."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a fleet through a scenario. Ctrl-C ends it early and still prints the account.
    Run(RunArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// How many devices, each with a connection of its own.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    devices: u32,
    /// The number of the first device. Fleets that play against one gateway at a time must not share
    /// numbers: client ids are made of them. A watcher counts the others' messages as strangers.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=FIRST_DEVICE_MAX))]
    first_device: u32,
    /// What they go through (TOML; see config/scenarios); without it, the whole story in a minute.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// The version of MQTT that they speak.
    #[arg(long, value_enum, default_value_t = ProtocolArg::V5)]
    protocol: ProtocolArg,
    /// The gateway.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    connect: Address,
    /// Subscribe at the far end and count what arrives there. mosquitto needs
    /// `max_queued_messages 0`, or drops what the watcher does not take at once.
    #[arg(long, value_name = "URL")]
    watch: Option<Address>,
    /// Print the account as JSON.
    #[arg(long)]
    json: bool,
    /// With --watch: when nothing new arrived for so many seconds after the end, what is missing is missing.
    /// Longer than the far end may be out of reach.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = settle)]
    settle: Duration,
    /// What must arrive once it is acknowledged, or the exit code is 1; several with commas between.
    #[arg(
        long,
        value_enum,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "alarm"
    )]
    guaranteed: Vec<KindArg>,
    /// The seed of all chance; the same seed plays the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Play the scenario in so many seconds: each phase keeps its part, rates and counts stay.
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    Alarm,
    Report,
    Reading,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Alarm => Self::Alarm,
            KindArg::Report => Self::Report,
            KindArg::Reading => Self::Reading,
        }
    }
}

impl Cli {
    /// Does what the command line says.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let Command::Run(args) = self.command;
        let played = args.order().and_then(|order| {
            let progress = lines();
            play(&order, stop_signal(), progress).map_err(|error| error.to_string())
        });
        match played.and_then(|account| args.print(&account).map(|()| account)) {
            Ok(account) if args.has_lost(&account) => ExitCode::from(1),
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("firmware-sim: {error}");
                ExitCode::from(2)
            }
        }
    }
}

impl RunArgs {
    fn order(&self) -> Result<Order, String> {
        let scenario = match &self.scenario {
            Some(path) => read_scenario(path)?,
            None => Scenario::read(STORY).map_err(|faults| faults.to_string())?,
        };
        let scenario = match self.seconds {
            Some(length) => scenario.scaled_to(length),
            None => scenario,
        };
        Ok(Order {
            first_device: self.first_device,
            protocol: match self.protocol {
                ProtocolArg::V311 => Protocol::V311,
                ProtocolArg::V5 => Protocol::V5,
            },
            watch: self.watch.clone(),
            seed: self.seed,
            quiet_max: self.settle,
            ..Order::new(self.connect.clone(), self.devices, scenario)
        })
    }

    /// Whether a message of a guaranteed kind is missing.
    fn has_lost(&self, account: &Account) -> bool {
        let kinds = self.guaranteed.iter();
        kinds.map(|&kind| account.of(kind.into())).any(|of| {
            let far_end = of.far_end.as_ref();
            far_end.is_some_and(|far_end| far_end.missing > 0)
        })
    }

    fn print(&self, account: &Account) -> Result<(), String> {
        if self.json {
            let json = serde_json::to_string_pretty(account);
            println!("{}", json.map_err(|error| error.to_string())?);
        } else {
            println!("{account}");
        }
        Ok(())
    }
}

fn read_scenario(path: &Path) -> Result<Scenario, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown}: {error}; config/scenarios has some to start from"))?;
    Scenario::read(&text).map_err(|faults| {
        let faults = faults.to_string();
        let lines = faults.lines().map(|line| format!("\n  {line}"));
        format!("{shown} is no scenario:{}", lines.collect::<String>())
    })
}

/// Progress for the terminal each second, for a log now and then.
fn lines() -> impl FnMut(&Progress) {
    let terminal = std::io::stderr().is_terminal();
    let mut next = Duration::ZERO;
    move |progress| {
        if terminal || progress.since_start >= next {
            next = progress.since_start + QUIET_LINE_EVERY;
            eprintln!("{progress}");
        }
    }
}

/// Comes with Ctrl-C or SIGTERM. Where signals cannot be listened to, the system's own way remains.
async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping: what is on its way may still arrive, then comes the account");
}

fn settle(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| "0 to 86400 seconds".to_owned())?;
    Ok(Duration::from_secs_f64(seconds))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.5..=604_800.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.5 to 604800 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_the_command_line_sound() {
        Cli::command().debug_assert();
        let good = [
            "firmware-sim",
            "run",
            "--protocol",
            "3.1.1",
            "--seconds",
            "2.5",
        ];
        assert!(Cli::try_parse_from(good).is_ok());
        for bad in [
            vec!["firmware-sim"],
            vec!["firmware-sim", "run", "--devices", "0"],
            vec!["firmware-sim", "run", "--devices", "20001"],
            vec!["firmware-sim", "run", "--seconds", "nan"],
            vec!["firmware-sim", "run", "--settle", "-1"],
            vec!["firmware-sim", "run", "--first-device", "80000"],
            vec!["firmware-sim", "run", "--guaranteed", "alarm,all"],
        ] {
            assert_eq!(
                Cli::try_parse_from(&bad).unwrap_err().exit_code(),
                2,
                "{bad:?}"
            );
        }
    }
}
