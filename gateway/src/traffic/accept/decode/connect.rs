//! CONNECT (MQTT 5, 3.1; 3.1.1, 3.1): the first packet, and the will that it may carry.

use super::publish::topic_name;
use super::reader::{Properties, Reader, allow, id};
use super::{Fault, forwardable, reason};
use crate::traffic::accept::Protocol;
use crate::traffic::message::QoS;

/// A CONNECT, borrowed from the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// MQTT version.
    pub protocol: Protocol,
    /// Clean Session (3.1.1) or Clean Start (5).
    pub clean: bool,
    /// Keep-alive in seconds; 0: none.
    pub keep_alive: u16,
    /// The client id; empty: the server gives one.
    pub client_id: &'a str,
    /// The will, if any.
    pub will: Option<Will>,
    /// Session Expiry Interval in seconds; `u32::MAX`: never. With 3.1.1, 0 for a clean session
    /// and never for a kept one.
    pub session_expiry_seconds: u32,
    /// The largest packet that the client takes, in bytes.
    pub packet_bytes_max: u32,
    /// Whether the client wants reason strings (3.1.2.11.7).
    pub problem_info: bool,
    /// Whether the client asks for enhanced authentication (3.1.2.11.9).
    pub authentication: bool,
}

/// What is published when the client is gone without saying so (MQTT 5, 3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Topic name, valid.
    pub topic: String,
    /// Payload.
    pub payload: Box<[u8]>,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Will Delay Interval in seconds (3.1.3.2.2).
    pub delay_seconds: u32,
    /// Message Expiry Interval in seconds, counted from when it is published.
    pub expiry_seconds: Option<u32>,
    /// The properties that go on, encoded.
    pub properties: Box<[u8]>,
}

/// A CONNECT that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFault {
    /// In which version the refusal can be said; `None`: the packet is no CONNECT that any version
    /// knows, and nothing is said (MQTT 5, 4.13.1).
    pub answer: Option<Protocol>,
    /// What was wrong.
    pub fault: Fault,
}

/// Reads the first packet of a connection; `first` is the first byte of its fixed header.
///
/// # Errors
/// Any other packet, another protocol, and whatever section 3.1 forbids.
pub fn connect(first: u8, body: &[u8]) -> Result<Connect<'_>, ConnectFault> {
    let mut reader = Reader::new(body);
    let protocol = protocol(first, &mut reader)?;
    fields(protocol, reader).map_err(|fault| ConnectFault {
        answer: Some(protocol),
        fault,
    })
}

