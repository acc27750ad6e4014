//! The whole path on one page: a message arrives, gets a place in its class's queue, is picked, sent,
//! acknowledged and settled. The relay owns all path state, does no input or output, and is told the
//! time. Doors call in with batches and events; what must happen outside is fetched afterwards:
//! [`Relay::take_notices`] for senders, [`Relay::take_command`] for the upstream.
//!
//! After every event the ledger balances (checked in debug builds).

mod admission;
mod dead;
mod disk;
mod doubles;
mod outbound;
mod reports;
mod setbacks;
mod slowing;
mod spooling;
mod status;
mod thinning;

use std::sync::Arc;
use std::time::Duration;

use super::lanes::{Answer, Batch, Notice, Refusal};
use super::message::{ClassId, DoorId, Message, Tick, WallTime};
use super::queue::ClassSettings;
use super::queue::bounded::{Ends, Queues};
use super::queue::pressure::{Level, PressureSettings};
use super::schedule::pick::{LeastShares, Pick, Schedule};
use super::send::{Link, LinkCommand, UplinkSettings};
use super::senders::Senders;
use super::settle::Outcome;
use super::settle::ledger::{Account, Ledger, Waiting};
use super::snapshot::{QueueSnapshot, Source};
use super::spool::SpoolPolicy;
pub use admission::BRAKE_MAX;
use disk::Spooling;
use doubles::{Doubles, Standing};
use outbound::Outbound;
use setbacks::Setbacks;
use slowing::Slowing;
use thinning::Thinning;

/// What the relay needs to know.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// The gateway's id, part of every message id.
    pub gateway: String,
    /// Random number of this start, the other part.
    pub epoch: u64,
    /// Memory for messages, in bytes.
    pub memory_bytes_max: u64,
    /// When that is under pressure.
    pub memory_pressure: PressureSettings,
    /// The classes, the first one most urgent.
    pub classes: Vec<ClassSettings>,
    /// The uplink.
    pub uplink: UplinkSettings,
    /// What is made of the disk.
    pub spool: SpoolPolicy,
    /// The number of the next segment.
    pub next_segment: u32,
}

/// The path.
#[derive(Debug)]
pub struct Relay {
    classes: Vec<ClassSettings>,
    memory_bytes_max: u64,
    queues: Queues,
    schedule: Schedule,
    spool: Spooling,
    senders: Senders,
    outbound: Outbound,
    doubles: Doubles,
    setbacks: Setbacks,
    thinning: Thinning,
    slowing: Slowing,
    delivered: u64,
    ledger: Ledger,
    epoch: u64,
    sequence: u64,
    unreadable: u64,
    /// Topics that doors forgot.
    forgotten: u64,
    /// Something ended or a share changed since held messages were last looked at.
    room_made: bool,
    observed: Tick,
    /// What ended in the course of one call; empty between calls.
    ends: Ends,
    /// What came back in the course of one call; empty between calls.
    back: Vec<Message>,
    /// Reused for what the scheduler sees.
    snapshots: Vec<QueueSnapshot>,
}

/// How often pressure and the queues' fronts are looked at.
const OBSERVE_EVERY: Duration = Duration::from_millis(100);
/// How long a connection rests after the upstream said that its quota is used up (0x97).
const QUOTA_PAUSE: Duration = Duration::from_secs(1);

