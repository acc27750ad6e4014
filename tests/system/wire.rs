//! MQTT 3.1.1 and 5 on the wire, as far as the tests speak it: what a device, a subscriber and the
//! proxy read and write. Written for itself and not on the gateway's codecs, so that a mistake
//! there is not hidden by the same mistake here. It never checks what it is told to send: faults
//! are what the tests are for.

use std::io::{self, Read};

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// Packet types (MQTT 5, 2.1.2), as they stand in the upper half of the first byte.
pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;

/// One whole packet.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    header_bytes: usize,
}

impl Frame {
    /// Reads the next packet; an end of stream between packets is `UnexpectedEof` too.
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut bytes = vec![0; 1];
        stream.read_exact(&mut bytes)?;
        let mut remaining = 0_usize;
        for place in 0..4 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
            remaining |= usize::from(byte[0] & 0x7f) << (7 * place);
            if byte[0] & 0x80 == 0 {
                let header_bytes = bytes.len();
                bytes.resize(header_bytes + remaining, 0);
                stream.read_exact(&mut bytes[header_bytes..])?;
                return Ok(Self {
                    bytes,
                    header_bytes,
                });
            }
        }
        Err(io::Error::other("a remaining length of five bytes"))
    }

    pub(crate) fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    fn flags(&self) -> u8 {
        self.bytes[0] & 0x0f
    }

    fn body(&self) -> Body<'_> {
        Body(&self.bytes[self.header_bytes..])
    }

    /// Client id and protocol of a CONNECT.
    pub(crate) fn as_connect(&self) -> Option<(String, Version)> {
        let mut body = self.body();
        body.text()?;
        let version = if body.byte()? == 5 {
            Version::V5
        } else {
            Version::V311
        };
        body.byte()?;
        body.short()?;
        if version == Version::V5 {
            body.properties()?;
        }
        Some((body.text()?, version))
    }

    /// What a CONNACK says.
    pub(crate) fn as_connack(&self, version: Version) -> Option<ConnAck> {
        let mut body = self.body();
        Some(ConnAck {
            session_present: body.byte()? & 1 == 1,
            code: body.byte()?,
            properties: match version {
                Version::V5 => body.properties()?,
                Version::V311 => Properties::default(),
            },
        })
    }

    /// A PUBLISH.
    pub(crate) fn as_publish(&self, version: Version) -> Option<Publish> {
        let mut body = self.body();
        let qos = (self.flags() >> 1) & 3;
        Some(Publish {
            topic: body.text()?,
            qos,
            retain: self.flags() & 1 == 1,
            dup: self.flags() & 8 == 8,
            packet_id: if qos > 0 { body.short()? } else { 0 },
            properties: match version {
                Version::V5 => body.properties()?,
                Version::V311 => Properties::default(),
            },
            payload: body.0.to_vec(),
        })
    }

    /// Packet id and reason of PUBACK, PUBREC, PUBREL and PUBCOMP.
    pub(crate) fn as_answer(&self) -> Option<(u16, u8)> {
        let mut body = self.body();
        Some((body.short()?, body.byte().unwrap_or(0)))
    }

    /// The reason of a DISCONNECT.
    pub(crate) fn as_disconnect(&self) -> u8 {
        self.body().byte().unwrap_or(0)
    }
}

/// What CONNACK said.
#[derive(Clone, Debug)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Properties,
}

/// The rest of a packet's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let count = self.short()?;
        Some(self.take(usize::from(count))?.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }

    fn properties(&mut self) -> Option<Properties> {
        let length = self.length()?;
        let mut body = Body(self.take(length)?);
        let mut properties = Properties::default();
        while !body.0.is_empty() {
            match body.length()? {
                1 => properties.payload_format = Some(body.byte()?),
                2 => properties.expiry_s = Some(body.long()?),
                3 => properties.content_type = Some(body.text()?),
                8 => properties.response_topic = Some(body.text()?),
                9 => properties.correlation = Some(body.bytes()?),
                33 => properties.receive_max = Some(body.short()?),
                38 => properties.user.push((body.text()?, body.text()?)),
                39 => properties.packet_bytes_max = Some(body.long()?),
                // Subscription Identifier, and those that no test looks at, by their length.
                11 => drop(body.length()?),
                23 | 25 | 36 | 37 | 40 | 41 | 42 => drop(body.byte()?),
                19 | 34 | 35 => drop(body.short()?),
                17 | 24 => drop(body.long()?),
                18 | 21 | 26 | 28 | 31 | 22 => drop(body.bytes()?),
                _ => return None,
            }
        }
        Some(properties)
    }
}