fn protocol(first: u8, reader: &mut Reader<'_>) -> Result<Protocol, ConnectFault> {
    let silent = |fault| ConnectFault {
        answer: None,
        fault,
    };
    if first != 0x10 {
        return Err(silent(Fault::protocol(
            "sent something other than an MQTT CONNECT first",
        )));
    }
    let name = reader.binary().map_err(silent)?;
    let level = reader.byte().map_err(silent)?;
    let other = |answer| ConnectFault {
        answer: Some(answer),
        fault: Fault::new(
            reason::UNSUPPORTED_VERSION,
            "asked for a version of MQTT other than 3.1.1 and 5",
        ),
    };
    match (name, level) {
        (b"MQTT", 4) => Ok(Protocol::V311),
        (b"MQTT", 5) => Ok(Protocol::V5),
        (b"MQTT", 6..) => Err(other(Protocol::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(other(Protocol::V311)),
        _ => Err(silent(Fault::protocol("sent an unknown protocol name"))),
    }
}

fn fields(protocol: Protocol, mut reader: Reader<'_>) -> Result<Connect<'_>, Fault> {
    let flags = reader.byte()?;
    check_flags(flags, protocol)?;
    let keep_alive = reader.two()?;
    let clean = flags & 0x02 != 0;
    let mut view = Connect {
        protocol,
        clean,
        keep_alive,
        client_id: "",
        will: None,
        session_expiry_seconds: match protocol {
            Protocol::V311 if !clean => u32::MAX,
            _ => 0,
        },
        packet_bytes_max: u32::MAX,
        problem_info: true,
        authentication: false,
    };
    if protocol == Protocol::V5 {
        read_properties(&mut view, reader.properties()?)?;
    }
    view.client_id = reader.string()?;
    if flags & 0x04 != 0 {
        view.will = Some(will(flags, protocol, &mut reader)?);
    }
    if flags & 0x80 != 0 {
        reader.string()?;
    }
    if flags & 0x40 != 0 {
        reader.binary()?;
    }
    if !reader.is_empty() {
        return Err(Fault::malformed("sent a CONNECT with bytes left over"));
    }
    Ok(view)
}

fn check_flags(flags: u8, protocol: Protocol) -> Result<(), Fault> {
    if flags & 0x01 != 0 {
        return Err(Fault::malformed(
            "sent a CONNECT with the reserved flag set",
        ));
    }
    if flags & 0x04 == 0 && flags & 0x38 != 0 {
        return Err(Fault::malformed("sent will flags without a will"));
    }
    if flags & 0x18 == 0x18 {
        return Err(Fault::malformed("sent a will with QoS 3"));
    }
    if protocol == Protocol::V311 && flags & 0xC0 == 0x40 {
        return Err(Fault::malformed("sent a password without a user name"));
    }
    Ok(())
}

fn read_properties(view: &mut Connect<'_>, bytes: &[u8]) -> Result<(), Fault> {
    const ALLOWED: u64 = allow([
        id::SESSION_EXPIRY,
        id::RECEIVE_MAX,
        id::PACKET_MAX,
        id::TOPIC_ALIAS_MAX,
        id::REQUEST_RESPONSE_INFO,
        id::REQUEST_PROBLEM_INFO,
        id::USER,
        id::AUTH_METHOD,
        id::AUTH_DATA,
    ]);
    let mut data = false;
    let mut walk = Properties::new(bytes, ALLOWED);
    while let Some(property) = walk.next()? {
        match (property.id, property.number) {
            (id::RECEIVE_MAX | id::PACKET_MAX, 0) => {
                return Err(Fault::protocol("asked for a maximum of 0"));
            }
            (id::SESSION_EXPIRY, seconds) => view.session_expiry_seconds = seconds,
            (id::PACKET_MAX, bytes) => view.packet_bytes_max = bytes,
            (id::REQUEST_PROBLEM_INFO, flag) => view.problem_info = flag == 1,
            (id::AUTH_METHOD, _) => view.authentication = true,
            (id::AUTH_DATA, _) => data = true,
            _ => {}
        }
    }
    if data && !view.authentication {
        return Err(Fault::protocol("sent authentication data without a method"));
    }
    Ok(())
}

fn will(flags: u8, protocol: Protocol, reader: &mut Reader<'_>) -> Result<Will, Fault> {
    const ALLOWED: u64 = allow([
        id::WILL_DELAY,
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::USER,
    ]);
    let mut delay_seconds = 0;
    let mut expiry_seconds = None;
    let mut properties = Box::default();
    if protocol == Protocol::V5 {
        let bytes = reader.properties()?;
        let mut walk = Properties::new(bytes, ALLOWED);
        while let Some(property) = walk.next()? {
            match property.id {
                id::WILL_DELAY => delay_seconds = property.number,
                id::MESSAGE_EXPIRY => expiry_seconds = Some(property.number),
                _ => {}
            }
        }
        properties = forwardable(bytes);
    }
    let topic = reader.string()?;
    topic_name(topic)?;
    if topic.is_empty() {
        return Err(Fault::new(
            reason::TOPIC_INVALID,
            "sent a will without a topic",
        ));
    }
    Ok(Will {
        topic: topic.to_owned(),
        payload: Box::from(reader.binary()?),
        qos: match flags >> 3 & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        retain: flags & 0x20 != 0,
        delay_seconds,
        expiry_seconds,
        properties,
    })
}
