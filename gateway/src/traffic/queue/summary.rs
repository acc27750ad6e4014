//! Summaries of what was superseded, where a class asks for them: of each key the least, the greatest and
//! the mean value, how many there were, and from when to when. In come superseded values; out goes
//! a message when the value that stands for them leaves. A payload is read only when it was superseded.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::super::classify::Pointer;
use super::super::fingerprint::{ByFingerprint, Secret, entry_bytes};
use super::super::message::{Body, DoorId, Message, Receipt, Tick, WallTime};
use super::coalesce::key_of;

/// Keys of one class of which something is summed up at once, where memory allows. It is no more than
/// values wait, but for keys whose value was given up; of further ones nothing is summed up, and counted.
pub const KEYS_MAX: usize = 64 * 1024;

/// Without values, room is kept for this many keys and the rest given back.
const SPARE_KEYS_MAX: usize = 1024;

/// The key of a summary: its own, so that none is superseded. No topic begins so.
const KEY_STEM: &str = "#summary ";

/// What a class's summaries say, and where they go.
#[derive(Clone, Debug)]
pub struct SummarySettings {
    /// Where in the payload the number stands.
    pub value: Pointer,
    /// What is said of the numbers.
    pub of: Vec<Figure>,
    /// The topic, in which `{topic}` stands for that of the value.
    pub topic: String,
}

/// What can be said of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The arithmetic mean.
    Mean,
    /// How many.
    Count,
}

impl Figure {
    /// All of them, with the names that the configuration and the messages give them.
    pub const ALL: [(&str, Self); 4] = [
        ("min", Self::Min),
        ("max", Self::Max),
        ("mean", Self::Mean),
        ("count", Self::Count),
    ];
}

/// What is known of the superseded values of one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// When the first and the last of them were received.
    from: Tick,
    to: Tick,
}

/// The summaries of one class.
#[derive(Debug)]
pub struct Summaries {
    settings: SummarySettings,
    secret: Secret,
    by_key: ByFingerprint<Figures>,
    keys_max: usize,
    unreadable: u64,
    forgotten: u64,
}

impl Summaries {
    /// Nothing is summed up yet. It takes at most so many bytes.
    #[must_use]
    pub fn new(settings: SummarySettings, bytes_max: u64) -> Self {
        let keys_max = bytes_max / entry_bytes::<Figures>() as u64;
        Self {
            keys_max: usize::try_from(keys_max).unwrap_or(KEYS_MAX).min(KEYS_MAX),
            settings,
            secret: Secret::default(),
            by_key: ByFingerprint::default(),
            unreadable: 0,
            forgotten: 0,
        }
    }

    /// A value was superseded.
    pub fn note(&mut self, message: &Message) {
        let Some(number) = self.settings.value.number(message.body.payload()) else {
            self.unreadable += 1;
            return;
        };
        let key = self.secret.print(key_of(message));
        if let Some(figures) = self.by_key.get_mut(&key) {
            figures.add(number, message.received);
        } else if self.by_key.len() < self.keys_max {
            let figures = Figures::of(number, message.received);
            self.by_key.insert(key, figures);
        } else {
            self.forgotten += 1;
        }
    }

    /// What was superseded by this value, which leaves now.
    pub fn take(&mut self, message: &Message) -> Option<Figures> {
        if self.by_key.is_empty() {
            return None;
        }
        let figures = self.by_key.remove(&self.secret.print(key_of(message)));
        if self.by_key.is_empty() {
            self.by_key.shrink_to(SPARE_KEYS_MAX);
        }
        figures
    }

    /// The value that stands for others was given up: nothing will be said of them.
    pub fn forget(&mut self, message: &Message) {
        let figures = self.take(message);
        self.forgotten += figures.map_or(0, |figures| figures.count);
    }

    /// The message that sums up what `message` stands for. `wall` tells the wall time of a tick.
    #[must_use]
    pub fn message(
        &self,
        message: &Message,
        figures: Figures,
        (sequence, now): (u64, Tick),
        wall: impl Fn(Tick) -> WallTime,
    ) -> Message {
        let topic = self.settings.topic.replace("{topic}", message.body.topic());
        let payload = figures.payload(&self.settings.of, wall);
        let receipt = Receipt {
            door: DoorId::NOBODY,
            token: None,
        };
        let body = Body::new(&topic, b"", &payload);
        Message {
            key: Some(Arc::from(format!("{KEY_STEM}{sequence:x}"))),
            expires: message.expires,
            epoch: message.epoch,
            sequence,
            ..Message::new(body, message.class, now, receipt)
        }
    }

    /// Superseded values in which no number stands where it should.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Superseded values of which no summary tells, for want of room or because the value that stood for
    /// them was given up.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Where the number should stand.
    #[must_use]
    pub fn value(&self) -> &str {
        self.settings.value.as_str()
    }
}

/// Whether a message is a summary: neither thinned nor summed up.
#[must_use]
pub fn is_summary(message: &Message) -> bool {
    let key = message.key.as_deref();
    message.receipt.door == DoorId::NOBODY && key.is_some_and(|key| key.starts_with(KEY_STEM))
}

impl Figures {
    const fn of(number: f64, at: Tick) -> Self {
        Self {
            count: 1,
            min: number,
            max: number,
            mean: number,
            from: at,
            to: at,
        }
    }

    fn add(&mut self, number: f64, at: Tick) {
        self.count += 1;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        let count = self.count as f64;
        // Divided first: a sum, or a difference, of two doubles may be none.
        self.mean += number / count - self.mean / count;
        self.from = self.from.min(at);
        self.to = self.to.max(at);
    }

    fn payload(&self, of: &[Figure], wall: impl Fn(Tick) -> WallTime) -> Vec<u8> {
        let mut json = Map::new();
        for (name, figure) in Figure::ALL {
            if of.contains(&figure) {
                let value = match figure {
                    Figure::Min => self.min.into(),
                    Figure::Max => self.max.into(),
                    Figure::Mean => self.mean.into(),
                    Figure::Count => self.count.into(),
                };
                json.insert(name.to_owned(), value);
            }
        }
        for (name, at) in [("from", self.from), ("to", self.to)] {
            json.insert(name.to_owned(), (wall(at).micros() / 1000).into());
        }
        Json::Object(json).to_string().into_bytes()
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
