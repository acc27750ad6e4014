//! Dead letters: what the upstream refuses for good. Those of guaranteed classes are kept on disk, each class
//! in a log of its own, and are tried again once an hour or when the operator says so: of each class one
//! at a time, behind its live messages. In the ledger a dead letter has ended; one that is tried again is a
//! message made here, with the id that it had.
//!
//! Nothing here sends: what is tried waits for the scheduler's pick like a backlog that goes beside its
//! class.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::super::message::{ClassId, Message, Tick};
use super::super::queue::Delivery;
use super::super::send::Link;
use super::super::settle::Outcome;
use super::super::spool::{Position, Ranges, SpoolCommand, dead_log};
use super::disk::Spooling;
use super::setbacks::Ruling;
use super::{QUOTA_PAUSE, Relay};

/// How often dead letters are tried again by themselves: often enough that a mended far end needs no
/// operator, seldom enough to cost nothing.
const AGAIN_EVERY: Duration = Duration::from_secs(3600);
/// When that is first done: a box that is on for minutes a day tries too, and one that restarts all the
/// time does nothing else.
const AGAIN_FIRST: Duration = Duration::from_secs(300);

/// What becomes of one that the disk has, and takes as no dead letter.
const RESTS: &str =
    "stays backlog on disk and is sent again once an hour, or with `tidegate spool replay`";

/// The dead letters of one class, beside the log in which they stand.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    /// On disk, and yet to be tried in this round.
    round: Ranges,
    /// The one that is tried now stands here; it is in memory.
    trying: Option<Position>,
    /// It, until it is sent.
    ready: Option<Message>,
    /// Messages whose copies as dead letters are on their way to the disk, and where these will stand. They
    /// end when these are safe.
    moving: VecDeque<(Option<Position>, Message)>,
    /// Of this round: how many were tried, and how many the upstream took.
    tried: u64,
    taken: u64,
    /// Dead letters that could not be kept, or gave way.
    pub(super) lost: u64,
}

impl DeadLetters {
    /// In memory, waiting to be sent.
    pub(super) const fn waiting(&self) -> usize {
        self.ready.is_some() as usize
    }

    /// In memory, and not ended: what waits to be sent, and what moves.
    pub(super) fn unended(&self) -> usize {
        self.waiting() + self.moving.len()
    }

    /// What is in memory until it is safe as a dead letter.
    pub(super) const fn moving(&mut self) -> &mut VecDeque<(Option<Position>, Message)> {
        &mut self.moving
    }

    /// Whether this is the one that is tried.
    pub(super) fn is_tried(&self, message: &Message) -> bool {
        self.trying.is_some() && message.spooled == self.trying
    }

    /// On disk, and in memory too.
    pub(super) const fn in_memory(&self) -> u64 {
        self.trying.is_some() as u64
    }

    /// The one that is tried goes to be sent, or comes back.
    pub(super) const fn ready(&mut self) -> &mut Option<Message> {
        &mut self.ready
    }

    const fn is_idle(&self) -> bool {
        self.trying.is_none() && self.ready.is_none()
    }
}

impl Spooling {
    /// The log of a class's dead letters.
    pub(super) fn dead_log(&self, class: ClassId) -> ClassId {
        dead_log(class, self.dead.len())
    }

    /// Whether the message is a dead letter that is tried again.
    pub(super) fn is_tried(&self, message: &Message) -> bool {
        self.dead[message.class.index()].is_tried(message)
    }

    /// Dead letters of a class on disk.
    pub(super) fn dead_letters(&self, class: ClassId) -> u64 {
        self.on_disk(self.dead_log(class)) + self.dead[class.index()].in_memory()
    }

    /// Writes a dead letter into its log.
    fn bury(&mut self, message: Message, now: Tick) {
        let class = message.class;
        let mut letter = message.clone();
        letter.class = self.dead_log(class);
        letter.receipt.token = None;
        self.write(&mut letter, now);
        let moving = &mut self.dead[class.index()].moving;
        moving.push_back((letter.spooled, message));
    }

