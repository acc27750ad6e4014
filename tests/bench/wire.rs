//! As much of MQTT 3.1.1 and 5 as the benchmark speaks, written by hand so that it costs next to
//! nothing beside what is measured. Bytes come in, borrowed frames go out; it never touches a
//! socket, and it trusts nobody's lengths.

use std::io;

/// The version that both ends of a connection speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    V311,
    V5,
}

impl Protocol {
    /// As the configuration of the gateway says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }

    /// From the protocol level of a CONNECT (MQTT 5, 3.1.2.2).
    fn from_level(level: u8) -> Option<Self> {
        match level & 0x7f {
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }
}

/// Packet types, as the upper half of the first byte.
pub(crate) const CONNECT: u8 = 0x10;
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const SUBSCRIBE: u8 = 0x80;
pub(crate) const UNSUBSCRIBE: u8 = 0xa0;
pub(crate) const PINGREQ: u8 = 0xc0;
pub(crate) const DISCONNECT: u8 = 0xe0;

/// Receive Maximum (MQTT 5, 3.1.2.11.3) and User Property (MQTT 5, 3.3.2.3.7).
const RECEIVE_MAXIMUM: u8 = 0x21;
const USER_PROPERTY: u8 = 0x26;

/// What the peer sent is not MQTT.
#[derive(Debug)]
pub(crate) struct Malformed;

/// One whole packet in a read buffer.
pub(crate) struct Frame<'a> {
    /// Type and flags.
    pub(crate) first: u8,
    /// What follows the fixed header.
    pub(crate) body: &'a [u8],
    /// Bytes of the whole packet.
    pub(crate) length: usize,
}

/// The parts of a PUBLISH.
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) packet_id: Option<u16>,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first packet in `bytes`; `None` while it is not there whole.
    pub(crate) fn first_of(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let Some((remaining, digits)) = variable_integer(&bytes[1..])? else {
            return Ok(None);
        };
        let start = 1 + digits;
        let length = start + remaining;
        Ok(bytes.get(start..length).map(|body| Self {
            first,
            body,
            length,
        }))
    }

    /// The packet's type: the first byte without its flags.
    pub(crate) fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    /// Reads the body as PUBLISH (MQTT 5, 3.3).
    pub(crate) fn publish(&self, protocol: Protocol) -> Result<Publish<'a>, Malformed> {
        let mut rest = Reader(self.body);
        let topic = rest.text()?;
        let packet_id = match (self.first >> 1) & 3 {
            0 => None,
            _ => Some(rest.u16()?),
        };
        let properties = match protocol {
            Protocol::V311 => &[][..],
            Protocol::V5 => rest.properties()?,
        };
        Ok(Publish {
            topic,
            packet_id,
            properties,
            payload: rest.0,
        })
    }

    /// Packet id and reason of a PUBACK (MQTT 5, 3.4).
    pub(crate) fn puback(&self) -> Result<(u16, u8), Malformed> {
        let mut rest = Reader(self.body);
        let packet_id = rest.u16()?;
        Ok((packet_id, rest.0.first().copied().unwrap_or(0)))
    }

    /// The version that a CONNECT asks for.
    pub(crate) fn connect_protocol(&self) -> Result<Protocol, Malformed> {
        let mut rest = Reader(self.body);
        rest.text()?;
        let level = *rest.0.first().ok_or(Malformed)?;
        Protocol::from_level(level).ok_or(Malformed)
    }

    /// Reason and Receive Maximum of a CONNACK.
    pub(crate) fn connack(&self, protocol: Protocol) -> Result<(u8, u16), Malformed> {
        let mut rest = Reader(self.body);
        let [_session, reason] = rest.u16()?.to_be_bytes();
        let properties = match protocol {
            Protocol::V5 if !rest.0.is_empty() => rest.properties()?,
            _ => &[],
        };
        let mut receive_max = u16::MAX;
        for_each_property(properties, |id, value| {
            if let (RECEIVE_MAXIMUM, &[high, low]) = (id, value) {
                receive_max = u16::from_be_bytes([high, low]);
            }
        })?;
        Ok((reason, receive_max))
    }
}

