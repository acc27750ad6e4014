//! The disk beside the path: which messages are written and when, what is given up in memory because
//! it is on disk, what is read back, and what the writer's reports make of it all.
//!
//! A guaranteed message is written when it is late or the uplink is away; a buffered one when the uplink
//! is away or its memory fills; everything that waits when the gateway stops. What is written stays
//! live until its room is needed.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use super::super::lanes::Answer;
use super::super::message::{ClassId, Message, MessageId, Tick};
use super::super::queue::Delivery;
use super::super::schedule::pick::Pick;
use super::super::settle::{Outcome, kept};
use super::super::spool::append::TakenBack;
use super::super::spool::{
    DiskHealth, Position, SpoolCommand, SpoolReport, Unwritten, class_of_log,
};
use super::{OBSERVE_EVERY, Relay};

/// A link that comes back within this time was not away: most reconnects touch no disk.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(1);
/// The latest that late can be (it follows the acknowledgement time).
const LATE_MAX: Duration = Duration::from_secs(5);
/// How often the ledger is kept while the disk is written to anyway.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is written of a class that found no room on disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

impl Relay {
    /// The writer reports.
    pub fn spool_report(&mut self, report: SpoolReport, now: Tick) {
        match report {
            SpoolReport::Found { class, ranges } => {
                let (_, dead) = self.of_log(class);
                let spool = &mut self.spool.classes[class.index()];
                let count = spool.backlog.found(ranges);
                spool.appending.found(count);
                if !dead {
                    self.ledger.carry(class, count);
                }
            }
            SpoolReport::Headless { class } => {
                self.spool.classes[class.index()].headless = true;
            }
            SpoolReport::Scanned { class } => {
                self.spool.classes[class.index()].backlog.scanned();
                match self.of_log(class) {
                    (class, true) => self.tell_found_dead(class),
                    (class, false) => {
                        self.count_headless(class);
                        self.tell_found(class);
                    }
                }
            }
            SpoolReport::Safe { class, positions } if self.of_log(class).1 => {
                self.buried(self.of_log(class).0, positions);
                self.spool.answered(now);
            }
            SpoolReport::Safe { class, positions } => {
                let appending = &mut self.spool.classes[class.index()].appending;
                for mut receipt in appending.safe(&positions) {
                    self.senders.answer(&mut receipt, Answer::Accepted);
                }
                self.room_made = true;
                self.spool.answered(now);
            }
            SpoolReport::Unwritten {
                class,
                positions,
                why,
            } => {
                let appending = &mut self.spool.classes[class.index()].appending;
                if why == Unwritten::Full {
                    appending.pause(now.after(FULL_PAUSE));
                }
                appending.answered(&positions);
                // What was received later is written behind it.
                let behind = appending.drop_open(positions.start.segment());
                for positions in [Some(positions), behind].into_iter().flatten() {
                    match self.of_log(class) {
                        (class, true) => self.unburied(class, positions, now),
                        (class, false) => self.take_marks_off(class, &positions),
                    }
                }
                self.spool.answered(now);
            }
            SpoolReport::Records {
                class,
                looked_at,
                messages,
            } => match self.of_log(class) {
                (class, true) => self.read_dead(class, looked_at, messages, now),
                (class, false) => self.read_back(class, looked_at, messages, now),
            },
            SpoolReport::Gone {
                class,
                positions,
                outcome,
            } if self.of_log(class).1 => {
                self.dead_gone(self.of_log(class).0, &positions, outcome);
            }
            SpoolReport::Gone {
                class,
                positions,
                outcome,
            } => {
                let spool = &mut self.spool.classes[class.index()];
                let count = spool.backlog.gone(positions.clone());
                spool.appending.forget(count);
                self.ledger.end_many(class, outcome, count);
                self.take_marks_off(class, &positions);
                self.room_made = true;
            }
            SpoolReport::Health(health) => {
                let fails = health != DiskHealth::Well;
                self.spool.health = Some(health);
                if fails {
                    self.unbury_open(now);
                }
            }
            SpoolReport::Figures(figures) => self.spool.figures = figures,
        }
        self.put_back();
        self.follow_marks();
        self.settle();
    }

