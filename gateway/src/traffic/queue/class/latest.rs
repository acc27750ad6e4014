//! What a `latest` class does with its keys: which values wait where, which give way for a newer one, and
//! which stand on disk and are worth nothing any more.

use super::super::super::fingerprint::Fingerprint;
use super::super::super::message::{Message, Tick};
use super::super::Delivery;
use super::super::coalesce::{Places, Seen, merge, supersede};
use super::super::row::Row;
use super::super::spared::Spared;
use super::ClassQueue;

impl ClassQueue {
    /// Whether only the newest value of each key stays.
    #[must_use]
    pub const fn coalesces(&self) -> bool {
        self.places.is_some()
    }

    /// Whether it is a `latest` class that has not begun to coalesce.
    pub(in super::super) fn may_coalesce(&self) -> bool {
        self.settings.delivery == Delivery::Latest && self.places.is_none()
    }

    /// The uplink took what it can.
    pub(in super::super) fn mark(&mut self, now: Tick) {
        if self.coalesces() {
            self.spared.mark(self.count > 0, now);
        }
    }

    /// What its indices of keys take, in bytes. Beside the queue's bound, and in the memory's.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        let places = self.places.as_ref().map_or(0, Places::memory_bytes);
        places + self.seen.memory_bytes()
    }

    /// The keys of which newer values came than those on disk.
    pub const fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// Values whose keys could not be remembered so, since the start.
    #[must_use]
    pub const fn keys_forgotten(&self) -> u64 {
        self.seen.forgotten()
    }

    /// The value that took the place of this one, if it waits.
    pub fn standing_for(&mut self, older: &Message) -> Option<&mut Message> {
        let place = self.place_of(self.print(older)?)?;
        self.at(place)
    }

    /// Whether a newer value than this one, which was read back, came; if it waits, it stands for it.
    pub fn supersedes_backlog(&mut self, older: &Message) -> bool {
        if let Some(newer) = self.standing_for(older) {
            newer.stands_for = newer.stands_for.saturating_add(older.stands_for);
            return true;
        }
        self.seen.has_key_of(older)
    }

    /// What a message's key is called, while the class coalesces.
    pub(in super::super) fn print(&self, message: &Message) -> Option<Fingerprint> {
        self.places.as_ref().map(|places| places.print(message))
    }

    /// Where the older value of a key waits, whose place a newer one can take.
    pub(in super::super) fn place_of(&self, key: Fingerprint) -> Option<u64> {
        self.places.as_ref()?.find(key)
    }

    /// Puts a message in the place of its key's older value; gives that one.
    ///
    /// # Errors
    /// Gives the message back if nothing waits there.
    pub(in super::super) fn take_place(
        &mut self,
        message: Message,
        position: u64,
    ) -> Result<Message, Box<Message>> {
        let Some(waiting) = self.at(position) else {
            return Err(Box::new(message));
        };
        let (client, bytes) = (message.receipt.door, message.memory_bytes());
        let older = supersede(waiting, message);
        self.bytes += bytes;
        self.waiting_bytes = self.waiting_bytes + bytes - older.memory_bytes();
        if older.spooled.is_some() {
            self.written_bytes -= older.memory_bytes();
            self.unwritten = self.unwritten.min(position);
        }
        self.clients.occupy(client, bytes);
        if older.receipt.door != client {
            self.clients.note_newest(client, position);
            self.tidy();
        }
        self.spared.superseded(older.memory_bytes());
        Ok(older)
    }

    /// Puts a message back to where a value of its key waits; gives the older of both.
    pub(super) fn put_back_to(&mut self, position: u64, message: Message) -> Message {
        let Some(waiting) = self.at(position) else {
            return message;
        };
        if waiting.sequence > message.sequence {
            waiting.stands_for = waiting.stands_for.saturating_add(message.stands_for);
            self.spared.superseded(message.memory_bytes());
            return message;
        }
        let (bytes, written) = (message.memory_bytes(), message.spooled.is_some());
        let older = supersede(waiting, message);
        self.waiting_bytes = self.waiting_bytes + bytes - older.memory_bytes();
        match written {
            true => self.written_bytes += bytes,
            false => self.unwritten = self.unwritten.min(position),
        }
        if older.spooled.is_some() {
            self.written_bytes -= older.memory_bytes();
        }
        self.spared.superseded(older.memory_bytes());
        older
    }

    /// Merges what waits by key; gives the older values.
    pub(in super::super) fn merge(&mut self, now: Tick) -> Row<Message> {
        let (places, older) = merge(&mut self.waiting, self.front);
        self.places = Some(places);
        self.spared = Spared::new(self.settings.pressure.stay, now);
        for older in older.iter() {
            self.waiting_bytes -= older.memory_bytes();
            if older.spooled.is_some() {
                self.written_bytes -= older.memory_bytes();
            }
        }
        self.note_clients_again();
        older
    }
}
