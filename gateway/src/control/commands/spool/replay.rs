//! `tidegate spool replay`, `pause` and `resume`: the backlog goes on or stops, of one class or of all; dead
//! letters are tried again.

use super::super::say;
use super::messages::{NOTHING, warn};
use super::progress::Progress;
use super::{Done, Steer, count, json_line};
use crate::control::exit::Exit;
use crate::control::spool::Asked;
use crate::control::spool::page::{Again, Replay, ReplayWhat, Search};
use crate::control::spool::reach::Reach;

pub(super) fn replay(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, false, |replay| {
        let paused = match (replay.was_paused, steer.dry_run) {
            (true, true) => "is paused, and would go on",
            (true, false) => "was paused, and goes on",
            (false, _) => "is not paused",
        };
        format!("{} {paused}. {}", subject(steer), outlook(replay))
    })
}

pub(super) fn pause(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, true, |replay| {
        let (backlog, whose) = (count(replay.backlog, "message"), subject(steer));
        match (replay.was_paused, steer.dry_run) {
            (true, true) => {
                format!("{whose} is paused already, or part of it; {backlog} to replay.\n")
            }
            (false, true) => format!("{whose} would be paused; {backlog} to replay.\n"),
            (_, false) => format!(
                "{whose} is paused until `tidegate spool resume`, or until the gateway starts anew; {backlog} to replay. Live messages go on.\n"
            ),
        }
    })
}

pub(super) fn resume(reach: &mut Reach, steer: &Steer) -> Done {
    steered(reach, steer, false, |replay| {
        match (replay.was_paused, steer.dry_run) {
            (true, true) => format!("{} would go on. {}", subject(steer), outlook(replay)),
            (true, false) => format!("{} goes on. {}", subject(steer), outlook(replay)),
            (false, _) => format!("{} was not paused; nothing was changed.\n", subject(steer)),
        }
    })
}

/// Tries dead letters again.
pub(super) fn again(asked: &Asked, reach: &mut Reach, dry_run: bool, json: bool) -> Done {
    let mut search = Search {
        asked: asked.clone(),
        dry_run,
        ..Search::default()
    };
    let mut progress = Progress::start();
    let mut all = Again::default();
    loop {
        let page = reach.again(&search)?;
        all.meant += page.meant;
        all.again += page.again;
        all.unreadable += page.unreadable;
        progress.tell(|| format!("{} so far", count(all.meant, "dead letter")));
        search.next = page.next;
        if search.next.is_none() {
            break;
        }
    }
    drop(progress);
    let replay = reach.replay(&ReplayWhat {
        // A class of dead letters may be configured no more.
        class: None,
        paused: false,
        dry_run: true,
    })?;
    if json {
        let value = serde_json::json!({
            "dry_run": dry_run,
            "matching": all.meant,
            "again": all.again,
            "unreadable": all.unreadable,
            "paused": replay.was_paused,
            "uplink_up": replay.uplink_up,
        });
        say(json_line(&value));
    } else {
        say(told(&all, &replay, dry_run));
        warn(all.unreadable);
    }
    Ok(Exit::Done)
}

fn told(all: &Again, replay: &Replay, dry_run: bool) -> String {
    let meant = count(all.meant, "dead letter");
    if all.meant == 0 {
        return NOTHING.to_owned();
    }
    if dry_run {
        return format!("{meant} would be tried again; nothing was changed.\n");
    }
    let when = match (replay.was_paused, replay.uplink_up) {
        (true, _) => "as soon as the replay goes on: it is paused (`tidegate spool resume`)",
        (false, true) => "now, one by one",
        (false, false) => "as soon as the uplink is back",
    };
    let rest = match all.meant - all.again.min(all.meant) {
        0 => String::new(),
        rest => format!("; {rest} more are tried already, or have just ended"),
    };
    let again = count(all.again, "dead letter");
    format!(
        "{again} to be tried again {when}{rest}. `tidegate spool ls` shows what stays refused.\n"
    )
}

fn subject(steer: &Steer) -> String {
    match &steer.class {
        Some(class) => format!("The replay of class {class}"),
        None => "The replay".to_owned(),
    }
}

fn steered(
    reach: &mut Reach,
    steer: &Steer,
    paused: bool,
    text: impl FnOnce(&Replay) -> String,
) -> Done {
    let dry_run = steer.dry_run;
    let replay = reach.replay(&ReplayWhat {
        class: steer.class.clone(),
        paused,
        dry_run,
    })?;
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
