//! `tidegate spool`: the operator looks into the spool and steers it. While the gateway runs it is asked
//! over the Unix socket in its state folder; when it does not, its files are read, and nothing of them is
//! changed but by `purge`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

mod check;
mod list;
mod messages;
mod progress;
mod purge;
mod replay;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::check::tell;
use super::complain;
use crate::clock::Clock;
use crate::control::config::file::load;
use crate::control::exit::Exit;
use crate::control::spool::reach::{Reach, ReachError};
use crate::control::spool::{Asked, when};

/// What can be done with the spool.
#[derive(Debug, Subcommand)]
pub enum Spool {
    /// List classes and segments: messages, bytes, oldest, newest. With a filter, count what it
    /// matches.
    Ls {
        /// Which messages.
        #[command(flatten)]
        filter: Filter,
        /// Only dead letters: what the upstream refuses for good.
        #[arg(long)]
        dead: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the next messages of each class, the most urgent class first.
    Peek {
        /// Which messages.
        #[command(flatten)]
        filter: Filter,
        /// Dead letters, instead of what has yet to be sent.
        #[arg(long)]
        dead: bool,
        /// How many messages of each class.
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 10,
              value_parser = clap::value_parser!(u64).range(1..=10_000))]
        count: u64,
        /// As JSON Lines, payloads whole.
        #[arg(long)]
        json: bool,
    },
    /// Write messages as JSON Lines, payloads as text or base64. Nothing leaves the spool.
    Export {
        /// Which messages.
        #[command(flatten)]
        filter: Filter,
        /// Dead letters, instead of what has yet to be sent.
        #[arg(long)]
        dead: bool,
        /// Write to this file, which must not be there yet; without it, to standard output.
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Only count what would be written.
        #[arg(long)]
        dry_run: bool,
    },
    /// Check every checksum of every segment. Exit code 1 when one does not hold.
    Verify {
        /// Only segments of this class.
        #[arg(long, value_name = "CLASS")]
        class: Option<String>,
        /// Only segments of dead letters.
        #[arg(long)]
        dead: bool,
        /// As JSON Lines, one for each segment.
        #[arg(long)]
        json: bool,
    },
    /// Send the backlog now: let a paused replay go on, and say what keeps it, if anything does.
    ///
    /// The gateway replays its backlog by itself as soon as the uplink is there; this is only needed
    /// after `pause`. What was delivered is not sent again: its place on the disk is given back.
    /// With `--again`, try the dead letters now that match: the gateway does so by itself once an hour.
    Replay {
        /// Try dead letters again, those that the upstream refused for good.
        #[arg(long)]
        again: bool,
        /// Which dead letters; without `--again`, `--class` alone.
        #[command(flatten)]
        filter: Filter,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove messages from the spool for good; they are counted as purged.
    ///
    /// What is on its way to the upstream at this moment is not removed.
    Purge {
        /// Which messages.
        #[command(flatten)]
        filter: Filter,
        /// Dead letters, instead of what has yet to be sent. They are counted already.
        #[arg(long)]
        dead: bool,
        /// Everything: needed when no filter is given.
        #[arg(long)]
        all: bool,
        /// Only count what would be removed.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the replay of the backlog; live messages go on. A restart of the gateway ends the pause.
    Pause(Steer),
    /// Let a paused replay go on.
    Resume(Steer),
}

/// Which messages are meant; without any of these, all.
#[derive(Args, Debug)]
pub struct Filter {
    /// Of this class.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// With a topic that this filter matches (`+`, `#`); may be given several times.
    #[arg(long, value_name = "FILTER")]
    topic: Vec<String>,
    /// Received then or later: RFC 3339 ("2026-11-21T08:30:00Z"), or how long ago ("2h").
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Received before that.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

/// How the replay is steered.
#[derive(Args, Debug)]
pub struct Steer {
    /// Only that of this class.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Why a command ended early.
enum Stop {
    /// What was asked for is wrong.
    Wrong(String),
    /// It could not go on.
    Failed(String),
    /// Nobody reads the output any more.
    Unread,
}

/// What a command came to.
type Done = Result<Exit, Stop>;

/// Does what is asked of the spool of the gateway with this configuration.
#[must_use]
pub fn spool(path: Option<&Path>, command: Spool) -> Exit {
    let (config, _) = match load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tell(&error);
            return Exit::Misconfigured;
        }
    };
    keep_the_database_quiet();
    let changes = matches!(command, Spool::Purge { dry_run: false, .. });
    // What is wrong of itself is told before anybody is asked.
    let asked = command.asked();
    let done = asked.and_then(|asked| {
        let reach = Reach::to(&config, changes)?;
        command.perform(&asked, reach)
    });
    match done {
        Ok(exit) => exit,
        Err(Stop::Unread) => Exit::Done,
        Err(Stop::Failed(why)) => {
            complain(format_args!("fault: {why}\n"));
            Exit::Failed
        }
        Err(Stop::Wrong(why)) => {
            complain(format_args!("fault: {why}\n"));
            Exit::Misconfigured
        }
    }
}

/// The database panics over some damaged files; that is caught and told as damage, and needs no stack.
fn keep_the_database_quiet() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !file.contains("/redb-") {
            loud(panic);
        }
    }));
}