impl Publish<'_> {
    /// Whether the sender added a user property, which is where a message id travels.
    pub(crate) fn has_user_property(&self) -> Result<bool, Malformed> {
        let mut found = false;
        for_each_property(self.properties, |id, _| found |= id == USER_PROPERTY)?;
        Ok(found)
    }
}

/// What is left to read of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn properties(&mut self) -> Result<&'a [u8], Malformed> {
        let (length, digits) = variable_integer(self.0)?.ok_or(Malformed)?;
        self.take(digits)?;
        self.take(length)
    }
}

/// A variable byte integer (MQTT 5, 1.5.5) and how many bytes it takes; `None` when cut short.
fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(Malformed)
    }
}

/// Walks encoded properties (MQTT 5, 2.2.2.2).
fn for_each_property(bytes: &[u8], mut visit: impl FnMut(u8, &[u8])) -> Result<(), Malformed> {
    let mut rest = Reader(bytes);
    while !rest.0.is_empty() {
        let id = rest.take(1)?[0];
        let whole = rest.0;
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => rest.take(1).map(drop)?,
            0x13 | 0x21..=0x23 => rest.take(2).map(drop)?,
            0x02 | 0x11 | 0x18 | 0x27 => rest.take(4).map(drop)?,
            0x0b => {
                let (_, digits) = variable_integer(rest.0)?.ok_or(Malformed)?;
                rest.take(digits).map(drop)?;
            }
            USER_PROPERTY => {
                rest.text()?;
                rest.text()?;
            }
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                rest.text().map(drop)?
            }
            _ => return Err(Malformed),
        }
        visit(id, &whole[..whole.len() - rest.0.len()]);
    }
    Ok(())
}

/// A CONNECT with a clean session and ten minutes of keep-alive: no run is that long.
pub(crate) fn connect(client_id: &str, protocol: Protocol) -> Vec<u8> {
    let mut body = Vec::new();
    push_text(&mut body, "MQTT");
    let level = if protocol == Protocol::V5 { 5 } else { 4 };
    body.extend_from_slice(&[level, 0x02, 0x02, 0x58]);
    if protocol == Protocol::V5 {
        body.push(0);
    }
    push_text(&mut body, client_id);
    packet(CONNECT, &body)
}

/// A CONNACK that takes as much in flight as MQTT can say.
pub(crate) fn connack(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::V311 => &[CONNACK, 2, 0, 0],
        Protocol::V5 => &[CONNACK, 6, 0, 0, 3, RECEIVE_MAXIMUM, 0xff, 0xff],
    }
}

/// Appends a PUBACK that says yes.
pub(crate) fn push_puback(out: &mut Vec<u8>, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[PUBACK, 2, high, low]);
}

/// Appends the answer to a SUBSCRIBE or UNSUBSCRIBE of one filter: bridges send them at connect.
pub(crate) fn push_subscription_answer(
    out: &mut Vec<u8>,
    frame: &Frame<'_>,
    protocol: Protocol,
) -> Result<(), Malformed> {
    let id = frame.body.get(..2).ok_or(Malformed)?;
    let reasons: &[u8] = match (frame.kind(), protocol) {
        (SUBSCRIBE, Protocol::V311) => &[0],
        (_, Protocol::V5) => &[0, 0],
        _ => &[],
    };
    out.extend_from_slice(&packet(frame.kind() + 0x10, &[id, reasons].concat()));
    Ok(())
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("the benchmark's own texts are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    push_header(&mut bytes, first, body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// Appends a fixed header (MQTT 5, 2.1).
pub(crate) fn push_header(out: &mut Vec<u8>, first: u8, mut remaining: usize) {
    out.push(first);
    while remaining >= 0x80 {
        out.push((remaining & 0x7f) as u8 | 0x80);
        remaining >>= 7;
    }
    out.push(remaining as u8);
}

/// The Receive Maximum of a CONNACK that says yes.
pub(crate) fn accepted(frame: &Frame<'_>, protocol: Protocol) -> io::Result<u16> {
    match frame.connack(protocol).map_err(invalid)? {
        (0, receive_max) if frame.kind() == CONNACK => Ok(receive_max),
        (reason, _) => Err(io::Error::other(format!(
            "the connection was refused with reason {reason:#04x}"
        ))),
    }
}

pub(crate) fn invalid(Malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came back is not MQTT")
}
