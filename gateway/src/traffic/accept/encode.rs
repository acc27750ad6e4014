//! What the listener says to devices: CONNACK, acknowledgements, SUBACK, PINGRESP, DISCONNECT,
//! appended to the bytes that wait for the socket. No packet exceeds the client's Maximum Packet
//! Size: reason strings give way first (MQTT 5, 3.1.2.11.4). It does no input or output.

use super::Protocol;

/// How one client wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// MQTT version.
    pub protocol: Protocol,
    /// The largest packet it takes, in bytes.
    pub packet_bytes_max: u32,
    /// Whether it wants reason strings (MQTT 5, 3.1.2.11.7).
    pub problem_info: bool,
}

/// What a CONNACK announces; `None` leaves the property out.
#[derive(Clone, Debug, Default)]
pub struct Announcement<'a> {
    /// Session Present.
    pub session_present: bool,
    /// Session Expiry Interval in seconds, where it is lower than asked.
    pub session_expiry_seconds: Option<u32>,
    /// Receive Maximum.
    pub receive_max: u16,
    /// Maximum Packet Size in bytes.
    pub packet_bytes_max: u32,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Server Keep Alive in seconds, where it differs from what was asked.
    pub keep_alive: Option<u16>,
    /// Assigned Client Identifier.
    pub client_id: Option<&'a str>,
}

const REASON_STRING: u8 = 0x1F;

/// CONNACK that welcomes. False: it is larger than the client takes, and nothing was written.
pub fn welcome(out: &mut Vec<u8>, voice: Voice, says: &Announcement<'_>) -> bool {
    let present = u8::from(says.session_present);
    if voice.protocol == Protocol::V311 {
        out.extend_from_slice(&[0x20, 2, present, 0]);
        return true;
    }
    let mut properties = Vec::with_capacity(64);
    if let Some(seconds) = says.session_expiry_seconds {
        properties.push(0x11);
        properties.extend_from_slice(&seconds.to_be_bytes());
    }
    properties.push(0x21);
    properties.extend_from_slice(&says.receive_max.to_be_bytes());
    properties.push(0x27);
    properties.extend_from_slice(&says.packet_bytes_max.to_be_bytes());
    if let Some(id) = says.client_id {
        put_text(&mut properties, 0x12, id);
    }
    if says.topic_alias_max > 0 {
        properties.push(0x22);
        properties.extend_from_slice(&says.topic_alias_max.to_be_bytes());
    }
    if let Some(seconds) = says.keep_alive {
        properties.push(0x13);
        properties.extend_from_slice(&seconds.to_be_bytes());
    }
    put_packet(out, voice, 0x20, &[present, 0], &properties)
}

/// CONNACK that refuses, with the nearest return code of 3.1.1 (3.2.2.3). False: 3.1.1 has none for
/// this reason, and the connection is to be closed without a word.
pub fn refuse(out: &mut Vec<u8>, protocol: Protocol, reason: u8) -> bool {
    use super::decode::reason as code;
    if protocol == Protocol::V5 {
        out.extend_from_slice(&[0x20, 3, 0, reason, 0]);
        return true;
    }
    let old = match reason {
        code::UNSUPPORTED_VERSION => 1,
        code::CLIENT_ID_INVALID => 2,
        code::QUOTA_EXCEEDED | code::SERVER_UNAVAILABLE => 3,
        _ => return false,
    };
    out.extend_from_slice(&[0x20, 2, 0, old]);
    true
}

/// PUBACK. With 3.1.1 the reason is not said.
#[inline]
pub fn puback(out: &mut Vec<u8>, voice: Voice, packet_id: u16, reason: u8, text: &str) {
    acknowledge(out, voice, 0x40, packet_id, reason, text);
}

/// PUBREC. With 3.1.1 the reason is not said.
#[inline]
pub fn pubrec(out: &mut Vec<u8>, voice: Voice, packet_id: u16, reason: u8, text: &str) {
    acknowledge(out, voice, 0x50, packet_id, reason, text);
}

/// PUBCOMP. With 3.1.1 the reason is not said.
pub fn pubcomp(out: &mut Vec<u8>, voice: Voice, packet_id: u16, reason: u8) {
    acknowledge(out, voice, 0x70, packet_id, reason, "");
}

#[inline]
fn acknowledge(out: &mut Vec<u8>, voice: Voice, first: u8, packet_id: u16, reason: u8, text: &str) {
    let [high, low] = packet_id.to_be_bytes();
    if reason == 0 || voice.protocol == Protocol::V311 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        put_reason(out, voice, first, &[high, low, reason], text);
    }
}

/// SUBACK: one code for each filter (MQTT 5, 3.9; the codes in use are those of 3.1.1 too).
pub fn suback(out: &mut Vec<u8>, voice: Voice, packet_id: u16, codes: &[u8]) -> bool {
    answer_filters(out, voice, 0x90, packet_id, codes)
}

/// UNSUBACK: with MQTT 5 one code for each filter.
pub fn unsuback(out: &mut Vec<u8>, voice: Voice, packet_id: u16, codes: &[u8]) -> bool {
    let codes = match voice.protocol {
        Protocol::V311 => &[],
        Protocol::V5 => codes,
    };
    answer_filters(out, voice, 0xB0, packet_id, codes)
}

fn answer_filters(
    out: &mut Vec<u8>,
    voice: Voice,
    first: u8,
    packet_id: u16,
    codes: &[u8],
) -> bool {
    let mut body = Vec::with_capacity(3 + codes.len());
    body.extend_from_slice(&packet_id.to_be_bytes());
    if voice.protocol == Protocol::V5 {
        body.push(0);
    }
    body.extend_from_slice(codes);
    put_bounded(out, voice, first, &body)
}

/// PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// DISCONNECT, which only MQTT 5 lets a server say.
pub fn disconnect(out: &mut Vec<u8>, voice: Voice, reason: u8, text: &str) {
    if voice.protocol == Protocol::V5 {
        put_reason(out, voice, 0xE0, &[reason], text);
    }
}

/// A packet that ends with a reason code, and a reason string where it is wanted and fits.
fn put_reason(out: &mut Vec<u8>, voice: Voice, first: u8, head: &[u8], text: &str) {
    let mut properties = Vec::new();
    if voice.problem_info && !text.is_empty() {
        put_text(&mut properties, REASON_STRING, text);
        if put_packet(out, voice, first, head, &properties) {
            return;
        }
    }
    put_bounded(out, voice, first, head);
}

fn put_text(properties: &mut Vec<u8>, id: u8, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    properties.push(id);
    properties.extend_from_slice(&len.to_be_bytes());
    properties.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

fn put_packet(out: &mut Vec<u8>, voice: Voice, first: u8, head: &[u8], properties: &[u8]) -> bool {
    let mut body = Vec::with_capacity(head.len() + properties.len() + 4);
    body.extend_from_slice(head);
    put_variable(&mut body, properties.len());
    body.extend_from_slice(properties);
    put_bounded(out, voice, first, &body)
}

fn put_bounded(out: &mut Vec<u8>, voice: Voice, first: u8, body: &[u8]) -> bool {
    let start = out.len();
    out.push(first);
    put_variable(out, body.len());
    out.extend_from_slice(body);
    let fits = out.len() - start <= usize::try_from(voice.packet_bytes_max).unwrap_or(usize::MAX);
    if !fits {
        out.truncate(start);
    }
    fits
}

/// A variable byte integer (MQTT 5, 1.5.5). The gateway's own lengths never need a fifth byte.
fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7F {
        out.push(u8::try_from(value & 0x7F).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}
