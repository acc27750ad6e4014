//! What arrived at the far end, for each device, each of its starts and each stream. In come topics,
//! payloads and the time, out come sets of sequence numbers, counts and latencies.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Deserialize;
use tidegate_device::payload::{COMPACT_LENGTH, read_compact};
use tidegate_device::{ByKind, Kind, Tick};

use crate::ledger::stream_of;
use crate::marks::{Marks, SEQ_MAX};
use crate::names;

/// Starts of one device that are told apart; the run that reboots more often waits years for it.
pub const STARTS_MAX: u32 = 4_096;

/// Everything that arrived.
#[derive(Debug)]
pub struct Arrivals {
    first_device: u32,
    first_boot: u32,
    /// When each phase ends; the last one takes what comes later.
    phase_ends: Vec<Tick>,
    devices: Vec<Starts>,
    kinds: ByKind<KindArrivals>,
    /// From due to arrival, of the alarms that were due in each phase.
    pub phases: Vec<Histogram<u64>>,
    /// Messages of nobody in this fleet, or of another run.
    pub strangers: u64,
}

/// For each start of a device, by stream.
type Starts = Vec<Vec<Marks>>;

/// What arrived of one kind.
#[derive(Debug)]
pub struct KindArrivals {
    /// Different messages.
    pub arrived: u64,
    /// Messages that had arrived already.
    pub duplicates: u64,
    /// Messages that arrived for the first time after a later one of their stream.
    pub out_of_order: u64,
    /// From due to the first arrival, in microseconds.
    pub latency: Histogram<u64>,
}

impl Arrivals {
    /// None yet, of the fleet whose devices have these numbers.
    #[must_use]
    pub fn new(devices: Range<u32>, first_boot: u32, phase_ends: Vec<Tick>) -> Self {
        let mut starts = Vec::new();
        starts.resize_with(devices.len(), Starts::new);
        Self {
            first_device: devices.start,
            first_boot,
            phases: phase_ends.iter().map(|_| histogram()).collect(),
            phase_ends,
            devices: starts,
            kinds: ByKind {
                alarm: KindArrivals::new(),
                report: KindArrivals::new(),
                reading: KindArrivals::new(),
            },
            strangers: 0,
        }
    }

    /// A message arrived; whether it was one of this run that had not arrived before.
    pub fn arrived(&mut self, topic: &[u8], payload: &[u8], now: Tick) -> bool {
        let place = names::read(topic).zip(Stamp::read(payload));
        let Some(((device, kind, channel), stamp)) = place else {
            self.strangers += 1;
            return false;
        };
        let Some(marks) = self.marks(device, kind, channel, &stamp) else {
            self.strangers += 1;
            return false;
        };
        let late = stamp.seq < marks.highest();
        let new = marks.insert(stamp.seq);
        let counts = self.kinds.of_mut(kind);
        if !new {
            counts.duplicates += 1;
            return false;
        }
        counts.arrived += 1;
        counts.out_of_order += u64::from(late);
        let due = Tick::from_micros(stamp.tick);
        let latency = now.since(due);
        record(&mut counts.latency, latency);
        if kind == Kind::Alarm {
            self.record_in_phase(due, latency);
        }
        true
    }

    /// What arrived of this kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> &KindArrivals {
        self.kinds.of(kind)
    }

    /// What arrived of one stream of the fleet's device `device`.
    #[must_use]
    pub fn stream(&self, device: usize, boot: u32, stream: usize) -> Option<&Marks> {
        let start = boot.wrapping_sub(self.first_boot) as usize;
        self.devices.get(device)?.get(start)?.get(stream)
    }

    fn marks(&mut self, device: u32, kind: Kind, channel: u8, stamp: &Stamp) -> Option<&mut Marks> {
        let start = stamp.boot.wrapping_sub(self.first_boot);
        if start >= STARTS_MAX || stamp.seq > SEQ_MAX {
            return None;
        }
        let index = device.checked_sub(self.first_device)?;
        let starts = self.devices.get_mut(index as usize)?;
        let streams = at_least(starts, start as usize)?;
        at_least(streams, stream_of(kind, channel))
    }

    fn record_in_phase(&mut self, due: Tick, latency: Duration) {
        let index = self.phase_ends.partition_point(|&end| end <= due);
        let last = self.phases.len().saturating_sub(1);
        if let Some(phase) = self.phases.get_mut(index.min(last)) {
            record(phase, latency);
        }
    }
}

impl KindArrivals {
    fn new() -> Self {
        Self {
            arrived: 0,
            duplicates: 0,
            out_of_order: 0,
            latency: histogram(),
        }
    }
}

/// The place with this index, made if need be.
fn at_least<T: Default>(list: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    list.get_mut(index)
}

/// What the account needs of a payload.
#[derive(Deserialize)]
struct Stamp {
    boot: u32,
    seq: u32,
    tick: u64,
}

impl Stamp {
    fn read(payload: &[u8]) -> Option<Self> {
        // What a payload was filled up with stands behind the message.
        let compact = payload.get(..COMPACT_LENGTH).and_then(read_compact);
        if let Some(message) = compact {
            return Some(Self {
                boot: message.boot,
                seq: message.seq,
                tick: message.due.micros(),
            });
        }
        serde_json::from_slice(payload).ok()
    }
}

/// Microseconds up to ten minutes, three digits: 170 KiB.
pub(crate) fn histogram() -> Histogram<u64> {
    // The bounds are constants that it takes.
    #[allow(clippy::expect_used, reason = "constant bounds, held by every test")]
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 us to 600 s at 3 digits")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals() -> Arrivals {
        let ends = vec![Tick::from_micros(1_000), Tick::from_micros(2_000)];
        Arrivals::new(0..2, 100, ends)
    }

    fn alarm(seq: u32, tick: u64) -> Vec<u8> {
        format!(r#"{{"boot":101,"seq":{seq},"tick":{tick},"more":1}}"#).into_bytes()
    }

    #[test]
    fn are_duplicates_and_latecomers_told_apart() {
        let mut arrivals = arrivals();
        let topic = b"plant/sim-00001/alarm";
        for (seq, new) in [(1, true), (3, true), (2, true), (3, false), (4, true)] {
            let now = Tick::from_micros(5_000);
            assert_eq!(arrivals.arrived(topic, &alarm(seq, 1_500), now), new);
        }
        let counts = arrivals.of(Kind::Alarm);
        assert_eq!(
            (counts.arrived, counts.duplicates, counts.out_of_order),
            (4, 1, 1)
        );
        assert_eq!(arrivals.phases[1].len(), 4);
        assert_eq!(arrivals.stream(1, 101, 0).unwrap().count(), 4);
    }

    #[test]
    fn are_strangers_counted_and_never_kept() {
        let mut arrivals = arrivals();
        for (topic, payload) in [
            (&b"plant/sim-00002/alarm"[..], alarm(1, 1)),
            (b"plant/other/alarm", alarm(1, 1)),
            (b"plant/sim-00001/alarm", b"{}".to_vec()),
            (b"plant/sim-00001/alarm", alarm(u32::MAX, 1)),
            (
                b"plant/sim-00001/alarm",
                br#"{"boot":99,"seq":1,"tick":1}"#.to_vec(),
            ),
        ] {
            assert!(!arrivals.arrived(topic, &payload, Tick::ZERO));
        }
        assert_eq!(arrivals.strangers, 5);
    }
}
