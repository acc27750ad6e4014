//! The queues themselves: one for each class, bounded by the class's own limit and by the budget
//! that all share. In comes a message, out goes an [`Admission`]; whatever gave way for it is pushed
//! on a list of ends, for [`settle`](super::super::settle) to count. Nothing is dropped here.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::message::{ClassId, DoorId, Message, Tick};
use super::super::settle::Outcome;
use super::super::snapshot::QueueSnapshot;
use super::budget::Budget;
use super::clients::Clients;
use super::coalesce::{Places, key_of, merge, supersede};
use super::pressure::{Level, Pressure};
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

/// All queues and their budget.
#[derive(Debug)]
pub struct Queues {
    classes: Vec<ClassQueue>,
    budget: Budget,
}

/// One class's queue.
#[derive(Debug)]
pub struct ClassQueue {
    settings: ClassSettings,
    /// What waits; `None` where a message was taken out. The front is never `None`.
    waiting: VecDeque<Option<Message>>,
    /// Messages in `waiting`.
    count: usize,
    /// Position of the front; counts up as messages leave and down as they come back.
    front: u64,
    clients: Clients,
    /// There while a `latest` class coalesces.
    places: Option<Places>,
    /// Guaranteed messages without room, in order of receipt; not part of the budget.
    held: VecDeque<Message>,
    held_bytes: u64,
    /// Bytes of what was admitted and has not ended, in flight included.
    bytes: u64,
    pressure: Pressure,
}

/// Where positions start: as far from both ends as a message can come.
const FIRST_POSITION: u64 = 1 << 63;

