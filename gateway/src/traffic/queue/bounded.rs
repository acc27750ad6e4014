//! The queues themselves: one for each class, bounded by the class's own limit and by the budget
//! that all share. In comes a message, out goes an [`Admission`]; whatever gave way for it is pushed
//! on a list of ends, for [`settle`](super::super::settle) to count. Nothing is dropped here.

use std::time::Duration;

use super::super::message::{ClassId, DoorId, Message, Tick};
use super::super::settle::Outcome;
use super::super::spool::Position;
use super::budget::Budget;
use super::class::ClassQueue;
use super::pressure::{Level, Pressure, PressureSettings, Signs};
use super::row::Row;
use super::{ClassSettings, Delivery};

/// Messages that ended, each with its outcome.
pub type Ends = Row<(Message, Outcome)>;

/// What became of a message that asked for a place.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// It waits, or took the place of an older value.
    Admitted,
    /// There is no room; here it is again.
    Full(Box<Message>),
}

/// What looking for room came to.
enum Room {
    /// There is some.
    Found,
    /// The class coalesces from now on: a value of the key may wait.
    Merged,
    /// There is none.
    Nowhere,
}

/// A class whose client's share, or whose bound, is filled to this part by what is not on disk is written.
/// Early, for the disk takes its time and more comes meanwhile.
const OVERFLOW_DIVISOR: u64 = 4;
/// The part of the memory that all `latest` classes together may use to remember which keys on disk are
/// worth nothing any more. It counts as memory: more would crowd out messages, or be pressure by itself.
const SEEN_DIVISOR: u64 = 16;

/// All queues and their budget.
#[derive(Debug)]
pub struct Queues {
    classes: Vec<ClassQueue>,
    budget: Budget,
    /// That of the memory.
    pressure: Pressure,
    /// What was given up in memory, for it is on disk, since it was last asked for.
    unloaded: Vec<(ClassId, Position)>,
}

impl Queues {
    /// Empty queues for these classes.
    #[must_use]
    pub fn new(
        classes: &[ClassSettings],
        memory_bytes_max: u64,
        memory_pressure: PressureSettings,
    ) -> Self {
        let latest = classes
            .iter()
            .filter(|class| class.delivery == Delivery::Latest);
        let seen_bytes_max = memory_bytes_max / SEEN_DIVISOR / latest.count().max(1) as u64;
        let queue = |class: &ClassSettings| ClassQueue::new(class.clone(), seen_bytes_max);
        Self {
            classes: classes.iter().map(queue).collect(),
            budget: Budget::new(memory_bytes_max),
            pressure: Pressure::new(memory_pressure),
            unloaded: Vec::new(),
        }
    }

    /// Asks for a place for `message`, of whose class its client may occupy `share_max` bytes. What
    /// gives way goes to `ends`.
    pub fn admit(
        &mut self,
        mut message: Message,
        share_max: u64,
        now: Tick,
        ends: &mut Ends,
    ) -> Admission {
        let (class, bytes) = (message.class, message.memory_bytes());
        loop {
            let queue = &mut self.classes[class.index()];
            let key = queue.print(&message);
            if let Some(place) = key.and_then(|key| queue.place_of(key)) {
                match queue.take_place(message, place) {
                    Ok(older) => {
                        self.superseded(older, bytes, now, ends);
                        return Admission::Admitted;
                    }
                    Err(back) => message = *back,
                }
            }
            match self.room_for(&message, bytes, share_max, now, ends) {
                Room::Found => {
                    self.budget.take(bytes);
                    self.classes[class.index()].push_back(message, bytes, key);
                    return Admission::Admitted;
                }
                Room::Merged => {}
                Room::Nowhere => {
                    if self.classes[class.index()].settings.delivery != Delivery::Guaranteed {
                        self.note_shed(class.index(), now);
                    }
                    return Admission::Full(Box::new(message));
                }
            }
        }
    }

