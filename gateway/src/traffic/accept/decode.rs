//! What devices send, read strictly. In come the bytes of one connection; out come borrowed views
//! of whole packets, or a [`Fault`] that carries the protocol's reason code. It never allocates for
//! a PUBLISH without properties, never reads past a packet, and does no input or output.
//!
//! Everything is read by hand, not through the client library's codecs: those are lenient (reserved
//! bits, repeated properties, properties that overrun their length, bytes behind the last field),
//! refuse what is legal (a password that is not UTF-8, an MQTT 5 DISCONNECT of two bytes), and a
//! layer that checks all this would have to walk every field a second time. The tests hold this
//! reader against that codec.

mod connect;
mod control;
mod publish;
mod reader;

pub use connect::{Connect, ConnectFault, Will, connect};
pub use control::{Packet, packet};
pub use publish::{Publish, forwardable, publish};

/// Reason codes of MQTT 5 (2.4) that the gateway says.
pub mod reason {
    /// The packet does not follow the format.
    pub const MALFORMED: u8 = 0x81;
    /// Well formed, but against the protocol.
    pub const PROTOCOL_ERROR: u8 = 0x82;
    /// Valid, but not accepted here.
    pub const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    /// Neither MQTT 3.1.1 nor 5.
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    /// The client id is not allowed.
    pub const CLIENT_ID_INVALID: u8 = 0x85;
    /// The server is not there for this client now.
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    /// The gateway shuts down.
    pub const SHUTTING_DOWN: u8 = 0x8B;
    /// Enhanced authentication is not offered.
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    /// Nothing was heard for one and a half keep-alive intervals.
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    /// The same client id connected again.
    pub const TAKEN_OVER: u8 = 0x8E;
    /// The topic breaks a limit or the rules for names.
    pub const TOPIC_INVALID: u8 = 0x90;
    /// The packet identifier still names another message.
    pub const PACKET_ID_IN_USE: u8 = 0x91;
    /// PUBREL for a packet identifier that names nothing.
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    /// More unanswered messages than Receive Maximum.
    pub const RECEIVE_MAX_EXCEEDED: u8 = 0x93;
    /// A topic alias of 0 or above the maximum.
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    /// Larger than Maximum Packet Size.
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    /// A limit of the gateway is reached.
    pub const QUOTA_EXCEEDED: u8 = 0x97;
}

/// Why a connection must be closed: what its client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reason code for DISCONNECT or CONNACK (MQTT 5, 2.4).
    pub reason: u8,
    /// What was wrong, as the end of a sentence that starts with the client.
    pub what: &'static str,
}

impl Fault {
    /// A fault with this reason code.
    #[must_use]
    pub const fn new(reason: u8, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::new(reason::MALFORMED, what)
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::new(reason::PROTOCOL_ERROR, what)
    }

    /// What the operator can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self.reason {
            reason::UNSUPPORTED_VERSION => "set the device to MQTT 3.1.1 or 5",
            reason::CLIENT_ID_INVALID => "give the device a client id of its own",
            reason::BAD_AUTHENTICATION_METHOD => "switch the device's enhanced authentication off",
            reason::TOPIC_INVALID => "shorten the topic, or raise the listener's topic limits",
            reason::PACKET_ID_IN_USE => "see whether two programs share this client id",
            reason::RECEIVE_MAX_EXCEEDED => "let the device obey the Receive Maximum it was told",
            reason::TOPIC_ALIAS_INVALID => {
                "let the device obey the Topic Alias Maximum it was told"
            }
            reason::PACKET_TOO_LARGE => "send less at once, or raise the listener's packet_max",
            _ => "check the device's MQTT library, or what else connects to this port",
        }
    }
}

/// The fixed header of a packet (MQTT 5, 2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First byte: packet type and flags.
    pub first: u8,
    /// Bytes of the fixed header.
    pub header_len: usize,
    /// Bytes of the whole packet, fixed header included.
    pub total_len: usize,
}

impl Frame {
    /// What follows the fixed header; `None` while the packet is not whole.
    #[must_use]
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.header_len..self.total_len)
    }
}

/// Reads a fixed header. `Ok(None)`: it is not whole yet. The packet may still be incomplete; see
/// [`Frame::body`]. A length of more bytes than needed is taken: MQTT 3.1.1 does not forbid it, and
/// small firmware pads it.
///
/// # Errors
/// A length of more than four bytes (2.1.4), or a packet above `packet_bytes_max`: known here, so
/// that a huge packet is never buffered.
#[inline]
pub fn frame(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<Frame>, Fault> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut remaining = 0usize;
    for (place, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            let header_len = place + 2;
            return bounded(first, header_len, header_len + remaining, packet_bytes_max);
        }
    }
    if rest.len() >= 4 {
        return Err(Fault::malformed(
            "sent a packet length of more than four bytes",
        ));
    }
    Ok(None)
}

fn bounded(
    first: u8,
    header_len: usize,
    total_len: usize,
    max: u32,
) -> Result<Option<Frame>, Fault> {
    if total_len > usize::try_from(max).unwrap_or(usize::MAX) {
        return Err(Fault::new(
            reason::PACKET_TOO_LARGE,
            "sent a packet larger than the listener takes",
        ));
    }
    Ok(Some(Frame {
        first,
        header_len,
        total_len,
    }))
}

#[cfg(test)]
mod tests;
