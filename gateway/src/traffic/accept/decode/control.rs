//! The packets that may follow CONNECT (MQTT 5, 3.3 to 3.15). The gateway sends no PUBLISH to its
//! clients, so an acknowledgement from one acknowledges nothing and is a fault.

use super::publish::{Publish, publish};
use super::reader::{Properties, Reader, allow, id};
use super::{Fault, reason};
use crate::traffic::accept::Protocol;

/// A packet of a connected client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// PUBREL: the second half of QoS 2.
    Release {
        /// Which message.
        packet_id: u16,
    },
    /// SUBSCRIBE.
    Subscribe {
        /// Its packet identifier.
        packet_id: u16,
        /// The QoS asked for each filter, one byte each as the SUBACK grants it (3.1.1 and 5).
        filters: Filters<'a>,
    },
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// Its packet identifier.
        packet_id: u16,
        /// How many filters it names.
        filters: usize,
    },
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect {
        /// Reason code (MQTT 5, 3.14.2.1); 0 with 3.1.1.
        reason: u8,
        /// A new Session Expiry Interval in seconds (3.14.2.2.2).
        session_expiry_seconds: Option<u32>,
    },
}

/// The valid filters of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters<'a> {
    bytes: &'a [u8],
}

impl Filters<'_> {
    /// The QoS that was asked for each filter, in their order.
    pub fn asked(self) -> impl Iterator<Item = u8> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            reader.binary().ok()?;
            reader.byte().ok().map(|options| options & 3)
        })
    }
}

/// Reads a packet of a connected client; `first` is the first byte of its fixed header and `body`
/// what follows that header.
///
/// # Errors
/// Packets that only servers send, a second CONNECT, wrong flags, and whatever the packet's section
/// forbids.
#[inline]
pub fn packet(first: u8, body: &[u8], protocol: Protocol) -> Result<Packet<'_>, Fault> {
    if first >> 4 == 3 {
        return publish(first, body, protocol).map(Packet::Publish);
    }
    check_flags(first)?;
    let reader = Reader::new(body);
    match first >> 4 {
        1 => Err(Fault::protocol("sent a second CONNECT")),
        4 | 5 | 7 => Err(Fault::protocol(
            "acknowledged a message that the gateway never sent",
        )),
        6 => release(reader, protocol),
        8 => subscribe(reader, protocol),
        10 => unsubscribe(reader, protocol),
        12 if body.is_empty() => Ok(Packet::Ping),
        12 => Err(Fault::malformed("sent a PINGREQ with bytes left over")),
        14 => disconnect(reader, protocol),
        15 if protocol == Protocol::V5 => Err(Fault::protocol(
            "sent AUTH without having asked for enhanced authentication",
        )),
        0 | 15 => Err(Fault::malformed("sent a packet type that does not exist")),
        _ => Err(Fault::protocol("sent a packet that only servers send")),
    }
}

/// The flags of the fixed header are fixed for all packets but PUBLISH (MQTT 5, 2.1.3).
fn check_flags(first: u8) -> Result<(), Fault> {
    let expected = match first >> 4 {
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if first & 0x0F != expected {
        return Err(Fault::malformed("sent wrong flags in a fixed header"));
    }
    Ok(())
}

fn ended(reader: Reader<'_>) -> Result<(), Fault> {
    if reader.is_empty() {
        return Ok(());
    }
    Err(Fault::malformed("sent a packet with bytes left over"))
}

fn release(mut reader: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Fault> {
    const ALLOWED: u64 = allow([id::REASON_STRING, id::USER]);
    let packet_id = reader.packet_id()?;
    if protocol == Protocol::V5 && !reader.is_empty() {
        if !matches!(reader.byte()?, 0 | reason::PACKET_ID_NOT_FOUND) {
            return Err(Fault::protocol("sent a PUBREL with an unknown reason code"));
        }
        if !reader.is_empty() {
            let mut walk = Properties::new(reader.properties()?, ALLOWED);
            while walk.next()?.is_some() {}
        }
    }
    ended(reader)?;
    Ok(Packet::Release { packet_id })
}

fn subscribe(mut reader: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Fault> {
    const ALLOWED: u64 = allow([id::SUBSCRIPTION_ID, id::USER]);
    let packet_id = reader.packet_id()?;
    if protocol == Protocol::V5 {
        let mut walk = Properties::new(reader.properties()?, ALLOWED);
        while let Some(property) = walk.next()? {
            if property.id == id::SUBSCRIPTION_ID && property.number == 0 {
                return Err(Fault::protocol("sent the subscription identifier 0"));
            }
        }
    }
    let bytes = reader.rest();
    if bytes.is_empty() {
        return Err(Fault::protocol("sent a SUBSCRIBE without a filter"));
    }
    while !reader.is_empty() {
        let filter = filter(&mut reader)?;
        options(reader.byte()?, filter, protocol)?;
    }
    Ok(Packet::Subscribe {
        packet_id,
        filters: Filters { bytes },
    })
}

/// Subscription options (MQTT 5, 3.8.3.1; 3.1.1 has the QoS only).
fn options(options: u8, filter: &str, protocol: Protocol) -> Result<(), Fault> {
    let reserved = match protocol {
        Protocol::V311 => 0xFC,
        Protocol::V5 => 0xC0,
    };
    if options & reserved != 0 || options & 0x03 == 3 || options & 0x30 == 0x30 {
        return Err(Fault::malformed("sent invalid subscription options"));
    }
    if options & 0x04 != 0 && filter.starts_with("$share/") {
        return Err(Fault::protocol(
            "asked for No Local on a shared subscription",
        ));
    }
    Ok(())
}

fn unsubscribe(mut reader: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Fault> {
    let packet_id = reader.packet_id()?;
    if protocol == Protocol::V5 {
        let mut walk = Properties::new(reader.properties()?, allow([id::USER]));
        while walk.next()?.is_some() {}
    }
    let mut filters = 0;
    while !reader.is_empty() {
        filter(&mut reader)?;
        filters += 1;
    }
    if filters == 0 {
        return Err(Fault::protocol("sent an UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { packet_id, filters })
}

/// A topic filter: wildcards stand alone in their level, `#` in the last (MQTT 5, 4.7.1).
fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let text = reader.string()?;
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let valid = match level {
            "#" => last,
            "+" => true,
            other => !other.contains(['+', '#']),
        };
        if !valid || text.is_empty() {
            return Err(Fault::malformed("sent an invalid topic filter"));
        }
    }
    Ok(text)
}

fn disconnect(mut reader: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Fault> {
    const ALLOWED: u64 = allow([id::SESSION_EXPIRY, id::REASON_STRING, id::USER]);
    let mut reason = 0;
    let mut session_expiry_seconds = None;
    if protocol == Protocol::V5 && !reader.is_empty() {
        reason = reader.byte()?;
        if !reader.is_empty() {
            let mut walk = Properties::new(reader.properties()?, ALLOWED);
            while let Some(property) = walk.next()? {
                if property.id == id::SESSION_EXPIRY {
                    session_expiry_seconds = Some(property.number);
                }
            }
        }
    }
    ended(reader)?;
    Ok(Packet::Disconnect {
        reason,
        session_expiry_seconds,
    })
}
