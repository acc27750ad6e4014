//! What is in flight on one connection. Each PUBACK is tied to its message here, by packet id and
//! connection, so that none is ever credited to another. The window is counted in bytes, starts
//! small, and follows the measured acknowledgement time: on a slow link the queue stands in the
//! gateway, where it can be re-ordered, not in a socket or a modem.
//!
//! The rule is FAST TCP's (Wei, Jin, Low, Hegde, IEEE/ACM Transactions on Networking 2006): with each
//! round the window moves half-way towards `window x (base + target) / (base + queueing)`, which is
//! where queueing costs just the target. It comes as fast on a satellite's 600 ms as on a LAN,
//! which LEDBAT's segment a round (RFC 6817) does not: that would take minutes to fill the pipe. At
//! first the window doubles each round. It is delay-based because loss comes too late: a modem's
//! buffer holds seconds.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::super::message::{ClassId, Message, MessageId, Tick};
use super::{LinkLimits, rtt::AckTime};

/// The window at each connect. One segment and a half: nothing on the smallest link.
pub const WINDOW_BYTES_MIN: u64 = 2 * 1024;
/// The largest window: 1 MiB fills 14 Mbit/s at a satellite's 600 ms.
pub const WINDOW_BYTES_MAX: u64 = 1024 * 1024;
/// What the first class may have in flight above the window on a shared connection.
const FIRST_CLASS_RESERVE_BYTES: u64 = 64 * 1024;
/// The part of the upstream's Receive Maximum that only the first class may use: one eighth.
const FIRST_CLASS_RESERVE_DIVISOR: usize = 8;
/// Most messages in flight, whatever the upstream announces: packet ids are then never in doubt.
const MESSAGES_MAX: usize = 16 * 1024;
/// How much later than the base time an acknowledgement may come because of what we sent before it
/// (RFC 6817, 2.5, allows up to 100 ms; half of it keeps an alarm's wait behind bulk below notice).
pub(super) const TARGET_DELAY: Duration = Duration::from_millis(50);

/// A message in flight.
#[derive(Debug)]
pub struct Sent {
    /// The message.
    pub message: Message,
    /// Its size on the wire.
    pub wire_bytes: u64,
    /// When it was handed over.
    pub at: Tick,
    /// When it was in the socket; [`Tick::NEVER`] until then.
    written: Tick,
    /// Bytes of this connection up to its end.
    end: u64,
    /// A copy went over the other connection too.
    pub doubled: bool,
    /// The other connection ended with its copy: it goes over the next one at once.
    overdue: bool,
}

impl Sent {
    /// From when the patience for a second chance counts.
    const fn late_from(&self) -> Tick {
        if self.overdue { Tick::ZERO } else { self.at }
    }
}

/// One connection's window.
#[derive(Debug)]
pub struct Window {
    /// In order of sending; `None` where the acknowledgement overtook an earlier one's.
    flight: VecDeque<Option<Sent>>,
    /// Packet id of the front of `flight`.
    front_id: u16,
    count: usize,
    bytes: u64,
    by_class: Vec<usize>,
    /// How many are doubled; all are of the first class.
    doubled_count: usize,
    /// Sent with QoS 0, until they are in the socket.
    unacknowledged: VecDeque<Sent>,
    /// Bytes handed over on this connection.
    handed_bytes: u64,
    /// How many at the front of `flight` are known to be in the socket.
    written_count: usize,
    /// When bytes last went into the socket.
    written_at: Tick,
    size: u64,
    slow_start: bool,
    /// One message at a time: the last connection ended before anything was acknowledged, and one of
    /// the messages may be why.
    solo: bool,
    acknowledged: u64,
    limits: LinkLimits,
    ack_time: AckTime,
    /// Until when the window is held small so that the base time shows, and its size before.
    slowdown: Option<(Tick, u64)>,
}

