//! `tidegate demo`: plays the story on the screen, then prints what came of it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::run::run;
use super::{complain, say};
use crate::control::demo::account::Account;
use crate::control::demo::child::end_with_demo;
use crate::control::demo::play::{PlayError, play};
use crate::control::demo::story::Story;
use crate::control::demo::terminal::View;
use crate::control::exit::Exit;

/// What the command line asks for.
#[derive(Args, Debug)]
pub struct Demo {
    /// How long the story takes, 20 to 600 seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(20..=600))]
    seconds: u32,
    /// Show nothing, and print the account as one JSON object at the end.
    #[arg(long)]
    json: bool,
    /// Be the demo's gateway, with this configuration: how the demo starts it.
    #[arg(long, hide = true, value_name = "FILE")]
    gateway: Option<PathBuf>,
}

/// Plays it. A ledger that does not balance or an alarm that is missing is [`Exit::Failed`].
#[must_use]
pub fn demo(asked: &Demo) -> Exit {
    if let Some(configuration) = &asked.gateway {
        return be_the_gateway(configuration);
    }
    let view = if asked.json {
        Ok(View::Nothing)
    } else {
        View::of_stdout()
    };
    let mut view = match view {
        Ok(view) => view,
        Err(error) => {
            complain(format_args!("fault: {error}\n"));
            return Exit::Misconfigured;
        }
    };
    let story = Story::of(Duration::from_secs(asked.seconds.into()));
    let played = play(story, |figures| view.show(figures));
    // The terminal is as it was before the account is printed.
    drop(view);
    match played {
        Ok(account) => {
            print(&account, asked.json);
            account.exit()
        }
        Err(error) => {
            complain(format_args!("fault: {error}\n"));
            match error {
                PlayError::TooEarly => Exit::Interrupted,
                _ => Exit::Failed,
            }
        }
    }
}

/// The gateway as `tidegate run` has it, and somebody who ends it when the demo is gone.
fn be_the_gateway(configuration: &Path) -> Exit {
    if let Err(error) = end_with_demo(configuration.to_owned()) {
        complain(format_args!("fault: the system gives no thread: {error}\n"));
        return Exit::Failed;
    }
    run(Some(configuration))
}

fn print(account: &Account, json: bool) {
    if !json {
        say(format_args!("\n{account}"));
        return;
    }
    match serde_json::to_string_pretty(account) {
        Ok(text) => say(format_args!("{text}\n")),
        Err(error) => complain(format_args!(
            "fault: the account cannot be written: {error}\n"
        )),
    }
}
