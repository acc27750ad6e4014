//! The tables `[[source]]`.

use super::listener::{HOLD_MAX, PACKET_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX, packet_bytes};
use super::reader::{Reading, Section, quoted};
use super::remote;
use super::tree::Table;
use crate::traffic::accept::{RetainedPolicy, SourceSettings};
use crate::traffic::classify::Filter;

/// The source that stands at this place, counted from 1.
pub(super) fn read(
    reading: &mut Reading<'_>,
    table: Option<Table<'_>>,
    number: usize,
    gateway_id: &str,
) -> SourceSettings {
    let mut section = Section::open(reading, "[[source]]", table);
    let settings = settings(&mut section, number, gateway_id);
    section.done();
    settings
}

fn settings(s: &mut Section<'_, '_, '_>, number: usize, gateway_id: &str) -> SourceSettings {
    let protocol = remote::protocol(s);
    let remote = remote::read(s, protocol, None);
    let retained = [
        ("skip", RetainedPolicy::Skip),
        ("take", RetainedPolicy::Take),
    ];
    SourceSettings {
        name: format!("source {number} ({})", remote.host),
        remote,
        topics: topics(s),
        protocol,
        client_id: remote::client_id(s, default_client_id(gateway_id, number)),
        retained: s.choice("retained", RetainedPolicy::Skip, &retained),
        packet_bytes_max: packet_bytes(s.size("packet_max", &PACKET_MAX)),
        topic_bytes_max: s.integer("topic_bytes_max", &TOPIC_BYTES_MAX),
        topic_levels_max: s.integer("topic_levels_max", &TOPIC_LEVELS_MAX),
        hold_max: s.time("hold_max", &HOLD_MAX),
    }
}

/// Unlike the uplink's, so that both may connect to one broker.
fn default_client_id(gateway_id: &str, number: usize) -> String {
    match number {
        1 => format!("{gateway_id}-source"),
        n => format!("{gateway_id}-source-{n}"),
    }
}

fn topics(s: &mut Section<'_, '_, '_>) -> Vec<String> {
    let written = s.has("topics");
    let Some(topics) = s.texts("topics") else {
        if !written {
            let what = "`topics` is missing: what shall the gateway subscribe to?".to_owned();
            s.fault("topics", what, "write topics = [\"plant/#\"]");
        }
        return Vec::new();
    };
    for topic in &topics {
        if let Err(fault) = Filter::parse(&topic.value) {
            let what = format!("`topics`: {} is no topic filter", quoted(&topic.value));
            s.fault_at(&topic.at, what, fault.to_string());
        }
    }
    topics.into_iter().map(|topic| topic.value).collect()
}
