//! The table `[[uplink]]`.

use std::time::Duration;

use super::listener::packet_bytes;
use super::reader::{Range, Reading, Section};
use super::remote::{self, Remote};
use super::template;
use super::tree::Table;
use crate::traffic::accept::Protocol;
use crate::traffic::send::{PropertiesPolicy, UplinkSettings};

const CONNECTIONS: Range<u8> = Range {
    default: 2,
    least: 1,
    most: 2,
    why: "2: urgent messages have a connection of their own; 1: for clouds that allow one per device",
};

/// Of the uplink's rate, and of the part that replay may take of it.
pub(super) const RATE_MAX: Range<u64> = Range {
    default: 0,
    least: 1_000,
    most: 12_500_000_000,
    why: "below 8kbit one message takes minutes; leave it out for no limit",
};

const PUBLISH_MAX: Range<u32> = Range {
    default: 0,
    least: 1,
    most: 1_000_000,
    why: "publishes a second and connection; leave it out for no limit",
};

/// As the listener's, but without a default: what CONNACK announces binds.
const PACKET_MAX: Range<u64> = Range {
    default: 0,
    least: 1 << 10,
    most: 256 << 20,
    why: "MQTT's own limit is 256MiB; below 1KiB hardly anything could be sent",
};

const ACK_TIMEOUT: Range<Duration> = Range {
    default: Duration::from_secs(20),
    least: Duration::from_secs(1),
    most: Duration::from_secs(600),
    why: "shorter than the link's worst delay it would reconnect for nothing; longer, and a throttling cloud goes unnoticed",
};

const RETRY_MAX: Range<Duration> = Range {
    default: Duration::from_secs(60),
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    why: "below 1s a fleet would storm the cloud when it comes back",
};

/// The uplink, with what the checks between sections need.
pub(super) fn read(
    reading: &mut Reading<'_>,
    table: Option<Table<'_>>,
    gateway_id: &str,
) -> UplinkSettings {
    let mut section = Section::open(reading, "[[uplink]]", table);
    let settings = settings(&mut section, gateway_id);
    warn_of_slow_packets(&mut section, &settings);
    section.done();
    settings
}

fn settings(s: &mut Section<'_, '_, '_>, gateway_id: &str) -> UplinkSettings {
    let protocol = remote::protocol(s);
    let default = Remote {
        host: "127.0.0.1".to_owned(),
        port: 1884,
        tls: false,
    };
    UplinkSettings {
        remote: remote::read(s, protocol, Some(default)),
        protocol,
        topic: template::read(s, "topic").unwrap_or_else(|| template::TOPIC.to_owned()),
        client_id: remote::client_id(s, gateway_id.to_owned()),
        connections: s.integer("connections", &CONNECTIONS),
        rate_bytes_max: s.optional_rate("rate_max", &RATE_MAX),
        publish_max: s.optional_integer("publish_max", &PUBLISH_MAX),
        packet_bytes_max: s.optional_size("packet_max", &PACKET_MAX).map(packet_bytes),
        properties: properties(s, protocol),
        ack_timeout: s.time("ack_timeout", &ACK_TIMEOUT),
        retry_max: s.time("retry_max", &RETRY_MAX),
    }
}

fn properties(s: &mut Section<'_, '_, '_>, protocol: Protocol) -> PropertiesPolicy {
    let options = [
        ("none", PropertiesPolicy::None),
        ("id", PropertiesPolicy::Id),
        ("full", PropertiesPolicy::Full),
    ];
    let chosen = s.optional_choice("properties", &options);
    if protocol == Protocol::V311 && !matches!(chosen, None | Some(PropertiesPolicy::None)) {
        let what = "`properties` has no effect: MQTT 3.1.1 has none".to_owned();
        s.warn(
            "properties",
            what,
            "write protocol = \"5\" where the upstream speaks it",
        );
    }
    chosen.unwrap_or(PropertiesPolicy::Id)
}

/// A packet that takes longer than an acknowledgement may would break every connection.
fn warn_of_slow_packets(s: &mut Section<'_, '_, '_>, settings: &UplinkSettings) {
    let (Some(rate), Some(packet)) = (settings.rate_bytes_max, settings.packet_bytes_max) else {
        return;
    };
    let seconds = u64::from(packet) / rate.max(1);
    if seconds >= settings.ack_timeout.as_secs() {
        let what =
            format!("the largest packet takes {seconds}s at this rate, longer than `ack_timeout`");
        let hint = "make `packet_max` smaller or `ack_timeout` longer";
        s.warn("packet_max", what, hint);
    }
}
