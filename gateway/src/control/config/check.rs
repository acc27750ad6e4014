//! What only shows when the sections are held against each other: contradictions (faults) and what
//! will hurt later (warnings).

use std::net::{IpAddr, SocketAddr};

use super::admin::AdminSettings;
use super::class::Classes;
use super::filters::{covers, meet};
use super::finding::Span;
use super::reader::Reading;
use super::rule::Rule;
use crate::traffic::accept::{ListenerSettings, SourceSettings};
use crate::traffic::message::ClassId;
use crate::traffic::queue::Delivery;
use crate::traffic::send::{RemoteSettings, UplinkSettings};

/// The topics of Sparkplug B.
const SPARKPLUG: &str = "spBv1.0/#";

/// The doors and where they stand in the file.
pub(super) struct Doors<'a> {
    pub(super) admin: &'a AdminSettings,
    pub(super) admin_at: Option<Span>,
    pub(super) listener: Option<&'a ListenerSettings>,
    pub(super) listener_at: Option<Span>,
    pub(super) sources: &'a [SourceSettings],
    pub(super) source_places: &'a [Option<Span>],
    pub(super) uplink: &'a UplinkSettings,
    pub(super) uplink_at: Option<Span>,
}

/// Faults and warnings about the doors.
pub(super) fn doors(reading: &mut Reading<'_>, doors: &Doors<'_>, memory_bytes_max: u64) {
    if doors.listener.is_none() && doors.sources.is_empty() {
        let what = "nothing can come in: the listener is off and there is no [[source]]";
        let hint = "take `enabled = false` out, or add a [[source]]";
        reading.fault(doors.listener_at.clone(), what.to_owned(), hint);
    }
    if let Some(listener) = doors.listener {
        if points_at(&doors.uplink.remote, listener) {
            let what = "the uplink points at the gateway's own listener";
            let hint = "what goes out would come in again, for ever; write the url of the upstream";
            reading.fault(doors.uplink_at.clone(), what.to_owned(), hint);
        }
        if u64::from(listener.packet_bytes_max) > memory_bytes_max / 4 {
            let what = "`memory_max` is small for the listener's `packet_max`";
            let hint = "four of the largest messages fill it; make one smaller or the other larger";
            reading.warn(doors.listener_at.clone(), what.to_owned(), hint);
        }
        if doors
            .admin
            .bind
            .is_some_and(|bind| collide(bind, listener.bind))
        {
            let what = "the admin interface and the listener have one address and port";
            let hint = "write another port in `bind` of one of them";
            let at = doors.admin_at.clone().or_else(|| doors.listener_at.clone());
            reading.fault(at, what.to_owned(), hint);
        }
    }
    sources(reading, doors);
}

fn sources(reading: &mut Reading<'_>, doors: &Doors<'_>) {
    let mut seen = vec![(&doors.uplink.remote, doors.uplink.client_id.as_str())];
    for (source, place) in doors.sources.iter().zip(doors.source_places) {
        if same_broker(&source.remote, &doors.uplink.remote) {
            let what = "this source is the uplink's broker: what goes out may come in again";
            let hint = "make sure that `topic` in [[uplink]] leads out of the source's `topics`";
            reading.warn(place.clone(), what.to_owned(), hint);
        }
        let id = source.client_id.as_str();
        if seen
            .iter()
            .any(|(remote, other)| *other == id && same_broker(remote, &source.remote))
        {
            let what = "two connections to one broker with one client id";
            let hint = "they would take each other over, for ever; write `client_id`";
            reading.fault(place.clone(), what.to_owned(), hint);
        }
        seen.push((&source.remote, id));
    }
}

/// Whether the second of two that listen would find its port in use. Port 0 is any that is free.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || everywhere)
}

fn same_broker(a: &RemoteSettings, b: &RemoteSettings) -> bool {
    (&a.host, a.port) == (&b.host, b.port)
}

fn points_at(remote: &RemoteSettings, listener: &ListenerSettings) -> bool {
    let listens_at = |ip: IpAddr| {
        ip == listener.bind.ip() || (listener.bind.ip().is_unspecified() && ip.is_loopback())
    };
    remote.port == listener.bind.port()
        && match remote.host.parse::<IpAddr>() {
            Ok(ip) => listens_at(ip),
            Err(_) => {
                let ip = listener.bind.ip();
                remote.host == "localhost" && (ip.is_loopback() || ip.is_unspecified())
            }
        }
}

