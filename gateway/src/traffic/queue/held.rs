//! What is held of one class: guaranteed messages without room, not part of the budget. In come messages,
//! out they go again in the order of receipt for each sender and each topic. Only the first of each sender
//! is looked at, so that one which holds much costs no more than one which holds little. It decides
//! nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::message::{DoorId, Message, Tick};

/// What is held.
#[derive(Debug, Default)]
pub struct Held {
    /// By sender, each with its place in the order of receipt. By id, since a sender that left still has
    /// its place.
    by_sender: HashMap<DoorId, VecDeque<(u64, Message)>>,
    /// The place of each sender's first.
    firsts: BTreeMap<u64, DoorId>,
    /// The places of each topic.
    by_topic: HashMap<Box<[u8]>, VecDeque<u64>>,
    next_place: u64,
    len: usize,
    bytes: u64,
}

impl Held {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Their bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is one of this message's sender, or by whomever of its topic.
    #[must_use]
    pub fn is_before(&self, message: &Message) -> bool {
        !self.is_empty()
            && (self.by_sender.contains_key(&message.receipt.door)
                || self.by_topic.contains_key(message.body.topic_bytes()))
    }

    /// One more, behind all others.
    pub fn push(&mut self, message: Message) {
        let place = self.next_place;
        self.next_place += 1;
        self.count(&message);
        let of_topic = self.by_topic.entry(message.body.topic_bytes().into());
        of_topic.or_default().push_back(place);
        let sender = message.receipt.door;
        let of_sender = self.by_sender.entry(sender).or_default();
        if of_sender.is_empty() {
            self.firsts.insert(place, sender);
        }
        of_sender.push_back((place, message));
    }

    /// The oldest at this place or behind it that is its sender's first.
    #[must_use]
    pub fn first_from(&self, place: u64) -> Option<(u64, &Message)> {
        let (_, sender) = self.firsts.range(place..).next()?;
        let (place, message) = self.by_sender.get(sender)?.front()?;
        Some((*place, message))
    }

    /// Whether no older one of its topic is held.
    #[must_use]
    pub fn is_first_of_topic(&self, place: u64, message: &Message) -> bool {
        let of_topic = self.by_topic.get(message.body.topic_bytes());
        of_topic.and_then(VecDeque::front) == Some(&place)
    }

    /// Takes out its sender's first, which stands at this place.
    pub fn take(&mut self, place: u64) -> Option<Message> {
        let sender = self.firsts.remove(&place)?;
        let of_sender = self.by_sender.get_mut(&sender)?;
        let (_, message) = of_sender.pop_front()?;
        match of_sender.front() {
            Some((next, _)) => drop(self.firsts.insert(*next, sender)),
            None => drop(self.by_sender.remove(&sender)),
        }
        self.uncount(place, &message);
        Some(message)
    }

    /// Puts it back there.
    pub fn put_back(&mut self, place: u64, message: Message) {
        self.count(&message);
        let of_topic = self.by_topic.entry(message.body.topic_bytes().into());
        of_topic.or_default().push_front(place);
        let sender = message.receipt.door;
        let of_sender = self.by_sender.entry(sender).or_default();
        if let Some((next, _)) = of_sender.front() {
            self.firsts.remove(next);
        }
        self.firsts.insert(place, sender);
        of_sender.push_front((place, message));
    }

    /// Takes out what was received of one sender until then.
    pub fn withdraw(&mut self, sender: DoorId, until: Tick) -> Vec<Message> {
        let mut gone = Vec::new();
        for (place, message) in self.by_sender.remove(&sender).unwrap_or_default() {
            self.firsts.remove(&place);
            if message.received <= until {
                self.uncount(place, &message);
                gone.push(message);
                continue;
            }
            let of_sender = self.by_sender.entry(sender).or_default();
            if of_sender.is_empty() {
                self.firsts.insert(place, sender);
            }
            of_sender.push_back((place, message));
        }
        gone
    }

    fn count(&mut self, message: &Message) {
        self.len += 1;
        self.bytes += message.memory_bytes();
    }

    fn uncount(&mut self, place: u64, message: &Message) {
        self.len -= 1;
        self.bytes -= message.memory_bytes();
        let topic = message.body.topic_bytes();
        let Some(places) = self.by_topic.get_mut(topic) else {
            return;
        };
        if let Ok(index) = places.binary_search(&place) {
            places.remove(index);
        }
        if places.is_empty() {
            self.by_topic.remove(topic);
        }
    }
}
