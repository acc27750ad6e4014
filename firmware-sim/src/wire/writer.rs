//! Appends packets to a buffer that its owner sends. In come values, out go bytes.

use super::Protocol;

/// How long a server should keep a device's session while it is away, in seconds (MQTT 5,
/// 3.1.2.11.2). Longer than any outage that a scenario plays.
const SESSION_EXPIRY_SECONDS: u32 = 3_600;

/// Writes packets of one protocol at the end of a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    /// Where to.
    pub buffer: &'a mut Vec<u8>,
    /// In which version.
    pub protocol: Protocol,
}

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// Seconds; 0 is none (MQTT 5, 3.1.2.10).
    pub keep_alive_seconds: u16,
    /// Whether to forget an earlier session.
    pub clean: bool,
}

impl Writer<'_> {
    /// CONNECT (MQTT 5, 3.1).
    pub fn connect(&mut self, connect: &Connect<'_>) {
        let (level, properties): (u8, &[u8]) = match self.protocol {
            Protocol::V311 => (4, &[]),
            Protocol::V5 => (5, &[5, 0x11]),
        };
        let expiry = match self.protocol {
            Protocol::V5 => &SESSION_EXPIRY_SECONDS.to_be_bytes()[..],
            Protocol::V311 => &[],
        };
        let length = 10 + properties.len() + expiry.len() + 2 + connect.client_id.len();
        self.header(0x10, length);
        self.text("MQTT");
        self.buffer
            .extend_from_slice(&[level, u8::from(connect.clean) << 1]);
        self.buffer
            .extend_from_slice(&connect.keep_alive_seconds.to_be_bytes());
        self.buffer.extend_from_slice(properties);
        self.buffer.extend_from_slice(expiry);
        self.text(connect.client_id);
    }

    /// PUBLISH to the topic `prefix` and `name` together (MQTT 5, 3.3): QoS 1 with a packet id, QoS 0
    /// without. The payload is filled up with spaces to `payload_bytes_min`.
    pub fn publish(
        &mut self,
        (prefix, name): (&str, &str),
        packet_id: Option<u16>,
        dup: bool,
        (payload, payload_bytes_min): (&[u8], usize),
    ) {
        let topic_length = prefix.len() + name.len();
        let id_length = if packet_id.is_some() { 2 } else { 0 };
        let properties: &[u8] = match self.protocol {
            Protocol::V311 => &[],
            Protocol::V5 => &[0],
        };
        let payload_length = payload.len().max(payload_bytes_min);
        let first = 0x30 | u8::from(dup) << 3 | u8::from(packet_id.is_some()) << 1;
        self.header(
            first,
            2 + topic_length + id_length + properties.len() + payload_length,
        );
        let length = u16::try_from(topic_length).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(prefix.as_bytes());
        self.buffer.extend_from_slice(name.as_bytes());
        if let Some(id) = packet_id {
            self.buffer.extend_from_slice(&id.to_be_bytes());
        }
        self.buffer.extend_from_slice(properties);
        let end = self.buffer.len() + payload_length;
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(end, b' ');
    }

    /// SUBSCRIBE to one filter at QoS 1 (MQTT 5, 3.8).
    pub fn subscribe(&mut self, filter: &str) {
        let properties: &[u8] = match self.protocol {
            Protocol::V311 => &[],
            Protocol::V5 => &[0],
        };
        self.header(0x82, 2 + properties.len() + 2 + filter.len() + 1);
        self.buffer.extend_from_slice(&1u16.to_be_bytes());
        self.buffer.extend_from_slice(properties);
        self.text(filter);
        self.buffer.push(1);
    }

    /// PUBACK that says yes (MQTT 5, 3.4).
    pub fn puback(&mut self, packet_id: u16) {
        self.header(0x40, 2);
        self.buffer.extend_from_slice(&packet_id.to_be_bytes());
    }

    /// PINGREQ (MQTT 5, 3.12).
    pub fn pingreq(&mut self) {
        self.header(0xC0, 0);
    }

    /// DISCONNECT (MQTT 5, 3.14).
    pub fn disconnect(&mut self) {
        self.header(0xE0, 0);
    }

    fn header(&mut self, first: u8, mut length: usize) {
        self.buffer.push(first);
        loop {
            let digit = (length & 0x7f) as u8;
            length >>= 7;
            if length == 0 {
                self.buffer.push(digit);
                return;
            }
            self.buffer.push(digit | 0x80);
        }
    }

    fn text(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, Publish, first_packet};
    use super::*;

    #[test]
    fn is_a_short_payload_filled_up_and_a_long_one_left_alone() {
        for (min, wanted) in [(0, &b"abc"[..]), (2, b"abc"), (5, b"abc  ")] {
            let mut buffer = Vec::new();
            let mut writer = Writer {
                buffer: &mut buffer,
                protocol: Protocol::V5,
            };
            writer.publish(("a/", "b"), None, false, (b"abc", min));
            let read = first_packet(&buffer, Protocol::V5).unwrap();
            let Some((Packet::Publish(publish), length)) = read else {
                panic!("{read:?}");
            };
            assert_eq!((publish.payload, length), (wanted, buffer.len()));
        }
    }

    #[test]
    fn does_a_publish_read_as_it_was_written() {
        for protocol in [Protocol::V311, Protocol::V5] {
            for payload in [&[][..], &[7; 30], &[7; 300]] {
                let mut buffer = Vec::new();
                let mut writer = Writer {
                    buffer: &mut buffer,
                    protocol,
                };
                writer.publish(("plant/sim-00001/", "alarm"), Some(9), true, (payload, 0));
                let expected = Packet::Publish(Publish {
                    topic: b"plant/sim-00001/alarm",
                    packet_id: Some(9),
                    payload,
                });
                let read = first_packet(&buffer, protocol).unwrap();
                assert_eq!(read, Some((expected, buffer.len())));
            }
        }
    }
}