impl Relay {
    /// An empty path.
    #[must_use]
    pub fn new(settings: &RelaySettings) -> Self {
        let classes = settings.classes.clone();
        let names: Vec<_> = classes
            .iter()
            .map(|class| Arc::clone(&class.name))
            .collect();
        Self {
            queues: Queues::new(
                &classes,
                settings.memory_bytes_max,
                settings.memory_pressure,
            ),
            schedule: Schedule::new(
                &classes.iter().map(|class| class.weight).collect::<Vec<_>>(),
                LeastShares {
                    backlog: settings.spool.backlog_share_permille,
                    live: settings.spool.live_share_min_permille,
                },
                settings.spool.replay_rate_bytes_max,
            ),
            spool: Spooling::new(&settings.spool, settings.next_segment, &classes),
            senders: Senders::default(),
            outbound: Outbound::new(settings),
            doubles: Doubles::default(),
            setbacks: Setbacks::default(),
            thinning: Thinning::new(&classes, settings.memory_bytes_max),
            slowing: Slowing::default(),
            delivered: 0,
            ledger: Ledger::new(names),
            memory_bytes_max: settings.memory_bytes_max,
            classes,
            epoch: settings.epoch,
            sequence: 0,
            unreadable: 0,
            forgotten: 0,
            room_made: false,
            observed: Tick::ZERO,
            ends: Ends::default(),
            back: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    /// A new sender.
    pub fn open(&mut self, client: Arc<str>, site: bool) -> DoorId {
        self.senders.open(client, site)
    }

    /// A sender is gone; nobody waits for its answers. What it sent stays on its way, held or not: a
    /// device that publishes and leaves has said something.
    pub fn close(&mut self, sender: DoorId) {
        self.senders.close(sender);
    }

    /// A sender was closed at `at` because of what is held, and will bring it again: what came before
    /// goes back unanswered, in the lanes too.
    pub fn withdraw(&mut self, sender: DoorId, at: Tick) {
        self.senders.withdraw(sender, at);
        for mut message in self.queues.withdraw(sender, at) {
            self.senders.give_back(&mut message.receipt);
            self.senders.unhold(sender);
            self.ledger.end(message.class, Outcome::Returned);
            // Those behind it may have had room all the time.
            self.room_made = true;
        }
        self.check();
    }

    /// Takes a batch in.
    pub fn arrive(&mut self, batch: Batch, now: Tick) {
        self.unreadable += u64::from(batch.unreadable);
        self.forgotten += u64::from(batch.forgotten);
        if let Some(last) = batch.messages.last() {
            self.senders.note(batch.door, last.class);
        }
        for mut message in batch.messages {
            self.sequence += 1;
            message.epoch = self.epoch;
            message.sequence = self.sequence;
            self.ledger.receive(message.class);
            if message.receipt.token.is_some() && self.senders.is_withdrawn(batch.door, batch.at) {
                self.senders.give_back(&mut message.receipt);
                self.ledger.end(message.class, Outcome::Returned);
            } else {
                self.take_in(message, now);
            }
        }
        self.end_turn(batch.door, batch.room, now);
        self.settle();
    }

    /// Does what time and room allow: admits what is held, sends what is picked, gives up connections
    /// whose acknowledgements are overdue.
    pub fn turn(&mut self, now: Tick, wall: WallTime) {
        if now.since(self.observed) >= OBSERVE_EVERY {
            self.observed = now;
            self.observe(now);
        }
        self.readmit(now);
        self.back.extend(self.setbacks.due(now));
        self.end_periods(now, wall);
        self.put_back();
        // What was superseded must be known before what stands for it goes.
        self.settle();
        self.spool_turn(now);
        if !self.spool.is_stopping() {
            self.double_overdue(now, wall);
            for link in Link::BOTH {
                self.fill(link, now, wall);
            }
        }
        self.queues.mark(now);
        self.give_turns_back(now);
        self.settle();
    }

    /// When the next turn is due although nothing happens; [`Tick::NEVER`] when only an event can
    /// change anything.
    #[must_use]
    pub fn deadline(&self, now: Tick) -> Tick {
        let waits = self
            .queues
            .iter()
            .any(|queue| queue.waiting() + queue.held() > 0 || queue.level() > Level::Calm);
        let look = if waits || self.queues.pressure().level() > Level::Calm {
            now.after(OBSERVE_EVERY)
        } else {
            Tick::NEVER
        };
        look.min(self.outbound.deadline(now))
            .min(self.spool.deadline(now))
            .min(self.late_at(now))
            .min(self.replays_at(now))
            .min(self.setbacks.deadline())
            .min(self.thinning.deadline())
            .min(self.slowing.deadline())
    }

    /// What senders must be told.
    pub fn take_notices(&mut self) -> Vec<(DoorId, Vec<Notice>)> {
        self.senders.take_notices()
    }

    /// What a connection must do next.
    pub fn take_command(&mut self, link: Link) -> Option<LinkCommand> {
        self.outbound.take_command(link)
    }

    /// Whether the first class waits and no connection is up.
    #[must_use]
    pub fn hurries(&self) -> bool {
        let first = ClassId::FIRST;
        let waits = self.queues.class(first).waiting() > 0 || self.spool.on_disk(first) > 0;
        waits && !self.outbound.any_up()
    }

    /// How a sender is called.
    #[must_use]
    pub fn client(&self, sender: DoorId) -> Option<&Arc<str>> {
        self.senders.client(sender)
    }

    /// Whether nothing waits, is held or is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting().iter().all(|count| count.in_memory == 0)
    }

    /// A batch that comes too late, at the end: what its sender can bring again is *returned*, the rest
    /// *shed*, and its number given.
    pub fn turn_away(&mut self, batch: Batch) -> u64 {
        let mut lost = 0;
        for message in batch.messages {
            self.ledger.receive(message.class);
            lost += self.leave_unsent(&message);
        }
        lost
    }

    /// The end: everything that is still here is counted out. What its sender still has is
    /// *returned*; what was acknowledged and never left is *shed*, and its number given.
    pub fn finish(&mut self) -> u64 {
        // Whoever waits for its turn brings what it has left.
        self.slowing = Slowing::default();
        let mut rest = self.queues.drain();
        for sent in Link::BOTH
            .map(|link| self.outbound.take_in_flight(link))
            .into_iter()
            .flatten()
        {
            if !sent.doubled || self.doubles.dropped(sent.message.id()) == Standing::Last {
                self.queues.release(&sent.message);
                rest.push_back(sent.message);
            }
        }
        rest.extend(self.setbacks.take_all());
        rest.extend(self.thinning.take_all());
        rest.extend(self.spool.take_read());
        rest.extend(self.take_moving());
        self.leave_dead();
        let mut lost = 0;
        for mut message in rest {
            if self.spool.is_tried(&message) {
                self.ends.push_back((message, Outcome::DeadLetter));
            } else if !self.spool.keeps(&mut message) {
                lost += self.leave_unsent(&message);
            }
        }
        self.settle();
        lost
    }

    fn leave_unsent(&mut self, message: &Message) -> u64 {
        let returned = message.receipt.token.is_some();
        let outcome = if returned {
            Outcome::Returned
        } else {
            Outcome::Shed
        };
        self.ledger.end(message.class, outcome);
        u64::from(!returned)
    }

    /// Goes on with the accounts that an earlier start kept.
    pub fn restore(&mut self, accounts: &[Account]) {
        self.ledger.restore(accounts);
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Payloads that a condition could not read.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// How often a message was set aside so that others pass. The only thing that changes the order of
    /// a topic within its class.
    #[must_use]
    pub const fn setbacks(&self) -> u64 {
        self.setbacks.total()
    }

    /// Messages that have not ended by class, counted where they are; `discard` last.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let count = |index: usize| {
            let class = ClassId(u8::try_from(index).unwrap_or(u8::MAX));
            let queue = self.queues.class(class);
            Waiting {
                in_memory: (queue.waiting()
                    + queue.held()
                    + self.outbound.in_flight(class)
                    + self.setbacks.waiting(class)
                    + self.thinning.waiting(class)
                    + self.spool.waiting(class)
                    + self.spool.dead[index].unended()
                    - self.doubles.surplus(class)) as u64,
                bytes: queue.bytes() + queue.held_bytes(),
                on_disk: self.spool.on_disk(class),
            }
        };
        let classes = (0..self.classes.len()).map(count);
        classes.chain([Waiting::default()]).collect()
    }