    /// The ledger is kept as it is now.
    pub fn keep_ledger(&mut self) {
        let content = kept::write(self.ledger.accounts());
        self.spool.commands.push_back(SpoolCommand::Keep(content));
    }

    /// What the writer must do next.
    pub fn take_spool_command(&mut self) -> Option<SpoolCommand> {
        self.spool.commands.pop_front()
    }

    /// Nothing more is read back: what is in memory is all that is sent.
    pub fn drain(&mut self) {
        self.spool.draining = true;
        self.leave_dead();
        self.settle();
    }

    /// Everything that waits is written now, and nothing sent.
    pub fn stop(&mut self) {
        self.spool.draining = true;
        self.spool.stopping = true;
        self.summarise_waiting();
        self.settle();
    }

    /// Whether everything that can be written is on disk.
    #[must_use]
    pub fn is_written(&mut self) -> bool {
        if !self.spool.is_well() {
            return true;
        }
        let waits = |relay: &mut Self, class: ClassId| {
            let appending = &relay.spool.classes[class.index()].appending;
            let room = appending.full_until() <= relay.observed;
            room && relay.queues.class_mut(class).first_unwritten().is_some()
        };
        let told = self.spool.commands.is_empty();
        told && !self.spool.is_busy()
            && self.thinning.is_written()
            && !self.class_ids().any(|class| waits(self, class))
    }

    /// Stops the replay of a class, or of all, or lets it go on, with what rests of it; gives whether any of
    /// it was stopped before.
    pub fn pause_replay(&mut self, class: Option<ClassId>, paused: bool) -> bool {
        let mut before = false;
        for own in self.class_ids() {
            if class.is_none_or(|class| class == own) {
                before |= self.schedule.pause(own, paused);
                if !paused {
                    self.wake_resting(own);
                }
            }
        }
        before
    }

    /// The operator removes messages that are on disk; gives how many of these were. What is in flight or
    /// set aside to go again is not removed.
    pub fn purge(&mut self, class: ClassId, positions: &[Position]) -> u64 {
        if let (class, true) = self.of_log(class) {
            return self.purge_dead(class, positions);
        }
        let mut count = 0;
        let mut in_memory = HashSet::new();
        let spool = &mut self.spool;
        for position in positions {
            let of_class = &mut spool.classes[class.index()];
            if of_class.backlog.remove(*position) {
                of_class.appending.forget(1);
                spool.settled(*position);
                count += 1;
            } else {
                in_memory.insert(*position);
            }
        }
        self.ledger.end_many(class, Outcome::Purged, count);
        if !in_memory.is_empty() {
            count += self.purge_in_memory(class, &in_memory);
        }
        count
    }

    fn purge_in_memory(&mut self, class: ClassId, positions: &HashSet<Position>) -> u64 {
        let meant = |message: &Message| message.spooled.is_some_and(|at| positions.contains(&at));
        let mut purged = self.queues.take_all(class, meant);
        for message in self.spool.classes[class.index()].backlog.take(meant) {
            self.queues.release(&message);
            purged.push(message);
        }
        let count = purged.len() as u64;
        let purged = purged.into_iter();
        self.ends
            .extend(purged.map(|message| (message, Outcome::Purged)));
        self.settle();
        count
    }

