//! Whether the gateway can do what it promises, and why not. In come the path's status and the wall
//! time, out goes a [`Health`]. A *reason* makes it not ready; a *note* is worth knowing and
//! does not.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::traffic::message::WallTime;
use crate::traffic::status::{ClassStatus, Status};

/// The month of this release. A clock that shows an earlier time is wrong: no certificate can be
/// checked against it, and what is stored would be dated wrongly. Raised with each release.
pub const RELEASED: WallTime = WallTime::from_micros(1_793_491_200_000_000);
/// [`RELEASED`] for people.
const RELEASED_ON: &str = "2026-11-01";

/// What to do about what mends itself.
pub const NOTHING: &str = "nothing";

/// The answer of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Whether there is no reason against it.
    pub ready: bool,
    /// What breaks a promise.
    pub reasons: Vec<Remark>,
    /// What does not, and is worth knowing.
    pub notes: Vec<Remark>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remark {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// Why it matters, or where it comes from.
    pub why: Cow<'static, str>,
    /// What the operator does about it.
    #[serde(rename = "do")]
    pub remedy: Cow<'static, str>,
}

/// What is known of the path.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// It answered.
    Status(&'a Status),
    /// It did not, in the time that it has.
    Silent,
}

/// Judges. `stopping`: the gateway was asked to end and takes nothing new.
#[must_use]
pub fn judge(answer: Answer<'_>, wall: WallTime, stopping: bool) -> Health {
    let mut health = Health::default();
    match answer {
        Answer::Status(status) => path(&mut health, status),
        Answer::Silent => health.reasons.push(remark(
            "the gateway does not answer",
            "the task that moves all messages did not say how it is within a second",
            "restart the gateway, and report it with its log: this is a fault of the program, or a machine with no time for it",
        )),
    }
    if wall < RELEASED {
        health.reasons.push(remark(
            "the clock is wrong",
            format!("it stands before {RELEASED_ON}, when this version was made: certificates cannot be checked, and what is stored gets wrong times"),
            "set the clock, or let NTP set it; the gateway goes on by itself",
        ));
    }
    if stopping {
        health.reasons.push(remark(
            "the gateway is stopping",
            "it was asked to end: nothing new is accepted, what waits is sent",
            "start it again when it has ended, if that was not meant",
        ));
    }
    health.ready = health.reasons.is_empty();
    health
}

fn path(health: &mut Health, status: &Status) {
    let away = !status.is_uplink_up();
    if let Some(failing) = &status.spool.failing {
        disk(health, status, failing, away);
    } else if away {
        health.notes.push(remark(
            "the uplink is away",
            "no connection to the upstream is up; what arrives goes to the spool",
            "see the log for why it does not connect, unless the link is known to be down",
        ));
    }
    if !status.spool.scanned {
        health.notes.push(remark(
            "the spool is still being looked through",
            "the backlog of earlier starts is not counted to the end; live traffic does not wait for it",
            NOTHING,
        ));
    }
    if status.spool.paused {
        health.notes.push(remark(
            "replay is paused",
            "the operator stopped it: the backlog stays on disk",
            "`tidegate spool resume`",
        ));
    }
    let paused = status.classes.iter().filter(|class| class.replay_paused);
    let paused: Vec<_> = paused.map(|class| class.name.as_str()).collect();
    if !paused.is_empty() && !status.spool.paused {
        health.notes.push(remark(
            format!("replay of {} is paused", paused.join(", ")),
            "the operator stopped it: the backlog stays on disk",
            "`tidegate spool resume`",
        ));
    }
    let dead = status
        .classes
        .iter()
        .map(|class| class.dead_letters_on_disk);
    let dead: u64 = dead.sum();
    if dead > 0 {
        health.notes.push(remark(
            format!("{dead} dead letters are on disk"),
            "the upstream refuses them for good; they are tried again once an hour",
            "`tidegate spool peek --dead` shows them; when the far end takes them, `tidegate spool replay --again`",
        ));
    }
    for class in &status.classes {
        class_notes(health, class);
    }
}

