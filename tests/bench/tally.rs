//! The sink's book: what arrived, on its topic, in its order, once. Pure: stamps and times come in,
//! counts go out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::sink::Book;
use crate::wire::{Malformed, Publish};
use crate::workload::{Stamp, Workload};

/// Counts of one run.
pub(crate) struct Tally {
    workload: Arc<Workload>,
    /// The next sequence of each topic.
    next: Vec<u64>,
    /// Gaps that may still be filled: first missing (topic, sequence), and the end of the gap.
    missing: BTreeMap<(u32, u64), u64>,
    pub(crate) counts: Counts,
    /// When the last message arrived.
    pub(crate) last_arrival: Option<Instant>,
    /// Latency since due, in microseconds.
    pub(crate) alarms: Histogram<u64>,
    /// The same of everything else.
    pub(crate) others: Histogram<u64>,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Different messages.
    pub(crate) arrived: u64,
    /// Messages that had arrived before.
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later one of their topic, for the first time.
    pub(crate) overtaken: u64,
    /// What nobody published, or not on that topic.
    pub(crate) foreign: u64,
    /// Messages with a user property.
    pub(crate) with_id: u64,
    /// Messages at QoS 1.
    pub(crate) at_least_once: u64,
}

impl Tally {
    pub(crate) fn new(workload: Arc<Workload>) -> Self {
        Self {
            next: vec![0; workload.topics().len()],
            workload,
            missing: BTreeMap::new(),
            counts: Counts::default(),
            last_arrival: None,
            alarms: latency_histogram(),
            others: latency_histogram(),
        }
    }

    /// Forgets the latencies of the warm-up.
    pub(crate) fn forget_latencies(&mut self) {
        self.alarms.reset();
        self.others.reset();
    }

    fn count(&mut self, publish: &Publish<'_>, has_id: bool, now: Instant) {
        let Some(stamp) = self.own_stamp(publish) else {
            self.counts.foreign += 1;
            return;
        };
        self.counts.with_id += u64::from(has_id);
        self.counts.at_least_once += u64::from(publish.packet_id.is_some());
        if !self.place(stamp) {
            self.counts.duplicates += 1;
            return;
        }
        self.counts.arrived += 1;
        self.last_arrival = Some(now);
        self.time(stamp, now);
    }

    /// The stamp, when the topic is the one that it was published on.
    fn own_stamp(&self, publish: &Publish<'_>) -> Option<Stamp> {
        let stamp = Stamp::read(publish.payload)?;
        let topic = self.workload.topics().get(stamp.topic as usize)?;
        (topic.as_bytes() == publish.topic).then_some(stamp)
    }

    /// Finds the message's place in its topic; false: it was there before.
    fn place(&mut self, stamp: Stamp) -> bool {
        let next = &mut self.next[stamp.topic as usize];
        if stamp.sequence >= *next {
            if stamp.sequence > *next {
                self.missing.insert((stamp.topic, *next), stamp.sequence);
            }
            *next = stamp.sequence + 1;
            return true;
        }
        let filled = self.fill_gap(stamp);
        self.counts.overtaken += u64::from(filled);
        filled
    }

    /// Takes a sequence out of the gap that holds it; false when no gap does.
    fn fill_gap(&mut self, stamp: Stamp) -> bool {
        let gaps = (stamp.topic, 0)..=(stamp.topic, stamp.sequence);
        let Some((&(topic, start), &end)) = self.missing.range(gaps).next_back() else {
            return false;
        };
        if stamp.sequence >= end {
            return false;
        }
        self.missing.remove(&(topic, start));
        if start < stamp.sequence {
            self.missing.insert((topic, start), stamp.sequence);
        }
        if stamp.sequence + 1 < end {
            self.missing.insert((topic, stamp.sequence + 1), end);
        }
        true
    }

    fn time(&mut self, stamp: Stamp, now: Instant) {
        let Some(due) = stamp.due else { return };
        let latency = now.saturating_duration_since(self.workload.epoch + due);
        let is_alarm = self.workload.alarm() == Some(stamp.topic as usize);
        let histogram = if is_alarm {
            &mut self.alarms
        } else {
            &mut self.others
        };
        histogram.saturating_record(latency.as_micros() as u64);
    }
}

impl Book for Tally {
    fn record(&mut self, publish: &Publish<'_>, now: Instant) -> Result<(), Malformed> {
        let has_id = publish.has_user_property()?;
        self.count(publish, has_id, now);
        Ok(())
    }
}

/// Microseconds, 1 us to 60 s, three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}
