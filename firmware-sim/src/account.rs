//! The account of a run: for each kind of message what the devices did and what the far end saw. In
//! come ledgers and arrivals, out comes a value that is printed as a table or as JSON.

pub(crate) mod table;

use hdrhistogram::Histogram;
use serde::Serialize;
use tidegate_device::{ByKind, Kind};

use crate::ledger::{DeviceLedger, SentStream, kind_of};
use crate::watch::arrivals::Arrivals;

/// The account.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// What was run.
    pub run: Run,
    /// Alarms: guaranteed, QoS 1.
    pub alarm: KindAccount,
    /// The devices' reports on themselves, QoS 1.
    pub report: KindAccount,
    /// Readings: the latest of each channel counts.
    pub reading: KindAccount,
    /// Acknowledged alarms that did not arrive. `None`: nobody watched the far end.
    pub alarms_lost: Option<u64>,
    /// Alarms by the phase in which they were due; empty when nobody watched.
    pub phases: Vec<PhaseAccount>,
    /// Messages at the far end that are not of this run.
    pub strangers: Option<u64>,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// How many devices.
    pub devices: u32,
    /// "3.1.1" or "5".
    pub protocol: &'static str,
    /// Of all chance.
    pub seed: u64,
    /// Topics that the readings of each channel went round.
    pub topics_per_channel: u32,
    /// How long the phases took, without the wait for what was on its way.
    pub seconds: f64,
    /// It was stopped before the scenario's end.
    pub stopped: bool,
    /// Messages a second that were handed to connections.
    pub sent_per_second: f64,
    /// Connections that a server refused.
    pub connections_refused: u64,
    /// Connections that ended or never came, without the scenario's doing.
    pub connections_broken: u64,
    /// Memory that the devices took at most, each.
    pub memory_per_device_bytes: u64,
}

/// One kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KindAccount {
    /// Sequence numbers given out.
    pub made: u64,
    /// Alarms that found the device's queue full.
    pub dropped: u64,
    /// Replaced by a newer one in the device.
    pub superseded: u64,
    /// In a device's memory when its power went, or at the end.
    pub left: u64,
    /// Handed to a connection.
    pub sent: u64,
    /// Handed to a connection once more.
    pub resent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Refused by the server.
    pub refused: u64,
    /// Sent with a wish for an answer that never came: the sender knows that it knows nothing.
    pub unanswered: u64,
    /// What the far end saw; `None` when nobody watched.
    pub far_end: Option<FarEnd>,
}

/// What the far end saw of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct FarEnd {
    /// Different messages.
    pub arrived: u64,
    /// Acknowledged, or sent with QoS 0, and not arrived. Of a class that may be superseded, this is
    /// what was.
    pub missing: u64,
    /// Arrived more than once.
    pub duplicate: u64,
    /// Arrived for the first time after a later one of the same device and channel.
    pub out_of_order: u64,
    /// Topics whose last message did not arrive.
    pub final_values_missing: u64,
    /// From due to the first arrival.
    pub latency: Latency,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half are below.
    pub p50_us: u64,
    /// 99 of 100 are below.
    pub p99_us: u64,
    /// 999 of 1,000 are below.
    pub p999_us: u64,
    /// All are.
    pub max_us: u64,
}

/// The alarms of one phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseAccount {
    /// The phase's kind.
    pub kind: &'static str,
    /// Alarms that were due in it and arrived.
    pub alarms_arrived: u64,
    /// From due to arrival.
    pub alarm_latency: Latency,
}

impl Account {
    /// Adds everything up. `phases` names the phases in their order.
    #[must_use]
    pub fn new(
        run: Run,
        ledgers: &[DeviceLedger],
        arrivals: Option<&Arrivals>,
        phases: &[&'static str],
    ) -> Self {
        let mut kinds = ByKind::default();
        for ledger in ledgers {
            add_device(&mut kinds, ledger);
        }
        if let Some(arrivals) = arrivals {
            compare(&mut kinds, ledgers, arrivals, run.topics_per_channel);
        }
        let alarms_lost = kinds.alarm.far_end.as_ref().map(|far_end| far_end.missing);
        let ByKind {
            alarm,
            report,
            reading,
        } = kinds;
        Self {
            run,
            alarm,
            report,
            reading,
            alarms_lost,
            phases: arrivals.map_or_else(Vec::new, |arrivals| by_phase(arrivals, phases)),
            strangers: arrivals.map(|arrivals| arrivals.strangers),
        }
    }

    /// A figure of all kinds together.
    #[must_use]
    pub fn total(&self, figure: impl Fn(&KindAccount) -> u64) -> u64 {
        Kind::ALL.map(|kind| figure(self.of(kind))).iter().sum()
    }

    /// One kind's part.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> &KindAccount {
        match kind {
            Kind::Alarm => &self.alarm,
            Kind::Report => &self.report,
            Kind::Reading => &self.reading,
        }
    }
}

