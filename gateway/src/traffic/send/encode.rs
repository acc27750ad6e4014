//! A message as an upstream PUBLISH, written straight into the connection's buffer. By hand, because
//! the codec's property lists would cost ten allocations a message; the layout is MQTT 3.1.1 and 5,
//! 3.3. Values that are the default are left out: bytes are money.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::accept::Protocol;
use super::super::message::{Message, MessageId, QoS, Tick, WallTime};
use super::super::queue::ClassSettings;
use super::super::spool::Order;
use super::{PropertiesPolicy, UplinkSettings};

/// User property with the message id: `gateway:epoch:sequence`, the numbers in hexadecimal. The far
/// end drops our repeats by it.
pub const ID_PROPERTY: &str = "tidegate-id";
/// User property with the class, for `properties = "full"`.
pub const CLASS_PROPERTY: &str = "tidegate-class";
/// User property with the time of receipt in milliseconds since 1970, for `properties = "full"`.
pub const RECEIVED_PROPERTY: &str = "tidegate-received-ms";
/// User property of what was read back from the spool, for `properties = "full"`; its value is 1.
pub const REPLAYED_PROPERTY: &str = "tidegate-replayed";
/// User property with how many values the message stands for, if more than one.
pub const COUNT_PROPERTY: &str = "tidegate-count";

/// Property identifiers (MQTT 5, 2.2.2.2).
const MESSAGE_EXPIRY_INTERVAL: u8 = 2;
const USER_PROPERTY: u8 = 38;
/// The longest remaining length (MQTT 5, 1.5.5).
const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// Writes PUBLISH packets for one uplink.
#[derive(Debug)]
pub struct Encoder {
    protocol: Protocol,
    properties: PropertiesPolicy,
    topic: Vec<Piece>,
    /// `gateway:`
    id_stem: String,
    classes: Vec<ClassMarks>,
    /// Reused for the properties of one message.
    scratch: Vec<u8>,
    text: String,
}

/// What a class adds to its messages.
#[derive(Debug)]
struct ClassMarks {
    name: Arc<str>,
    /// Where its replayed messages go, if elsewhere.
    replay_topic: Option<Vec<Piece>>,
    /// Older than what went before: they must not become the retained message.
    replay_retained: bool,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Topic,
}

/// What the caller decides about one packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Packet id; `None` sends it with QoS 0.
    pub id: Option<u16>,
    /// Whether the upstream takes RETAIN.
    pub retain: bool,
    /// Largest packet that the upstream takes, in bytes.
    pub bytes_max: u64,
    /// Now, on both clocks: what is left of the expiry, and the wall time of receipt.
    pub now: (Tick, WallTime),
}

/// The packet would be larger than the upstream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size in bytes.
    pub bytes: u64,
}

impl Encoder {
    /// An encoder for this uplink and these classes.
    #[must_use]
    pub fn new(settings: &UplinkSettings, gateway: &str, classes: &[ClassSettings]) -> Self {
        let marks = |class: &ClassSettings| ClassMarks {
            name: Arc::clone(&class.name),
            replay_topic: class
                .replay_topic
                .as_deref()
                .map(|topic| pieces(topic, gateway)),
            replay_retained: class.order == Order::Strict,
        };
        Self {
            protocol: settings.protocol,
            properties: settings.properties,
            topic: pieces(&settings.topic, gateway),
            id_stem: format!("{gateway}:"),
            classes: classes.iter().map(marks).collect(),
            scratch: Vec::new(),
            text: String::new(),
        }
    }

    /// Appends the PUBLISH of `message` to `out`; gives its size in bytes.
    ///
    /// # Errors
    /// When it would be larger than the upstream takes; `out` is as before.
    pub fn publish(
        &mut self,
        out: &mut Vec<u8>,
        message: &Message,
        packet: Packet,
    ) -> Result<u64, TooLarge> {
        self.scratch.clear();
        if self.protocol == Protocol::V5 {
            self.write_properties(message, packet.now);
        }
        let template = self.template(message);
        let topic_bytes = topic_bytes(template, message.body.topic_bytes());
        let mut remaining = 2 + topic_bytes + message.body.payload().len() + self.scratch.len();
        remaining += if packet.id.is_some() { 2 } else { 0 };
        if self.protocol == Protocol::V5 {
            remaining += length_bytes(self.scratch.len());
        }
        let bytes = (1 + length_bytes(remaining) + remaining) as u64;
        if bytes > packet.bytes_max
            || remaining > REMAINING_LENGTH_MAX
            || topic_bytes > usize::from(u16::MAX)
        {
            return Err(TooLarge { bytes });
        }
        let qos = u8::from(packet.id.is_some()) << 1;
        let retain = message.retain && packet.retain && self.may_retain(message);
        out.push(0x30 | qos | u8::from(retain));
        write_length(out, remaining);
        write_topic(out, template, message.body.topic_bytes(), topic_bytes);
        if let Some(id) = packet.id {
            out.extend_from_slice(&id.to_be_bytes());
        }
        if self.protocol == Protocol::V5 {
            write_length(out, self.scratch.len());
            out.extend_from_slice(&self.scratch);
        }
        out.extend_from_slice(message.body.payload());
        Ok(bytes)
    }

