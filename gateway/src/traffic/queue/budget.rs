//! The memory budget that all queues share (`memory_max`). The first class may use all of it, the
//! others all but a reserve, so that a flood of readings never leaves an alarm without room.

use super::super::message::ClassId;

/// The part of the memory that only the first class may use: one eighth.
const FIRST_CLASS_RESERVE_DIVISOR: u64 = 8;

/// How much memory the messages take, of how much.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    bytes: u64,
}

impl Budget {
    /// An empty budget of `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
        }
    }

    /// Whether a message of this class and size still fits.
    #[must_use]
    pub const fn fits(&self, class: ClassId, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.room_max(class)
    }

    /// What a class may use if nothing else is there.
    #[must_use]
    pub const fn room_max(&self, class: ClassId) -> u64 {
        if class.0 == ClassId::FIRST.0 {
            self.bytes_max
        } else {
            self.bytes_max - self.bytes_max / FIRST_CLASS_RESERVE_DIVISOR
        }
    }

    /// All there is, in bytes; at least 1.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        if self.bytes_max == 0 {
            1
        } else {
            self.bytes_max
        }
    }

    /// Takes room.
    pub const fn take(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Gives room back.
    pub const fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Bytes in use.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}
