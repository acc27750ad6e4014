//! The queues themselves: one for each class, bounded by the class's own limit and by the budget
//! that all share. In comes a message, out goes an [`Admission`]; whatever gave way for it is pushed
//! on a list of ends, for [`settle`](super::super::settle) to count. Nothing is dropped here.

use std::collections::{HashSet, VecDeque};

use super::super::message::{ClassId, DoorId, Message, Tick};
use super::super::settle::Outcome;
use super::super::spool::Position;
use super::budget::Budget;
use super::class::ClassQueue;
use super::pressure::Level;
use super::{ClassSettings, Delivery};

/// Messages that ended, each with its outcome.
pub type Ends = Vec<(Message, Outcome)>;

/// What became of a message that asked for a place.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// It waits, or took the place of an older value.
    Admitted,
    /// There is no room; here it is again.
    Full(Box<Message>),
}

/// A class whose client's share, or whose bound, is filled to this part by what is not on disk is written.
/// Early, for the disk takes its time and more comes meanwhile.
const OVERFLOW_DIVISOR: u64 = 4;

/// All queues and their budget.
#[derive(Debug)]
pub struct Queues {
    classes: Vec<ClassQueue>,
    budget: Budget,
    /// What was given up in memory, for it is on disk, since it was last asked for.
    unloaded: Vec<(ClassId, Position)>,
}

impl Queues {
    /// Empty queues for these classes.
    #[must_use]
    pub fn new(classes: &[ClassSettings], memory_bytes_max: u64) -> Self {
        let classes = classes.iter().cloned().map(ClassQueue::new).collect();
        Self {
            classes,
            budget: Budget::new(memory_bytes_max),
            unloaded: Vec::new(),
        }
    }

    /// Asks for a place for `message`, of whose class its client may occupy `share_max` bytes. What
    /// gives way goes to `ends`.
    pub fn admit(
        &mut self,
        message: Message,
        share_max: u64,
        now: Tick,
        ends: &mut Ends,
    ) -> Admission {
        let class = message.class;
        let bytes = message.memory_bytes();
        let message = match self.classes[class.index()].take_place(message, now) {
            Ok(older) => {
                self.budget.take(bytes);
                self.end(older, Outcome::Superseded, ends);
                // A newer value may be larger than the one that it stands for.
                while !self.fits(class, 0) && self.make_room(class, 0, now, ends) {}
                return Admission::Admitted;
            }
            Err(message) => *message,
        };
        while self.over_share(&message, bytes, share_max) {
            if self.unload_front(class.index()) {
                continue;
            }
            if !self.make_room_of_its_own(&message, now, ends) {
                return Admission::Full(Box::new(message));
            }
            if self.classes[class.index()].has_place(&message) {
                return self.admit(message, share_max, now, ends);
            }
        }
        while !self.fits(class, bytes) {
            if !self.make_room(class, bytes, now, ends) {
                return Admission::Full(Box::new(message));
            }
            if self.classes[class.index()].has_place(&message) {
                return self.admit(message, share_max, now, ends);
            }
        }
        self.budget.take(bytes);
        self.classes[class.index()].push_back(message, bytes);
        Admission::Admitted
    }

    /// The largest message that a class can ever admit, in bytes of memory.
    #[must_use]
    pub fn largest(&self, class: ClassId) -> u64 {
        let own = self.classes[class.index()].settings.queue_bytes_max;
        own.min(self.budget.room_max(class))
    }

    /// Keeps a guaranteed message that found no room, its client occupying `share_max` at most.
    pub fn hold(&mut self, message: Message, share_max: u64) {
        let over_share = self.over_share(&message, message.memory_bytes(), share_max);
        let queue = &mut self.classes[message.class.index()];
        queue.held_for_room |= !over_share;
        queue.hold(message);
    }

    /// Admits what is held and has room now, in order for each sender. `share_max` says how much of
    /// the class a sender may occupy; `admitted` is told of each that got a place.
    pub fn readmit(
        &mut self,
        now: Tick,
        share_max: impl Fn(DoorId, &ClassSettings) -> u64,
        mut admitted: impl FnMut(DoorId),
        ends: &mut Ends,
    ) {
        for index in 0..self.classes.len() {
            let mut kept = VecDeque::new();
            let mut behind = HashSet::new();
            self.classes[index].held_for_room = false;
            while let Some(message) = self.classes[index].pop_held() {
                let sender = message.receipt.door;
                let share = share_max(sender, &self.classes[index].settings);
                let bytes = message.memory_bytes();
                if behind.contains(&sender) || self.over_share(&message, bytes, share) {
                    behind.insert(sender);
                    kept.push_back(message);
                    continue;
                }
                if let Admission::Full(message) = self.admit(message, share, now, ends) {
                    self.classes[index].unpop_held(*message);
                    self.classes[index].held_for_room = true;
                    break;
                }
                admitted(sender);
            }
            while let Some(message) = kept.pop_back() {
                self.classes[index].unpop_held(message);
            }
        }
    }

