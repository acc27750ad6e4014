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

use super::super::lanes::{Answer, Refusal};
use super::super::message::{ClassId, Message, Receipt, Tick};
use super::super::queue::Delivery;
use super::super::settle::Outcome;
use super::super::spool::append::TakenBack;
use super::super::spool::{Position, Ranges, dead_log};
use super::Relay;
use super::disk::Spooling;
use super::setbacks::Ruling;

/// How often dead letters are tried again by themselves: often enough that a mended far end needs no
/// operator, seldom enough to cost nothing.
const AGAIN_EVERY: Duration = Duration::from_secs(3600);
/// When that is first done: a box that is on for minutes a day tries too, and one that restarts all the
/// time does nothing else.
const AGAIN_FIRST: Duration = Duration::from_secs(300);

/// The dead letters of one class, beside the log in which they stand.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    /// On disk, and yet to be tried in this round.
    round: Ranges,
    /// The one that is tried now stands here; it is in memory.
    trying: Option<Position>,
    /// It, until it is sent.
    ready: Option<Message>,
    /// Where dead letters stand that are not yet safe, and where they stood before: that is settled when
    /// they are.
    moving: VecDeque<(Position, Position)>,
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

    /// Writes a dead letter into its log. Its sender, if it waits, is answered when it is safe, and what
    /// is on disk of it is settled then.
    fn bury(&mut self, mut message: Message, now: Tick) {
        let class = message.class;
        let before = message.spooled.take().map(|place| {
            let appending = &mut self.classes[class.index()].appending;
            let (receipt, tell) = appending.settle(place);
            if let Some(receipt) = receipt {
                message.receipt = receipt;
            }
            (place, tell)
        });
        message.class = self.dead_log(class);
        self.write(&mut message, now);
        if let (Some((before, true)), Some(place)) = (before, message.spooled) {
            self.dead[class.index()].moving.push_back((place, before));
        }
    }

    /// What stood elsewhere before it became a dead letter stands there no more.
    fn settle_moved(&mut self, class: ClassId, until: Position) {
        let moving = &mut self.dead[class.index()].moving;
        let moved = moving.partition_point(|(place, _)| *place < until);
        let moved: Vec<_> = moving.drain(..moved).collect();
        moved.into_iter().for_each(|(_, at)| self.settled(at));
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
        let logs = self.classes.iter().skip(self.dead.len());
        let any = logs.map(|log| log.backlog.on_disk()).any(|count| count > 0);
        match self.again_at {
            Some(at) if any => at,
            _ => Tick::NEVER,
        }
    }
}

impl Relay {
    /// Ends a message that the upstream refuses for good. One of a guaranteed class is kept on disk, and
    /// its sender answered when it is safe there.
    pub(super) fn dead_letter(&mut self, mut message: Message, why: &str, now: Tick) {
        let class = message.class;
        let again = self.spool.is_tried(&message);
        let guaranteed = self.classes[class.index()].delivery == Delivery::Guaranteed;
        let log = self.spool.dead_log(class);
        let kept = guaranteed && !again;
        if kept && self.spool.is_well() && !self.spool.may_write(log, now) {
            // The disk is busy, or was full a moment ago: the message asks again later.
            match self.setbacks.refusal(message, now) {
                Ruling::Aside => return,
                Ruling::BackToFront(back) | Ruling::DeadLetter(back) => message = *back,
            }
        }
        let keeps = kept && self.spool.may_write(log, now);
        let what = match (again, keeps, guaranteed) {
            (true, ..) => "was tried again and stays on disk",
            (_, true, _) => {
                "is kept on disk and tried again once an hour, or with `tidegate spool replay --again`"
            }
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
        if !keeps {
            self.spool.dead[class.index()].lost += u64::from(guaranteed && !again);
            return self.end_sent(message, Outcome::DeadLetter);
        }
        self.queues.release(&message);
        self.setbacks.forget(message.id());
        self.ledger.end(class, Outcome::DeadLetter);
        self.room_made = true;
        self.spool.bury(message, now);
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
    /// counts nothing.
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
        count
    }

    /// Begins a round when it is time, and asks for the next dead letter of each class.
    pub(super) fn try_dead_letters(&mut self, now: Tick) {
        let spool = &mut self.spool;
        let at = *spool.again_at.get_or_insert(now.after(AGAIN_FIRST));
        if at <= now {
            spool.again_at = Some(now.after(AGAIN_EVERY));
        }
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

    /// Dead letters are safe on disk.
    pub(super) fn buried(&mut self, class: ClassId, positions: Range<Position>) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        let receipts = log.appending.safe(&positions);
        log.backlog.found(vec![positions.clone()]);
        self.spool.settle_moved(class, positions.end);
        self.refuse_all(receipts);
    }

    /// Dead letters could not be written: they are lost, and their senders answered.
    pub(super) fn unburied(&mut self, class: ClassId, positions: Range<Position>) {
        let log = self.spool.dead_log(class);
        let log = &mut self.spool.classes[log.index()];
        let count = positions.end.since(positions.start);
        let mut receipts: Vec<_> =
            TakenBack::into_iter(log.appending.take_back(&positions)).collect();
        receipts.sort_unstable_by_key(|(place, _)| *place);
        log.appending.forget(count);
        self.spool.dead[class.index()].lost += count;
        self.spool.settle_moved(class, positions.end);
        tracing::error!(
            "{count} dead letters of class {} ARE LOST, for the disk did not take them",
            self.classes[class.index()].name
        );
        self.refuse_all(receipts.into_iter().map(|(_, receipt)| receipt).collect());
    }

    /// The disk fails: what was to be written goes nowhere.
    pub(super) fn unbury_open(&mut self) {
        for class in self.class_ids() {
            let log = self.spool.dead_log(class);
            let open = self.spool.classes[log.index()].appending.take_open();
            if let Some(positions) = open {
                self.unburied(class, positions);
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

    fn refuse_all(&mut self, receipts: Vec<Receipt>) {
        for mut receipt in receipts {
            let answer = Answer::Refused(Refusal::Upstream);
            self.senders.answer(&mut receipt, answer);
        }
        self.room_made = true;
    }
}