impl Queues {
    /// Empty queues for these classes.
    #[must_use]
    pub fn new(classes: &[ClassSettings], memory_bytes_max: u64) -> Self {
        let classes = classes.iter().cloned().map(ClassQueue::new).collect();
        Self {
            classes,
            budget: Budget::new(memory_bytes_max),
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

    /// Keeps a guaranteed message that found no room.
    pub fn hold(&mut self, message: Message) {
        let queue = &mut self.classes[message.class.index()];
        queue.held_bytes += message.memory_bytes();
        queue.held.push_back(message);
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
            let mut behind: Vec<DoorId> = Vec::new();
            while let Some(message) = self.classes[index].pop_held() {
                let sender = message.receipt.door;
                let share = share_max(sender, &self.classes[index].settings);
                let bytes = message.memory_bytes();
                if behind.contains(&sender) || self.over_share(&message, bytes, share) {
                    behind.push(sender);
                    kept.push_back(message);
                    continue;
                }
                if let Admission::Full(message) = self.admit(message, share, now, ends) {
                    self.classes[index].unpop_held(*message);
                    break;
                }
                admitted(sender);
            }
            while let Some(message) = kept.pop_back() {
                self.classes[index].unpop_held(message);
            }
        }
    }

    /// Removes what is held of one sender.
    pub fn withdraw(&mut self, sender: DoorId) -> Vec<Message> {
        let mut gone = Vec::new();
        for queue in &mut self.classes {
            let (out, stay) = queue
                .held
                .drain(..)
                .partition(|message| message.receipt.door == sender);
            queue.held = stay;
            let out: VecDeque<Message> = out;
            queue.held_bytes -= out.iter().map(Message::memory_bytes).sum::<u64>();
            gone.extend(out);
        }
        gone
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

    /// Puts a message back to the front: it was sent and not acknowledged. While its class
    /// coalesces and a newer value waits, it is superseded instead.
    pub fn put_back(&mut self, message: Message, now: Tick, ends: &mut Ends) {
        if let Some(older) = self.classes[message.class.index()].put_back(message, now) {
            self.end(older, Outcome::Superseded, ends);
        }
    }

    /// Gives back the room of a message that ended.
    pub fn release(&mut self, message: &Message) {
        self.classes[message.class.index()].release(message, &mut self.budget);
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

    /// What the scheduler may see.
    pub fn snapshots(&self, into: &mut Vec<QueueSnapshot>) {
        into.clear();
        into.extend(self.classes.iter().map(ClassQueue::snapshot));
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

    fn fits(&self, class: ClassId, bytes: u64) -> bool {
        self.classes[class.index()].has_room(bytes) && self.budget.fits(class, bytes)
    }

    fn over_share(&self, message: &Message, bytes: u64, share_max: u64) -> bool {
        let queue = &self.classes[message.class.index()];
        let client = message.receipt.door;
        queue.clients.over_share(client, bytes, share_max)
    }

    /// Lets something of the message's own client give way: older values of its keys, else its oldest
    /// message. False when nothing may.
    fn make_room_of_its_own(&mut self, message: &Message, now: Tick, ends: &mut Ends) -> bool {
        let index = message.class.index();
        if self.classes[index].settings.delivery == Delivery::Guaranteed {
            return false;
        }
        self.press(index, now, ends)
            || match self.classes[index].take_oldest_of(message.receipt.door) {
                Some(oldest) => {
                    self.end(oldest, Outcome::Shed, ends);
                    true
                }
                None => false,
            }
    }

    /// Lets something give way: an older value, else the oldest of this class if its own limit
    /// binds, else the oldest of the lowest class. False when nothing may.
    fn make_room(&mut self, class: ClassId, bytes: u64, now: Tick, ends: &mut Ends) -> bool {
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

    /// Marks a class as shedding; true if that merged older values of a `latest` class that was calm.
    fn press(&mut self, index: usize, now: Tick, ends: &mut Ends) -> bool {
        let queue = &mut self.classes[index];
        let merges = queue.settings.delivery == Delivery::Latest && queue.places.is_none();
        let _ = queue.pressure.shed(now);
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

impl ClassQueue {
    fn new(settings: ClassSettings) -> Self {
        Self {
            settings,
            waiting: VecDeque::new(),
            count: 0,
            front: FIRST_POSITION,
            clients: Clients::default(),
            places: None,
            held: VecDeque::new(),
            held_bytes: 0,
            bytes: 0,
            pressure: Pressure::default(),
        }
    }

    /// The class.
    #[must_use]
    pub const fn settings(&self) -> &ClassSettings {
        &self.settings
    }

    /// Messages that wait to be sent.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.count
    }

    /// Messages that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of what is held.
    #[must_use]
    pub const fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes of what was admitted and has not ended, in flight included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pressure.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.pressure.level()
    }

    fn snapshot(&self) -> QueueSnapshot {
        let next_bytes = self.front_message().map(|m| m.body.size_bytes() as u64);
        QueueSnapshot { next_bytes }
    }

    fn front_message(&self) -> Option<&Message> {
        self.waiting.front().and_then(Option::as_ref)
    }

    fn front_age(&self, now: Tick) -> Duration {
        self.front_message()
            .map_or(Duration::ZERO, |message| now.since(message.received))
    }

    const fn has_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.settings.queue_bytes_max
    }

    fn may_shed(&self) -> bool {
        self.settings.delivery != Delivery::Guaranteed && self.count > 0
    }

    /// Whether an older value of the message's key waits, whose place it can take.
    fn has_place(&self, message: &Message) -> bool {
        let places = self.places.as_ref();
        places.is_some_and(|places| places.find(key_of(message)).is_some())
    }

    fn at_place_of(&mut self, message: &Message) -> Option<(u64, &mut Message)> {
        let position = self.places.as_ref()?.find(key_of(message))?;
        let slot = self.waiting.get_mut((position - self.front) as usize)?;
        slot.as_mut().map(|older| (position, older))
    }

    /// Puts a message in the place of its key's older value, if the class coalesces and one waits.
    fn take_place(&mut self, message: Message, now: Tick) -> Result<Message, Box<Message>> {
        let Some((position, older)) = self.at_place_of(&message) else {
            return Err(Box::new(message));
        };
        let (client, bytes) = (message.receipt.door, message.memory_bytes());
        let older = supersede(older, message);
        self.bytes += bytes;
        self.clients.occupy(client, bytes);
        if older.receipt.door != client {
            self.clients.note_newest(client, position);
            self.tidy();
        }
        self.pressure.superseded(now);
        Ok(older)
    }

    fn push_back(&mut self, message: Message, bytes: u64) {
        let position = self.front + self.waiting.len() as u64;
        if let Some(places) = &mut self.places {
            places.note(&message, position);
        }
        let client = message.receipt.door;
        self.clients.occupy(client, bytes);
        if self.settings.delivery != Delivery::Guaranteed {
            self.clients.note_newest(client, position);
        }
        self.bytes += bytes;
        self.count += 1;
        self.waiting.push_back(Some(message));
    }

    fn pop_front(&mut self) -> Option<Message> {
        let message = self.take(self.front)?;
        self.clients.forget(message.receipt.door, self.front);
        self.drop_empty_front();
        if self.waiting.is_empty() && self.waiting.capacity() > SPARE_MESSAGES_MAX {
            self.waiting.shrink_to(SPARE_MESSAGES_MAX);
        }
        Some(message)
    }

    /// Takes the oldest waiting message of one client out of the queue.
    fn take_oldest_of(&mut self, client: DoorId) -> Option<Message> {
        while let Some(position) = self.clients.take_oldest(client) {
            let slot = position.checked_sub(self.front).map(|index| index as usize);
            let there = slot.and_then(|index| self.waiting.get(index)?.as_ref());
            if there.is_some_and(|message| message.receipt.door == client) {
                let message = self.take(position);
                self.drop_empty_front();
                self.tidy();
                return message;
            }
        }
        None
    }

    fn take(&mut self, position: u64) -> Option<Message> {
        let index = (position - self.front) as usize;
        let message = self.waiting.get_mut(index)?.take()?;
        if let Some(places) = &mut self.places {
            places.forget(&message, position);
        }
        self.count -= 1;
        Some(message)
    }

    fn drop_empty_front(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.front += 1;
        }
    }

    /// Puts a message back to the front. Gives it back if a newer value of its key waits.
    fn put_back(&mut self, message: Message, now: Tick) -> Option<Message> {
        if let Some((_, newer)) = self.at_place_of(&message) {
            newer.stands_for = newer.stands_for.saturating_add(message.stands_for);
            self.pressure.superseded(now);
            return Some(message);
        }
        self.front -= 1;
        if let Some(places) = &mut self.places {
            places.note(&message, self.front);
        }
        if self.settings.delivery != Delivery::Guaranteed {
            self.clients.note_oldest(message.receipt.door, self.front);
        }
        self.count += 1;
        self.waiting.push_front(Some(message));
        None
    }

    /// Merges what waits by key; gives the older values.
    fn merge(&mut self) -> Vec<Message> {
        let (places, older) = merge(&mut self.waiting, self.front);
        self.places = Some(places);
        self.note_again();
        older
    }

    /// Closes the gaps, once there are more of them than messages: a mad client's own shedding leaves
    /// one for each message.
    fn tidy(&mut self) {
        let room = 2 * self.count + SPARE_MESSAGES_MAX;
        if self.waiting.len() > room || self.clients.places() > room {
            self.waiting.retain(Option::is_some);
            self.note_again();
        }
    }

    /// Notes all places anew.
    fn note_again(&mut self) {
        self.count = self.waiting.len();
        self.clients.clear_places();
        let messages = self.waiting.iter().flatten();
        for (position, message) in (self.front..).zip(messages) {
            if let Some(places) = &mut self.places {
                places.note(message, position);
            }
            self.clients.note_newest(message.receipt.door, position);
        }
    }

    fn pop_held(&mut self) -> Option<Message> {
        let message = self.held.pop_front()?;
        self.held_bytes -= message.memory_bytes();
        Some(message)
    }

    fn unpop_held(&mut self, message: Message) {
        self.held_bytes += message.memory_bytes();
        self.held.push_front(message);
    }

    fn release(&mut self, message: &Message, budget: &mut Budget) {
        let bytes = message.memory_bytes();
        self.bytes -= bytes.min(self.bytes);
        self.clients.vacate(message.receipt.door, bytes);
        budget.give_back(bytes);
    }
}

/// An empty queue keeps room for this many messages and gives the rest back, so that memory after
/// an outage is what it was before.
const SPARE_MESSAGES_MAX: usize = 1024;

#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;
