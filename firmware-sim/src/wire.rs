//! As much of MQTT 3.1.1 and 5 as a device and a watcher speak, written by hand: a PUBLISH costs no
//! allocation. Bytes come in, borrowed packets go out; it never touches a socket and trusts nobody's
//! lengths.

mod reader;
mod writer;

pub use reader::{Malformed, Packet, Publish, first_packet};
pub use writer::{Connect, Writer};

/// The version of MQTT that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

impl Protocol {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// What a CONNACK that refuses means: 3.1.1's codes (3.2.2.3) and those of MQTT 5 (3.2.2.2) that
/// gateways and brokers send.
#[must_use]
pub const fn connack_meaning(code: u8) -> &'static str {
    match code {
        1 | 0x84 => {
            "this version of MQTT is not spoken there: try --protocol 3.1.1 or --protocol 5"
        }
        2 | 0x85 => "the client id is refused",
        3 | 0x88 => "the server is unavailable",
        4 | 0x86 => "user name or password is wrong; the fleet has none",
        5 | 0x87 => "not authorised; the fleet has no user name",
        0x89 => "the server is busy",
        0x97 => "a quota is used up: are there more devices than the server takes connections?",
        0x9F => "connections come in faster than the server takes them",
        _ => "see MQTT 5, 3.2.2.2",
    }
}