    /// Removes what is held of one sender and was received until then.
    pub fn withdraw(&mut self, sender: DoorId, until: Tick) -> Vec<Message> {
        let queues = self.classes.iter_mut();
        queues
            .flat_map(|queue| queue.withdraw(sender, until))
            .collect()
    }

    /// The next message of a class that is still worth sending; what expired goes to `ends`. Its
    /// bytes stay in the budget until [`Queues::release`].
    pub fn pop(&mut self, class: ClassId, now: Tick, ends: &mut Ends) -> Option<Message> {
        self.expire_front(class, now, ends);
        self.classes[class.index()].pop_front()
    }

    /// Ends what expired at the front.
    pub fn expire_front(&mut self, class: ClassId, now: Tick, ends: &mut Ends) {
        let queue = &mut self.classes[class.index()];
        while queue.front_message().is_some_and(|m| m.expires <= now) {
            let Some(message) = queue.pop_front() else {
                break;
            };
            queue.release(&message, &mut self.budget);
            ends.push((message, Outcome::Expired));
        }
    }

    /// Puts messages back that were sent and not taken, each at the place of its receipt. While its
    /// class coalesces only the newest of a key stays.
    pub fn put_back(&mut self, mut messages: Vec<Message>, now: Tick, ends: &mut Ends) {
        messages.sort_by_key(|message| message.sequence);
        for index in 0..self.classes.len() {
            let of_class = messages.extract_if(.., |message| message.class.index() == index);
            let older = self.classes[index].put_back_all(of_class.collect(), now);
            for older in older {
                self.end(older, Outcome::Superseded, ends);
            }
        }
    }

    /// Gives back the room of a message that ended.
    pub fn release(&mut self, message: &Message) {
        self.classes[message.class.index()].release(message, &mut self.budget);
    }

    /// Takes out all that waits of a class and is meant; its room is given back.
    pub fn take_all(&mut self, class: ClassId, meant: impl Fn(&Message) -> bool) -> Vec<Message> {
        let queue = &mut self.classes[class.index()];
        let taken = queue.take_all(meant);
        for message in &taken {
            queue.release(message, &mut self.budget);
        }
        taken
    }

    /// Empties everything: what waits, then what is held.
    pub fn drain(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        for queue in &mut self.classes {
            while let Some(message) = queue.pop_front() {
                queue.release(&message, &mut self.budget);
                all.push(message);
            }
            while let Some(message) = queue.pop_held() {
                all.push(message);
            }
        }
        all
    }

    /// Looks at the pressure of each class; `changed` is told of each new level.
    pub fn observe(
        &mut self,
        now: Tick,
        ends: &mut Ends,
        mut changed: impl FnMut(&ClassSettings, Level),
    ) {
        for index in 0..self.classes.len() {
            let queue = &mut self.classes[index];
            let age = queue.front_age(now);
            let (bytes, bytes_max) = (queue.bytes, queue.settings.queue_bytes_max);
            if let Some(level) = queue.pressure.observe(bytes, bytes_max, age, now) {
                changed(&queue.settings, level);
                self.follow(index, ends);
            }
        }
    }

    /// Counts a message that was read back from the spool; [`Queues::release`] gives its room back.
    pub fn occupy(&mut self, message: &Message) {
        let bytes = message.memory_bytes();
        self.classes[message.class.index()].occupy(bytes);
        self.budget.take(bytes);
    }

    /// What was given up in memory, for it is on disk, since the last call.
    pub fn take_unloaded(&mut self) -> Vec<(ClassId, Position)> {
        std::mem::take(&mut self.unloaded)
    }

    /// Whether so much of a class waits in memory and nowhere else that the disk must help: a part of its
    /// bound, of its clients' shares or, when the memory is half full, anything.
    #[must_use]
    pub fn overflows(&self, class: ClassId) -> bool {
        let queue = &self.classes[class.index()];
        let unwritten = queue.unwritten_bytes();
        let bound = self.largest(class).min(queue.settings.client_bytes_max);
        unwritten > bound / OVERFLOW_DIVISOR
            || (unwritten > 0 && self.bytes() > self.budget.room_max(class) / 2)
    }

    /// One class's queue, for the spool's marks.
    pub fn class_mut(&mut self, class: ClassId) -> &mut ClassQueue {
        &mut self.classes[class.index()]
    }

