//! What Prometheus reads: the status as OpenMetrics text. This room gives every number its name.
//! Nothing is counted here: the numbers are the path's own, written down when somebody asks. Labels
//! are classes, outcomes and connections, never a topic: their number is known from the configuration.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::VERSION;
use super::process::Process;
use crate::traffic::settle::Outcome;
use crate::traffic::status::{
    ClassStatus, Level, LinkStatus, MemoryStatus, SpoolStatus, Status, outcome_name,
};

/// The type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole page. Empty where the encoder fails, which it does for no number that is here.
#[must_use]
pub fn text(status: Arc<Status>, process: Process, ready: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        status,
        process,
        ready,
    }));
    let mut text = String::new();
    encode(&mut text, &registry).map_or_else(|_| String::new(), |()| text)
}

#[derive(Debug)]
struct Snapshot {
    status: Arc<Status>,
    process: Process,
    ready: bool,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.gateway(self)?;
        page.ledger(&self.status.classes)?;
        page.dead_letters(&self.status.classes)?;
        page.queues(&self.status.classes)?;
        page.memory(&self.status.memory)?;
        page.thinning(&self.status.classes)?;
        page.uplink(&self.status.links)?;
        page.spool(&self.status.spool)?;
        page.replay(&self.status)?;
        page.process(&self.process)
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;
const ONE: Labels<'static> = Vec::new();

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gateway(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let status = &snapshot.status;
        self.build()?;
        self.gauge(
            "tidegate_ready",
            "1 when /readyz says ready; it tells the reasons",
            None,
            [(ONE, u64::from(snapshot.ready))],
        )?;
        self.gauge(
            "tidegate_senders",
            "Sessions of devices and connections to brokers",
            None,
            [(ONE, status.senders)],
        )?;
        self.counter(
            "tidegate_unreadable_payloads",
            "Payloads that a condition could not read, so that it did not match",
            None,
            [(ONE, status.unreadable)],
        )?;
        self.counter(
            "tidegate_setbacks",
            "Messages that the upstream refused or that broke a connection, and that were set aside so that others pass",
            None,
            [(ONE, status.setbacks)],
        )?;
        self.counter(
            "tidegate_forgotten_topics",
            "Topics forgotten for want of memory; each is looked up in the rules when it comes again",
            None,
            [(ONE, status.forgotten_topics)],
        )
    }

    fn build(&mut self) -> fmt::Result {
        let help = "The version that runs";
        let mut family =
            self.0
                .encode_descriptor("tidegate_build", help, None, MetricType::Info)?;
        family.encode_info(&vec![("version", VERSION)])
    }

    fn ledger(&mut self, classes: &[ClassStatus]) -> fmt::Result {
        self.gauge(
            "tidegate_found_messages",
            "Messages on disk at a start that the ledger did not know, less those that were missing: 0 but after a kill",
            None,
            each(classes, |class| class.found),
        )?;
        self.counter(
            "tidegate_received",
            "Messages that came in",
            None,
            each(classes, |class| class.received),
        )?;
        self.counter(
            "tidegate_made_here",
            "Messages that the gateway made itself: summaries and reports",
            None,
            each(classes, |class| class.made_here),
        )?;
        let outcomes = Outcome::ALL.map(|outcome| (outcome, outcome_name(outcome)));
        let ended = classes.iter().flat_map(|class| {
            outcomes.iter().map(|(outcome, name)| {
                let labels = vec![("class", class.name.as_str()), ("outcome", &**name)];
                (labels, class.ended.count(*outcome))
            })
        });
        self.counter(
            "tidegate_messages",
            "Messages that ended, by what became of them; each ends once",
            None,
            ended,
        )?;
        self.gauge(
            "tidegate_memory_messages",
            "Messages in memory: waiting, held, in flight or set aside",
            None,
            each(classes, |class| class.in_memory),
        )?;
        self.gauge(
            "tidegate_disk_messages",
            "Messages on disk and not in memory: the backlog",
            None,
            each(classes, |class| class.on_disk),
        )?;
        self.gauge(
            "tidegate_unaccounted_messages",
            "What came in, less what ended and what is still here; anything but 0 is a fault",
            None,
            each(classes, ClassStatus::unaccounted),
        )
    }

    fn dead_letters(&mut self, classes: &[ClassStatus]) -> fmt::Result {
        self.gauge(
            "tidegate_dead_letters_disk_messages",
            "Messages that the upstream refused for good and that are kept on disk, to be tried again",
            None,
            each(classes, |class| class.dead_letters_on_disk),
        )?;
        self.counter(
            "tidegate_dead_letters_lost",
            "Dead letters that the disk did not take, or that gave way there",
            None,
            each(classes, |class| class.dead_letters_lost),
        )
    }

