//! One class's queue: what waits, in order, with the places of keys and clients; and what is held. It
//! knows nothing of the other classes nor of the budget that they share: that is
//! [`bounded`](super::bounded). What its keys are for stands in `latest`.

mod latest;

use std::time::Duration;

use super::super::fingerprint::Fingerprint;
use super::super::message::{DoorId, Message, Tick};
use super::super::spool::Position;
use super::budget::Budget;
use super::clients::Clients;
use super::coalesce::{Places, Seen};
use super::held::Held;
use super::pressure::{Level, Pressure, Signs};
use super::row::Row;
use super::spared::Spared;
use super::{ClassSettings, Delivery, WhenFull};

/// One class's queue.
#[derive(Debug)]
pub struct ClassQueue {
    pub(super) settings: ClassSettings,
    /// What waits; `None` where a message was taken out. The front is never `None`.
    pub(super) waiting: Row<Option<Message>>,
    /// Messages in `waiting`, and their bytes.
    pub(super) count: usize,
    pub(super) waiting_bytes: u64,
    /// Turns given.
    turns: u64,
    /// Position of the front; counts up as messages leave and down as they come back.
    pub(super) front: u64,
    pub(super) clients: Clients,
    /// There while a `latest` class coalesces.
    pub(super) places: Option<Places>,
    /// Keys of which newer values came than those on disk.
    seen: Seen,
    /// What coalescing spares the uplink, since it began.
    spared: Spared,
    /// Guaranteed messages without room.
    pub(super) held: Held,
    pub(super) held_for_room: bool,
    /// Bytes of what was admitted and has not ended, in flight included.
    pub(super) bytes: u64,
    pub(super) pressure: Pressure,
    /// Everything that waits in front of this position is written.
    unwritten: u64,
    /// Bytes of what waits and is written.
    written_bytes: u64,
    /// The first position in the spool that is not known to be on disk.
    unsafe_from: Option<Position>,
}

/// Where positions start: as far from both ends as a message can come.
const FIRST_POSITION: u64 = 1 << 63;

impl ClassQueue {
    /// Empty; `seen_bytes_max` bounds what it remembers of keys on disk.
    pub(super) fn new(settings: ClassSettings, seen_bytes_max: u64) -> Self {
        Self {
            spared: Spared::new(settings.pressure.stay, Tick::ZERO),
            pressure: Pressure::new(settings.pressure),
            settings,
            waiting: Row::default(),
            count: 0,
            waiting_bytes: 0,
            turns: 0,
            front: FIRST_POSITION,
            clients: Clients::default(),
            places: None,
            seen: Seen::new(seen_bytes_max),
            held: Held::default(),
            held_for_room: false,
            bytes: 0,
            unwritten: FIRST_POSITION,
            written_bytes: 0,
            unsafe_from: None,
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

    /// Bytes of what waits to be sent.
    #[must_use]
    pub const fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Whether something is held because the class or the memory is full, not for its client's share.
    #[must_use]
    pub const fn is_held_for_room(&self) -> bool {
        self.held_for_room
    }

    /// Messages that are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether this message waits behind what is held of its sender, or by whomever of its topic.
    #[must_use]
    pub fn holds_before(&self, message: &Message) -> bool {
        self.held.is_before(message)
    }

    /// Bytes of what is held.
    #[must_use]
    pub const fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// Bytes of what was admitted and has not ended, in flight included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a client occupies of it, in bytes.
    #[must_use]
    pub fn occupied(&self, client: DoorId) -> u64 {
        self.clients.occupied(client)
    }

    /// How often it entered each level of pressure.
    #[must_use]
    pub const fn pressure_entered(&self) -> [u64; 3] {
        self.pressure.entered()
    }

    /// The pressure.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.pressure.level()
    }

    /// Bytes of what waits and is written to the spool.
    #[must_use]
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Bytes of what waits and is not written to the spool.
    #[must_use]
    pub const fn unwritten_bytes(&self) -> u64 {
        self.waiting_bytes - self.written_bytes
    }

    /// The oldest message that waits and is not written to the spool.
    #[must_use]
    pub fn first_unwritten(&mut self) -> Option<&Message> {
        self.unwritten = self.unwritten.max(self.front);
        loop {
            match self.waiting.get((self.unwritten - self.front) as usize)? {
                Some(message) if message.spooled.is_none() => break,
                _ => self.unwritten += 1,
            }
        }
        let slot = self.waiting.get((self.unwritten - self.front) as usize)?;
        slot.as_ref()
    }

    /// Writes that message.
    pub fn write_first(&mut self, write: impl FnOnce(&mut Message)) {
        let index = self.unwritten.checked_sub(self.front);
        let slot = index.and_then(|index| self.waiting.get_mut(index as usize));
        if let Some(message) = slot.and_then(Option::as_mut) {
            write(message);
            self.written_bytes += message.memory_bytes();
            self.unwritten += 1;
        }
    }

    /// From here on, positions in the spool are not known to be on disk.
    pub fn set_unsafe_from(&mut self, position: Option<Position>) {
        self.unsafe_from = position;
    }

    /// Takes marks off what waits and is not on disk after all.
    pub fn take_back(&mut self, mut change: impl FnMut(&mut Message)) {
        for message in self.waiting.iter_mut().flatten() {
            let marked = message.spooled.is_some();
            change(message);
            if marked && message.spooled.is_none() {
                self.written_bytes -= message.memory_bytes();
            }
        }
        self.unwritten = self.front;
    }

    /// Gives up the message at the front, if it is on disk.
    pub(super) fn unload_front(&mut self) -> Option<Message> {
        if !self.is_on_disk(self.front_message()?) {
            return None;
        }
        self.pop_front()
    }

    /// Whether a message may be given up in memory.
    pub(super) fn is_on_disk(&self, message: &Message) -> bool {
        let safe = |position| self.unsafe_from.is_none_or(|from| position < from);
        message.spooled.is_some_and(safe)
    }

    /// All that waits, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.waiting.iter().flatten()
    }