/// A disk that fails breaks a promise when a class relies on it, or when nothing else is left.
fn disk(health: &mut Health, status: &Status, failing: &str, away: bool) {
    let guaranteed = status.classes.iter().any(ClassStatus::is_guaranteed);
    let why = match (guaranteed, away) {
        (true, false) => {
            format!("{failing}; guaranteed messages are acknowledged on the upstream's word alone")
        }
        (true, true) => format!(
            "{failing}; and the uplink is away: guaranteed messages are not acknowledged, their senders keep them"
        ),
        (false, true) => format!("{failing}; and the uplink is away: only memory is left"),
        (false, false) => failing.to_owned(),
    };
    let remedy = "mend the disk or make room on it; the spool goes on by itself";
    let remark = remark("the disk fails", why, remedy);
    if guaranteed || away {
        health.reasons.push(remark);
    } else {
        health.notes.push(remark);
    }
}

fn class_notes(health: &mut Health, class: &ClassStatus) {
    if class.held > 0 {
        health.notes.push(remark(
            format!("class {} holds {} messages", class.name, class.held),
            "there is no room for them: they are not acknowledged, and their senders are paused",
            "see what the uplink or the disk lacks; more room is `memory_max` of [gateway] and `size_max` of [spool]",
        ));
    }
    let unaccounted = class.unaccounted();
    if unaccounted != 0 {
        health.notes.push(remark(
            format!(
                "the ledger of class {} is off by {unaccounted} messages",
                class.name
            ),
            "what came in is not what ended and what is still here",
            "please report it, with the log",
        ));
    }
}

fn remark(
    what: impl Into<Cow<'static, str>>,
    why: impl Into<Cow<'static, str>>,
    remedy: impl Into<Cow<'static, str>>,
) -> Remark {
    Remark {
        what: what.into(),
        why: why.into(),
        remedy: remedy.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::status::sample;

    const TODAY: WallTime = WallTime::from_micros(RELEASED.micros() + 1);

    fn reasons(status: &Status) -> Vec<Cow<'static, str>> {
        let health = judge(Answer::Status(status), TODAY, false);
        assert_eq!(health.ready, health.reasons.is_empty());
        health.reasons.into_iter().map(|r| r.what).collect()
    }

    fn notes(status: &Status) -> String {
        let health = judge(Answer::Status(status), TODAY, false);
        let what: Vec<_> = health.notes.iter().map(|note| &*note.what).collect();
        what.join(", ")
    }

    fn offline(mut status: Status) -> Status {
        status.links.iter_mut().for_each(|link| link.up = false);
        status
    }

    fn failing(mut status: Status) -> Status {
        status.spool.failing = Some("no space left on /var".to_owned());
        status
    }

    fn without_guarantee(mut status: Status) -> Status {
        status.classes.remove(0);
        status
    }

    #[test]
    fn is_a_gateway_whose_uplink_is_away_ready_while_the_disk_works() {
        assert!(reasons(&sample()).is_empty());
        assert!(!notes(&sample()).contains("uplink"));
        assert!(reasons(&offline(sample())).is_empty());
        assert!(notes(&offline(sample())).contains("the uplink is away"));
    }

    #[test]
    fn is_a_disk_that_breaks_a_promise_not_ready() {
        assert_eq!(reasons(&failing(sample())), ["the disk fails"]);
        let health = judge(Answer::Status(&failing(sample())), TODAY, false);
        assert!(health.reasons[0].why.contains("no space left on /var"));
        let buffered = without_guarantee(sample());
        assert!(reasons(&failing(buffered.clone())).is_empty());
        assert!(notes(&failing(buffered.clone())).contains("the disk fails"));
        assert_eq!(reasons(&offline(failing(buffered))), ["the disk fails"]);
    }

    #[test]
    fn is_a_clock_before_the_release_not_ready() {
        let early = WallTime::from_micros(RELEASED.micros() - 1);
        let health = judge(Answer::Status(&sample()), early, false);
        assert!(!health.ready && health.reasons[0].why.contains(RELEASED_ON));
        assert!(judge(Answer::Status(&sample()), RELEASED, false).ready);
    }

    #[test]
    fn is_every_reason_told_at_once() {
        let early = WallTime::default();
        let health = judge(Answer::Status(&failing(sample())), early, true);
        assert_eq!(health.reasons.len(), 3);
        let health = judge(Answer::Silent, early, true);
        assert_eq!(health.reasons.len(), 3);
        assert!(!health.ready);
    }

    #[test]
    fn does_a_reason_in_json_say_what_why_and_what_to_do() {
        let health = judge(Answer::Silent, TODAY, false);
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!(json["ready"], false);
        for field in ["what", "why", "do"] {
            assert!(!json["reasons"][0][field].as_str().unwrap().is_empty());
        }
    }
}
