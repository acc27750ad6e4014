//! PUBLISH (MQTT 5, 3.3): the packet that the gateway lives of, read without an allocation.

use std::borrow::Cow;

use super::reader::{Properties, Reader, allow, id};
use super::{Fault, reason};
use crate::traffic::accept::Protocol;
use crate::traffic::message::QoS;

/// A PUBLISH, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic name: valid UTF-8 without NUL or wildcard. Empty only with a topic alias.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// DUP: the client says that it sent this before.
    pub dup: bool,
    /// The packet identifier; 0 with QoS 0, which has none.
    pub packet_id: u16,
    /// Topic Alias (3.3.2.3.4), not 0.
    pub alias: Option<u16>,
    /// Message Expiry Interval in seconds (3.3.2.3.3).
    pub expiry_seconds: Option<u32>,
    /// The properties as sent, valid, without their length.
    properties: &'a [u8],
}

impl Publish<'_> {
    /// Bytes that the message's content takes: payload and properties.
    #[must_use]
    #[inline]
    pub const fn content_bytes(&self) -> usize {
        self.payload.len() + self.properties.len()
    }

    /// The properties that go on to the upstream, encoded: all but Message Expiry Interval and
    /// Topic Alias.
    #[must_use]
    pub fn forwardable(&self) -> Cow<'_, [u8]> {
        if self.alias.is_none() && self.expiry_seconds.is_none() {
            return Cow::Borrowed(self.properties);
        }
        Cow::Owned(forwardable(self.properties).into_vec())
    }
}

/// What of these valid properties of a message or will goes on to the upstream: all but Message
/// Expiry Interval, Topic Alias, Will Delay Interval and Subscription Identifier.
#[must_use]
pub fn forwardable(properties: &[u8]) -> Box<[u8]> {
    let mut kept = Vec::with_capacity(properties.len());
    let mut walk = Properties::new(properties, u64::MAX);
    while let Ok(Some(property)) = walk.next() {
        match property.id {
            id::MESSAGE_EXPIRY | id::TOPIC_ALIAS | id::WILL_DELAY | id::SUBSCRIPTION_ID => {}
            _ => kept.extend_from_slice(property.wire),
        }
    }
    kept.into_boxed_slice()
}

const ALLOWED: u64 = allow([
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::TOPIC_ALIAS,
    id::USER,
]);

/// Reads the body of a PUBLISH from a client; `first` is the first byte of its fixed header.
///
/// A Subscription Identifier is a fault: only servers send one (3.3.4-6).
///
/// # Errors
/// Whatever section 3.3 forbids.
#[inline]
pub fn publish(first: u8, body: &[u8], protocol: Protocol) -> Result<Publish<'_>, Fault> {
    let qos = match first >> 1 & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(Fault::malformed("sent a PUBLISH with QoS 3")),
    };
    let dup = first & 0x08 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(Fault::malformed("sent a PUBLISH with DUP and QoS 0"));
    }
    let mut reader = Reader::new(body);
    let topic = topic(&mut reader)?;
    let packet_id = match qos {
        QoS::AtMostOnce => 0,
        _ => reader.packet_id()?,
    };
    let mut view = Publish {
        topic,
        payload: &[],
        qos,
        retain: first & 1 != 0,
        dup,
        packet_id,
        alias: None,
        expiry_seconds: None,
        properties: &[],
    };
    if protocol == Protocol::V5 {
        view.properties = reader.properties()?;
        read_properties(&mut view)?;
    }
    if topic.is_empty() && view.alias.is_none() {
        return Err(Fault::protocol("sent a PUBLISH without a topic"));
    }
    view.payload = reader.rest();
    Ok(view)
}

fn read_properties(view: &mut Publish<'_>) -> Result<(), Fault> {
    let mut walk = Properties::new(view.properties, ALLOWED);
    while let Some(property) = walk.next()? {
        match property.id {
            id::MESSAGE_EXPIRY => view.expiry_seconds = Some(property.number),
            id::TOPIC_ALIAS => view.alias = Some(alias(property.number)?),
            _ => {}
        }
    }
    Ok(())
}

fn alias(number: u32) -> Result<u16, Fault> {
    match u16::try_from(number) {
        Ok(alias) if alias > 0 => Ok(alias),
        _ => Err(Fault::new(
            reason::TOPIC_ALIAS_INVALID,
            "sent the topic alias 0",
        )),
    }
}

/// A topic name. Most are ASCII and short, so one pass over the bytes decides all but UTF-8.
#[inline]
fn topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let text = reader.string()?;
    topic_name(text)?;
    Ok(text)
}

/// A topic name has no wildcard (MQTT 5, 4.7.1).
#[inline]
pub(super) fn topic_name(text: &str) -> Result<(), Fault> {
    if text.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return Err(Fault::new(
            reason::TOPIC_INVALID,
            "sent a topic name with a wildcard",
        ));
    }
    Ok(())
}