    /// The message that goes next.
    #[must_use]
    pub fn front_message(&self) -> Option<&Message> {
        self.waiting.front().and_then(Option::as_ref)
    }

    pub(super) fn front_age(&self, now: Tick) -> Duration {
        self.front_message()
            .map_or(Duration::ZERO, |message| now.since(message.received))
            // What waited for its period's end is not late for that.
            .saturating_sub(self.settings.every.unwrap_or_default())
    }

    /// Looks for pressure; `memory_short` keeps a class coalescing that does. Says the new level if it
    /// changed.
    pub(super) fn observe(&mut self, memory_short: bool, now: Tick) -> Option<Level> {
        let bytes_max = self.settings.queue_bytes_max.max(1);
        let signs = Signs {
            full_permille: self.bytes.saturating_mul(1000) / bytes_max,
            front_age: self.front_age(now),
            needed: self.coalesces() && (memory_short || self.spared.is_needed()),
        };
        self.pressure.observe(signs, now)
    }

    pub(super) const fn has_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.settings.queue_bytes_max
    }

    pub(super) fn may_shed(&self) -> bool {
        self.settings.delivery != Delivery::Guaranteed && self.count > 0
    }

    /// Whether its oldest gives way for what comes.
    pub(super) fn drops_oldest(&self) -> bool {
        self.settings.delivery != Delivery::Guaranteed
            && self.settings.when_full == WhenFull::DropOldest
    }

    fn at(&mut self, position: u64) -> Option<&mut Message> {
        let index = position.checked_sub(self.front)?;
        self.waiting.get_mut(index as usize)?.as_mut()
    }

    /// Counts a message that was read back from the spool: it takes memory like any other.
    pub(super) const fn occupy(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Puts a message behind all others; `key` as [`ClassQueue::print`] says it.
    pub(super) fn push_back(&mut self, mut message: Message, bytes: u64, key: Option<Fingerprint>) {
        self.turns += 1;
        message.turn = self.turns;
        let position = self.front + self.waiting.len() as u64;
        if let Some((places, key)) = self.places.as_mut().zip(key) {
            places.note(key, position);
        }
        let client = message.receipt.door;
        self.clients.occupy(client, bytes);
        if self.settings.delivery != Delivery::Guaranteed {
            self.clients.note_newest(client, position);
        }
        self.bytes += bytes;
        self.count += 1;
        self.waiting_bytes += bytes;
        self.waiting.push_back(Some(message));
    }

    pub(super) fn pop_front(&mut self) -> Option<Message> {
        let message = self.take(self.front)?;
        self.clients.forget(message.receipt.door, self.front);
        self.drop_empty_front();
        Some(message)
    }

    /// The message that goes next, to be sent.
    pub(super) fn pop_to_send(&mut self) -> Option<Message> {
        let message = self.pop_front()?;
        if self.coalesces() {
            self.spared.sent(message.memory_bytes());
        }
        Some(message)
    }

    /// Takes the newest waiting message out of the queue.
    pub(super) fn pop_back(&mut self) -> Option<Message> {
        while let Some(None) = self.waiting.back() {
            self.waiting.pop_back();
        }
        let position = (self.front + self.waiting.len() as u64).saturating_sub(1);
        // What comes to stand there next is not written.
        self.unwritten = self.unwritten.min(position.max(self.front));
        let message = self.take(position);
        self.waiting.pop_back();
        self.tidy();
        message
    }

    /// Takes the oldest waiting message of one client out of the queue.
    pub(super) fn take_oldest_of(&mut self, client: DoorId) -> Option<Message> {
        let position = self.oldest_of(client)?;
        self.clients.take_oldest(client);
        let message = self.take(position);
        self.drop_empty_front();
        self.tidy();
        message
    }

    /// Likewise, if it is on disk.
    pub(super) fn unload_oldest_of(&mut self, client: DoorId) -> Option<Message> {
        let index = self.oldest_of(client)?.checked_sub(self.front)? as usize;
        let message = self.waiting.get(index)?.as_ref()?;
        self.is_on_disk(message).then_some(())?;
        self.take_oldest_of(client)
    }

    /// Where the oldest waiting message of one client stands.
    fn oldest_of(&mut self, client: DoorId) -> Option<u64> {
        while let Some(position) = self.clients.oldest(client) {
            let slot = position.checked_sub(self.front).map(|index| index as usize);
            let there = slot.and_then(|index| self.waiting.get(index)?.as_ref());
            if there.is_some_and(|message| message.receipt.door == client) {
                return Some(position);
            }
            self.clients.take_oldest(client);
        }
        None
    }

    pub(super) fn take(&mut self, position: u64) -> Option<Message> {
        let index = (position - self.front) as usize;
        let message = self.waiting.get_mut(index)?.take()?;
        if let Some(places) = &mut self.places {
            places.forget(&message, position);
        }
        self.count -= 1;
        self.waiting_bytes -= message.memory_bytes();
        if message.spooled.is_some() {
            self.written_bytes -= message.memory_bytes();
        }
        Some(message)
    }

    /// Takes out all that waits and is meant.
    pub(super) fn take_all(&mut self, meant: impl Fn(&Message) -> bool) -> Vec<Message> {
        let places = (self.front..).zip(self.waiting.iter());
        let places = places.filter(|(_, slot)| slot.as_ref().is_some_and(&meant));
        let places: Vec<u64> = places.map(|(place, _)| place).collect();
        let taken = places.into_iter().filter_map(|place| self.take(place));
        let taken = taken.collect();
        self.drop_empty_front();
        self.tidy();
        taken
    }

    pub(super) fn drop_empty_front(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.front += 1;
        }
    }

    /// Puts messages back, each at its turn; gives those that a newer value superseded.
    pub(super) fn put_back_all(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let Some(last) = messages.iter().map(|message| message.turn).max() else {
            return Vec::new();
        };
        let mut all = messages;
        while self.front_message().is_some_and(|front| front.turn < last) {
            all.extend(self.pop_front());
        }
        all.sort_by_key(|message| message.turn);
        all.into_iter()
            .rev()
            .filter_map(|message| self.put_back(message))
            .collect()
    }

    /// Puts a message back to the front. Gives the older value, if one of its key waits.
    fn put_back(&mut self, message: Message) -> Option<Message> {
        let key = self.print(&message);
        if let Some(position) = key.and_then(|key| self.place_of(key)) {
            return Some(self.put_back_to(position, message));
        }
        self.front -= 1;
        if let Some((places, key)) = self.places.as_mut().zip(key) {
            places.note(key, self.front);
        }
        if self.settings.delivery != Delivery::Guaranteed {
            self.clients.note_oldest(message.receipt.door, self.front);
        }
        self.count += 1;
        self.waiting_bytes += message.memory_bytes();
        match message.spooled {
            Some(_) => self.written_bytes += message.memory_bytes(),
            None => self.unwritten = self.front,
        }
        self.waiting.push_front(Some(message));
        None
    }

    /// Closes the gaps, once there are more of them than messages: a mad client's own shedding leaves
    /// one for each message.
    pub(super) fn tidy(&mut self) {
        let room = 2 * self.count + SPARE_MESSAGES_MAX;
        if self.waiting.len() > room || self.clients.places() > room {
            self.waiting.retain(Option::is_some);
            self.note_again();
        }
    }

    /// Notes all places anew.
    fn note_again(&mut self) {
        if let Some(places) = &mut self.places {
            for (position, message) in (self.front..).zip(self.waiting.iter().flatten()) {
                places.note(places.print(message), position);
            }
        }
        self.note_clients_again();
    }

    fn note_clients_again(&mut self) {
        self.count = self.waiting.len();
        self.unwritten = self.front;
        self.clients.clear_places();
        for (position, message) in (self.front..).zip(self.waiting.iter().flatten()) {
            self.clients.note_newest(message.receipt.door, position);
        }
    }

    pub(super) fn release(&mut self, message: &Message, budget: &mut Budget) {
        let bytes = message.memory_bytes();
        self.bytes -= bytes.min(self.bytes);
        self.clients.vacate(message.receipt.door, bytes);
        budget.give_back(bytes);
    }
}

/// A queue keeps this many gaps beside as many as it has messages.
pub(super) const SPARE_MESSAGES_MAX: usize = 1024;