    fn queues(&mut self, classes: &[ClassStatus]) -> fmt::Result {
        self.gauge(
            "tidegate_memory",
            "What the messages in memory take",
            Some(Unit::Bytes),
            each(classes, |class| class.in_memory_bytes),
        )?;
        self.gauge(
            "tidegate_queue",
            "What the queue takes",
            Some(Unit::Bytes),
            each(classes, |class| class.queue_bytes),
        )?;
        self.gauge(
            "tidegate_queue_max",
            "The most that the queue may take",
            Some(Unit::Bytes),
            each(classes, |class| class.queue_bytes_max),
        )?;
        self.gauge(
            "tidegate_waiting_messages",
            "Messages that wait to be sent",
            None,
            each(classes, |class| class.waiting),
        )?;
        self.gauge(
            "tidegate_held_messages",
            "Messages without room: unacknowledged, their senders paused",
            None,
            each(classes, |class| class.held),
        )?;
        self.gauge(
            "tidegate_pressure_level",
            "0 calm, 1 coalescing, 2 shedding",
            None,
            each(classes, |class| class.level as u64),
        )?;
        let changes = classes.iter().flat_map(|class| {
            let entered = Level::ALL.iter().zip(class.pressure_entered);
            entered.map(|(level, count)| {
                (
                    vec![("class", class.name.as_str()), ("level", level.word())],
                    count,
                )
            })
        });
        self.counter(
            "tidegate_pressure_changes",
            "Changes of the level of pressure, by the level that came",
            None,
            changes,
        )?;
        self.counter(
            "tidegate_keys_forgotten",
            "Values whose keys could not be remembered, so that an older one on disk may follow them",
            None,
            each(classes, |class| class.keys_forgotten),
        )
    }

    fn memory(&mut self, memory: &MemoryStatus) -> fmt::Result {
        self.gauge(
            "tidegate_messages_memory",
            "What all admitted messages take, with the indices of their keys",
            Some(Unit::Bytes),
            [(ONE, memory.bytes)],
        )?;
        self.gauge(
            "tidegate_messages_memory_max",
            "The most that they may take",
            Some(Unit::Bytes),
            [(ONE, memory.bytes_max)],
        )?;
        self.gauge(
            "tidegate_memory_pressure_level",
            "0 calm, 1 short: `latest` classes coalesce, 2 full: the lowest class gives way",
            None,
            [(ONE, memory.level as u64)],
        )?;
        let entered = Level::ALL.iter().zip(memory.pressure_entered);
        self.counter(
            "tidegate_memory_pressure_changes",
            "Changes of that level, by the level that came",
            None,
            entered.map(|(level, count)| (vec![("level", level.word())], count)),
        )
    }

    fn thinning(&mut self, classes: &[ClassStatus]) -> fmt::Result {
        self.gauge(
            "tidegate_parked_messages",
            "Values that wait for the end of their period (`every`)",
            None,
            each(classes, |class| class.parked),
        )?;
        self.counter(
            "tidegate_periods_forgotten",
            "Periods of `every` and `thin` that ended early, for there were too many keys",
            None,
            each(classes, |class| class.periods_forgotten),
        )?;
        self.counter(
            "tidegate_summary_unreadable",
            "Superseded values that had no number where `summary` says",
            None,
            each(classes, |class| class.summary_unreadable),
        )?;
        self.counter(
            "tidegate_summary_forgotten",
            "Superseded values of which no summary tells, for want of room",
            None,
            each(classes, |class| class.summary_forgotten),
        )
    }

    fn uplink(&mut self, links: &[LinkStatus]) -> fmt::Result {
        let each = |value: fn(&LinkStatus) -> u64| {
            let row = move |link| (labels(link), value(link));
            links.iter().map(row)
        };
        self.gauge(
            "tidegate_uplink_up",
            "1 when the connection to the upstream stands",
            None,
            each(|link| u64::from(link.up)),
        )?;
        self.gauge(
            "tidegate_uplink_window",
            "What may be in flight",
            Some(Unit::Bytes),
            each(|link| link.window_bytes),
        )?;
        self.gauge(
            "tidegate_uplink_in_flight",
            "What of the window is taken",
            Some(Unit::Bytes),
            each(|link| link.in_flight_bytes),
        )?;
        self.gauge(
            "tidegate_uplink_in_flight_messages",
            "Messages sent and not yet acknowledged",
            None,
            each(|link| link.in_flight),
        )?;
        self.gauge(
            "tidegate_uplink_ack",
            "Smoothed time from sending a message to its PUBACK",
            Some(Unit::Seconds),
            links.iter().filter_map(|link| {
                let micros = link.ack_micros?;
                Some((labels(link), micros as f64 / 1e6))
            }),
        )?;
        self.counter(
            "tidegate_uplink_attempts",
            "Connections that the upstream accepted",
            None,
            each(|link| link.attempts),
        )
    }