    /// A newer value of so many bytes took the place of an older one.
    fn superseded(&mut self, older: Message, bytes: u64, now: Tick, ends: &mut Ends) {
        let class = older.class;
        self.budget.take(bytes);
        self.end(older, Outcome::Superseded, ends);
        // It may be larger.
        while !self.fits(class, 0) && self.make_room(class, 0, now, ends) {}
    }

    /// Lets things give way until the message fits.
    fn room_for(
        &mut self,
        message: &Message,
        bytes: u64,
        share_max: u64,
        now: Tick,
        ends: &mut Ends,
    ) -> Room {
        let index = message.class.index();
        let coalesced = self.classes[index].coalesces();
        loop {
            let made = if self.over_share(index, message.receipt.door, bytes, share_max) {
                self.make_room_of_its_own(message, now, ends)
            } else if !self.fits(message.class, bytes) {
                self.make_room(message.class, bytes, now, ends)
            } else {
                return Room::Found;
            };
            if !made {
                return Room::Nowhere;
            }
            if !coalesced && self.classes[index].coalesces() {
                return Room::Merged;
            }
        }
    }

    /// The largest message that a class can ever admit, in bytes of memory.
    #[must_use]
    pub fn largest(&self, class: ClassId) -> u64 {
        let own = self.classes[class.index()].settings.queue_bytes_max;
        own.min(self.budget.room_max(class))
    }

    /// Keeps a guaranteed message that found no room, its client occupying `share_max` at most.
    pub fn hold(&mut self, message: Message, share_max: u64) {
        let (index, bytes) = (message.class.index(), message.memory_bytes());
        let over_share = self.over_share(index, message.receipt.door, bytes, share_max);
        let queue = &mut self.classes[index];
        queue.held_for_room |= !over_share;
        queue.held.push(message);
    }

    /// Admits what is held and has room now, in order for each sender and topic. `share_max` says how much of
    /// the class a sender may occupy; `admitted` is told of each that got a place.
    pub fn readmit(
        &mut self,
        now: Tick,
        share_max: impl Fn(DoorId, &ClassSettings) -> u64,
        mut admitted: impl FnMut(DoorId),
        ends: &mut Ends,
    ) {
        for index in 0..self.classes.len() {
            if self.classes[index].held() == 0 {
                continue;
            }
            let mut from = 0;
            self.classes[index].held_for_room = false;
            while let Some((place, message)) = self.classes[index].held.first_from(from) {
                let (sender, bytes) = (message.receipt.door, message.memory_bytes());
                let waits = !self.classes[index].held.is_first_of_topic(place, message);
                let share = share_max(sender, &self.classes[index].settings);
                while !waits
                    && self.over_share(index, sender, bytes, share)
                    && self.unload_front(index)
                {}
                if waits || self.over_share(index, sender, bytes, share) {
                    from = place + 1;
                    continue;
                }
                let Some(message) = self.classes[index].held.take(place) else {
                    break;
                };
                if let Admission::Full(message) = self.admit(message, share, now, ends) {
                    self.classes[index].held.put_back(place, *message);
                    self.classes[index].held_for_room = true;
                    break;
                }
                admitted(sender);
            }
        }
    }

    /// Removes what is held of one sender and was received until then.
    pub fn withdraw(&mut self, sender: DoorId, until: Tick) -> Vec<Message> {
        let queues = self.classes.iter_mut();
        queues
            .flat_map(|queue| queue.held.withdraw(sender, until))
            .collect()
    }

    /// The message at the front of a class. `None` if it expired, which goes to `ends`: the one behind it
    /// was not the one that was picked, and older ones of its class may stand elsewhere. Its bytes stay in
    /// the budget until [`Queues::release`].
    pub fn pop(&mut self, class: ClassId, now: Tick, ends: &mut Ends) -> Option<Message> {
        let before = ends.len();
        self.expire_front(class, now, ends);
        if ends.len() > before {
            return None;
        }
        self.classes[class.index()].pop_to_send()
    }

