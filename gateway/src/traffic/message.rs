//! A message on its way through the gateway, and the small types that every room shares: time,
//! class, receipt.
//!
//! A message is made by a door (payload copied out of the read buffer, so that a kept message never
//! pins one), given its sequence by the relay, and ends with exactly one outcome in
//! [`settle`](super::settle).

use std::sync::Arc;
use std::time::Duration;

/// Monotonic time in microseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The start of the process.
    pub const ZERO: Self = Self(0);
    /// Later than every other: "never", as a deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// A tick from microseconds since the start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// This tick plus a duration; saturates at [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to this tick; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Wall time in microseconds since 1970-01-01T00:00:00Z. For people and for the far end only:
/// nothing waits on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(u64);

impl WallTime {
    /// Wall time from microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }
}

/// A class, by its place in the configuration: 0 is the first class, the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u8);

impl ClassId {
    /// The first class: before every other wherever messages wait.
    pub const FIRST: Self = Self(0);
    /// The built-in class `discard`: acknowledged, counted, gone.
    pub const DISCARD: Self = Self(u8::MAX);

    /// The place in the table of classes. Not meant for [`ClassId::DISCARD`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The MQTT quality of service that a message arrived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// Fire and forget.
    AtMostOnce = 0,
    /// Acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// Acknowledged by PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

/// A sender as the relay knows it: one listener session or one source connection. Given by the
/// relay when the door registers; the generation keeps an old id from naming a new sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DoorId {
    /// The slot in the relay's table.
    pub index: u32,
    /// How often the slot was given away before.
    pub generation: u32,
}

/// The right to acknowledge one message to its sender. Unsettled by default: dropping one never
/// acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who sent it.
    pub door: DoorId,
    /// What the door calls it, unique among the door's unanswered messages; `None` for QoS 0,
    /// which nobody waits for.
    pub token: Option<u32>,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Topic as published, shared between the messages of a connection. Valid UTF-8, no wildcard,
    /// no NUL, not empty.
    pub topic: Arc<str>,
    /// Payload as published, in an allocation of its own.
    pub payload: Box<[u8]>,
    /// The publisher's MQTT 5 properties, encoded as on the wire (MQTT 5, 2.2.2) without their
    /// length, validated by the door; without Message Expiry Interval, Topic Alias and
    /// Subscription Identifier. Empty for most, and for MQTT 3.1.1.
    pub properties: Box<[u8]>,
    /// The class that the rules gave it.
    pub class: ClassId,
    /// What the latest value is kept for; `None`: the topic.
    pub key: Option<Arc<str>>,
    /// QoS on arrival.
    pub qos: QoS,
    /// RETAIN on arrival.
    pub retain: bool,
    /// When the door read it.
    pub received: Tick,
    /// When it stops being worth sending: the earliest of rule, class and publisher's expiry.
    pub expires: Tick,
    /// When the publisher's own Message Expiry Interval ends; what is left of it goes on to the
    /// upstream. [`Tick::NEVER`] without one.
    pub publisher_expires: Tick,
    /// How many values it stands for: 1, and one more for each that it superseded.
    pub stands_for: u32,
    /// Place in the order of receipt, given by the relay; with the gateway's id and epoch it is the
    /// message id. 0 until then.
    pub sequence: u64,
    /// Whom to acknowledge.
    pub receipt: Receipt,
}

impl Message {
    /// What the message takes in memory, in bytes: itself, its allocations with the allocator's
    /// overhead, and its share of a queue. The topic is shared and bounded elsewhere
    /// (`topics_max`), so it does not count here.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        /// Header and rounding of one allocation (glibc malloc: 8 bytes, rounded to 16).
        const ALLOCATION: usize = 16;
        /// A `VecDeque` that doubles stands three quarters full on average.
        const SLOT: usize = size_of::<Message>() * 4 / 3;
        let mut bytes = SLOT;
        for part in [self.payload.len(), self.properties.len()] {
            if part > 0 {
                bytes += part.next_multiple_of(16) + ALLOCATION;
            }
        }
        if let Some(key) = &self.key {
            bytes += key.len().next_multiple_of(16) + 2 * ALLOCATION;
        }
        bytes as u64
    }
}

/// A message for tests: class 1, QoS 1, from the first sender, never expiring.
#[cfg(test)]
pub(crate) fn sample(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: Arc::from(topic),
        payload: payload.into(),
        properties: Box::default(),
        class: ClassId(1),
        key: None,
        qos: QoS::AtLeastOnce,
        retain: false,
        received: Tick::ZERO,
        expires: Tick::NEVER,
        publisher_expires: Tick::NEVER,
        stands_for: 1,
        sequence: 0,
        receipt: Receipt {
            door: DoorId {
                index: 0,
                generation: 0,
            },
            token: None,
        },
    }
}