    /// The queues, for reading.
    #[must_use]
    pub const fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Sends over one connection what is picked for it.
    fn fill(&mut self, link: Link, now: Tick, wall: WallTime) {
        while let Some(pick) = self.pick(link, now) {
            let message = match pick.source {
                Source::Live => self.pop_live(pick.class, now),
                Source::Backlog => self.pop_backlog(pick, now),
            };
            let Some(mut message) = message else {
                continue;
            };
            self.supersede_aside(&mut message);
            match self.outbound.send(link, message, now, wall) {
                Ok(bytes) => self.schedule.charge(pick, bytes),
                Err(message) => {
                    self.dead_letter(*message, "it is larger than the upstream takes", now);
                    self.put_back();
                }
            }
        }
    }

    /// What may go next over this connection.
    fn pick(&mut self, link: Link, now: Tick) -> Option<Pick> {
        self.snapshots.clear();
        for (class, queue) in (0..=u8::MAX).map(ClassId).zip(self.queues.iter()) {
            let live = queue.front_message();
            let paused = self.schedule.is_paused(class);
            let snapshot = self.spool.snapshot(class, live, paused, now);
            self.snapshots.push(snapshot);
        }
        let outbound = &mut self.outbound;
        self.schedule.pick(&self.snapshots, now, |class| {
            outbound.admits(link, class, now)
        })
    }

    /// When the backlog may go on, if some was read back.
    fn replays_at(&self, now: Tick) -> Tick {
        let at = self.schedule.replays_at();
        let waits = self
            .class_ids()
            .any(|class| self.spool.waiting(class) + self.spool.dead[class.index()].waiting() > 0);
        if waits && at > now { at } else { Tick::NEVER }
    }

    fn observe(&mut self, now: Tick) {
        for index in 0..self.classes.len() {
            let class = ClassId(u8::try_from(index).unwrap_or(u8::MAX));
            self.queues.expire_front(class, now, &mut self.ends);
        }
        self.queues.observe(now, &mut self.ends);
        self.tell_unreadable(now);
        self.slow_senders();
    }

    /// Ends what ended: counted, given back, its sender answered.
    fn settle(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        self.room_made |= !ends.is_empty();
        while let Some((message, outcome)) = ends.pop_front() {
            if let Some(message) = self.thin_out(message, outcome) {
                self.end(message, outcome);
            }
        }
        self.ends = ends;
        self.looked_at_superseded();
        self.tell_round();
        self.follow_unloaded();
        self.check();
    }

    fn end(&mut self, mut message: Message, outcome: Outcome) {
        self.spool.settle(&mut message, outcome);
        self.ledger.end(message.class, outcome);
        self.setbacks.forget(message.id());
        if outcome == Outcome::Delivered && message.replayed {
            self.spool.replayed += 1;
        }
        let answer = match outcome {
            Outcome::DeadLetter => Answer::Refused(Refusal::Upstream),
            _ => Answer::Accepted,
        };
        self.senders.answer(&mut message.receipt, answer);
    }

    /// The ledger balances, in debug builds after every event.
    fn check(&self) {
        debug_assert!(
            self.ledger.balances(&self.waiting()),
            "the ledger does not balance: {:?} with {:?}",
            self.ledger,
            self.waiting()
        );
    }
}

#[cfg(test)]
mod tests;
