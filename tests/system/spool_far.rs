//! The far end of fleets and of single devices: it knows each message by its device, its number and the id
//! that the gateway gave it, and keeps only counts, so that a million fit.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use firmware_sim::ledger::stream_of;
use firmware_sim::watch::FarEnd;
use firmware_sim::{CHANNELS_MAX, names};
use serde::Deserialize;

use crate::subscriber::Subscriber;
use crate::wire::Publish;

/// A device's number, and the message's.
type Key = (usize, u32);

/// Streams of fleets have their places from here on, behind all single devices.
pub(crate) const FLEET: usize = 100;
/// Alarms, reports, and readings of each channel.
const STREAMS: usize = 2 + CHANNELS_MAX;

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Is told what the devices with these numbers sent, for the account of their fleet.
    fleets: Vec<(Range<u32>, FarEnd)>,
    /// By device and number.
    arrivals: Vec<Vec<u32>>,
    /// Which message each id stands for.
    ids: HashMap<String, Key>,
    /// When each message arrived, repeats included, in order.
    pub(crate) at: Vec<Instant>,
    /// Arrivals under an id that had arrived before.
    pub(crate) repeats: Vec<Instant>,
    /// How many carried the mark of what was read back from the disk.
    pub(crate) replayed: usize,
    /// What must never be: no id, an id of another message, a payload that nobody sent.
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    fn note(&mut self, publish: &Publish) {
        let at = Instant::now();
        self.note_for_fleet(publish);
        let Some((device, number)) = key(&publish.payload).or_else(|| fleet_key(publish)) else {
            self.wrong.push(format!("nobody sent {:?}", publish.text()));
            return;
        };
        self.at.push(at);
        if publish.user("tidegate-replayed") == Some("1") {
            self.replayed += 1;
        }
        if self.arrivals.len() <= device {
            self.arrivals.resize_with(device + 1, Vec::new);
        }
        let arrivals = &mut self.arrivals[device];
        if arrivals.len() <= number as usize {
            arrivals.resize(number as usize + 1, 0);
        }
        arrivals[number as usize] += 1;
        self.note_id(publish, (device, number), at);
    }

    fn note_for_fleet(&self, publish: &Publish) {
        let topic = publish.topic.as_bytes();
        let Some((device, ..)) = names::read(topic) else {
            return;
        };
        let mut fleets = self.fleets.iter();
        if let Some((_, far_end)) = fleets.find(|(devices, _)| devices.contains(&device)) {
            far_end.note(topic, &publish.payload);
        }
    }

    fn note_id(&mut self, publish: &Publish, key: Key, at: Instant) {
        let Some(id) = publish.id() else {
            self.wrong.push(format!("{key:?} has no id"));
            return;
        };
        match self.ids.get(id) {
            None => drop(self.ids.insert(id.to_owned(), key)),
            // The broker sends again what it does not know to be here, and says so by DUP.
            Some(same) if *same == key && publish.dup => {}
            Some(same) if *same == key => self.repeats.push(at),
            Some(other) => self
                .wrong
                .push(format!("{id} stands for {other:?} and for {key:?}")),
        }
    }

    /// How often a message arrived.
    pub(crate) fn arrivals(&self, device: usize, number: u32) -> u32 {
        let arrivals = self.arrivals.get(device);
        let count = arrivals.and_then(|arrivals| arrivals.get(number as usize));
        count.copied().unwrap_or(0)
    }

    /// How many different messages of a device arrived.
    pub(crate) fn different(&self, device: usize) -> usize {
        let arrivals = self.arrivals.get(device);
        arrivals.map_or(0, |arrivals| arrivals.iter().filter(|n| **n > 0).count())
    }

    /// How many different ids arrived.
    pub(crate) fn ids(&self) -> usize {
        self.ids.len()
    }

    /// The starts of the gateway that the ids speak of.
    pub(crate) fn epochs(&self) -> HashSet<&str> {
        let epochs = self.ids.keys().filter_map(|id| id.split(':').nth(1));
        epochs.collect()
    }

    /// How many messages arrived in the time before `end`.
    pub(crate) fn within(&self, before: Duration, end: Instant) -> usize {
        let upto = self.at.partition_point(|at| *at <= end);
        let from = self.at.partition_point(|at| *at + before < end);
        upto - from
    }
}

/// Device and number, from the front of a payload.
fn key(payload: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(payload.get(..12)?).ok()?;
    let (device, number) = text.split_once(' ')?;
    Some((device.parse().ok()?, number.parse().ok()?))
}

/// The same of a message of a fleet, whose devices start once.
fn fleet_key(publish: &Publish) -> Option<Key> {
    #[derive(Deserialize)]
    struct Stamp {
        seq: u32,
    }
    let (device, kind, channel) = names::read(publish.topic.as_bytes())?;
    let Stamp { seq } = serde_json::from_slice(&publish.payload).ok()?;
    let stream = device as usize * STREAMS + stream_of(kind, channel);
    Some((FLEET + stream, seq))
}

/// A far end that tallies.
pub(crate) struct Far {
    pub(crate) subscriber: Subscriber,
    tally: Arc<Mutex<Tally>>,
}

impl Far {
    /// Subscribes and waits until that is granted.
    #[track_caller]
    pub(crate) fn start(broker: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let shared = Arc::clone(&tally);
        let note = Box::new(move |publish: Publish| shared.lock().unwrap().note(&publish));
        Self {
            subscriber: Subscriber::noting(broker, note),
            tally,
        }
    }

    /// What arrived so far.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    /// From now on the messages of so many devices more are told to a far end of their own. Gives how many
    /// fleets there were before, and the number of the first device.
    pub(crate) fn expect(&self, devices: u32) -> (usize, u32, FarEnd) {
        let mut tally = self.tally();
        let fleets = tally.fleets.len();
        let first = tally.fleets.last().map_or(0, |(numbers, _)| numbers.end);
        let far_end = FarEnd::default();
        tally.fleets.push((first..first + devices, far_end.clone()));
        (fleets, first, far_end)
    }

    /// Nothing came that must never come.
    #[track_caller]
    pub(crate) fn check(&self) {
        let tally = self.tally();
        let wrong = &tally.wrong;
        assert!(
            wrong.is_empty(),
            "{} times wrong, first: {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
    }
}