    fn spool(&mut self, spool: &SpoolStatus) -> fmt::Result {
        self.gauge(
            "tidegate_spool_well",
            "1 when the disk takes what is written; /readyz says why it does not",
            None,
            [(ONE, u64::from(spool.failing.is_none()))],
        )?;
        self.gauge(
            "tidegate_spool_segments",
            "Segment files",
            None,
            [(ONE, spool.segments)],
        )?;
        self.gauge(
            "tidegate_spool_file",
            "What the segment files take",
            Some(Unit::Bytes),
            [(ONE, spool.file_bytes)],
        )?;
        self.gauge(
            "tidegate_spool_max",
            "The most that the segment files may take",
            Some(Unit::Bytes),
            [(ONE, spool.size_bytes_max)],
        )?;
        self.gauge(
            "tidegate_disk_free",
            "What is free on the file system of the spool",
            Some(Unit::Bytes),
            spool.free_bytes.map(|bytes| (ONE, bytes)),
        )?;
        self.gauge(
            "tidegate_spool_unwritten",
            "Handed to the writer and not yet safe",
            Some(Unit::Bytes),
            [(ONE, spool.unwritten_bytes)],
        )?;
        self.gauge(
            "tidegate_spool_aside_files",
            "Files that were set aside as damaged",
            None,
            [(ONE, spool.aside)],
        )?;
        self.counter(
            "tidegate_spool_commits",
            "Commits of segments",
            None,
            [(ONE, spool.commits)],
        )?;
        self.counter(
            "tidegate_spool_commit",
            "What they took together; by the number of commits, the mean",
            Some(Unit::Seconds),
            [(ONE, spool.commit_micros as f64 / 1e6)],
        )?;
        self.counter(
            "tidegate_spool_syncs",
            "Synced commits",
            None,
            [(ONE, spool.syncs)],
        )?;
        self.counter(
            "tidegate_spool_written",
            "Bytes written to the disk",
            Some(Unit::Bytes),
            [(ONE, spool.bytes_written)],
        )
    }

    fn replay(&mut self, status: &Status) -> fmt::Result {
        let spool = &status.spool;
        self.gauge(
            "tidegate_spool_scanned",
            "1 when everything that earlier starts left has been looked at",
            None,
            [(ONE, u64::from(spool.scanned))],
        )?;
        self.gauge(
            "tidegate_replay_active",
            "1 while backlog is being sent",
            None,
            [(ONE, u64::from(spool.replaying))],
        )?;
        self.gauge(
            "tidegate_replay_paused",
            "1 while the operator keeps the backlog of the class on disk",
            None,
            each(&status.classes, |class| u64::from(class.replay_paused)),
        )?;
        self.counter(
            "tidegate_replayed_messages",
            "Messages of the backlog that the upstream has",
            None,
            [(ONE, spool.replayed)],
        )
    }

    /// Under the names that every Prometheus client gives them.
    fn process(&mut self, process: &Process) -> fmt::Result {
        self.counter(
            "process_cpu",
            "Processor time, user and system",
            Some(Unit::Seconds),
            [(ONE, process.cpu_seconds)],
        )?;
        self.gauge(
            "process_resident_memory",
            "Memory in RAM",
            Some(Unit::Bytes),
            [(ONE, process.resident_bytes)],
        )?;
        self.gauge(
            "process_start_time",
            "Start of the process since 1970",
            Some(Unit::Seconds),
            [(ONE, process.start_seconds)],
        )
    }

    fn counter<'r, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'r>, V)>,
    ) -> fmt::Result {
        const NONE: Option<&Exemplar<Labels<'_>, u64>> = None;
        let kind = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_counter(&value, NONE)?;
            } else {
                family
                    .encode_family(&labels)?
                    .encode_counter(&value, NONE)?;
            }
        }
        Ok(())
    }

    fn gauge<'r, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'r>, V)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// One number of each class.
fn each<'a, V>(
    classes: &'a [ClassStatus],
    value: impl Fn(&'a ClassStatus) -> V,
) -> impl Iterator<Item = (Labels<'a>, V)> {
    let row = move |class: &'a ClassStatus| (vec![("class", class.name.as_str())], value(class));
    classes.iter().map(row)
}

fn labels(link: &LinkStatus) -> Labels<'_> {
    vec![("link", &*link.name)]
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
