//! A message on its way through the gateway, and the small types that every room shares: time,
//! class, receipt.
//!
//! A message is made by a door (its body copied out of the read buffer, so that a kept message never
//! pins one), given its sequence by the relay, and ends with exactly one outcome in
//! [`settle`](super::settle).

use std::sync::Arc;
use std::time::Duration;

use super::spool::Position;

/// Monotonic time in microseconds. The clock's door lets a process start at [`Tick::START`], so that
/// what an earlier start received has a time too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// When the process starts: a hundred years after [`Tick::ZERO`], older than any spool.
    pub const START: Self = Self(100 * 365 * 86_400 * 1_000_000);
    /// Later than every other: "never", as a deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// A tick from microseconds since [`Tick::ZERO`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since [`Tick::ZERO`].
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

impl DoorId {
    /// Nobody: the sender of what was read back from the spool.
    pub const NOBODY: Self = Self {
        index: u32::MAX,
        generation: u32::MAX,
    };
}

/// What makes a message one: the start that received it and its place in that start's order of
/// receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The random number of the start.
    pub epoch: u64,
    /// The place.
    pub sequence: u64,
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

/// What the publisher said: topic, properties and payload behind one another in one allocation.
/// Nothing of it is shared, so that no core waits for another's cache line when messages pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Box<[u8]>,
    topic_bytes: u32,
    properties_bytes: u32,
}

impl Body {
    /// Copies the parts of one message. They come out of one packet, so that 32 bits count each
    /// (MQTT 5, 1.5.5: at most 256 MiB).
    #[must_use]
    #[inline]
    pub fn new(topic: &str, properties: &[u8], payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        Self {
            bytes: bytes.into_boxed_slice(),
            topic_bytes: topic.len() as u32,
            properties_bytes: properties.len() as u32,
        }
    }

    /// Topic as published. Valid UTF-8, no wildcard, no NUL, not empty. Checks that it is text: for
    /// people and rare ways only, [`Body::topic_bytes`] is for where messages pass.
    #[must_use]
    pub fn topic(&self) -> &str {
        str::from_utf8(self.topic_bytes()).unwrap_or("?")
    }

    /// The topic's bytes.
    #[must_use]
    #[inline]
    pub fn topic_bytes(&self) -> &[u8] {
        self.parts().0
    }

    /// The publisher's MQTT 5 properties, encoded as on the wire (MQTT 5, 2.2.2) without their
    /// length, validated by the door; without Message Expiry Interval, Topic Alias and
    /// Subscription Identifier. Empty for most, and for MQTT 3.1.1.
    #[must_use]
    #[inline]
    pub fn properties(&self) -> &[u8] {
        self.parts().1
    }

    /// Payload as published.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.parts().2
    }

    /// Bytes of all three together.
    #[must_use]
    #[inline]
    pub const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let topic_bytes = self.topic_bytes as usize;
        let (topic, rest) = self.bytes.split_at_checked(topic_bytes).unwrap_or_default();
        let (properties, payload) = rest
            .split_at_checked(self.properties_bytes as usize)
            .unwrap_or_default();
        (topic, properties, payload)
    }
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// What the publisher said.
    pub body: Body,
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
    /// The random number of the start that received it.
    pub epoch: u64,
    /// Place in the order of receipt of that start, given by the relay; 0 until then. With the
    /// gateway's id and the epoch it is the message id.
    pub sequence: u64,
    /// Its turn among the live messages of its class, given by the queue, 0 until then; or among its backlog,
    /// by its place on disk when it was read back. What was held has its turn behind what was received after
    /// it and not held.
    pub turn: u64,
    /// Where it stands in the spool, if it does.
    pub spooled: Option<Position>,
    /// It was read back from the spool, for want of memory or after a restart.
    pub replayed: bool,
    /// Whom to acknowledge.
    pub receipt: Receipt,
}

impl Message {
    /// A message as it comes in with QoS 1, for which nothing else was said: no key, not retained, never
    /// expiring, not numbered yet.
    #[must_use]
    #[inline]
    pub const fn new(body: Body, class: ClassId, received: Tick, receipt: Receipt) -> Self {
        Self {
            body,
            class,
            key: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            received,
            expires: Tick::NEVER,
            publisher_expires: Tick::NEVER,
            stands_for: 1,
            epoch: 0,
            sequence: 0,
            turn: 0,
            spooled: None,
            replayed: false,
            receipt,
        }
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        MessageId {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    /// What the message takes in memory, in bytes: itself, its allocations with what the allocator
    /// loses beside them, and its share of a queue.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        /// Header and rounding of one allocation (glibc malloc: 8 bytes, rounded to 16).
        const ALLOCATION: usize = 16;
        /// Its slot in the class's row, and its place among its client's, which stand in a `VecDeque`
        /// that doubles.
        const SLOT: usize = size_of::<Message>() + 2 * size_of::<u64>();
        let mut bytes = self.body.size_bytes().next_multiple_of(16) + ALLOCATION;
        if let Some(key) = &self.key {
            bytes += key.len().next_multiple_of(16) + 2 * ALLOCATION;
        }
        // Free pieces between what is taken: measured, up to an eighth with glibc's arenas.
        (SLOT + bytes + bytes / 8) as u64
    }
}

/// A message for tests: class 1, QoS 1, from the first sender, never expiring.
#[cfg(test)]
pub(crate) fn sample(topic: &str, payload: &[u8]) -> Message {
    let body = Body::new(topic, b"", payload);
    let receipt = Receipt {
        door: DoorId {
            index: 0,
            generation: 0,
        },
        token: None,
    };
    Message::new(body, ClassId(1), Tick::ZERO, receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_body_give_back_its_parts() {
        for (topic, properties, payload) in [
            ("a/ü", &b"\x01\x01"[..], &b"x"[..]),
            ("t", b"", b"payload"),
            ("t", b"\x01\x01", b""),
        ] {
            let body = Body::new(topic, properties, payload);
            assert_eq!(
                (body.topic(), body.topic_bytes()),
                (topic, topic.as_bytes())
            );
            assert_eq!((body.properties(), body.payload()), (properties, payload));
            let size_bytes = topic.len() + properties.len() + payload.len();
            assert_eq!(body.size_bytes(), size_bytes);
        }
    }

    /// What waits holds its topic: a long topic must not hide from the bounds on queues.
    #[test]
    fn does_a_topic_count_as_memory() {
        let memory_bytes = |topic: &str, key: Option<&str>| {
            let mut message = sample(topic, b"payload");
            message.key = key.map(Arc::from);
            message.memory_bytes()
        };
        let short = memory_bytes("t", None);
        assert!(memory_bytes(&"t".repeat(60_000), None) >= short + 59_000);
        assert!(memory_bytes("t", Some("key")) > short);
    }
}