    /// Writes what is to be written, and asks for what is to be read.
    pub(super) fn spool_turn(&mut self, now: Tick) {
        let up = self.outbound.any_up();
        if up {
            self.spool.away_since = None;
        } else {
            self.spool.away_since.get_or_insert(now);
        }
        let late = self.late();
        let away = self.is_away(late, now);
        for spool in &mut self.spool.classes {
            spool.backlog.start(now);
        }
        for class in self.class_ids() {
            if !self.spool.is_well() || !self.spool.classes[class.index()].appending.may_write(now)
            {
                self.give_up_kept(class);
            }
        }
        self.follow_seen();
        if self.spool.is_well() {
            self.write_in_flight(away, late, now);
            let mut writes = false;
            for class in self.class_ids() {
                self.write_waiting(class, away, late, now);
                for log in [class, self.spool.dead_log(class)] {
                    let due = self.spool.classes[log.index()].appending.due();
                    if due <= now || self.spool.stopping {
                        writes |= self.spool.close(log, now);
                    }
                }
            }
            if writes && now.since(self.spool.kept) >= KEEP_EVERY {
                self.spool.kept = now;
                self.keep_ledger();
            }
            if up && !self.spool.draining {
                self.try_dead_letters(now);
                let classes = self.spool.classes.iter_mut().take(self.classes.len());
                let reads = classes.filter_map(|class| class.backlog.ask(now));
                self.spool.commands.extend(reads);
            }
        }
        self.follow_marks();
    }

    /// Live messages of a `latest` class go beside older values of their keys, which are worth nothing
    /// once a newer one came: keys are noted as long as there are any.
    fn follow_seen(&mut self) {
        for class in self.class_ids() {
            let backlog = &self.spool.classes[class.index()].backlog;
            let overtaken = self.outlives_backlog(class) && backlog.is_beside();
            if overtaken && !(backlog.is_scanned() && backlog.is_empty()) {
                self.queues.class_mut(class).seen().wake();
            } else if !self.queues.class_mut(class).seen().rests() {
                // What was replayed and is in flight may come back.
                let mut sent = self.outbound.sent_mut().map(|sent| &sent.message);
                if !sent.any(|message| message.replayed && message.class == class) {
                    self.queues.class_mut(class).seen().rest();
                }
            }
        }
    }

    /// When an unacknowledged message is late.
    fn late(&self) -> Duration {
        let four_times = self.outbound.smoothed() * 4;
        self.spool.policy.spool_after.max(four_times).min(LATE_MAX)
    }

    /// Whether the uplink is away: no connection, or one that is silent for longer than late.
    fn is_away(&self, late: Duration, now: Tick) -> bool {
        let away = self.spool.away_since;
        let silent = self.outbound.silent_since();
        away.is_some_and(|since| now.since(since) >= AWAY_AFTER)
            || silent.is_some_and(|since| now.since(since) >= late)
    }

    /// When the next message in flight is late and is to be written.
    pub(super) fn late_at(&self, now: Tick) -> Tick {
        let oldest = self.outbound.oldest_in_flight();
        let Some(oldest) = oldest.filter(|_| self.spool.is_well()) else {
            return Tick::NEVER;
        };
        oldest.after(self.late()).max(now.after(OBSERVE_EVERY))
    }

    /// Whether the oldest unwritten message that waits is to be written now.
    fn is_due(&mut self, class: ClassId, away: bool, late: Duration, now: Tick) -> bool {
        let delivery = self.classes[class.index()].delivery;
        let overflows = self.queues.overflows(class);
        let Some(message) = self.queues.class_mut(class).first_unwritten() else {
            return false;
        };
        let due = match delivery {
            Delivery::Guaranteed => away || overflows || now.since(message.received) >= late,
            Delivery::Buffered => away || overflows,
            Delivery::Latest => false,
        };
        due || self.spool.stopping
    }

    fn write_waiting(&mut self, class: ClassId, away: bool, late: Duration, now: Tick) {
        while self.spool.may_write(class, now) && self.is_due(class, away, late, now) {
            let (queue, spool) = (self.queues.class_mut(class), &mut self.spool);
            queue.write_first(|message| spool.write(message, now));
        }
        self.write_kept(class, now);
    }

