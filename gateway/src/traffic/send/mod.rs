//! The way out: MQTT to the upstream, always QoS 1. The relay keeps a window for each
//! connection, encodes what the scheduler picks, and hands finished bytes to the door
//! `upstream`, which connects, writes, and reports acknowledgements. A PUBACK is tied to its message
//! by the window, never by the door.

mod answers;
pub mod backoff;
mod dial;
pub mod encode;
mod greeting;
pub mod handshake;
mod no_connection;
mod outbox;
mod pairing;
mod pulse;
mod reason;
pub mod rtt;
pub mod secret;
mod socket;
mod throat;
pub mod tls;
pub mod upstream;
pub mod window;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use super::accept::Protocol;

/// Where a secret comes from. It is read anew at each connect and never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The content of a file, without a final line break.
    File(PathBuf),
    /// The value of an environment variable.
    Environment(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "secret from file {}", path.display()),
            Self::Environment(name) => write!(f, "secret from ${name}"),
        }
    }
}

/// TLS towards a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The authorities to trust (PEM); `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain (PEM), for mutual TLS.
    pub cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub key: Option<PathBuf>,
    /// Application protocols to offer (ALPN), such as `x-amzn-mqtt-ca`.
    pub alpn: Vec<String>,
}

/// A broker to connect to: the part that uplink and source share.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, for `mqtts://`.
    pub tls: Option<TlsSettings>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Time for name, TCP, TLS and CONNACK together.
    pub connect_timeout: Duration,
    /// Keep-alive interval; the peer is given up after one and a half of it.
    pub keep_alive: Duration,
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The first class's own connection; with `connections = 1` it is never up.
    Urgent = 0,
    /// The connection of the rest, and of everything with `connections = 1`.
    Bulk = 1,
}

impl Link {
    /// Both, the urgent one first.
    pub const BOTH: [Self; 2] = [Self::Urgent, Self::Bulk];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Urgent => Self::Bulk,
            Self::Bulk => Self::Urgent,
        }
    }
}

/// Which user properties an upstream message carries (MQTT 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertiesPolicy {
    /// None of ours; the publisher's still go on.
    None,
    /// The message id.
    Id,
    /// The id, the class, the time of receipt, `replayed`, how many values it stands for.
    Full,
}

/// The uplink's settings.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    /// Where the upstream is.
    pub remote: RemoteSettings,
    /// MQTT version.
    pub protocol: Protocol,
    /// The upstream topic; `{topic}` and `{gateway}` stand for what they say.
    pub topic: String,
    /// Client id of the bulk connection; the urgent one adds `-urgent`.
    pub client_id: String,
    /// 2, or 1 for clouds that allow one connection per device.
    pub connections: u8,
    /// Wire bytes a second, both connections together; `None`: unlimited.
    pub rate_bytes_max: Option<u64>,
    /// Publishes a second and connection; `None`: unlimited.
    pub publish_max: Option<u32>,
    /// Largest packet that the upstream takes, in bytes; what CONNACK announces also binds.
    pub packet_bytes_max: Option<u32>,
    /// Which user properties are added (MQTT 5).
    pub properties: PropertiesPolicy,
    /// How long an acknowledgement may take before the connection is given up.
    pub ack_timeout: Duration,
    /// Longest wait between two tries to connect.
    pub retry_max: Duration,
}

/// What CONNACK announced, with the protocol's defaults where it said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Unacknowledged QoS 1 publishes at once (MQTT 5, 3.2.2.3.3); 65,535 when not announced.
    pub receive_max: u16,
    /// Largest packet in bytes (3.2.2.3.6); `u32::MAX` when not announced.
    pub packet_bytes_max: u32,
    /// Highest QoS (3.2.2.3.4).
    pub qos_max: u8,
    /// Whether RETAIN is allowed (3.2.2.3.5).
    pub retain: bool,
}

impl LinkLimits {
    /// What holds when CONNACK announces nothing.
    pub const DEFAULT: Self = Self {
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        qos_max: 2,
        retain: true,
    };
}

/// One PUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Packet identifier.
    pub packet_id: u16,
    /// Reason code (MQTT 5, 3.4.2.1); 0 with 3.1.1.
    pub reason: u8,
}

/// What the upstream door tells the relay. `attempt` numbers the connections of a link, so that a
/// late event of an old connection is known for what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// CONNACK said yes.
    Up {
        /// Which connection.
        link: Link,
        /// Its number.
        attempt: u64,
        /// What the upstream takes.
        limits: LinkLimits,
    },
    /// The connection ended. Sent once for each `Up`.
    Down {
        /// Which connection.
        link: Link,
        /// Its number.
        attempt: u64,
        /// The reason code of the upstream's DISCONNECT, if it sent one (MQTT 5, 3.14.2.1).
        reason: Option<u8>,
        /// Whether the upstream ended it: DISCONNECT, its end of the stream closed or reset, or
        /// something sent that it must not send. False when the gateway ended it (overdue
        /// acknowledgements, shutdown) or the network did (silence, a time-out of TCP).
        by_peer: bool,
    },
    /// PUBACKs, in the order in which they came.
    Acks {
        /// Which connection.
        link: Link,
        /// Its number.
        attempt: u64,
        /// The acknowledgements.
        acks: Vec<Ack>,
    },
    /// Bytes handed over by [`LinkCommand::Write`] that are now in the socket, counted from the
    /// start of this connection.
    Written {
        /// Which connection.
        link: Link,
        /// Its number.
        attempt: u64,
        /// Bytes since `Up`.
        total: u64,
    },
}

/// What the relay tells the upstream door of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCommand {
    /// Write these whole packets. For the connection with this number only; else dropped (the
    /// window has them).
    Write {
        /// The connection's number.
        attempt: u64,
        /// Encoded packets.
        packets: Vec<u8>,
    },
    /// Give the connection up and make a new one: acknowledgements are overdue.
    Reconnect {
        /// The connection's number.
        attempt: u64,
    },
    /// A message of the first class waits and no link is up: shorten the back-off.
    Hurry,
    /// Say DISCONNECT and end.
    Shutdown,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An uplink for tests: MQTT 5, ids, one connection, no limits.
    pub(crate) fn uplink() -> UplinkSettings {
        UplinkSettings {
            remote: RemoteSettings {
                host: "cloud".to_owned(),
                port: 1883,
                tls: None,
                username: None,
                password: None,
                connect_timeout: Duration::from_secs(10),
                keep_alive: Duration::from_secs(30),
            },
            protocol: Protocol::V5,
            topic: "{topic}".to_owned(),
            client_id: "box".to_owned(),
            connections: 1,
            rate_bytes_max: None,
            publish_max: None,
            packet_bytes_max: None,
            properties: PropertiesPolicy::Id,
            ack_timeout: Duration::from_secs(20),
            retry_max: Duration::from_secs(60),
        }
    }
}
