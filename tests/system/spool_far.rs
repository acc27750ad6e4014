//! The far end of a [`Load`](crate::spool_load::Load) or a fleet: it knows each message by its device, its
//! number and the id that the gateway gave it, and keeps only counts, so that a million fit.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use firmware_sim::ledger::stream_of;
use firmware_sim::names;
use firmware_sim::watch::FarEnd;
use serde::Deserialize;

use crate::spool_load::Load;
use crate::subscriber::Subscriber;
use crate::wire::Publish;

/// A device's place in the load, and the message's number.
type Key = (usize, u32);

/// Streams of a fleet have their places from here on, behind all devices of a load.
pub(crate) const FLEET: usize = 100;
/// Alarms, reports, and readings of one channel.
const STREAMS: usize = 3;

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Is told everything, for the account of a fleet.
    pub(crate) fleet: FarEnd,
    /// By device and number.
    arrivals: Vec<Vec<u32>>,
    /// Which message each id stands for.
    ids: HashMap<String, Key>,
    /// The newest number of each device that arrived for the first time.
    newest: Vec<Option<u32>>,
    /// When each message arrived, repeats included, in order.
    pub(crate) at: Vec<Instant>,
    /// Arrivals under an id that had arrived before.
    pub(crate) repeats: Vec<Instant>,
    /// How many carried the mark of what was read back from the disk.
    pub(crate) replayed: usize,
    /// Messages that arrived for the first time behind a later one of their device.
    pub(crate) overtaken: Vec<Key>,
    /// What must never be: no id, an id of another message, a payload that nobody sent.
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    fn note(&mut self, publish: &Publish) {
        let at = Instant::now();
        self.fleet.note(publish.topic.as_bytes(), &publish.payload);
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
            self.newest.resize(device + 1, None);
        }
        let arrivals = &mut self.arrivals[device];
        if arrivals.len() <= number as usize {
            arrivals.resize(number as usize + 1, 0);
        }
        arrivals[number as usize] += 1;
        if arrivals[number as usize] == 1 {
            if self.newest[device] > Some(number) {
                self.overtaken.push((device, number));
            }
            self.newest[device] = self.newest[device].max(Some(number));
        }
        self.note_id(publish, (device, number), at);
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

    /// The messages of these devices that were answered and have not arrived.
    pub(crate) fn missing(&self, load: &Load, devices: &[usize]) -> Vec<Key> {
        let mut missing = Vec::new();
        for &device in devices {
            let progress = load.progress(device);
            for (number, answered) in (0..).zip(&progress.answered) {
                if *answered && self.arrivals(device, number) == 0 {
                    missing.push((device, number));
                }
            }
        }
        missing
    }
}

/// How long between two looks, each of which goes over all messages.
const LOOK: Duration = Duration::from_millis(50);

/// Device and number, from the front of a payload.
fn key(payload: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(payload.get(..12)?).ok()?;
    let (device, number) = text.split_once(' ')?;
    Some((device.parse().ok()?, number.parse().ok()?))
}

/// The same of a message of a fleet, whose devices have one channel and start once.
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

    /// Waits until everything that these devices were answered for has arrived, as long as anything
    /// arrives at least once in `quiet_max`.
    #[track_caller]
    pub(crate) fn wait_for_all(&self, load: &Load, devices: &[usize], quiet_max: Duration) {
        let start = Instant::now();
        let mut seen = (0, Instant::now());
        loop {
            let tally = self.tally();
            let missing = tally.missing(load, devices);
            if missing.is_empty() {
                return;
            }
            if tally.at.len() != seen.0 {
                seen = (tally.at.len(), Instant::now());
            }
            // As long as something comes there is no end to be seen.
            assert!(
                seen.1.elapsed() < quiet_max,
                "{} acknowledged messages are missing at the far end after {:?}, the first ones \
                 (device, number): {:?}",
                missing.len(),
                start.elapsed(),
                &missing[..missing.len().min(10)]
            );
            drop(tally);
            sleep(LOOK);
        }
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
