//! One message as one line of JSON: what `tidegate spool export` writes, and what goes over the admin
//! socket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::properties::Properties;
use super::when;
use crate::traffic::message::{Tick, WallTime};
use crate::traffic::spool::inspect::Seen;

/// A message. Fields may be added, so that readers must not mind those that they do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// The message id, as the upstream gets it: gateway, epoch and sequence.
    pub id: String,
    /// Its class.
    pub class: String,
    /// Its topic.
    pub topic: String,
    /// When it was received, RFC 3339.
    pub received: String,
    /// QoS on arrival.
    pub qos: u8,
    /// RETAIN on arrival.
    pub retain: bool,
    /// When it expires, RFC 3339; null: never.
    pub expires: Option<String>,
    /// How many values it stands for, if more than one.
    #[serde(skip_serializing_if = "is_one")]
    pub count: u32,
    /// The publisher's MQTT 5 properties, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// The payload, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(count: &u32) -> bool {
    *count <= 1
}

impl Line {
    /// The line of a message that the gateway with this id received.
    #[must_use]
    pub fn new(gateway: &str, seen: &Seen) -> Self {
        let message = &seen.message;
        let lives = message.expires.since(message.received);
        let expires = WallTime::from_micros(
            seen.received
                .micros()
                .saturating_add(u64::try_from(lives.as_micros()).unwrap_or(u64::MAX)),
        );
        let payload = message.body.payload();
        let text = str::from_utf8(payload).ok();
        Self {
            id: format!("{gateway}:{:x}:{:x}", message.epoch, message.sequence),
            class: seen.class.as_ref().to_owned(),
            topic: message.body.topic().to_owned(),
            received: when::show(seen.received),
            qos: message.qos as u8,
            retain: message.retain,
            expires: (message.expires != Tick::NEVER).then(|| when::show(expires)),
            count: message.stands_for,
            properties: Properties::read(message.body.properties()),
            payload: text.map(str::to_owned),
            payload_base64: text.is_none().then(|| STANDARD.encode(payload)),
        }
    }

    /// The payload.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::sample;
    use crate::traffic::spool::Position;

    fn line(payload: &[u8]) -> Line {
        let mut message = sample("plant/1", payload);
        (message.epoch, message.sequence) = (0xabc, 17);
        let received = WallTime::from_micros(1_795_239_395_000_001);
        message.expires = message.received.after(std::time::Duration::from_secs(60));
        let seen = Seen {
            position: Position::FIRST,
            class: "low".into(),
            received,
            settled: false,
            message,
        };
        Line::new("box", &seen)
    }

    #[test]
    fn is_a_payload_text_where_it_can_be() {
        let json = serde_json::to_string(&line(b"21.5\n")).unwrap();
        assert_eq!(
            json,
            r#"{"id":"box:abc:11","class":"low","topic":"plant/1","received":"2026-11-21T05:36:35.000Z","qos":1,"retain":false,"expires":"2026-11-21T05:37:35.000Z","payload":"21.5\n"}"#
        );
        let json = serde_json::to_string(&line(b"\xff\x00")).unwrap();
        assert!(json.ends_with(r#""payload_base64":"/wA="}"#), "{json}");
        let read: Line = serde_json::from_str(&json).unwrap();
        assert_eq!(read.payload_bytes(), b"\xff\x00");
    }
}
