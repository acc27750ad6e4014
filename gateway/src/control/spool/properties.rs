//! A publisher's MQTT 5 properties as JSON. They were validated when the message came in; of what does not
//! read as properties (another version wrote it), the rest is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What of a PUBLISH's properties goes on (MQTT 5, 3.3.2.3), without the expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// 1: the publisher says that the payload is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_format: Option<u8>,
    /// Content Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Response Topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// Correlation Data, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_data_base64: Option<String>,
    /// User properties, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// Reads properties as they stand on the wire, without their length; `None` when there are none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut properties = Self::default();
        let mut rest = bytes;
        while properties.next(&mut rest).is_some() {}
        (properties != Self::default()).then_some(properties)
    }

    /// Reads one; the identifiers are those of MQTT 5, 2.2.2.2.
    fn next(&mut self, rest: &mut &[u8]) -> Option<()> {
        match take(rest, 1)?.first()? {
            0x01 => self.payload_format = take(rest, 1)?.first().copied(),
            0x03 => self.content_type = Some(text(rest)?),
            0x08 => self.response_topic = Some(text(rest)?),
            0x09 => self.correlation_data_base64 = Some(STANDARD.encode(binary(rest)?)),
            0x26 => {
                let name = text(rest)?;
                self.user.push((name, text(rest)?));
            }
            _ => return None,
        }
        Some(())
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, others) = rest.split_at_checked(bytes)?;
    *rest = others;
    Some(taken)
}

fn binary<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 2)?.try_into().ok()?;
    take(rest, usize::from(u16::from_be_bytes(length)))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(binary(rest)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_properties_read_and_nonsense_left_out() {
        let bytes = b"\x01\x01\x03\x00\x01j\x26\x00\x01a\x00\x02bc\x09\x00\x01\xff";
        let properties = Properties::read(bytes).unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("j"));
        assert_eq!(properties.user, [("a".to_owned(), "bc".to_owned())]);
        assert_eq!(properties.correlation_data_base64.as_deref(), Some("/w=="));
        assert_eq!(Properties::read(b""), None);
        for cut in 0..bytes.len() {
            let _ = Properties::read(&bytes[..cut]);
        }
        assert_eq!(Properties::read(b"\x7f\x00"), None);
    }
}
