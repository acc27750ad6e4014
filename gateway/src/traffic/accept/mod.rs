//! The doors in. `listener` is an embedded MQTT server, so that devices connect straight to the
//! gateway; `source` subscribes to a broker that the site already has. Both classify each message
//! in their own task and hand it to the relay in [`lanes`](super::lanes); both acknowledge only
//! when the relay has answered.

pub mod decode;
pub mod encode;
pub mod listener;
mod pace;
pub mod session;
pub mod source;

use std::net::SocketAddr;
use std::time::Duration;

/// What happens to a SUBSCRIBE: there is nothing here to subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribePolicy {
    /// Refused, with the protocol's reason.
    Refuse,
    /// Granted and silent, for firmware that insists.
    Accept,
}

/// The listener's settings.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Where it listens.
    pub bind: SocketAddr,
    /// What happens to a SUBSCRIBE.
    pub subscribe: SubscribePolicy,
    /// Most connections at once.
    pub connections_max: usize,
    /// Most sessions that are kept for clients which are away.
    pub sessions_max: usize,
    /// Longest time that a session is kept for a client which is away.
    pub session_expiry_max: Duration,
    /// Largest packet taken, in bytes, fixed header included.
    pub packet_bytes_max: u32,
    /// Receive Maximum announced to MQTT 5 clients, and the most QoS 1 and 2 messages of one
    /// connection (any protocol) that may be unanswered before reading pauses.
    pub receive_max: u16,
    /// Most bytes of one connection that may be unanswered or held before reading pauses.
    pub connection_bytes_max: u64,
    /// Messages a second that are read of one client; `None`: as many as come.
    pub client_rate_max: Option<u32>,
    /// Topic aliases a client may use (MQTT 5, 3.2.2.3.8).
    pub topic_alias_max: u16,
    /// Longest keep-alive; a client that asks for more, or for none, is told this one (MQTT 5) or
    /// held to it (3.1.1, where none stays none).
    pub keep_alive_max: Duration,
    /// How long a paused connection may hold messages before it is closed so that its sender
    /// brings them again.
    pub hold_max: Duration,
    /// Longest topic in bytes.
    pub topic_bytes_max: usize,
    /// Most levels of a topic.
    pub topic_levels_max: usize,
}

/// The MQTT version of a connection that the gateway makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// What happens to retained messages that a broker sends because of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedPolicy {
    /// Acknowledged and dropped, uncounted: old alarms must not fire again.
    Skip,
    /// Taken like any other.
    Take,
}

/// A broker that the gateway subscribes to.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name in logs: `source N`, counted from 1, with the URL's host.
    pub name: String,
    /// Where the broker is.
    pub remote: super::send::RemoteSettings,
    /// Topic filters to subscribe to.
    pub topics: Vec<String>,
    /// MQTT version.
    pub protocol: Protocol,
    /// The stem of the two connections' client ids (`-urgent` and `-rest` are added); stable across
    /// restarts, since the broker's session hangs on it.
    pub client_id: String,
    /// What happens to retained messages.
    pub retained: RetainedPolicy,
    /// Largest packet taken, in bytes.
    pub packet_bytes_max: u32,
    /// Longest topic in bytes.
    pub topic_bytes_max: usize,
    /// Most levels of a topic.
    pub topic_levels_max: usize,
    /// How long messages may be held before the connection is made anew, so that the broker brings
    /// them again.
    pub hold_max: Duration,
}
