//! The publisher's MQTT 5 properties, as they go on. In come the library's decoded ones; out go
//! bytes as on the wire (MQTT 5, 2.2.2) without their length, and the time when the message stops
//! being worth sending. Topic Alias and Subscription Identifier belong to one hop and end here.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::traffic::message::Tick;

const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// Encodes what goes on. A value that MQTT forbids is left out: the upstream would close the
/// connection for it, and a broker that let it through has already erred.
pub(super) fn encode(properties: &PublishProperties) -> Box<[u8]> {
    let mut bytes = Vec::new();
    if let Some(format) = properties.payload_format_indicator.filter(|f| *f <= 1) {
        bytes.extend([PAYLOAD_FORMAT_INDICATOR, format]);
    }
    if let Some(text) = properties.content_type.as_deref().filter(|t| is_text(t)) {
        bytes.push(CONTENT_TYPE);
        put(&mut bytes, text.as_bytes());
    }
    if let Some(topic) = properties.response_topic.as_deref().filter(|t| is_topic(t)) {
        bytes.push(RESPONSE_TOPIC);
        put(&mut bytes, topic.as_bytes());
    }
    if let Some(data) = &properties.correlation_data {
        bytes.push(CORRELATION_DATA);
        put(&mut bytes, data);
    }
    for (name, value) in &properties.user_properties {
        if is_text(name) && is_text(value) {
            bytes.push(USER_PROPERTY);
            put(&mut bytes, name.as_bytes());
            put(&mut bytes, value.as_bytes());
        }
    }
    bytes.into()
}

/// When the publisher's Message Expiry Interval (3.3.2.3.3) ends.
pub(super) fn expiry(properties: Option<&PublishProperties>, received: Tick) -> Tick {
    properties
        .and_then(|properties| properties.message_expiry_interval)
        .map_or(Tick::NEVER, |seconds| {
            received.after(Duration::from_secs(u64::from(seconds)))
        })
}

/// Text as 1.5.4 allows it; that it is UTF-8 the library has seen to.
fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

/// A Response Topic (3.3.2.3.5).
fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

/// Binary data or a string with its length (1.5.4, 1.5.6). It came with a length of two bytes, so
/// it fits into one.
fn put(bytes: &mut Vec<u8>, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(value.iter().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> PublishProperties {
        PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(5),
            topic_alias: Some(3),
            response_topic: Some("a/b".into()),
            correlation_data: Some(b"\x00\xff".as_slice().into()),
            user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
            subscription_identifiers: vec![9],
            content_type: Some("json".into()),
        }
    }

    #[test]
    fn what_goes_on_of_the_properties() {
        let wire: &[u8] = b"\x01\x01\x03\x00\x04json\x08\x00\x03a/b\x09\x00\x02\x00\xff\
            \x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01w";
        assert_eq!(encode(&all()).as_ref(), wire);
    }

    #[test]
    fn does_a_forbidden_value_reach_the_upstream() {
        let properties = PublishProperties {
            payload_format_indicator: Some(2),
            response_topic: Some("a/#".into()),
            content_type: Some("a\0".into()),
            user_properties: vec![("\0".into(), String::new())],
            ..PublishProperties::default()
        };
        assert_eq!(encode(&properties).as_ref(), b"");
    }

    #[test]
    fn when_does_the_publishers_expiry_end() {
        let now = Tick::from_micros(7);
        assert_eq!(expiry(Some(&all()), now), Tick::from_micros(5_000_007));
        assert_eq!(expiry(None, now), Tick::NEVER);
    }
}
