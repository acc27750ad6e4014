//! The configuration: the file as written, then [`Config`], valid by construction. In comes a text
//! and what surrounds it; out goes a `Config`, or all faults at once, each with its place and a
//! hint. Only [`mod@file`] touches disk and environment; defaults stand beside the keys that they are
//! for, and `config/tidegate.toml` shows them all.

mod admin;
mod check;
mod class;
mod expand;
pub mod file;
mod filters;
mod finding;
mod gateway;
mod listener;
mod nearest;
mod pressure;
mod reader;
mod remote;
mod rule;
mod source;
pub(super) mod spool;
mod template;
mod thinning;
mod tree;
pub mod units;
mod uplink;

#[cfg(test)]
pub(crate) mod tests;

pub use admin::AdminSettings;
pub use finding::{Finding, Findings, Severity, Span};
pub use reader::Surroundings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use crate::traffic::accept::{ListenerSettings, SourceSettings};
use crate::traffic::classify::{RULES_MAX, RuleSettings, Rules};
use crate::traffic::message::ClassId;
use crate::traffic::queue::ClassSettings;
use crate::traffic::queue::pressure::PressureSettings;
use crate::traffic::send::UplinkSettings;
use crate::traffic::spool::SpoolSettings;
use class::Classes;
use reader::{Placed, Reading, known_names, quoted};
use rule::Rule;

/// Sources that a configuration may have: each is two connections.
const SOURCES_MAX: usize = 16;