/// MQTT 5 properties, those that a test sends or looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) payload_format: Option<u8>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Vec<u8>>,
    pub(crate) user: Vec<(String, String)>,
    pub(crate) receive_max: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) session_expiry_s: Option<u32>,
}

impl Properties {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(value) = self.payload_format {
            out.extend([1, value]);
        }
        for (id, value) in [
            (2, self.expiry_s),
            (17, self.session_expiry_s),
            (39, self.packet_bytes_max),
        ] {
            if let Some(value) = value {
                out.push(id);
                out.extend(value.to_be_bytes());
            }
        }
        for (id, value) in [(3, &self.content_type), (8, &self.response_topic)] {
            if let Some(value) = value {
                out.push(id);
                put_bytes(&mut out, value.as_bytes());
            }
        }
        if let Some(value) = &self.correlation {
            out.push(9);
            put_bytes(&mut out, value);
        }
        if let Some(value) = self.receive_max {
            out.push(33);
            out.extend(value.to_be_bytes());
        }
        for (name, value) in &self.user {
            out.push(38);
            put_bytes(&mut out, name.as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        let mut whole = Vec::new();
        put_length(&mut whole, out.len());
        whole.extend(out);
        whole
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// A whole packet from its first byte and its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_length(&mut out, body.len());
    out.extend(body);
    out
}

/// A PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: u16,
    pub(crate) properties: Properties,
}

impl Publish {
    pub(crate) fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos,
            ..Self::default()
        }
    }

    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend(self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(self.properties.encode());
        }
        body.extend(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packet(PUBLISH << 4 | flags, &body)
    }

    /// The value of the first user property of this name.
    pub(crate) fn user(&self, name: &str) -> Option<&str> {
        let mut user = self.properties.user.iter();
        user.find(|(key, _)| key == name).map(|(_, v)| v.as_str())
    }

    /// The message id that the gateway gave it.
    pub(crate) fn id(&self) -> Option<&str> {
        self.user("tidegate-id")
    }

    /// The payload as text, which tests make unique; what is not UTF-8 is shown as such.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Publish>,
    pub(crate) login: Option<(String, String)>,
    pub(crate) properties: Properties,
}

impl Connect {
    pub(crate) fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive_s: 60,
            will: None,
            login: None,
            properties: Properties::default(),
        }
    }

    /// With a session that outlives the connection.
    pub(crate) fn persistent(version: Version, client_id: &str) -> Self {
        let mut connect = Self::new(version, client_id);
        connect.clean = false;
        connect.properties.session_expiry_s = Some(3600);
        connect
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let v5 = self.version == Version::V5;
        let mut flags = u8::from(self.clean) << 1;
        let mut body = Vec::new();
        put_bytes(&mut body, b"MQTT");
        body.push(if v5 { 5 } else { 4 });
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        if self.login.is_some() {
            flags |= 0xc0;
        }
        body.push(flags);
        body.extend(self.keep_alive_s.to_be_bytes());
        if v5 {
            body.extend(self.properties.encode());
        }
        put_bytes(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if v5 {
                body.extend(will.properties.encode());
            }
            put_bytes(&mut body, will.topic.as_bytes());
            put_bytes(&mut body, &will.payload);
        }
        if let Some((user, password)) = &self.login {
            put_bytes(&mut body, user.as_bytes());
            put_bytes(&mut body, password.as_bytes());
        }
        packet(CONNECT << 4, &body)
    }
}

/// A CONNACK that refuses, or grants without properties.
pub(crate) fn connack(version: Version, code: u8) -> Vec<u8> {
    match version {
        Version::V311 => packet(CONNACK << 4, &[0, code]),
        Version::V5 => packet(CONNACK << 4, &[0, code, 0]),
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with success.
pub(crate) fn answer(kind: u8, packet_id: u16) -> Vec<u8> {
    let flags = if kind == PUBREL { 2 } else { 0 };
    packet(kind << 4 | flags, &packet_id.to_be_bytes())
}

/// A SUBSCRIBE to one filter; with MQTT 5, RETAIN as published (3.8.3.1).
pub(crate) fn subscribe(version: Version, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    put_bytes(&mut body, filter.as_bytes());
    body.push(match version {
        Version::V311 => qos,
        Version::V5 => qos | 8,
    });
    packet(SUBSCRIBE << 4 | 2, &body)
}
