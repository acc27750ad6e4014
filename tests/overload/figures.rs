//! What a run came to. Quantiles are of what was due: what did not arrive is later than all that did.
//! Pure: counts and histograms come in, figures go out.

use std::time::Duration;

use firmware_sim::Kind;
use firmware_sim::account::Account;
use firmware_sim::run::Played;
use firmware_sim::watch::FarEnd;
use hdrhistogram::Histogram;

use crate::gauges::Look;

/// The first part of the load, in which pressure may change once: `pressure` needs two seconds to
/// be sure, and its shortest stay is five.
const BEFORE_STEADY: Duration = Duration::from_secs(8);

/// All figures of one run.
pub(crate) struct Figures {
    pub(crate) alarms: Latency,
    pub(crate) readings: Latency,
    /// Of so many topics.
    pub(crate) topics: u64,
    /// `None` where nobody promised that last values arrive.
    pub(crate) final_values_missing: Option<u64>,
    /// Replaced by a newer one in the device, which waited for the system.
    pub(crate) superseded_in_devices: u64,
    /// From due to acknowledged, of readings.
    pub(crate) answered: Histogram<u64>,
    /// Readings whose acknowledgement never came.
    pub(crate) unanswered: u64,
    /// The fleet's own lateness.
    pub(crate) late: Histogram<u64>,
    pub(crate) sent_per_second: f64,
    pub(crate) peak_mib: f64,
    pub(crate) memory_growth_mib: Option<f64>,
    /// Of a message that was sent, large ones and floods included.
    pub(crate) cpu_us: f64,
    pub(crate) pressure_changes: Option<u64>,
    pub(crate) pressure_changes_steady: Option<u64>,
    /// Rounds of on and off.
    pub(crate) rounds: f64,
    pub(crate) unaccounted: Option<f64>,
    /// Connections to the sink beyond the first ones.
    pub(crate) reconnects: u64,
    pub(crate) link: Option<LinkUse>,
    pub(crate) large: Option<Large>,
    pub(crate) backlog: Option<Drained>,
    pub(crate) flood_sent: Option<u64>,
}

/// One kind of message.
pub(crate) struct Latency {
    /// Made by the devices, whether they could send them or not.
    pub(crate) due: u64,
    /// From due to arrival, of those that arrived, in microseconds.
    pub(crate) arrived: Histogram<u64>,
    /// Acknowledged, and never arrived.
    pub(crate) acknowledged_lost: u64,
}

/// What went over the slow link.
pub(crate) struct LinkUse {
    /// Of what it carries; retransmissions taken off, as if each were of full size.
    pub(crate) useful_percent: f64,
    pub(crate) retransmissions: u64,
}

/// The readings of 1 MiB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Large {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

impl Large {
    /// What a camera's account says.
    pub(crate) fn of(account: &Account) -> Self {
        let readings = &account.reading;
        Self {
            sent: readings.sent,
            arrived: readings.far_end.as_ref().map_or(0, |far| far.arrived),
        }
    }
}

/// What became of the backlog.
#[derive(Clone, Copy)]
pub(crate) struct Drained {
    pub(crate) spooled: u64,
    pub(crate) arrived: u64,
    /// Since the link was back.
    pub(crate) took: Duration,
}

impl Latency {
    /// Of this kind.
    pub(crate) fn of(kind: Kind, played: &Played, far_end: &FarEnd) -> Self {
        let account = played.account.of(kind);
        let far = account.far_end.as_ref();
        Self {
            due: account.made,
            arrived: far_end.with(|arrivals| {
                let arrivals = arrivals.expect("a far end that was played to has them");
                arrivals.of(kind).latency.clone()
            }),
            acknowledged_lost: far.map_or(0, |far| far.missing),
        }
    }

    /// Due and not arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.due.saturating_sub(self.arrived.len())
    }

    /// So many of all that were due arrived within this, in ms; infinity when they did not.
    pub(crate) fn of_due_ms(&self, quantile: f64) -> Option<f64> {
        let rank = (self.due as f64 * quantile).ceil();
        let arrived = self.arrived.len() as f64;
        if self.due == 0 {
            None
        } else if rank > arrived {
            Some(f64::INFINITY)
        } else {
            Some(ms(self.arrived.value_at_quantile(rank / arrived)))
        }
    }

    /// So many of those that arrived did within this, in ms.
    pub(crate) fn of_arrived_ms(&self, quantile: f64) -> Option<f64> {
        (!self.arrived.is_empty()).then(|| ms(self.arrived.value_at_quantile(quantile)))
    }
}

impl Figures {
    /// The longest time that a device cared for a reading until it was acknowledged; infinity when one
    /// never was.
    pub(crate) fn held_back_ms(&self) -> f64 {
        if self.unanswered > 0 {
            f64::INFINITY
        } else {
            ms(self.answered.max())
        }
    }
}

/// Changes of pressure in all, and from the time on when it may have settled until the load's end.
pub(crate) fn pressure_changes(looks: &[Look], load: Duration) -> (Option<u64>, Option<u64>) {
    let changes = |look: &Look| look.page.map(|page| page.pressure_changes);
    let steady = BEFORE_STEADY.min(load / 2);
    let within: Vec<_> = looks
        .iter()
        .filter(|look| look.at >= steady && look.at <= load)
        .filter_map(changes)
        .collect();
    let difference = |first: Option<u64>, last: Option<u64>| Some(last?.saturating_sub(first?));
    (
        difference(
            looks.first().and_then(changes),
            looks.last().and_then(changes),
        ),
        difference(within.first().copied(), within.last().copied()),
    )
}

/// Bytes a second over the link in the steady part of the load.
pub(crate) fn link_bytes_per_second(looks: &[Look], load: Duration) -> Option<f64> {
    let mut within = looks
        .iter()
        .filter(|look| look.at >= load / 4 && look.at <= load)
        .filter_map(|look| Some((look.at, look.link_bytes?)));
    let (first_at, first) = within.next()?;
    let (last_at, last) = within.next_back()?;
    Some((last - first) as f64 / (last_at - first_at).as_secs_f64())
}

/// By how much the last quarter's median is above the second one's, in MiB; of at least 40 looks.
pub(crate) fn memory_growth_mib(looks: &[Look]) -> Option<f64> {
    let quarter = looks.len() / 4;
    let median = |looks: &[Look]| {
        let mut memory: Vec<_> = looks.iter().map(|look| look.memory_kib).collect();
        memory.sort_unstable();
        memory.get(memory.len() / 2).copied()
    };
    if quarter < 10 {
        return None;
    }
    let (second, last) = (
        median(&looks[quarter..2 * quarter])?,
        median(&looks[3 * quarter..])?,
    );
    Some((last as f64 - second as f64) / 1024.0)
}

pub(crate) fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}