/// Everything the gateway is told. It exists only where the check found no fault.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it comes from, for people: the path, or "embedded defaults".
    pub origin: String,
    /// `[gateway]`.
    pub gateway: GatewaySettings,
    /// `[listener]`; `None`: switched off, then there is a source.
    pub listener: Option<ListenerSettings>,
    /// `[[source]]`, in their order.
    pub sources: Vec<SourceSettings>,
    /// `[[uplink]]`.
    pub uplink: UplinkSettings,
    /// `[spool]`, with what the classes say of it, and with sizes that the disk has room for where
    /// the file does not say them.
    pub spool: SpoolSettings,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[[class]]`, the most urgent first; 1 to 16.
    pub classes: Vec<ClassSettings>,
    /// `[[rule]]`, in their order.
    pub rules: Vec<RuleSettings>,
    /// The same rules, compiled.
    pub compiled: Arc<Rules>,
}

/// `[gateway]`.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The gateway's id: in message ids, topics and client ids. Letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// The folder that keeps what must outlive the process.
    pub state_dir: PathBuf,
    /// Most memory for messages, in bytes.
    pub memory_bytes_max: u64,
    /// When that is under pressure.
    pub memory_pressure: PressureSettings,
    /// Most memory for what is remembered of topics, in bytes.
    pub topics_bytes_max: u64,
    /// The class of what no rule matches. Never `discard`.
    pub default_class: ClassId,
    /// How long a shutdown may drain.
    pub drain_max: Duration,
}

/// Reads a configuration. `origin` names the text for people. With the `Config` come the warnings.
///
/// # Errors
/// All faults, and the warnings with them.
pub fn read(
    text: &str,
    origin: &str,
    surroundings: &dyn Surroundings,
) -> Result<(Config, Findings), Findings> {
    let mut reading = Reading {
        surroundings,
        findings: Vec::new(),
        known: Vec::new(),
    };
    let config = read_text(&mut reading, text, origin);
    let mut findings = Findings {
        origin: origin.to_owned(),
        text: text.to_owned(),
        list: reading.findings,
    };
    findings.sort();
    match config {
        Some(config) if findings.count(Severity::Fault) == 0 => Ok((config, findings)),
        _ => Err(findings),
    }
}

fn read_text(reading: &mut Reading<'_>, text: &str, origin: &str) -> Option<Config> {
    match DeTable::parse(text) {
        Ok(root) => read_root(reading, root.get_ref(), origin),
        Err(error) => {
            let what = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            reading.fault(error.span(), what, "nothing else was checked");
            None
        }
    }
}

/// Reads every section, faults or not; `None` where the rules do not compile.
fn read_root(reading: &mut Reading<'_>, root: &DeTable<'_>, origin: &str) -> Option<Config> {
    tree::refuse_unknown(reading, root);
    let table = tree::one(reading, root, "gateway");
    let gateway::Gateway {
        settings: mut gateway,
        default_class,
    } = gateway::read(reading, table);
    let table = tree::one(reading, root, "listener");
    let listener_at = table.as_ref().and_then(|(_, at)| at.clone());
    let listener = listener::read(reading, table);
    let table = tree::many(reading, root, "uplink", 1).pop();
    let uplink_at = table.as_ref().and_then(|(_, at)| at.clone());
    let uplink = uplink::read(reading, table, &gateway.id);
    let tables = tree::many(reading, root, "source", SOURCES_MAX);
    let source_places: Vec<_> = tables.iter().map(|(_, at)| at.clone()).collect();
    let sources: Vec<_> = (1..)
        .zip(tables)
        .map(|(number, table)| source::read(reading, Some(table), number, &gateway.id))
        .collect();
    let table = tree::one(reading, root, "admin");
    let admin_at = table.as_ref().and_then(|(_, at)| at.clone());
    let admin = admin::read(reading, table);
    let doors = check::Doors {
        admin: &admin,
        admin_at,
        listener: listener.as_ref(),
        listener_at,
        sources: &sources,
        source_places: &source_places,
        uplink: &uplink,
        uplink_at,
    };
    check::doors(reading, &doors, gateway.memory_bytes_max);

    let tables = tree::many(reading, root, "class", class::CLASSES_MAX);
    let classes = class::read(
        reading,
        tables,
        gateway.memory_bytes_max,
        &uplink.topic,
        &gateway.id,
    );
    let tables = tree::many(reading, root, "rule", RULES_MAX);
    let rules: Vec<_> = (1..)
        .zip(tables)
        .map(|(number, table)| rule::read(reading, Some(table), number, &classes))
        .collect();
    let default_at = default_class.as_ref().map(|name| name.at.clone());
    gateway.default_class = find_default_class(reading, default_class, &classes);
    let table = tree::one(reading, root, "spool");
    let rate = uplink.rate_bytes_max;
    let spool = spool::read(reading, table, &gateway, &classes, rate);
    check::rules(
        reading,
        &classes,
        &rules,
        (gateway.default_class, default_at),
    );
    let compiled = compile(reading, &rules, &classes, &gateway)?;
    Some(Config {
        origin: origin.to_owned(),
        gateway,
        listener,
        sources,
        uplink,
        spool,
        admin,
        classes: classes.settings,
        rules: rules.into_iter().map(|rule| rule.settings).collect(),
        compiled: Arc::new(compiled),
    })
}

/// The default class when the file does not say: shedding is asked for by a rule.
const DEFAULT_CLASS: &str = "normal";

fn find_default_class(
    reading: &mut Reading<'_>,
    written: Option<Placed<String>>,
    classes: &Classes,
) -> ClassId {
    let at = written.as_ref().map(|name| name.at.clone());
    let name = written.map_or_else(|| DEFAULT_CLASS.to_owned(), |name| name.value);
    if let Some(place) = classes.find(&name) {
        return u8::try_from(place).map_or(ClassId::FIRST, ClassId);
    }
    if name == class::DISCARD {
        let what = "`default_class` cannot be \"discard\"".to_owned();
        let hint = "shedding is asked for by a rule, such as the last with topic = \"#\"";
        reading.fault(at, what, hint);
    } else if at.is_some() {
        let what = format!("`default_class`: no class is called {}", quoted(&name));
        reading.fault(at, what, known_names(&name, &classes.names()));
    } else {
        let what = format!("no class is called {name:?}, and [gateway] has no `default_class`");
        let hint = format!(
            "write default_class = one of: {}",
            classes.names().join(", ")
        );
        reading.fault(classes.places.first().cloned().flatten(), what, hint);
    }
    ClassId::FIRST
}

fn compile(
    reading: &mut Reading<'_>,
    rules: &[Rule],
    classes: &Classes,
    gateway: &GatewaySettings,
) -> Option<Rules> {
    let settings: Vec<_> = rules.iter().map(|rule| rule.settings.clone()).collect();
    let compiled = Rules::compile(
        &settings,
        &classes.settings,
        gateway.default_class,
        gateway.topics_bytes_max,
    );
    let faults = match compiled {
        Ok(rules) => return Some(rules),
        Err(faults) => faults,
    };
    for fault in faults {
        let rule = rules.get(fault.rule);
        let conditional = rule.is_some_and(|rule| rule.settings.when.is_some());
        let at = rule.and_then(|rule| match conditional {
            true => rule.when.clone(),
            false => rule.topic.clone().or_else(|| rule.header.clone()),
        });
        let part = if conditional { "when" } else { "topic" };
        reading.fault(at, format!("`{part}`: {}", fault.reason), "");
    }
    None
}
