//! `tidegate spool verify`.

use super::super::say;
use super::progress::Progress;
use super::{Done, Stop, count, json_line};
use crate::control::exit::Exit;
use crate::control::spool::Asked;
use crate::control::spool::page::{Check, Segment};
use crate::control::spool::reach::Reach;

pub(super) fn check(asked: &Asked, reach: &mut Reach, json: bool) -> Done {
    let mut listed = reach.segments()?;
    if let Some(class) = &asked.class {
        if !listed.classes.contains(class) {
            let names = listed.classes.join(", ");
            let text = format!("there is no class {class:?}; the classes are {names}");
            return Err(Stop::Wrong(text));
        }
        listed.segments.retain(|segment| segment.class == *class);
    }
    listed
        .segments
        .retain(|segment| segment.dead || !asked.dead);
    let mut progress = Progress::start();
    let (mut damaged, mut blocks) = (0, 0);
    let all = listed.segments.len();
    for (at, segment) in listed.segments.iter().enumerate() {
        progress.tell(|| format!("{at} of {all} segments checked"));
        let check = reach.check(segment.segment)?;
        blocks += check.blocks;
        damaged += u64::from(!check.is_sound());
        if json {
            let value =
                serde_json::json!({"segment": segment, "check": check, "sound": check.is_sound()});
            say(json_line(&value));
        } else if !check.is_sound() {
            say(fault(segment, &check));
        }
    }
    drop(progress);
    if !json {
        say(verdict(all as u64, blocks, damaged));
    }
    Ok(if damaged > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn fault(segment: &Segment, check: &Check) -> String {
    let mut faults = Vec::new();
    if let Some(why) = &check.unusable {
        faults.push(why.clone());
    }
    if check.damaged_blocks > 0 {
        let blocks = count(check.damaged_blocks, "block");
        faults.push(format!("the checksum of {blocks} does not hold"));
    }
    if check.missing > 0 {
        let messages = count(check.missing, "message");
        faults.push(format!("{messages} cannot be read"));
    }
    format!(
        "DAMAGED  segment {} of class {} ({}): {}\n",
        segment.segment,
        segment.class,
        segment.file(),
        faults.join("; ")
    )
}

fn verdict(segments: u64, blocks: u64, damaged: u64) -> String {
    let all = count(segments, "segment");
    let blocks = count(blocks, "whole block");
    match (segments, damaged) {
        (0, _) => "There are no segments to check: nothing is on disk.\n".to_owned(),
        (_, 0) => format!("{all} checked, {blocks}: every checksum holds.\n"),
        (_, damaged) => format!(
            "{all} checked, {blocks}; {damaged} damaged. The gateway carves out what it can when it reads a segment, and counts the rest as damaged; check the medium (kernel log, SMART).\n"
        ),
    }
}