impl Spool {
    fn asked(&self) -> Result<Asked, Stop> {
        match self {
            Self::Ls { filter, dead, .. }
            | Self::Peek { filter, dead, .. }
            | Self::Export { filter, dead, .. } => filter.asked(*dead),
            Self::Purge {
                filter, dead, all, ..
            } => {
                let asked = filter.asked(*dead)?;
                match asked.is_all() && !all {
                    true => Err(Stop::Wrong(
                        "without a filter, everything there would be removed; say --all if that is meant, or name --class, --topic, --from or --to".to_owned(),
                    )),
                    false => Ok(asked),
                }
            }
            Self::Verify { class, dead, .. } => Ok(Asked {
                class: class.clone(),
                dead: *dead,
                ..Asked::default()
            }),
            Self::Replay { again, filter, .. } => {
                let asked = filter.asked(*again)?;
                let class = Asked {
                    class: asked.class.clone(),
                    ..Asked::default()
                };
                match *again || asked == class {
                    true => Ok(asked),
                    false => Err(Stop::Wrong(
                        "a backlog is replayed class by class; --topic, --from and --to choose dead letters, with --again".to_owned(),
                    )),
                }
            }
            Self::Pause(steer) | Self::Resume(steer) => Ok(Asked {
                class: steer.class.clone(),
                ..Asked::default()
            }),
        }
    }

    fn perform(self, asked: &Asked, mut reach: Reach) -> Done {
        match self {
            Self::Ls { json, .. } => list::list(asked, &mut reach, json),
            Self::Peek { count, json, .. } => messages::peek(asked, &mut reach, count, json),
            Self::Export {
                output, dry_run, ..
            } => messages::export(asked, &mut reach, output.as_deref(), dry_run),
            Self::Verify { json, .. } => check::check(asked, &mut reach, json),
            Self::Purge { dry_run, json, .. } => purge::purge(asked, reach, dry_run, json),
            Self::Replay {
                again: true,
                dry_run,
                json,
                ..
            } => replay::again(asked, &mut reach, dry_run, json),
            Self::Replay { dry_run, json, .. } => {
                let class = asked.class.clone();
                let steer = Steer {
                    class,
                    dry_run,
                    json,
                };
                replay::replay(&mut reach, &steer)
            }
            Self::Pause(steer) => replay::pause(&mut reach, &steer),
            Self::Resume(steer) => replay::resume(&mut reach, &steer),
        }
    }
}

impl Filter {
    fn asked(&self, dead: bool) -> Result<Asked, Stop> {
        let now = Clock::start().wall();
        let time = |text: &Option<String>| {
            let micros = |text: &String| when::parse(text, now).map(|wall| wall.micros());
            text.as_ref().map(micros).transpose().map_err(Stop::Wrong)
        };
        let asked = Asked {
            class: self.class.clone(),
            dead,
            topics: self.topic.clone(),
            from_micros: time(&self.from)?,
            to_micros: time(&self.to)?,
        };
        // The class is judged by whoever knows them.
        let classless = Asked {
            class: None,
            ..asked.clone()
        };
        classless.wanted(&[], None).map_err(Stop::Wrong)?;
        Ok(asked)
    }
}

impl From<ReachError> for Stop {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Asked(text) => Self::Wrong(text),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// One JSON document on a line of its own.
fn json_line(value: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// "1 message", "2 messages".
fn count(number: u64, word: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {word}{end}")
}
