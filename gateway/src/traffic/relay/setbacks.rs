//! One bad message wedges nothing: what the upstream refuses without saying that it is for good, or
//! what was alone in flight when it ended a connection, is set aside for a while so that others pass.
//! What ended its third connection is a dead letter, if others did pass meanwhile; else the upstream
//! is to blame. A mere refusal, by a wrong access list for one, is tried again for ever.

use std::collections::HashMap;
use std::time::Duration;

use super::super::message::{ClassId, Message, MessageId, Tick};
use super::super::queue::coalesce::key_of;

/// Setbacks after which a message is a dead letter.
const STRIKES_MAX: u32 = 3;
/// The first wait; it doubles each time.
const ASIDE: Duration = Duration::from_secs(1);
/// Messages set aside at once; further ones go back to the front of their queue.
const ASIDE_MAX: usize = 64;

/// Messages that met with setbacks.
#[derive(Debug, Default)]
pub struct Setbacks {
    aside: Vec<(Tick, Message)>,
    /// By identity; bounded by the messages aside, in flight and at a queue's front.
    strikes: HashMap<MessageId, Strikes>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Strikes {
    count: u32,
    /// Messages that had been delivered at the first.
    delivered: u64,
}

/// What becomes of the message.
#[derive(Debug)]
pub enum Ruling {
    /// It waits aside.
    Aside,
    /// There is no more room aside.
    BackToFront(Box<Message>),
    /// That was the third time, and others passed.
    DeadLetter(Box<Message>),
}

/// Whether this is an older value of the same key, of what this start received.
#[must_use]
pub fn is_older(message: &Message, newer: &Message) -> bool {
    message.class == newer.class
        && message.epoch == newer.epoch
        && message.sequence < newer.sequence
        && key_of(message) == key_of(newer)
}

impl Setbacks {
    /// A refusal that may not be for good: the message waits aside, longer each time.
    pub fn refusal(&mut self, message: Message, now: Tick) -> Ruling {
        let strikes = self.count(&message, 0);
        self.set_aside(message, strikes.count, now)
    }

    /// A connection ended while the message was alone in flight; `delivered` counts all messages
    /// delivered so far.
    pub fn strike(&mut self, message: Message, delivered: u64, now: Tick) -> Ruling {
        let strikes = self.count(&message, delivered);
        if strikes.count >= STRIKES_MAX && delivered > strikes.delivered {
            return Ruling::DeadLetter(Box::new(message));
        }
        self.set_aside(message, strikes.count, now)
    }

    fn count(&mut self, message: &Message, delivered: u64) -> Strikes {
        let first = Strikes {
            count: 0,
            delivered,
        };
        let strikes = self.strikes.entry(message.id()).or_insert(first);
        strikes.count += 1;
        self.total += 1;
        *strikes
    }

    fn set_aside(&mut self, message: Message, times: u32, now: Tick) -> Ruling {
        if self.aside.len() >= ASIDE_MAX {
            return Ruling::BackToFront(Box::new(message));
        }
        let doublings = times.saturating_sub(1).min(6);
        self.aside
            .push((now.after(ASIDE * (1 << doublings)), message));
        Ruling::Aside
    }

    /// Takes out older live values of a message's key, if any wait aside.
    pub fn take_older(&mut self, newer: &Message) -> Vec<Message> {
        if self.aside.is_empty() {
            return Vec::new();
        }
        let aside = self
            .aside
            .extract_if(.., |(_, message)| is_older(message, newer));
        aside.map(|(_, message)| message).collect()
    }

    /// Messages whose time aside is over.
    pub fn due(&mut self, now: Tick) -> Vec<Message> {
        if self.aside.is_empty() {
            return Vec::new();
        }
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.aside)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.aside = rest;
        due.into_iter().rev().map(|(_, message)| message).collect()
    }

    /// When the next one is due.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        let due = self.aside.iter().map(|(at, _)| *at);
        due.min().unwrap_or(Tick::NEVER)
    }

    /// A message ended: its setbacks are forgotten.
    pub fn forget(&mut self, id: MessageId) {
        if !self.strikes.is_empty() {
            self.strikes.remove(&id);
        }
    }

    /// Messages of a class that wait aside.
    #[must_use]
    pub fn waiting(&self, class: ClassId) -> usize {
        let of_class = self
            .aside
            .iter()
            .filter(|(_, message)| message.class == class);
        of_class.count()
    }

    /// Setbacks so far.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing waits aside.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.aside.is_empty()
    }

    /// All messages that wait aside, to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.aside.iter_mut().map(|(_, message)| message)
    }

    /// All messages that wait aside, at the end.
    pub fn take_all(&mut self) -> Vec<Message> {
        let aside = std::mem::take(&mut self.aside);
        aside.into_iter().map(|(_, message)| message).collect()
    }
}