    /// The most that the packet can take, known before anything is written.
    #[must_use]
    pub fn bytes_at_most(&self, message: &Message) -> u64 {
        /// A user property's identifier and two lengths.
        const USER: usize = 5;
        /// Hexadecimal digits of the epoch, and what parts it from the sequence.
        const EPOCH: usize = 17;
        /// Decimal digits of 64 bits; hexadecimal ones are fewer.
        const NUMBER: usize = 20;
        /// First byte, remaining length, topic length, packet id.
        const HEAD: usize = 1 + 4 + 2 + 2;
        let id = USER + ID_PROPERTY.len() + self.id_stem.len() + EPOCH + NUMBER;
        let class = self.classes.get(message.class.index());
        let full = USER
            + CLASS_PROPERTY.len()
            + class.map_or(0, |class| class.name.len())
            + USER
            + REPLAYED_PROPERTY.len()
            + 1
            + USER
            + RECEIVED_PROPERTY.len()
            + NUMBER
            + USER
            + COUNT_PROPERTY.len()
            + NUMBER;
        let ours = match self.properties {
            PropertiesPolicy::None => 0,
            PropertiesPolicy::Id => id,
            PropertiesPolicy::Full => id + full,
        };
        let properties = match self.protocol {
            Protocol::V311 => 0,
            // Their length, and the expiry.
            Protocol::V5 => 4 + 5 + message.body.properties().len() + ours,
        };
        let topic = topic_bytes(self.template(message), message.body.topic_bytes());
        (HEAD + topic + properties + message.body.payload().len()) as u64
    }

    fn write_properties(&mut self, message: &Message, (now, wall): (Tick, WallTime)) {
        if message.publisher_expires != Tick::NEVER {
            let left = message
                .publisher_expires
                .since(now)
                .as_micros()
                .div_ceil(1_000_000);
            self.scratch.push(MESSAGE_EXPIRY_INTERVAL);
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            self.scratch.extend_from_slice(&left.to_be_bytes());
        }
        self.scratch.extend_from_slice(message.body.properties());
        if self.properties == PropertiesPolicy::None {
            return;
        }
        self.write_id(message.id());
        if self.properties == PropertiesPolicy::Full {
            self.write_full(message, now, wall);
        }
    }

    fn write_id(&mut self, id: MessageId) {
        self.text.clear();
        self.text.push_str(&self.id_stem);
        push_hex(&mut self.text, id.epoch);
        self.text.push(':');
        push_hex(&mut self.text, id.sequence);
        write_user_property(&mut self.scratch, ID_PROPERTY, &self.text);
    }

    fn write_full(&mut self, message: &Message, now: Tick, wall: WallTime) {
        if let Some(class) = self.classes.get(message.class.index()) {
            write_user_property(&mut self.scratch, CLASS_PROPERTY, &class.name);
        }
        if message.replayed {
            write_user_property(&mut self.scratch, REPLAYED_PROPERTY, "1");
        }
        let age = u64::try_from(now.since(message.received).as_micros()).unwrap_or(u64::MAX);
        let received = wall.micros().saturating_sub(age) / 1000;
        self.text.clear();
        let _ = write!(self.text, "{received}");
        write_user_property(&mut self.scratch, RECEIVED_PROPERTY, &self.text);
        if message.stands_for > 1 {
            self.text.clear();
            let _ = write!(self.text, "{}", message.stands_for);
            write_user_property(&mut self.scratch, COUNT_PROPERTY, &self.text);
        }
    }

    /// The topic's template: a class may replay elsewhere.
    fn template(&self, message: &Message) -> &[Piece] {
        let class = self.classes.get(message.class.index());
        let elsewhere = class.and_then(|class| class.replay_topic.as_deref());
        elsewhere
            .filter(|_| message.replayed)
            .unwrap_or(&self.topic)
    }

    fn may_retain(&self, message: &Message) -> bool {
        let class = self.classes.get(message.class.index());
        !message.replayed || class.is_some_and(|class| class.replay_retained)
    }
}

fn topic_bytes(template: &[Piece], topic: &[u8]) -> usize {
    let size = |piece: &Piece| match piece {
        Piece::Text(text) => text.len(),
        Piece::Topic => topic.len(),
    };
    template.iter().map(size).sum()
}

fn write_topic(out: &mut Vec<u8>, template: &[Piece], topic: &[u8], bytes: usize) {
    out.extend_from_slice(&u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes());
    for piece in template {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Topic => out.extend_from_slice(topic),
        }
    }
}

/// Whether a message that came with QoS 0 stays so.
#[must_use]
pub fn keeps_qos0(message: &Message, keep_qos0: bool) -> bool {
    keep_qos0 && message.qos == QoS::AtMostOnce
}

fn pieces(template: &str, gateway: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, text) in template.split("{topic}").enumerate() {
        if index > 0 {
            pieces.push(Piece::Topic);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.replace("{gateway}", gateway)));
        }
    }
    pieces
}

fn write_user_property(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(USER_PROPERTY);
    for text in [name, value] {
        let bytes = u16::try_from(text.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&bytes.to_be_bytes());
        out.extend_from_slice(&text.as_bytes()[..usize::from(bytes)]);
    }
}

fn push_hex(text: &mut String, value: u64) {
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (value >> (digit * 4)) & 0xf;
        text.push(char::from(b"0123456789abcdef"[nibble as usize]));
    }
}

const fn length_bytes(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
