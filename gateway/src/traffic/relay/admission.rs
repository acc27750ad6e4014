//! What is let in, and when: a message finds its place, is held or is refused; what was held gets its
//! place when room is made; and a lane is not drained while its messages would find none.

use std::time::Duration;

use super::super::lanes::{Answer, Batch, Refusal};
use super::super::message::{ClassId, DoorId, Message, Tick};
use super::super::queue::bounded::Admission;
use super::super::queue::class::ClassQueue;
use super::super::queue::{ClassSettings, Delivery};
use super::super::senders::Senders;
use super::super::settle::Outcome;
use super::Relay;

/// Buffered messages waiting beyond this part of the memory brake the lane of the rest: a sender that
/// is acknowledged at admission would otherwise outrun any uplink until the oldest is shed.
const BRAKE_DIVISOR: u64 = 32;
/// What a sender may occupy of the buffered classes before it is braked: one batch.
const UNBRAKED_BYTES_MAX: u64 = 64 * 1024;
/// The longest time that the brake keeps a batch in the lane, and those of others behind it. Each sender
/// has one there, so that the one which floods brings 2 MiB a second.
pub const BRAKE_MAX: Duration = Duration::from_millis(30);
/// A class of which this part of its bound is not on disk brakes its lane while the disk works: as fast
/// as that takes it is fast enough.
const UNWRITTEN_DIVISOR: u64 = 8;
/// What may be held of the first class, and of the rest, as a part of the memory: beyond it no more of
/// these classes is taken in until room is made or `hold_max` closes a sender.
const HELD_DIVISOR: u64 = 4;

impl Relay {
    /// Whether the lane of the first class may be drained now: not while more of it is held than
    /// memory allows, nor while it outruns the disk.
    #[must_use]
    pub fn takes_urgent(&self, now: Tick) -> bool {
        self.held_bytes(true) <= self.memory_bytes_max / HELD_DIVISOR
            && !self.outruns_disk(ClassId::FIRST, now)
    }

    /// Whether a batch of the lane of the rest may be taken in now: not one that brings more of a class
    /// of which messages are held while much is, or of one that outruns the disk, nor while the brake
    /// keeps its sender.
    #[must_use]
    pub fn takes_rest(&self, batch: &Batch, now: Tick) -> bool {
        let much_held = self.held_bytes(false) > self.memory_bytes_max / HELD_DIVISOR;
        let waits = |class: ClassId| {
            much_held && self.queues.class(class).held() > 0 || self.outruns_disk(class, now)
        };
        let mut waiting = self.class_ids().skip(1).filter(|class| waits(*class));
        if waiting.any(|class| batch.brings(class)) {
            return false;
        }
        let buffered = |queue: &&ClassQueue| queue.settings().delivery == Delivery::Buffered;
        let sum = |bytes: &dyn Fn(&ClassQueue) -> u64| -> u64 {
            self.queues.iter().filter(buffered).map(bytes).sum()
        };
        sum(&ClassQueue::waiting_bytes) < self.memory_bytes_max / BRAKE_DIVISOR
            || sum(&|queue| queue.occupied(batch.door)) <= UNBRAKED_BYTES_MAX
            || !self.outbound.any_up()
            || now.since(batch.at) >= BRAKE_MAX
    }

    /// Whether messages of a class come faster than the disk takes them: its lane waits for the disk
    /// then, as long as that answers.
    fn outruns_disk(&self, class: ClassId, now: Tick) -> bool {
        let queue = self.queues.class(class);
        queue.settings().delivery != Delivery::Latest
            && queue.unwritten_bytes() > self.queues.largest(class) / UNWRITTEN_DIVISOR
            && self.queues.overflows(class)
            && self.spool.keeps_up(class, now)
    }

    /// Finds a message's place.
    pub(super) fn take_in(&mut self, mut message: Message, now: Tick) {
        let class = message.class;
        if class == ClassId::DISCARD {
            self.senders.answer(&mut message.receipt, Answer::Accepted);
            return self.ledger.end(class, Outcome::Shed);
        }
        let settings = &self.classes[class.index()];
        let bytes = message.memory_bytes();
        if self.outbound.is_too_large(&message) || bytes > self.queues.largest(class) {
            return self.refuse(message, Outcome::Refused, Refusal::TooLarge);
        }
        let guaranteed = settings.delivery == Delivery::Guaranteed;
        let share = share_max(&self.senders, message.receipt.door, settings);
        let queue = self.queues.class(class);
        if guaranteed && (queue.holds_before(&message) || queue.is_held_for_room()) {
            return self.no_room(message, guaranteed, share);
        }
        let seen = match settings.delivery {
            Delivery::Latest => self.queues.class_mut(class).seen().print(&message),
            Delivery::Guaranteed | Delivery::Buffered => None,
        };
        let mut receipt = message.receipt;
        if !guaranteed {
            message.receipt.token = None;
        }
        match self.queues.admit(message, share, now, &mut self.ends) {
            Admission::Admitted => {
                if let Some(key) = seen {
                    self.queues.class_mut(class).seen().note(key);
                }
                if !guaranteed {
                    self.senders.answer(&mut receipt, Answer::Accepted);
                }
            }
            Admission::Full(mut message) => {
                message.receipt = receipt;
                self.no_room(*message, guaranteed, share)
            }
        }
    }

    fn no_room(&mut self, message: Message, guaranteed: bool, share_max: u64) {
        if !guaranteed {
            self.refuse(message, Outcome::Shed, Refusal::Full);
        } else if message.receipt.token.is_none() {
            self.refuse(message, Outcome::Refused, Refusal::Full);
        } else {
            self.senders.hold(message.receipt.door);
            self.queues.hold(message, share_max);
        }
    }

    fn refuse(&mut self, mut message: Message, outcome: Outcome, why: Refusal) {
        self.senders
            .answer(&mut message.receipt, Answer::Refused(why));
        self.ledger.end(message.class, outcome);
    }

    pub(super) fn readmit(&mut self, now: Tick) {
        if !std::mem::take(&mut self.room_made) {
            return;
        }
        let (queues, senders) = (&mut self.queues, &self.senders);
        if queues.iter().all(|queue| queue.held() == 0) {
            return;
        }
        let mut admitted = Vec::new();
        queues.readmit(
            now,
            |sender, class| share_max(senders, sender, class),
            |sender| admitted.push(sender),
            &mut self.ends,
        );
        for sender in admitted {
            self.senders.unhold(sender);
        }
        // What is sent next must know what was given up for them.
        self.follow_unloaded();
    }

    fn held_bytes(&self, first: bool) -> u64 {
        let queues = self.queues.iter().enumerate();
        let of_lane = queues.filter(|(index, _)| (*index == 0) == first);
        of_lane.map(|(_, queue)| queue.held_bytes()).sum()
    }
}

/// How much of a class a sender may occupy: a source speaks for a whole site.
fn share_max(senders: &Senders, sender: DoorId, class: &ClassSettings) -> u64 {
    if senders.is_site(sender) {
        u64::MAX
    } else {
        class.client_bytes_max
    }
}