    /// Ends what expired at the front.
    pub fn expire_front(&mut self, class: ClassId, now: Tick, ends: &mut Ends) {
        let queue = &mut self.classes[class.index()];
        while queue.front_message().is_some_and(|m| m.expires <= now) {
            let Some(message) = queue.pop_front() else {
                break;
            };
            queue.release(&message, &mut self.budget);
            ends.push_back((message, Outcome::Expired));
        }
    }

    /// Puts messages back that were sent and not taken, each at its turn. While its
    /// class coalesces only the newest of a key stays.
    pub fn put_back(&mut self, mut messages: Vec<Message>, ends: &mut Ends) {
        for index in 0..self.classes.len() {
            let of_class = messages.extract_if(.., |message| message.class.index() == index);
            let older = self.classes[index].put_back_all(of_class.collect());
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
    pub fn drain(&mut self) -> Row<Message> {
        let mut all = Row::default();
        for queue in &mut self.classes {
            while let Some(message) = queue.pop_front() {
                queue.release(&message, &mut self.budget);
                all.push_back(message);
            }
            while let Some((place, _)) = queue.held.first_from(0) {
                all.extend(queue.held.take(place));
            }
        }
        all
    }

    /// Looks at the pressure of the memory and of each class.
    pub fn observe(&mut self, now: Tick, ends: &mut Ends) {
        let signs = Signs {
            full_permille: self.bytes_nowhere_else().saturating_mul(1000) / self.budget.bytes_max(),
            front_age: Duration::ZERO,
            needed: false,
        };
        tell_memory(self.pressure.observe(signs, now));
        let short = self.pressure.level() > Level::Calm;
        for index in 0..self.classes.len() {
            let queue = &mut self.classes[index];
            if let Some(level) = queue.observe(short, now) {
                tell(&queue.settings, level);
                self.follow(index, now, ends);
            }
        }
        if short {
            // One at a look: the next lowest only if that was not enough.
            let _ = self.coalesce_lowest(0, now, ends);
        }
    }

    /// The uplink took what it can of what waits.
    pub fn mark(&mut self, now: Tick) {
        for queue in &mut self.classes {
            queue.mark(now);
        }
    }

    /// The pressure of the memory.
    #[must_use]
    pub const fn pressure(&self) -> &Pressure {
        &self.pressure
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

    /// Bytes of the indices of keys, beside the messages.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.classes.iter().map(ClassQueue::index_bytes).sum()
    }

    /// Bytes that cannot be given up for being on disk.
    fn bytes_nowhere_else(&self) -> u64 {
        let written: u64 = self.classes.iter().map(ClassQueue::written_bytes).sum();
        (self.budget.bytes() + self.index_bytes()).saturating_sub(written)
    }

    /// Whether a class has room for so many bytes, and nothing needs to give way.
    #[must_use]
    pub fn fits(&self, class: ClassId, bytes: u64) -> bool {
        let bytes_with_index = bytes.saturating_add(self.index_bytes());
        self.classes[class.index()].has_room(bytes) && self.budget.fits(class, bytes_with_index)
    }

    fn over_share(&self, index: usize, client: DoorId, bytes: u64, share_max: u64) -> bool {
        let clients = &self.classes[index].clients;
        clients.over_share(client, bytes, share_max)
    }

    /// Lets something of the message's own client give way: its oldest message in memory, if that is on
    /// disk, else older values of its keys, else its oldest message. What others have in memory stays
    /// there. False when nothing may.
    fn make_room_of_its_own(&mut self, message: &Message, now: Tick, ends: &mut Ends) -> bool {
        let (index, client) = (message.class.index(), message.receipt.door);
        let queue = &mut self.classes[index];
        if queue.settings.delivery == Delivery::Guaranteed {
            // It keeps its order: what is behind the client's oldest waits for that, wherever it is.
            return self.unload_front(index);
        }
        if let Some(oldest) = queue.unload_oldest_of(client) {
            self.give_up(&oldest);
            return true;
        }
        if self.coalesce(index, now, ends) {
            return true;
        }
        if !self.classes[index].drops_oldest() {
            return false;
        }
        let oldest = self.classes[index].take_oldest_of(client);
        self.shed(index, oldest, now, ends)
    }

    /// Lets something give way for a message of so many bytes, or, with 0, for what is there already: what
    /// is on disk, too, else older values, else what the class may lose if its own limit binds, else the
    /// lowest class. False when nothing may.
    fn make_room(&mut self, class: ClassId, bytes: u64, now: Tick, ends: &mut Ends) -> bool {
        if self.unload(class, bytes) {
            return true;
        }
        let own = class.index();
        let victim = if self.classes[own].has_room(bytes) {
            if self.coalesce_lowest(own, now, ends) {
                return true;
            }
            let below = own..self.classes.len();
            let victim = below.rev().find(|index| self.classes[*index].may_shed());
            if victim.is_some() {
                tell_memory(self.pressure.shed(now));
            }
            victim
        } else if self.coalesce(own, now, ends) {
            return true;
        } else {
            Some(own).filter(|own| self.classes[*own].may_shed())
        };
        let Some(victim) = victim else { return false };
        let queue = &mut self.classes[victim];
        let victim_message = match queue.drops_oldest() {
            true => queue.pop_front(),
            // What comes is the newest.
            false if victim == own && bytes > 0 => return false,
            false => queue.pop_back(),
        };
        self.shed(victim, victim_message, now, ends)
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

    /// The lowest `latest` class that is calm, of this one and those below it, coalesces; false when there
    /// is none.
    fn coalesce_lowest(&mut self, from: usize, now: Tick, ends: &mut Ends) -> bool {
        let mut classes = (from..self.classes.len()).rev();
        classes.any(|index| self.coalesce(index, now, ends))
    }

    /// A `latest` class that is calm coalesces; false when it is not.
    fn coalesce(&mut self, index: usize, now: Tick, ends: &mut Ends) -> bool {
        let queue = &mut self.classes[index];
        if !queue.may_coalesce() {
            return false;
        }
        if let Some(level) = queue.pressure.coalesce(now) {
            tell(&queue.settings, level);
        }
        self.follow(index, now, ends);
        true
    }

    /// Sheds a message that was taken out; false when there was none.
    fn shed(&mut self, index: usize, message: Option<Message>, now: Tick, ends: &mut Ends) -> bool {
        let Some(message) = message else { return false };
        self.note_shed(index, now);
        self.end(message, Outcome::Shed, ends);
        true
    }

    fn note_shed(&mut self, index: usize, now: Tick) {
        let queue = &mut self.classes[index];
        if let Some(level) = queue.pressure.shed(now) {
            tell(&queue.settings, level);
        }
    }

    /// Brings a class's index of keys in line with its level.
    fn follow(&mut self, index: usize, now: Tick, ends: &mut Ends) {
        let queue = &mut self.classes[index];
        if queue.pressure.level() == Level::Calm {
            queue.places = None;
        } else if queue.may_coalesce() {
            for older in queue.merge(now) {
                self.end(older, Outcome::Superseded, ends);
            }
        }
    }

    fn end(&mut self, message: Message, outcome: Outcome, ends: &mut Ends) {
        self.release(&message);
        ends.push_back((message, outcome));
    }
}

fn tell(class: &ClassSettings, level: Level) {
    tracing::info!("class {} is now {}", class.name, level.of(class.delivery));
}

fn tell_memory(level: Option<Level>) {
    if let Some(level) = level {
        tracing::info!("the memory for messages is now {}", level.of_memory());
    }
}

#[cfg(test)]
#[path = "overload_tests.rs"]
mod overload_tests;
#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;
