//! The table `[gateway]`.

use std::path::PathBuf;
use std::time::Duration;

use super::GatewaySettings;
use super::pressure;
use super::reader::{Placed, Range, Reading, Section, quoted};
use super::tree::Table;
use crate::traffic::message::ClassId;

const MIB: u64 = 1 << 20;

const MEMORY_MAX: Range<u64> = Range {
    default: 64 * MIB,
    least: 4 * MIB,
    most: 64 << 30,
    why: "below 4MiB what waits between the doors and the queues alone would fill it",
};

const TOPICS_MAX: Range<u64> = Range {
    default: 16 * MIB,
    least: MIB,
    most: 16 << 30,
    why: "below 1MiB the rules would be walked anew for nearly every message",
};

const DRAIN_MAX: Range<Duration> = Range {
    default: Duration::from_secs(5),
    least: Duration::ZERO,
    most: Duration::from_secs(300),
    why: "a service manager kills what does not stop; systemd waits 90s",
};

/// Longest gateway id: it goes into every message's id and into client ids.
const ID_BYTES_MAX: usize = 64;

/// Where state is kept when the file does not say: beside the working directory.
const STATE_DIR: &str = "tidegate-state";

/// `[gateway]` with its default class still by name.
pub(super) struct Gateway {
    pub(super) settings: GatewaySettings,
    pub(super) default_class: Option<Placed<String>>,
}

pub(super) fn read(reading: &mut Reading<'_>, table: Option<Table<'_>>) -> Gateway {
    let mut section = Section::open(reading, "[gateway]", table);
    let gateway = Gateway {
        settings: GatewaySettings {
            id: id(&mut section),
            state_dir: section
                .text("state_dir")
                .map_or_else(|| STATE_DIR.into(), |text| PathBuf::from(text.value)),
            memory_bytes_max: section.size("memory_max", &MEMORY_MAX),
            memory_pressure: pressure::memory(&mut section),
            topics_bytes_max: section.size("topics_max", &TOPICS_MAX),
            drain_max: section.time("drain_max", &DRAIN_MAX),
            default_class: ClassId::FIRST,
        },
        default_class: section.text("default_class"),
    };
    section.done();
    gateway
}

fn id(section: &mut Section<'_, '_, '_>) -> String {
    let written = section.has("id");
    let id = match section.text("id") {
        Some(id) => id.value,
        None if written => return String::new(),
        None => match section.surroundings().variable("HOSTNAME") {
            Some(host) => host,
            None => {
                let what = "the gateway has no id: this machine tells no host name";
                section.fault("id", what.to_owned(), "write id = \"...\" in [gateway]");
                return String::new();
            }
        },
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(allowed) {
        let what = format!("`id` cannot be {}", quoted(&id));
        let hint = "1 to 64 letters, digits, '.', '_' and '-': it goes into topics and client ids";
        section.fault("id", what, hint);
    }
    id
}
