//! `tidegate spool replay`, `pause` and `resume`.

use super::super::say;
use super::{Done, Steer, count, json_line};
use crate::control::exit::Exit;
use crate::control::spool::page::{Replay, ReplayWhat};
use crate::control::spool::reach::Reach;

pub(super) fn replay(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, false, |replay| {
        let paused = match (replay.was_paused, steer.dry_run) {
            (true, true) => "The replay is paused, and would go on. ",
            (true, false) => "The replay was paused, and goes on. ",
            (false, _) => "The replay is not paused. ",
        };
        format!("{paused}{}", outlook(replay))
    })
}

pub(super) fn pause(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, true, |replay| {
        let backlog = count(replay.backlog, "message");
        match (replay.was_paused, steer.dry_run) {
            (true, _) => format!("The replay is paused already; {backlog} to replay.\n"),
            (false, true) => format!("The replay would be paused; {backlog} to replay.\n"),
            (false, false) => format!(
                "The replay is paused until `tidegate spool resume`, or until the gateway starts anew; {backlog} to replay. Live messages go on.\n"
            ),
        }
    })
}

pub(super) fn resume(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, false, |replay| {
        match (replay.was_paused, steer.dry_run) {
            (true, true) => format!("The replay would go on. {}", outlook(replay)),
            (true, false) => format!("The replay goes on. {}", outlook(replay)),
            (false, _) => "The replay was not paused; nothing was changed.\n".to_owned(),
        }
    })
}

fn steered(
    reach: &mut Reach,
    steer: &Steer,
    paused: bool,
    text: impl FnOnce(&Replay) -> String,
) -> Done {
    let dry_run = steer.dry_run;
    let replay = reach.replay(ReplayWhat { paused, dry_run })?;
    match steer.json {
        true => say(json_line(&replay)),
        false => say(text(&replay)),
    }
    Ok(Exit::Done)
}

fn outlook(replay: &Replay) -> String {
    let backlog = count(replay.backlog, "message");
    match (replay.backlog, replay.uplink_up) {
        (0, _) => "There is nothing to replay: the backlog is empty.\n".to_owned(),
        (_, true) => format!("{backlog} to replay, and the uplink is up.\n"),
        (_, false) => {
            format!("{backlog} to replay, as soon as the uplink is back.\n")
        }
    }
}
