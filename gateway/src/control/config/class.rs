//! The tables `[[class]]`; without any, three stand ready.

use std::sync::Arc;
use std::time::Duration;

use super::finding::Span;
use super::pressure;
use super::reader::{Range, Reading, Section, quoted};
use super::spool::SPOOL_MAX;
use super::template;
use super::thinning;
use super::tree::Table;
use crate::traffic::queue::{ClassSettings, Delivery, WhenFull};
use crate::traffic::spool::Order;

/// Classes that a configuration may have: more would only differ in name.
pub(super) const CLASSES_MAX: usize = 16;

/// The name of the class that swallows.
pub(super) const DISCARD: &str = "discard";

const WEIGHT: Range<u32> = Range {
    default: 1,
    least: 1,
    most: 1000,
    why: "a share against the other classes: 0 would starve it, more than 1000 the others",
};

/// The share of their rate at which devices are read under pressure.
const THROTTLE: Range<u32> = Range {
    default: 1000,
    least: 10,
    most: 1000,
    why: "a share of the rate at which devices send: 1 slows nobody, and 0 would stop them",
};

/// How long a class or a rule finds a message worth sending.
pub(super) const TTL: Range<Duration> = Range {
    default: Duration::from_secs(7 * 86_400),
    least: Duration::from_secs(1),
    most: Duration::from_secs(3650 * 86_400),
    why: "MQTT counts it in seconds; leave it out for no end",
};

/// The classes, in their order, and the place of each.
pub(super) struct Classes {
    pub(super) settings: Vec<ClassSettings>,
    pub(super) places: Vec<Option<Span>>,
    /// Where each says its share of the disk.
    pub(super) spool_places: Vec<Option<Span>>,
}

impl Classes {
    /// The place of the class with this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.settings.iter().position(|class| &*class.name == name)
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<&str> {
        self.settings.iter().map(|class| &*class.name).collect()
    }
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    tables: Vec<Table<'_>>,
    memory_bytes_max: u64,
    uplink_topic: &str,
    gateway: &str,
) -> Classes {
    if tables.is_empty() {
        return standard(memory_bytes_max);
    }
    let mut classes = Classes {
        settings: Vec::new(),
        places: Vec::new(),
        spool_places: Vec::new(),
    };
    for table in tables {
        let mut section = Section::open(reading, "[[class]]", Some(table));
        let first = classes.settings.is_empty();
        let mut class = settings(&mut section, memory_bytes_max);
        never_sheds(&mut section, &class);
        thinning::read(&mut section, &mut class, gateway);
        warn_of_idle_keys(&mut section, &class, first, uplink_topic);
        if classes.find(&class.name).is_some() {
            let what = format!("a second class {}", quoted(&class.name));
            section.fault("name", what, "each class has a name of its own");
        }
        classes.places.push(section.at("name"));
        classes.spool_places.push(section.at("spool_max"));
        classes.settings.push(class);
        section.done();
    }
    classes
}

/// The classes of a configuration that has none.
fn standard(memory_bytes_max: u64) -> Classes {
    let class = |name, delivery| ClassSettings::new(name, delivery, memory_bytes_max);
    Classes {
        settings: vec![
            class("critical", Delivery::Guaranteed),
            ClassSettings {
                weight: 3,
                ttl: Some(TTL.default),
                ..class("normal", Delivery::Buffered)
            },
            class("low", Delivery::Latest),
        ],
        places: vec![None; 3],
        spool_places: vec![None; 3],
    }
}