    /// The messages whose copies were on their way to these places.
    fn moved(&mut self, class: ClassId, to: &Range<Position>) -> Vec<Message> {
        let moving = &mut self.dead[class.index()].moving;
        let (moved, rest): (VecDeque<_>, _) = std::mem::take(moving)
            .into_iter()
            .partition(|(place, _)| place.is_some_and(|place| to.contains(&place)));
        *moving = rest;
        moved.into_iter().map(|(_, message)| message).collect()
    }

    /// The one that was tried ended: gives whether it was one. What is refused once more stays where it
    /// is.
    pub(super) fn settle_tried(&mut self, message: &Message, outcome: Outcome) -> bool {
        if !self.is_tried(message) {
            return false;
        }
        let log = self.dead_log(message.class);
        let dead = &mut self.dead[message.class.index()];
        let log = &mut self.classes[log.index()];
        let Some(place) = dead.trying.take() else {
            return false;
        };
        if outcome == Outcome::DeadLetter {
            log.backlog.insert(place);
        } else {
            dead.taken += u64::from(outcome == Outcome::Delivered);
            log.appending.forget(1);
            self.settled(place);
        }
        true
    }

    /// When the next round begins, if there is anything to try.
    pub(super) fn again_at(&self) -> Tick {
        let (own, dead) = self.classes.split_at(self.dead.len());
        let any = dead.iter().any(|log| log.backlog.on_disk() > 0)
            || own.iter().any(|log| log.backlog.has_resting());
        match self.again_at {
            Some(at) if any => at,
            _ => Tick::NEVER,
        }
    }
}

impl Relay {
    /// A message that the upstream refuses for good ends. One of a guaranteed class is kept on disk, and
    /// ends when it is safe there; if that takes no dead letter, what stands there already stays backlog.
    pub(super) fn dead_letter(&mut self, mut message: Message, why: &str, now: Tick) {
        let class = message.class;
        let again = self.spool.is_tried(&message);
        let guaranteed = self.classes[class.index()].delivery == Delivery::Guaranteed;
        let log = self.spool.dead_log(class);
        let kept = guaranteed && !again;
        let keeps = kept && self.spool.may_write(log, now);
        let rests = kept && !keeps && self.spool.is_safe(&message);
        if kept && !keeps && !rests && self.spool.is_well() {
            // The disk is busy, or was full a moment ago: the message asks again later.
            match self.setbacks.refusal(message, now) {
                Ruling::Aside => return,
                Ruling::BackToFront(back) | Ruling::DeadLetter(back) => message = *back,
            }
            if !self.spool.has_room() {
                return self.refuse_slowly(message, now);
            }
        }
        let what = match (again, keeps, guaranteed) {
            (true, ..) => "was tried again and stays on disk",
            (_, true, _) => {
                "is kept on disk and tried again once an hour, or with `tidegate spool replay --again`"
            }
            (..) if rests => RESTS,
            (_, _, true) => "IS LOST, for the disk does not take it",
            (_, _, false) => "will not be sent",
        };
        tracing::error!(
            "dead letter: message {:x}:{:x} of class {} on {:?} ({} bytes) {what}: {why}",
            message.epoch,
            message.sequence,
            self.classes[class.index()].name,
            message.body.topic(),
            message.body.payload().len(),
        );
        if keeps {
            self.spool.bury(message, now);
        } else if kept {
            self.leave_unburied(message, now);
        } else {
            self.end_sent(message, Outcome::DeadLetter);
        }
    }

    /// The disk takes no dead letter: what stands there already rests there, so that nobody waits for it;
    /// the rest is lost, and its sender told. Gives whether it is.
    fn leave_unburied(&mut self, message: Message, now: Tick) -> bool {
        let safe = self.spool.is_safe(&message);
        let Some(place) = message.spooled.filter(|_| safe) else {
            self.spool.dead[message.class.index()].lost += 1;
            self.end_sent(message, Outcome::DeadLetter);
            return true;
        };
        let backlog = &mut self.spool.classes[message.class.index()].backlog;
        if backlog.has_room() {
            backlog.rest(place);
            self.queues.release(&message);
            self.setbacks.forget(message.id());
            self.room_made = true;
        } else {
            self.refuse_slowly(message, now);
        }
        false
    }

