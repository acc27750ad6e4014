//! Whether the fleet kept its own time, and how long it was kept waiting. In come due times and the
//! time, out come histograms. Nobody waits for a sample: what the fleet is late by is its own doing,
//! what an answer is late by beyond that is the gateway's.

use hdrhistogram::Histogram;
use tidegate_device::{ByKind, Kind, Tick};

use crate::watch::arrivals::{histogram, record};

/// The histograms; in microseconds.
#[derive(Clone, Debug)]
pub struct Pace {
    /// From due to taken, of each sample: the fleet's own lateness.
    pub late: Histogram<u64>,
    /// From due to acknowledged, of messages that ask for it (QoS 1): for how long a device had to
    /// care for a message.
    pub answered: ByKind<Histogram<u64>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            late: histogram(),
            answered: ByKind {
                alarm: histogram(),
                report: histogram(),
                reading: histogram(),
            },
        }
    }
}

impl Pace {
    /// A sample that was due at `due` is taken now.
    pub(super) fn sampled(&mut self, due: Tick, now: Tick) {
        record(&mut self.late, now.since(due));
    }

    /// A message that was due at `due` is acknowledged now.
    pub(super) fn answered(&mut self, kind: Kind, due: Tick, now: Tick) {
        record(self.answered.of_mut(kind), now.since(due));
    }
}
