//! The table `[listener]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::reader::{Range, Reading, Section, quoted};
use super::tree::Table;
use crate::traffic::accept::{ListenerSettings, SubscribePolicy};

/// MQTT's own limit of a packet (MQTT 5, 1.5.5), rounded down.
pub(super) const PACKET_MAX: Range<u64> = Range {
    default: 2 << 20,
    least: 1 << 10,
    most: 256 << 20,
    why: "MQTT's own limit is 256MiB; below 1KiB a CONNECT may not fit",
};

pub(super) const TOPIC_BYTES_MAX: Range<usize> = Range {
    default: 1024,
    least: 1,
    most: 65_535,
    why: "MQTT's own limit is 65535 bytes",
};

pub(super) const TOPIC_LEVELS_MAX: Range<usize> = Range {
    default: 32,
    least: 1,
    most: 256,
    why: "the rules are walked level by level; deeper topics are a mistake or an attack",
};

pub(super) const HOLD_MAX: Range<Duration> = Range {
    default: Duration::from_secs(30),
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    why: "shorter, and senders reconnect all the time; longer, and they wait for a word that does not come",
};

const CONNECTIONS_MAX: Range<usize> = Range {
    default: 1024,
    least: 1,
    most: 65_536,
    why: "each takes a file descriptor and its buffers",
};

const SESSIONS_MAX: Range<usize> = Range {
    default: 4096,
    least: 0,
    most: 1_000_000,
    why: "each remembers what its client may send again",
};

const SESSION_EXPIRY_MAX: Range<Duration> = Range {
    default: Duration::from_secs(3600),
    least: Duration::ZERO,
    most: Duration::from_secs(30 * 86_400),
    why: "a session takes memory while its client is away",
};

const RECEIVE_MAX: Range<u16> = Range {
    default: 256,
    least: 1,
    most: 65_535,
    why: "MQTT's own limits (MQTT 5, 3.2.2.3.3)",
};

const CONNECTION_BYTES_MAX: Range<u64> = Range {
    default: 512 << 10,
    least: 16 << 10,
    most: 1 << 30,
    why: "below 16KiB a connection would pause after a handful of messages",
};

const TOPIC_ALIAS_MAX: Range<u16> = Range {
    default: 16,
    least: 0,
    most: 1024,
    why: "each alias of each connection remembers a topic",
};

const CLIENT_RATE_MAX: Range<u32> = Range {
    default: 0,
    least: 1,
    most: 1_000_000,
    why: "messages a second; leave it out for no limit",
};

const KEEP_ALIVE_MAX: Range<Duration> = Range {
    default: Duration::from_secs(20 * 60),
    least: Duration::from_secs(5),
    most: Duration::from_secs(18 * 3600),
    why: "MQTT counts it in seconds, up to 65535",
};

/// The listener, or `None` where it is switched off.
pub(super) fn read(
    reading: &mut Reading<'_>,
    table: Option<Table<'_>>,
) -> Option<ListenerSettings> {
    let mut section = Section::open(reading, "[listener]", table);
    let enabled = section.flag("enabled", true);
    let settings = settings(&mut section);
    if settings.subscribe == SubscribePolicy::Accept {
        let what = "subscriptions are granted, and nothing ever comes of them".to_owned();
        let hint =
            "right for firmware that insists; a client that waits for commands waits for ever";
        section.warn("subscribe", what, hint);
    }
    section.done();
    enabled.then_some(settings)
}

fn settings(s: &mut Section<'_, '_, '_>) -> ListenerSettings {
    let subscribe = [
        ("refuse", SubscribePolicy::Refuse),
        ("accept", SubscribePolicy::Accept),
    ];
    ListenerSettings {
        bind: bind(s),
        subscribe: s.choice("subscribe", SubscribePolicy::Refuse, &subscribe),
        connections_max: s.integer("connections_max", &CONNECTIONS_MAX),
        sessions_max: s.integer("sessions_max", &SESSIONS_MAX),
        session_expiry_max: s.time("session_expiry_max", &SESSION_EXPIRY_MAX),
        packet_bytes_max: packet_bytes(s.size("packet_max", &PACKET_MAX)),
        receive_max: s.integer("receive_max", &RECEIVE_MAX),
        connection_bytes_max: s.size("connection_bytes_max", &CONNECTION_BYTES_MAX),
        client_rate_max: s.optional_integer("client_rate_max", &CLIENT_RATE_MAX),
        topic_alias_max: s.integer("topic_alias_max", &TOPIC_ALIAS_MAX),
        keep_alive_max: s.time("keep_alive_max", &KEEP_ALIVE_MAX),
        hold_max: s.time("hold_max", &HOLD_MAX),
        topic_bytes_max: s.integer("topic_bytes_max", &TOPIC_BYTES_MAX),
        topic_levels_max: s.integer("topic_levels_max", &TOPIC_LEVELS_MAX),
    }
}

/// A packet size as the doors keep it; ranges end far below the type's.
pub(super) fn packet_bytes(size: u64) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn bind(section: &mut Section<'_, '_, '_>) -> SocketAddr {
    let anonymous = section.flag("anonymous", false);
    let bind = address(
        section,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
        "write \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::]:1883\"; `enabled = false` switches the listener off",
    );
    if !bind.ip().is_loopback() && !anonymous {
        let what = format!("`bind` opens {bind} to the network, and anybody there could publish");
        let hint = "if that is meant, write `anonymous = true` beside it; else bind to 127.0.0.1";
        section.fault("bind", what, hint);
    }
    bind
}

/// The address and port under `bind`.
pub(super) fn address(
    section: &mut Section<'_, '_, '_>,
    default: SocketAddr,
    hint: &str,
) -> SocketAddr {
    let Some(text) = section.text("bind") else {
        return default;
    };
    text.value.parse().unwrap_or_else(|_| {
        let what = format!(
            "`bind`: {} is not an address and a port",
            quoted(&text.value)
        );
        section.fault("bind", what, hint);
        default
    })
}
