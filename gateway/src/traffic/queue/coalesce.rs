//! Where each key's value waits, while a `latest` class coalesces. Calm, there is no index and
//! nothing is merged; it is built when pressure comes and dropped when it ends.

use std::collections::HashMap;

use super::super::message::Message;
use super::row::Row;

/// The key of a message: what its latest value is kept for.
#[must_use]
pub fn key_of(message: &Message) -> &[u8] {
    match &message.key {
        Some(key) => key.as_bytes(),
        None => message.body.topic_bytes(),
    }
}

/// For each key the position of its value. Positions count up along the queue and stay with a
/// message for as long as it waits.
#[derive(Debug, Default)]
pub struct Places {
    by_key: HashMap<Box<[u8]>, u64>,
}

impl Places {
    /// Where the key's value waits.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// Notes where a message waits.
    pub fn note(&mut self, message: &Message, position: u64) {
        self.by_key.insert(Box::from(key_of(message)), position);
    }

    /// Forgets a message that left the queue from `position`.
    pub fn forget(&mut self, message: &Message, position: u64) {
        let key = key_of(message);
        if self.find(key) == Some(position) {
            self.by_key.remove(key);
        }
    }
}

/// Puts `newer` in the place of `older`, for which it stands from now on; gives `older` back.
pub fn supersede(older: &mut Message, mut newer: Message) -> Message {
    newer.stands_for = newer.stands_for.saturating_add(older.stands_for);
    std::mem::replace(older, newer)
}

/// Merges what waits: each key keeps its newest value at the place of its oldest, so that no key
/// starves. Gives the index, and the older values.
#[must_use]
pub fn merge(waiting: &mut Row<Option<Message>>, front: u64) -> (Places, Vec<Message>) {
    let mut places = Places::default();
    let mut superseded = Vec::new();
    let mut kept: Row<Option<Message>> = Row::default();
    for message in std::mem::take(waiting).into_iter().flatten() {
        let place = places.find(key_of(&message));
        let older = place.and_then(|position| kept.get_mut((position - front) as usize));
        if let Some(Some(older)) = older {
            superseded.push(supersede(older, message));
        } else {
            places.note(&message, front + kept.len() as u64);
            kept.push_back(Some(message));
        }
    }
    *waiting = kept;
    (places, superseded)
}