/// Warnings about classes, and about rules that will not do what they seem to.
pub(super) fn rules(
    reading: &mut Reading<'_>,
    classes: &Classes,
    rules: &[Rule],
    default_class: (ClassId, Option<Span>),
) {
    unguaranteed(reading, classes);
    first_class_unused(reading, classes, rules, default_class.0);
    unreachable(reading, rules);
    sparkplug(reading, classes, rules, default_class);
}

fn unguaranteed(reading: &mut Reading<'_>, classes: &Classes) {
    let guaranteed = |delivery| delivery == Delivery::Guaranteed;
    if !classes.settings.iter().any(|c| guaranteed(c.delivery)) {
        let what = "no class is `guaranteed`: any message may be lost";
        let hint = "write delivery = \"guaranteed\" in the class that must not lose any";
        let place = classes.places.first().cloned().flatten();
        reading.warn(place, what.to_owned(), hint);
    }
}

fn first_class_unused(
    reading: &mut Reading<'_>,
    classes: &Classes,
    rules: &[Rule],
    default_class: ClassId,
) {
    let used =
        default_class == ClassId::FIRST || rules.iter().any(|r| r.settings.class == ClassId::FIRST);
    if let (false, Some(first)) = (used, classes.settings.first()) {
        let what = format!("no rule leads to the first class `{}`", first.name);
        let hint = format!(
            "nothing is urgent so far; write a [[rule]] with a topic and class = \"{}\"",
            first.name
        );
        reading.warn(classes.places.first().cloned().flatten(), what, hint);
    }
}

/// Rules behind others that take all their topics. Only earlier rules without a condition count.
fn unreachable(reading: &mut Reading<'_>, rules: &[Rule]) {
    /// Beyond so many filters, comparing each with all before it would take seconds.
    const COMPARED_MAX: usize = 4_000;
    let mut earlier: Vec<(&str, &str)> = Vec::new();
    let mut compared = 0;
    for rule in rules {
        let filters = &rule.settings.filters;
        compared += filters.len();
        if compared > COMPARED_MAX {
            return;
        }
        let taker = |filter: &String| earlier.iter().find(|(wide, _)| covers(wide, filter));
        let takers: Option<Vec<_>> = filters.iter().map(taker).collect();
        if let Some((_, name)) = takers.as_ref().and_then(|takers| takers.first()) {
            let what = format!("`{}` never decides", rule.settings.name);
            let hint = format!(
                "`{name}` stands before it and takes its topics; put the narrower rule first"
            );
            reading.warn(rule.topic.clone(), what, hint);
        }
        if rule.settings.when.is_none() {
            earlier.extend(filters.iter().map(|f| (f.as_str(), &*rule.settings.name)));
        }
    }
}

/// Sparkplug sends changes only: to keep the newest alone destroys what the others said.
fn sparkplug(
    reading: &mut Reading<'_>,
    classes: &Classes,
    rules: &[Rule],
    (default_class, default_at): (ClassId, Option<Span>),
) {
    let is_latest = |class: ClassId| {
        let class = classes.settings.get(class.index());
        class.is_some_and(|class| class.delivery == Delivery::Latest)
    };
    let hint = "its messages are changes, and the newest alone is not the state; give \"spBv1.0/#\" a rule of its own, before this, with a `buffered` or `guaranteed` class";
    for rule in rules {
        let filters = &rule.settings.filters;
        if is_latest(rule.settings.class) && filters.iter().any(|f| meet(f, SPARKPLUG)) {
            let what = "a `latest` class takes Sparkplug topics (spBv1.0/#)".to_owned();
            reading.warn(rule.class.clone(), what, hint);
        }
        if rule.settings.when.is_none() && filters.iter().any(|f| covers(f, SPARKPLUG)) {
            return;
        }
    }
    if is_latest(default_class) {
        let what = "the default class is `latest` and takes Sparkplug topics (spBv1.0/#)";
        reading.warn(default_at, what.to_owned(), hint);
    }
}