fn add_device(kinds: &mut ByKind<KindAccount>, ledger: &DeviceLedger) {
    for kind in Kind::ALL {
        let (account, counts) = (kinds.of_mut(kind), ledger.counts.of(kind));
        account.made += counts.made;
        account.dropped += counts.dropped;
        account.superseded += counts.superseded;
        account.sent += counts.sent;
        account.resent += counts.resent;
        account.acknowledged += counts.acknowledged;
        account.refused += counts.refused;
        account.left += ledger.left.of(kind);
        account.unanswered += ledger.unanswered.of(kind);
    }
}

fn compare(
    kinds: &mut ByKind<KindAccount>,
    ledgers: &[DeviceLedger],
    arrivals: &Arrivals,
    topics_per_channel: u32,
) {
    for kind in Kind::ALL {
        let seen = arrivals.of(kind);
        kinds.of_mut(kind).far_end = Some(FarEnd {
            arrived: seen.arrived,
            missing: 0,
            duplicate: seen.duplicates,
            out_of_order: seen.out_of_order,
            final_values_missing: 0,
            latency: Latency::of(&seen.latency),
        });
    }
    for (device, ledger) in ledgers.iter().enumerate() {
        for start in &ledger.starts {
            for (index, stream) in start.streams.iter().enumerate() {
                let missing = missing(stream, device, start.boot, index, arrivals);
                if let Some(far_end) = &mut kinds.of_mut(kind_of(index)).far_end {
                    far_end.missing += missing;
                }
            }
        }
        count_final_values(kinds, (device, ledger), arrivals, topics_per_channel);
    }
}

/// What the sender believes delivered: what was acknowledged, where it asked for that.
fn missing(
    stream: &SentStream,
    device: usize,
    boot: u32,
    index: usize,
    arrivals: &Arrivals,
) -> u64 {
    let asked = kind_of(index) != Kind::Reading || stream.acknowledged.count() > 0;
    let believed = if asked {
        &stream.acknowledged
    } else {
        &stream.sent
    };
    match arrivals.stream(device, boot, index) {
        Some(arrived) => believed.count_missing_in(arrived),
        None => believed.count(),
    }
}

fn count_final_values(
    kinds: &mut ByKind<KindAccount>,
    (device, ledger): (usize, &DeviceLedger),
    arrivals: &Arrivals,
    topics_per_channel: u32,
) {
    let streams = ledger.starts.iter().map(|start| start.streams.len());
    for index in 0..streams.max().unwrap_or(0) {
        let last = ledger.starts.iter().rev().find_map(|start| {
            let stream = start.streams.get(index)?;
            (stream.sent.highest() > 0).then_some((start.boot, &stream.sent))
        });
        let Some((boot, sent)) = last else {
            continue;
        };
        let kind = kind_of(index);
        let topics = match kind {
            Kind::Reading => topics_per_channel,
            _ => 1,
        };
        let arrived = arrivals.stream(device, boot, index);
        let missing = sent
            .last_of_each(topics)
            .filter(|&seq| !arrived.is_some_and(|arrived| arrived.contains(seq)))
            .count();
        if let Some(far_end) = &mut kinds.of_mut(kind).far_end {
            far_end.final_values_missing += missing as u64;
        }
    }
}

fn by_phase(arrivals: &Arrivals, phases: &[&'static str]) -> Vec<PhaseAccount> {
    let histograms = phases.iter().zip(&arrivals.phases);
    histograms
        .map(|(kind, histogram)| PhaseAccount {
            kind,
            alarms_arrived: histogram.len(),
            alarm_latency: Latency::of(histogram),
        })
        .collect()
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}
