//! What each client occupies of one class, and where its messages wait, so that one device gone mad
//! fills only its share (`client_max`) and what gives way for it is its own oldest.

use std::collections::VecDeque;

use super::super::message::DoorId;

/// A client keeps room for this many places; of more, what it does not need goes back.
const SPARE_PLACES_MAX: usize = 64;

/// The clients of one class.
#[derive(Debug, Default)]
pub struct Clients {
    /// By the index of their ids.
    slots: Vec<Client>,
    /// Places noted in all, stale ones included.
    places: usize,
}

#[derive(Debug, Default)]
struct Client {
    generation: u32,
    bytes: u64,
    /// Positions of its messages, the oldest first. Some may be stale: whoever asks for one looks
    /// whether the message there is still this client's.
    places: VecDeque<u64>,
}

impl Clients {
    /// Whether `bytes` more would exceed a share of `share_max`. Who occupies nothing may always have
    /// one message.
    #[must_use]
    pub fn over_share(&self, id: DoorId, bytes: u64, share_max: u64) -> bool {
        let occupied = self.occupied(id);
        occupied > 0 && occupied.saturating_add(bytes) > share_max
    }

    /// What a client occupies, in bytes.
    #[must_use]
    pub fn occupied(&self, id: DoorId) -> u64 {
        self.get(id).map_or(0, |client| client.bytes)
    }

    /// Counts bytes as this client's.
    pub fn occupy(&mut self, id: DoorId, bytes: u64) {
        if let Some(client) = self.slot(id) {
            client.bytes += bytes;
        }
    }

    /// Counts them as its no more; those of an older client with the same index are forgotten.
    pub fn vacate(&mut self, id: DoorId, bytes: u64) {
        if let Some(client) = self.slot(id) {
            client.bytes = client.bytes.saturating_sub(bytes);
        }
    }

    /// Notes where its newest message waits.
    pub fn note_newest(&mut self, id: DoorId, position: u64) {
        if let Some(client) = self.slot(id) {
            client.places.push_back(position);
            self.places += 1;
        }
    }

    /// Notes where a message waits again that is older than all others.
    pub fn note_oldest(&mut self, id: DoorId, position: u64) {
        if let Some(client) = self.slot(id) {
            client.places.push_front(position);
            self.places += 1;
        }
    }

    /// Forgets the place of a message that left from the front of the queue, and stale ones before it.
    pub fn forget(&mut self, id: DoorId, position: u64) {
        let passed = |client: &Client| client.places.front().is_some_and(|at| *at <= position);
        while self.get(id).is_some_and(passed) {
            self.take_oldest(id);
        }
    }

    /// Where its oldest message waits, or waited.
    #[must_use]
    pub fn oldest(&self, id: DoorId) -> Option<u64> {
        self.get(id)?.places.front().copied()
    }

    /// Likewise; the place is forgotten.
    pub fn take_oldest(&mut self, id: DoorId) -> Option<u64> {
        let places = &mut self.slot(id)?.places;
        let place = places.pop_front()?;
        if places.capacity() > SPARE_PLACES_MAX && places.len() < places.capacity() / 4 {
            places.shrink_to(places.len() * 2);
        }
        self.places -= 1;
        Some(place)
    }

    /// Forgets all places, to note them anew.
    pub fn clear_places(&mut self) {
        self.places = 0;
        for client in &mut self.slots {
            client.places = VecDeque::new();
        }
    }

    /// Places noted in all, stale ones included.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places
    }

    fn get(&self, id: DoorId) -> Option<&Client> {
        let client = self.slots.get(id.index as usize)?;
        (client.generation == id.generation).then_some(client)
    }

    /// The client's slot; what an older client with the same index left is dropped. `None` for such an
    /// older one.
    fn slot(&mut self, id: DoorId) -> Option<&mut Client> {
        if id == DoorId::NOBODY {
            return None;
        }
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Client::default);
        }
        let client = &mut self.slots[index];
        if client.generation > id.generation {
            return None;
        }
        if client.generation < id.generation {
            self.places -= client.places.len();
            *client = Client {
                generation: id.generation,
                ..Client::default()
            };
        }
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another client's value took the place of one of its own.
    #[test]
    fn are_stale_places_forgotten_with_the_next_that_leaves() {
        let mut clients = Clients::default();
        let id = DoorId {
            index: 0,
            generation: 0,
        };
        for position in [5, 9, 12] {
            clients.note_newest(id, position);
        }
        clients.forget(id, 9);
        assert_eq!(clients.places(), 1);
        assert_eq!(clients.take_oldest(id), Some(12));
    }
}