    /// Writes what is in flight or waits aside, and late. What is in flight goes to disk before what waits
    /// behind it, so that a class stands there in the order of receipt. Copies of one message stand in
    /// one place.
    fn write_in_flight(&mut self, away: bool, late: Duration, now: Tick) {
        let stopping = self.spool.stopping;
        let behind: Vec<bool> = self
            .class_ids()
            .map(|class| self.outbound.in_flight(class) > 0 && self.is_due(class, away, late, now))
            .collect();
        let oldest = self.outbound.oldest_in_flight();
        let is_late = oldest.is_some_and(|at| now.since(at) >= late) || !self.setbacks.is_empty();
        if !(stopping || is_late || behind.contains(&true)) {
            return;
        }
        let mut written: HashMap<MessageId, Position> = self
            .outbound
            .sent_mut()
            .filter(|sent| sent.doubled)
            .filter_map(|sent| Some((sent.message.id(), sent.message.spooled?)))
            .collect();
        let sent = self.outbound.sent_mut();
        let sent = sent.map(|sent| (&mut sent.message, sent.doubled, true));
        let aside = self.setbacks.iter_mut();
        let aside = aside.map(|message| (message, false, false));
        let all = sent.chain(aside);
        let mut unwritten: Vec<_> = all.filter(|(m, ..)| m.spooled.is_none()).collect();
        // Both connections, and what goes with QoS 0, in one order; backlog is older than what is live.
        unwritten.sort_by_key(|(message, ..)| (!message.replayed, message.turn));
        for (message, doubled, in_flight) in unwritten {
            let class = message.class.index();
            let guaranteed = self.classes[class].delivery == Delivery::Guaranteed;
            let due = guaranteed && now.since(message.received) >= late;
            let due = due || stopping || in_flight && behind[class];
            // A copy of what was acknowledged over the other connection has ended.
            if !due || self.doubles.is_settled(message.id()) {
                continue;
            }
            if let Some(position) = written.get(&message.id()) {
                message.spooled = Some(*position);
                message.receipt.token = None;
            } else if self.spool.may_write(message.class, now) {
                self.spool.write(message, now);
                if let (true, Some(position)) = (doubled, message.spooled) {
                    written.insert(message.id(), position);
                }
            }
        }
    }

    fn read_back(
        &mut self,
        class: ClassId,
        looked_at: Range<Position>,
        messages: Vec<Message>,
        now: Tick,
    ) {
        let spool = &mut self.spool.classes[class.index()];
        let (messages, missing) = spool.backlog.answered(looked_at, messages, now);
        spool.appending.forget(missing);
        for message in messages {
            self.queues.occupy(&message);
            spool.backlog.push(message);
        }
        if missing > 0 {
            tracing::error!(
                "{missing} messages of class {} cannot be read from the spool any more; they are counted as damaged",
                self.classes[class.index()].name,
            );
            self.ledger.end_many(class, Outcome::Damaged, missing);
        }
    }

    /// The next message of a class that was read back and is still worth sending.
    pub(super) fn pop_backlog(&mut self, pick: Pick, now: Tick) -> Option<Message> {
        let class = pick.class;
        let live = self.queues.class(class).front_message();
        let tries = pick.beside && !self.spool.goes_beside(class, live, now);
        let message = match tries {
            true => self.spool.dead[class.index()].ready().take(),
            false => self.spool.pop(class),
        }?;
        if message.expires <= now {
            self.queues.release(&message);
            self.ends.push_back((message, Outcome::Expired));
            return None;
        }
        if self.is_superseded(&message) {
            self.queues.release(&message);
            self.ends.push_back((message, Outcome::Superseded));
            return None;
        }
        Some(message)
    }

    /// Whether a newer value of a `latest` class's key came than this one, which was read back.
    fn is_superseded(&mut self, message: &Message) -> bool {
        self.outlives_backlog(message.class)
            && self
                .queues
                .class_mut(message.class)
                .supersedes_backlog(message)
    }

    /// Whether a newer value of a class makes those on disk worthless: not where they are kept as a curve.
    fn outlives_backlog(&self, class: ClassId) -> bool {
        let class = &self.classes[class.index()];
        class.delivery == Delivery::Latest && class.thin.is_none()
    }

