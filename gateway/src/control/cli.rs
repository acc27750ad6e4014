//! The command line. A wrong one ends with exit code 2 and says what is known.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "demo")]
use super::commands::demo;
use super::commands::{check, explain, outage, run, spool, status};
use super::exit::Exit;

/// The gateway between an edge box's sensors and the cloud: alarms first, nothing acknowledged is
/// lost.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "The log goes to standard error; TIDEGATE_LOG=debug shows more, TIDEGATE_LOG=warn less."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, until SIGTERM or SIGINT.
    Run(ConfigFile),
    /// Check a configuration: every fault and warning at once, and how many hours without an uplink
    /// the spool lasts. Exit code 2 on any fault.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        load: outage::Load,
    },
    /// Say what the rules do with a message, and what happens to it calm, under pressure, offline.
    Explain {
        #[command(flatten)]
        config: ConfigFile,
        /// The topic, as a device would publish it.
        topic: String,
        /// The payload; "-" reads it from standard input.
        #[arg(allow_negative_numbers = true)]
        payload: Option<String>,
    },
    /// Show how the gateway that runs is: uplink, classes, spool, and why it is not ready.
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// Everything that is known, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Play the whole story on one screen, with nothing to install: calm, overload, the uplink gone,
    /// kill -9 of the gateway, back again. Exit code 1 if an acknowledged alarm is missing at the end.
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// Look into the spool and steer it, while the gateway runs or not.
    Spool {
        #[command(subcommand)]
        command: spool::Spool,
        /// The configuration file; without it, the embedded defaults.
        #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
        config: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration file; without it, the embedded defaults.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cli {
    /// Does what the command line says.
    #[must_use]
    pub fn execute(self) -> Exit {
        match self.command {
            Command::Run(file) => run::run(file.config.as_deref()),
            Command::Check { config, load } => check::check(config.config.as_deref(), load),
            Command::Explain {
                config,
                topic,
                payload,
            } => explain::explain(config.config.as_deref(), &topic, payload.as_deref()),
            #[cfg(feature = "demo")]
            Command::Demo(asked) => demo::demo(&asked),
            Command::Spool { command, config } => spool::spool(config.as_deref(), command),
            Command::Status { config, json } => status::status(config.config.as_deref(), json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_the_command_line_sound() {
        Cli::command().debug_assert();
        for good in [
            vec!["tidegate", "run"],
            vec!["tidegate", "run", "-c", "x.toml"],
            vec!["tidegate", "check", "--config", "x.toml"],
            vec!["tidegate", "check", "--rate", "200", "--bytes", "150"],
            vec!["tidegate", "explain", "-c", "x.toml", "a/b", "{}"],
            vec!["tidegate", "explain", "a/b", "-"],
            vec!["tidegate", "status"],
            vec!["tidegate", "status", "--json", "-c", "x.toml"],
            vec!["tidegate", "spool", "ls", "-c", "x.toml"],
            vec![
                "tidegate", "spool", "peek", "-n", "3", "--topic", "a/#", "--topic", "b",
            ],
            vec![
                "tidegate", "spool", "export", "--from", "2h", "-o", "x.jsonl",
            ],
            vec!["tidegate", "spool", "verify", "--json"],
            vec!["tidegate", "spool", "purge", "--class", "low", "--dry-run"],
            vec!["tidegate", "spool", "pause", "--dry-run"],
            vec!["tidegate", "spool", "pause", "--class", "low"],
            vec!["tidegate", "spool", "replay", "--again", "--topic", "a/#"],
            vec!["tidegate", "explain", "a/b", "-18.5", "-c", "x.toml"],
        ] {
            assert!(Cli::try_parse_from(&good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn does_a_wrong_command_line_end_with_2() {
        for bad in [
            vec!["tidegate"],
            vec!["tidegate", "rnu"],
            vec!["tidegate", "check", "--rate", "0"],
            vec!["tidegate", "check", "--bytes", "many"],
            vec!["tidegate", "explain"],
            vec!["tidegate", "spool"],
            vec!["tidegate", "spool", "peek", "-n", "0"],
            vec!["tidegate", "spool", "pause", "--topic", "low"],
        ] {
            let error = Cli::try_parse_from(&bad).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(Exit::Misconfigured.code()));
        }
    }
}