    /// So many refusals are the upstream's doing: the message goes again, and not at full speed.
    fn refuse_slowly(&mut self, message: Message, now: Tick) {
        for link in Link::BOTH {
            self.outbound.pause(link, now.after(QUOTA_PAUSE));
        }
        self.back.push(message);
    }

    /// What rested on disk, for it was refused and could not be kept as a dead letter, goes again.
    pub(super) fn wake_resting(&mut self, class: ClassId) {
        self.spool.classes[class.index()].backlog.wake();
    }

    /// The operator wants these dead letters tried again now; gives how many of them there are.
    pub fn try_again(&mut self, class: ClassId, positions: &[Position]) -> u64 {
        let log = &self.spool.classes[self.spool.dead_log(class).index()];
        let Some(dead) = self.spool.dead.get_mut(class.index()) else {
            return 0;
        };
        let there = positions.iter().filter(|at| log.backlog.has(**at));
        let there: Vec<_> = there.collect();
        for position in &there {
            dead.round.insert_one(**position);
        }
        there.len() as u64
    }

    /// The operator removes dead letters; gives how many were removed. They have ended: the ledger
    /// counts nothing, but for one that waits to be tried.
    pub(super) fn purge_dead(&mut self, class: ClassId, positions: &[Position]) -> u64 {
        let log = self.spool.dead_log(class).index();
        let mut count = 0;
        for position in positions {
            if self.spool.classes[log].backlog.remove(*position) {
                self.spool.classes[log].appending.forget(1);
                self.spool.dead[class.index()].round.remove_one(*position);
                self.spool.settled(*position);
                count += 1;
            }
        }
        let ready = &mut self.spool.dead[class.index()].ready;
        let meant =
            |message: &mut Message| message.spooled.is_some_and(|at| positions.contains(&at));
        if let Some(message) = ready.take_if(meant) {
            self.end_sent(message, Outcome::Purged);
            self.settle();
            count += 1;
        }
        count
    }

    /// Begins a round when it is time, and asks for the next dead letter of each class.
    pub(super) fn try_dead_letters(&mut self, now: Tick) {
        let at = *self.spool.again_at.get_or_insert(now.after(AGAIN_FIRST));
        if at <= now {
            self.spool.again_at = Some(now.after(AGAIN_EVERY));
            self.class_ids().for_each(|class| self.wake_resting(class));
        }
        let spool = &mut self.spool;
        let logs = spool.classes.iter_mut().skip(spool.dead.len());
        for ((index, dead), log) in (0..=u8::MAX).zip(&mut spool.dead).zip(logs) {
            // A round that is not over goes on: it would never come to its end.
            if at <= now && dead.round.count() == 0 {
                dead.round = log.backlog.places();
            }
            let Some(next) = dead.round.first().filter(|_| dead.is_idle()) else {
                continue;
            };
            if !self.schedule.is_paused(ClassId(index)) {
                spool.commands.extend(log.backlog.ask_one(next.start, now));
            }
        }
    }