fn settings(s: &mut Section<'_, '_, '_>, memory_bytes_max: u64) -> ClassSettings {
    let queue_bytes_max = s.size("queue_max", &within(memory_bytes_max, "`memory_max`"));
    let qos0 = [("raise", false), ("keep", true)];
    let order = [("strict", Order::Strict), ("live-first", Order::LiveFirst)];
    let full = [
        ("drop-oldest", WhenFull::DropOldest),
        ("drop-newest", WhenFull::DropNewest),
    ];
    let name = name(s);
    let unsaid = ClassSettings::new(&name, delivery(s), queue_bytes_max);
    let client = Range {
        default: unsaid.client_bytes_max,
        ..within(queue_bytes_max, "the class's `queue_max`")
    };
    ClassSettings {
        weight: s.integer("weight", &WEIGHT),
        ttl: s.optional_time("ttl", &TTL),
        client_bytes_max: s.size("client_max", &client),
        when_full: s.choice("when_full", unsaid.when_full, &full),
        pressure: pressure::class(s),
        spool_bytes_max: s.optional_size("spool_max", &SPOOL_MAX),
        order: s.choice("order", unsaid.order, &order),
        replay_topic: template::read(s, "replay_topic"),
        keep_qos0: s.choice("qos0", unsaid.keep_qos0, &qos0),
        throttle_permille: s.share("throttle", &THROTTLE),
        ..unsaid
    }
}

/// What is guaranteed is never shed, whatever is full.
fn never_sheds(s: &mut Section<'_, '_, '_>, class: &ClassSettings) {
    if class.delivery == Delivery::Guaranteed && s.has("when_full") {
        let what = "`when_full` in a guaranteed class: nothing of it is ever dropped".to_owned();
        let hint = "take it out: when there is no room, messages are held and their senders paused";
        s.fault("when_full", what, hint);
    }
}

fn warn_of_idle_keys(
    s: &mut Section<'_, '_, '_>,
    class: &ClassSettings,
    first: bool,
    uplink_topic: &str,
) {
    if first && s.has("weight") {
        let what = "`weight` has no effect: the first class goes before every other".to_owned();
        s.warn("weight", what, "weights are for the classes below it");
    }
    if class.delivery == Delivery::Latest && class.thin.is_none() && s.has("spool_max") {
        let what = "`spool_max` of a `latest` class matters at a clean stop only".to_owned();
        let hint = "its newest values wait in memory, and stand on disk from a stop to the next start; take it out, or write `thin`";
        s.warn("spool_max", what, hint);
    }
    if class.replay_topic.as_deref() == Some(uplink_topic) {
        let what = "`replay_topic` has no effect: it is the uplink's `topic`".to_owned();
        let hint = "take it out, or write another, such as \"replay/{topic}\"";
        s.warn("replay_topic", what, hint);
    }
}

/// The range of a share of `whole`.
fn within(whole: u64, name: &'static str) -> Range<u64> {
    Range {
        default: whole,
        least: 64 << 10,
        most: whole,
        why: match name {
            "`memory_max`" => {
                "at most `memory_max`; below 64KiB a burst of a few messages fills it"
            }
            _ => "at most the class's `queue_max`; below 64KiB a few messages fill it",
        },
    }
}

fn name(s: &mut Section<'_, '_, '_>) -> Arc<str> {
    let written = s.has("name");
    let Some(text) = s.text("name") else {
        if !written {
            let what = "a class without `name`".to_owned();
            s.fault("name", what, "rules call it by its name");
        }
        return Arc::from("");
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if text.value.len() > 32 || !text.value.bytes().all(allowed) {
        let what = format!("a class cannot be called {}", quoted(&text.value));
        s.fault("name", what, "1 to 32 letters, digits, '_' and '-'");
    } else if text.value == DISCARD {
        let what = "the class \"discard\" is built in".to_owned();
        s.fault(
            "name",
            what,
            "rules may use it as it is; call this class otherwise",
        );
    }
    Arc::from(text.value)
}

fn delivery(s: &mut Section<'_, '_, '_>) -> Delivery {
    let options = [
        ("guaranteed", Delivery::Guaranteed),
        ("buffered", Delivery::Buffered),
        ("latest", Delivery::Latest),
    ];
    let written = s.has("delivery");
    let chosen = s.optional_choice("delivery", &options);
    if !written {
        let what = "a class without `delivery`: what may it lose?".to_owned();
        let hint = "write \"guaranteed\" (nothing), \"buffered\" (the oldest) or \"latest\" (all but the newest value of each key)";
        s.fault("delivery", what, hint);
    }
    chosen.unwrap_or(Delivery::Buffered)
}