impl Window {
    /// The window of a connection that is not up.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self {
            flight: VecDeque::new(),
            front_id: 1,
            count: 0,
            bytes: 0,
            by_class: vec![0; classes],
            doubled_count: 0,
            unacknowledged: VecDeque::new(),
            handed_bytes: 0,
            written_count: 0,
            written_at: Tick::ZERO,
            size: WINDOW_BYTES_MIN,
            slow_start: true,
            solo: false,
            acknowledged: 0,
            limits: LinkLimits::DEFAULT,
            ack_time: AckTime::default(),
            slowdown: None,
        }
    }

    /// A new connection: empty and small again. `solo` sends one message at a time until the first
    /// acknowledgement.
    pub fn restart(&mut self, limits: LinkLimits, solo: bool) {
        let mut fresh = Self::new(self.by_class.len());
        fresh.limits = limits;
        fresh.solo = solo;
        *self = fresh;
    }

    /// Whether a message of this class may be sent now.
    #[must_use]
    pub fn admits(&self, class: ClassId) -> bool {
        if self.solo {
            return self.count == 0;
        }
        let most = usize::from(self.limits.receive_max).min(MESSAGES_MAX);
        if self.flight.len() >= 2 * MESSAGES_MAX {
            return false;
        }
        if class == ClassId::FIRST {
            self.count < most
                && (self.count == 0 || self.bytes < self.size + FIRST_CLASS_RESERVE_BYTES)
        } else {
            self.count < (most - most / FIRST_CLASS_RESERVE_DIVISOR).max(1)
                && (self.count == 0 || self.bytes < self.size)
        }
    }

    /// The packet id of the next message.
    #[must_use]
    pub fn next_id(&self) -> u16 {
        advance(self.front_id, self.flight.len())
    }

    /// Takes a message in, sent with [`Window::next_id`].
    pub fn send(&mut self, message: Message, wire_bytes: u64, now: Tick) {
        let sent = self.take_in(message, wire_bytes, now);
        self.flight.push_back(Some(sent));
    }

    /// Takes a message in that was sent with QoS 0: it leaves when it is in the socket.
    pub fn send_unacknowledged(&mut self, message: Message, wire_bytes: u64, now: Tick) {
        let sent = self.take_in(message, wire_bytes, now);
        self.unacknowledged.push_back(sent);
    }

    fn take_in(&mut self, message: Message, wire_bytes: u64, at: Tick) -> Sent {
        self.count += 1;
        self.bytes += wire_bytes;
        self.handed_bytes += wire_bytes;
        self.by_class[message.class.index()] += 1;
        Sent {
            message,
            wire_bytes,
            at,
            written: Tick::NEVER,
            end: self.handed_bytes,
            doubled: false,
            overdue: false,
        }
    }

    /// The message that this packet id was given to, which leaves the window; `None` for an id that
    /// nobody waits for.
    pub fn acknowledge(&mut self, packet_id: u16, now: Tick) -> Option<Sent> {
        let index = distance(self.front_id, packet_id);
        let sent = self.flight.get_mut(index)?.take()?;
        let full = self.bytes * 2 >= self.size;
        self.forget(&sent.message, sent.wire_bytes);
        self.doubled_count -= usize::from(sent.doubled);
        self.acknowledged += 1;
        self.solo = false;
        while let Some(None) = self.flight.front() {
            self.flight.pop_front();
            self.written_count = self.written_count.saturating_sub(1);
            self.front_id = advance(self.front_id, 1);
        }
        let (base, queueing) = self.ack_time.sample(now.since(sent.at), now);
        if full {
            self.steer(base, queueing, sent.wire_bytes);
        }
        if self.ack_time.is_new_period(now) || self.slowdown.is_some() {
            self.slow_down(full, now);
        }
        Some(sent)
    }

    /// `total` bytes of this connection are in the socket now. Gives the messages sent with QoS 0
    /// that are among them.
    pub fn written(&mut self, total: u64, now: Tick) -> Vec<Message> {
        self.written_at = now;
        while let Some(slot) = self.flight.get_mut(self.written_count) {
            match slot {
                Some(sent) if sent.end > total => break,
                Some(sent) => sent.written = now,
                None => {}
            }
            self.written_count += 1;
        }
        let mut done = Vec::new();
        while let Some(sent) = self.unacknowledged.pop_front_if(|sent| sent.end <= total) {
            self.forget(&sent.message, sent.wire_bytes);
            self.acknowledged += 1;
            self.solo = false;
            done.push(sent.message);
        }
        done
    }

    /// Everything in flight, in order of receipt; the connection ended.
    pub fn take_all(&mut self) -> Vec<Sent> {
        let mut fresh = Self::new(self.by_class.len());
        fresh.ack_time = self.ack_time;
        let old = std::mem::replace(self, fresh);
        let acknowledged = old.flight.into_iter().flatten();
        let mut all: Vec<_> = acknowledged.chain(old.unacknowledged).collect();
        all.sort_by_key(|sent| sent.message.sequence);
        all
    }

    /// A copy of the oldest first-class message that was sent before `since`, is not acknowledged and
    /// was not doubled; it is marked as doubled.
    pub fn double_next(&mut self, since: Tick) -> Option<Message> {
        let sent = self.flight.iter_mut().flatten();
        let mut late = sent.take_while(|sent| sent.late_from() <= since);
        let sent = late.find(|sent| sent.message.class == ClassId::FIRST && !sent.doubled)?;
        sent.doubled = true;
        self.doubled_count += 1;
        Some(sent.message.clone())
    }

    /// Everything in flight, to be changed in place; not its class nor its size.
    pub fn sent_mut(&mut self) -> impl Iterator<Item = &mut Sent> {
        let acknowledged = self.flight.iter_mut().flatten();
        acknowledged.chain(&mut self.unacknowledged)
    }

    /// When the oldest message in flight that is to be acknowledged was received.
    #[must_use]
    pub fn oldest_received(&self) -> Option<Tick> {
        let oldest = self.flight.iter().flatten().next();
        oldest.map(|sent| sent.message.received)
    }

    /// These messages have no copy elsewhere any more; `overdue` when another one is due at once.
    pub fn undouble(&mut self, ids: &HashSet<MessageId>, overdue: bool) {
        let doubled = self.flight.iter_mut().flatten().filter(|sent| sent.doubled);
        for sent in doubled.filter(|sent| ids.contains(&sent.message.id())) {
            sent.doubled = false;
            sent.overdue = overdue;
            self.doubled_count -= 1;
        }
    }

    /// Marks the newest message as doubled: it is itself a copy.
    pub fn mark_newest_doubled(&mut self) {
        if let Some(Some(sent)) = self.flight.back_mut() {
            sent.doubled = true;
            self.doubled_count += 1;
        }
    }

    /// Since when the oldest acknowledgement is waited for: since its message was in the socket. A
    /// message that still goes there, for a minute if it is large and the link slow, is waited for
    /// since bytes last moved.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Tick> {
        let oldest = self.flight.iter().flatten().next()?;
        Some(match oldest.written {
            Tick::NEVER => oldest.at.max(self.written_at),
            written => written,
        })
    }

    /// When the oldest first-class message in flight that was not doubled was sent; [`Tick::ZERO`] when
    /// its copy is due at once.
    #[must_use]
    pub fn oldest_undoubled(&self) -> Option<Tick> {
        if self.in_flight(ClassId::FIRST) == 0 {
            return None;
        }
        self.flight
            .iter()
            .flatten()
            .find(|sent| sent.message.class == ClassId::FIRST && !sent.doubled)
            .map(Sent::late_from)
    }

    /// Messages of a class in flight.
    #[must_use]
    pub fn in_flight(&self, class: ClassId) -> usize {
        self.by_class[class.index()]
    }

    /// Messages of the first class that are in flight here and have no copy on the other connection.
    #[must_use]
    pub fn undoubled(&self) -> usize {
        self.in_flight(ClassId::FIRST) - self.doubled_count
    }

    /// All messages in flight, for counting by hand.
    pub fn iter(&self) -> impl Iterator<Item = (&Message, bool)> {
        let all = self.flight.iter().flatten().chain(&self.unacknowledged);
        all.map(|sent| (&sent.message, sent.doubled))
    }

    /// Messages in flight.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether this connection sends one message at a time.
    #[must_use]
    pub const fn is_solo(&self) -> bool {
        self.solo
    }

    /// Messages that this connection's upstream acknowledged.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The window's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in flight.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the upstream announced.
    #[must_use]
    pub const fn limits(&self) -> &LinkLimits {
        &self.limits
    }

    /// The smoothed acknowledgement time; `None` before the first.
    #[must_use]
    pub const fn smoothed(&self) -> Option<Duration> {
        self.ack_time.smoothed()
    }

    fn forget(&mut self, message: &Message, wire_bytes: u64) {
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(wire_bytes);
        self.by_class[message.class.index()] -= 1;
    }

    /// A link that is always full never shows its base time, and what it queues would count as base
    /// more and more. So once in each period of the base the window is small for two rounds
    /// (LEDBAT++, draft-irtf-iccrg-ledbat-plus-plus, 4.4): about a second a minute on a satellite.
    fn slow_down(&mut self, full: bool, now: Tick) {
        match self.slowdown {
            None if full && !self.slow_start => {
                let rounds = self.smoothed().unwrap_or(Duration::ZERO) * 2;
                self.slowdown = Some((now.after(rounds), self.size));
                self.size = WINDOW_BYTES_MIN;
            }
            Some((until, size)) if now >= until => {
                self.slowdown = None;
                self.size = size;
            }
            Some(_) => self.size = WINDOW_BYTES_MIN,
            None => {}
        }
    }

    /// Per acknowledged message, so that a window's worth of them is one round.
    fn steer(&mut self, base: Duration, queueing: Duration, acknowledged: u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (base, queueing, target) = (micros(base), micros(queueing), micros(TARGET_DELAY));
        // A round of doubling leaves in bursts which alone queue for half the base time when they
        // fill half the pipe.
        self.slow_start &= queueing < (target * 3 / 4).max(base / 4);
        if self.slow_start {
            self.size += acknowledged;
        } else if queueing < target {
            let room = (target - queueing).min(base + queueing);
            self.size += acknowledged.saturating_mul(room) / (base + queueing).max(1) / 2;
        } else {
            let excess = queueing - target;
            let less = acknowledged.saturating_mul(excess) / (base + queueing).max(1) / 2;
            self.size = self.size.saturating_sub(less);
        }
        self.size = self.size.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    }
}

/// Packet ids run from 1 to 65,535 (MQTT 5, 2.2.1: never 0).
fn advance(id: u16, by: usize) -> u16 {
    let zero_based = (usize::from(id) - 1 + by) % usize::from(u16::MAX);
    u16::try_from(zero_based + 1).unwrap_or(1)
}

fn distance(from: u16, to: u16) -> usize {
    if to == 0 {
        return usize::MAX;
    }
    let ids = usize::from(u16::MAX);
    (usize::from(to) + ids - usize::from(from)) % ids
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