    /// One class's queue, for reading.
    #[must_use]
    pub fn class(&self, class: ClassId) -> &ClassQueue {
        &self.classes[class.index()]
    }

    /// All queues, in class order.
    pub fn iter(&self) -> impl Iterator<Item = &ClassQueue> {
        self.classes.iter()
    }

    /// Bytes of all messages that were admitted and have not ended.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.budget.bytes()
    }

    /// Whether a class has room for so many bytes, and nothing needs to give way.
    #[must_use]
    pub fn fits(&self, class: ClassId, bytes: u64) -> bool {
        self.classes[class.index()].has_room(bytes) && self.budget.fits(class, bytes)
    }

    fn over_share(&self, message: &Message, bytes: u64, share_max: u64) -> bool {
        let queue = &self.classes[message.class.index()];
        let client = message.receipt.door;
        queue.clients.over_share(client, bytes, share_max)
    }

    /// Lets something of the message's own client give way: older values of its keys, else its oldest
    /// message, which is on disk perhaps. False when nothing may.
    fn make_room_of_its_own(&mut self, message: &Message, now: Tick, ends: &mut Ends) -> bool {
        let index = message.class.index();
        if self.classes[index].settings.delivery == Delivery::Guaranteed {
            return false;
        }
        self.press(index, now, ends)
            || match self.classes[index].take_oldest_of(message.receipt.door) {
                Some(oldest) if self.classes[index].is_on_disk(&oldest) => {
                    self.give_up(&oldest);
                    true
                }
                Some(oldest) => {
                    self.end(oldest, Outcome::Shed, ends);
                    true
                }
                None => false,
            }
    }

    /// Lets something give way: what is on disk, too, else an older value, else the oldest of this class if its own limit
    /// binds, else the oldest of the lowest class. False when nothing may.
    fn make_room(&mut self, class: ClassId, bytes: u64, now: Tick, ends: &mut Ends) -> bool {
        if self.unload(class, bytes) {
            return true;
        }
        let own = &self.classes[class.index()];
        let victim = if own.has_room(bytes) {
            (class.index()..self.classes.len())
                .rev()
                .find(|&index| self.classes[index].may_shed())
        } else {
            Some(class.index()).filter(|_| own.may_shed())
        };
        let Some(victim) = victim else { return false };
        self.press(victim, now, ends) || self.shed_front(victim, ends)
    }

    /// Gives something up in memory that is on disk, of this class if its own limit binds, else of the
    /// lowest that has some, the more urgent ones last.
    fn unload(&mut self, class: ClassId, bytes: u64) -> bool {
        let own = class.index();
        if !self.classes[own].has_room(bytes) {
            return self.unload_front(own);
        }
        let below = (own..self.classes.len()).rev();
        let mut order = below.chain((0..own).rev());
        order.any(|index| self.unload_front(index))
    }

    fn unload_front(&mut self, index: usize) -> bool {
        let Some(message) = self.classes[index].unload_front() else {
            return false;
        };
        self.give_up(&message);
        true
    }

    /// A message that is on disk leaves the memory.
    fn give_up(&mut self, message: &Message) {
        self.release(message);
        let position = message.spooled.map(|position| (message.class, position));
        self.unloaded.extend(position);
    }

    /// Marks a class as shedding; true if that merged older values of a `latest` class that was calm.
    fn press(&mut self, index: usize, now: Tick, ends: &mut Ends) -> bool {
        let queue = &mut self.classes[index];
        let merges = queue.settings.delivery == Delivery::Latest && queue.places.is_none();
        if let Some(level) = queue.pressure.shed(now) {
            let delivery = queue.settings.delivery;
            tracing::info!(
                "class {} is now {}",
                queue.settings.name,
                level.of(delivery)
            );
        }
        if merges {
            self.follow(index, ends);
        }
        merges
    }

    fn shed_front(&mut self, index: usize, ends: &mut Ends) -> bool {
        let Some(message) = self.classes[index].pop_front() else {
            return false;
        };
        self.end(message, Outcome::Shed, ends);
        true
    }

    /// Brings a class's index of keys in line with its level.
    fn follow(&mut self, index: usize, ends: &mut Ends) {
        let queue = &mut self.classes[index];
        if queue.settings.delivery != Delivery::Latest {
            return;
        }
        if queue.pressure.level() == Level::Calm {
            queue.places = None;
        } else if queue.places.is_none() {
            for older in queue.merge() {
                self.end(older, Outcome::Superseded, ends);
            }
        }
    }

    fn end(&mut self, message: Message, outcome: Outcome, ends: &mut Ends) {
        self.release(&message);
        ends.push((message, outcome));
    }
}

#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;