    /// Dead letters were read back: the one that was asked for is tried.
    pub(super) fn read_dead(
        &mut self,
        class: ClassId,
        looked_at: Range<Position>,
        messages: Vec<Message>,
        now: Tick,
    ) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        let dead = &mut self.spool.dead[class.index()];
        dead.round.remove(looked_at.clone());
        let (messages, missing) = log.backlog.answered(looked_at, messages, now);
        log.appending.forget(missing);
        dead.lost += missing;
        for mut message in messages {
            let place = message.spooled.filter(|_| dead.is_idle());
            if let (Some(place), true) = (message.spooled, place.is_none() || self.spool.draining) {
                log.backlog.insert(place);
                continue;
            }
            message.class = class;
            dead.trying = place;
            dead.tried += 1;
            self.ledger.make(class);
            self.queues.occupy(&message);
            dead.ready = Some(message);
        }
    }

    /// The round of a class is over: says how it went.
    pub(super) fn tell_round(&mut self) {
        for (class, dead) in self.classes.iter().zip(&mut self.spool.dead) {
            if dead.tried == 0 || !dead.is_idle() || dead.round.count() > 0 {
                continue;
            }
            let (tried, taken) = (dead.tried, dead.taken);
            tracing::info!(
                "class {}: {tried} dead letters were tried again; the upstream took {taken}",
                class.name
            );
            (dead.tried, dead.taken) = (0, 0);
        }
    }

    /// Dead letters are safe on disk. What the disk has of them elsewhere is settled there at once: a kill in
    /// between leaves them twice.
    pub(super) fn buried(&mut self, class: ClassId, positions: Range<Position>) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        log.appending.answered(&positions);
        log.backlog.found(vec![positions.clone()]);
        let mut twice = false;
        for message in self.spool.moved(class, &positions) {
            twice |= message.spooled.is_some();
            self.end_sent(message, Outcome::DeadLetter);
        }
        self.settle();
        if twice {
            self.spool.commands.push_back(SpoolCommand::KeepSettled);
        }
    }

    /// Dead letters could not be written.
    pub(super) fn unburied(&mut self, class: ClassId, positions: Range<Position>, now: Tick) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        let _ = log.appending.take_back(&positions);
        log.appending.forget(positions.end.since(positions.start));
        let (mut lost, mut rest) = (0, 0);
        for message in self.spool.moved(class, &positions) {
            match self.leave_unburied(message, now) {
                true => lost += 1,
                false => rest += 1,
            }
        }
        let name = &self.classes[class.index()].name;
        if lost > 0 {
            tracing::error!(
                "{lost} dead letters of class {name} ARE LOST, for the disk did not take them"
            );
        }
        if rest > 0 {
            tracing::warn!(
                "the disk did not take {rest} dead letters of class {name}: each {RESTS}"
            );
        }
    }

    /// The disk fails: what was to be written goes nowhere.
    pub(super) fn unbury_open(&mut self, now: Tick) {
        for class in self.class_ids() {
            let log = self.spool.dead_log(class);
            let open = self.spool.classes[log.index()].appending.take_open();
            if let Some(positions) = open {
                self.unburied(class, positions, now);
            }
        }
    }

    /// Dead letters are not on disk any more: they gave way, or are damaged. One that is tried just now is a
    /// message like any other then.
    pub(super) fn dead_gone(
        &mut self,
        class: ClassId,
        positions: &Range<Position>,
        outcome: Outcome,
    ) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        let dead = &mut self.spool.dead[class.index()];
        let count = log.backlog.gone(positions.clone());
        log.appending.forget(count);
        dead.lost += count;
        dead.round.remove(positions.clone());
        if let Some(place) = dead.trying.take_if(|at| positions.contains(at)) {
            log.appending.forget(1);
            let sent = self.outbound.sent_mut().map(|sent| &mut sent.message);
            let all = sent.chain(self.setbacks.iter_mut()).chain(&mut dead.ready);
            all.filter(|message| message.spooled == Some(place))
                .for_each(|message| message.spooled = None);
        }
        if count > 0 {
            tracing::error!(
                "{count} dead letters of class {} are gone from the disk: {}",
                self.classes[class.index()].name,
                outcome.word()
            );
        }
    }

    /// At the end: what is not safe as a dead letter is what it was before.
    pub(super) fn take_moving(&mut self) -> Vec<Message> {
        let moving = self.spool.dead.iter_mut();
        let moving = moving.flat_map(|dead| dead.moving.drain(..));
        let moving: Vec<_> = moving.map(|(_, message)| message).collect();
        moving
            .iter()
            .for_each(|message| self.queues.release(message));
        moving
    }

    /// Nothing is tried any more: what waits for that stays a dead letter.
    pub(super) fn leave_dead(&mut self) {
        for dead in &mut self.spool.dead {
            dead.round = Ranges::default();
            if let Some(message) = dead.ready.take() {
                dead.lost += u64::from(message.spooled.is_none());
                self.queues.release(&message);
                self.ends.push_back((message, Outcome::DeadLetter));
            }
        }
    }
}
