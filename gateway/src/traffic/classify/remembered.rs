//! What the rules say of topics, remembered by a door, so that a topic's rules are looked up once.
//! All doors share one [`Budget`] of bytes. A door that finds it spent forgets the older half of its
//! own topics; one that has nothing to forget looks topics up each time. The topic of the last
//! message stands beside the memory, uncounted: one for each connection, which the bounds on
//! connections and topic length bound.
//!
//! A topic is remembered by a [`Fingerprint`], not by its text: recalling it costs one cache miss instead
//! of five.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::fingerprint::{ByFingerprint, Fingerprint, Secret, entry_bytes};
use super::verdict::Rules;

/// The bytes that all doors together may remember.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
}

impl Budget {
    pub(super) const fn new(bytes_max: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes_max),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    #[cfg(test)]
    pub(super) fn left_bytes(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the rules say of one topic before any payload is read.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The rules with a condition to ask first, in order; `None`: no condition to ask. Boxed once
    /// more so that the many topics without one pay for a thin pointer only.
    pub(super) conditioned: Option<Arc<Box<[u16]>>>,
    /// The rule that decides when none of those does; `None`: the default class.
    pub(super) otherwise: Option<u16>,
    /// Whether any of this can come to a guaranteed class.
    pub(super) guaranteed: bool,
}

impl Known {
    /// What remembering it takes, in bytes.
    fn memory_bytes(&self) -> u64 {
        /// The two counters of an `Arc`, the pointer in it, and twice the allocator's header and
        /// rounding.
        const SHARED: usize = 16 + size_of::<Box<[u16]>>() + 2 * 16;
        let places = self
            .conditioned
            .as_ref()
            .map_or(0, |places| size_of_val(&***places) + SHARED);
        (entry_bytes::<Known>() + places) as u64
    }
}

/// A door's memory of topics, in two generations: what was asked for lately, and the rest.
#[derive(Debug)]
pub(super) struct Topics {
    last_topic: String,
    last: Known,
    secret: Secret,
    young: Generation,
    old: Generation,
    budget: Arc<Budget>,
    /// Topics that gave way to others since somebody asked.
    forgotten: u32,
}

#[derive(Debug, Default)]
struct Generation {
    topics: ByFingerprint<Known>,
    bytes: u64,
}

impl Topics {
    /// Remembers nothing but what the rules say of the empty topic.
    pub(super) fn new(budget: Arc<Budget>, empty: Known) -> Self {
        Self {
            last_topic: String::new(),
            last: empty,
            secret: Secret::default(),
            young: Generation::default(),
            old: Generation::default(),
            budget,
            forgotten: 0,
        }
    }

    /// What the rules say of this topic, from memory or else looked up.
    pub(super) fn recall(&mut self, topic: &str, rules: &Rules) -> &Known {
        if self.last_topic != topic {
            let print = self.secret.print(topic.as_bytes());
            self.last = match self.find(print) {
                Some(known) => known,
                None => self.learn(print, rules.look_up(topic)),
            };
            self.last_topic.clear();
            self.last_topic.push_str(topic);
        }
        &self.last
    }

    /// How many topics were forgotten since the last call.
    pub(super) fn take_forgotten(&mut self) -> u32 {
        std::mem::take(&mut self.forgotten)
    }

    #[cfg(test)]
    pub(super) const fn held_bytes(&self) -> u64 {
        self.young.bytes + self.old.bytes
    }

    fn find(&mut self, print: Fingerprint) -> Option<Known> {
        if let Some(known) = self.young.topics.get(&print) {
            return Some(known.clone());
        }
        let known = self.old.remove(print)?;
        self.young.insert(print, known.clone());
        Some(known)
    }

    fn learn(&mut self, print: Fingerprint, known: Known) -> Known {
        let bytes = known.memory_bytes();
        if self.budget.take(bytes) || (self.forget_half() && self.budget.take(bytes)) {
            self.young.insert(print, known.clone());
        } else {
            self.forgotten = self.forgotten.saturating_add(1);
        }
        known
    }

    /// Forgets the older half; says whether there was anything to forget. Without an older half, an
    /// arbitrary one becomes it and is forgotten.
    fn forget_half(&mut self) -> bool {
        if self.old.topics.is_empty() {
            self.old = self.young.split();
        }
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.budget.give_back(forgotten.bytes);
        let count = u32::try_from(forgotten.topics.len()).unwrap_or(u32::MAX);
        self.forgotten = self.forgotten.saturating_add(count);
        forgotten.bytes > 0
    }
}

impl Generation {
    fn insert(&mut self, print: Fingerprint, known: Known) {
        self.bytes += known.memory_bytes();
        self.topics.insert(print, known);
    }

    fn remove(&mut self, print: Fingerprint) -> Option<Known> {
        let known = self.topics.remove(&print)?;
        self.bytes -= known.memory_bytes();
        Some(known)
    }

    /// Takes half of the topics out, at least one if there is one.
    fn split(&mut self) -> Self {
        let mut half = Self::default();
        let mut stays = false;
        for (print, known) in std::mem::take(&mut self.topics) {
            let side = if stays { &mut *self } else { &mut half };
            stays = !stays;
            side.topics.insert(print, known);
        }
        half.bytes = half.topics.values().map(Known::memory_bytes).sum();
        self.bytes -= half.bytes;
        half
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.budget.give_back(self.young.bytes + self.old.bytes);
    }
}