    /// Positions are not on disk, or not any more: what is in memory of them is written again when it is
    /// time, and its sender waits for that.
    fn take_marks_off(&mut self, class: ClassId, positions: &Range<Position>) {
        let appending = &mut self.spool.classes[class.index()].appending;
        let receipts = appending.take_back(positions);
        let mut found = HashSet::new();
        let mut change =
            |message: &mut Message| take_mark_off(message, positions, &receipts, &mut found);
        self.queues.class_mut(class).take_back(&mut change);
        self.thinning.change(class, &mut change);
        let sent = self.outbound.sent_mut().map(|sent| &mut sent.message);
        let aside = self.setbacks.iter_mut();
        let read = self.spool.classes[class.index()].backlog.iter_mut();
        let moving = self.spool.dead[class.index()].moving().iter_mut();
        let moving = moving.map(|(_, message)| message);
        let others = sent.chain(aside).chain(read).chain(moving);
        others
            .filter(|message| message.class == class)
            .for_each(&mut change);
        let appending = &mut self.spool.classes[class.index()].appending;
        appending.forget(found.len() as u64);
    }

    /// The backlog learns what was given up in memory.
    pub(super) fn follow_unloaded(&mut self) {
        for (class, position) in self.queues.take_unloaded() {
            self.spool.classes[class.index()].backlog.insert(position);
        }
    }

    /// The queues learn what may be given up in memory.
    fn follow_marks(&mut self) {
        for class in self.class_ids() {
            let spool = &self.spool.classes[class.index()];
            let from = match spool.backlog.has_room() {
                true => spool.appending.unsafe_from(),
                false => Some(Position::FIRST),
            };
            self.queues.class_mut(class).set_unsafe_from(from);
        }
    }

    /// After a kill the accounts are exact from when they were last kept.
    fn tell_found(&self, class: ClassId) {
        let account = &self.ledger.accounts()[class.index()];
        let waiting = self.spool.on_disk(class);
        if waiting > 0 || account.found != 0 {
            tracing::info!(
                "class {}: {waiting} messages of earlier starts are on disk; they differ by {} from what the ledger said (0 after a clean stop)",
                account.class,
                account.found,
            );
        }
    }

    /// What of the ledger's knowledge stood in segments without a head is damaged.
    fn count_headless(&mut self, class: ClassId) {
        let found = self.ledger.accounts()[class.index()].found;
        let missing = found.min(0).unsigned_abs();
        if !self.spool.classes[class.index()].headless || missing == 0 {
            return;
        }
        tracing::error!(
            "class {}: a segment lost its head, and {missing} messages that the ledger last knew on disk are not there; they are counted as damaged, though some may have been delivered since",
            self.classes[class.index()].name,
        );
        self.ledger.carry(class, missing);
        self.ledger.end_many(class, Outcome::Damaged, missing);
    }

    fn tell_found_dead(&self, class: ClassId) {
        let count = self.spool.dead_letters(class);
        if count > 0 {
            tracing::info!(
                "class {}: {count} dead letters of earlier starts are on disk; they are tried again once an hour, or with `tidegate spool replay --again`",
                self.classes[class.index()].name,
            );
        }
    }

    /// Whose log this is, and whether it is that of the class's dead letters.
    pub(super) fn of_log(&self, log: ClassId) -> (ClassId, bool) {
        class_of_log(log, self.classes.len())
    }

    pub(super) fn class_ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        let count = u8::try_from(self.classes.len()).unwrap_or(u8::MAX);
        (0..count).map(ClassId)
    }
}

fn take_mark_off(
    message: &mut Message,
    positions: &Range<Position>,
    receipts: &TakenBack,
    found: &mut HashSet<Position>,
) {
    let Some(position) = message.spooled.filter(|at| positions.contains(at)) else {
        return;
    };
    message.spooled = None;
    found.insert(position);
    if let Some(receipt) = receipts.get(&position) {
        message.receipt = *receipt;
    }
}
