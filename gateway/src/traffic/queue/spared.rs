//! Whether coalescing is still needed. It removes its own signal: the queue is short because values are
//! superseded. So this room asks what would be if they were not: could the uplink, in the time that it
//! stood idle for the class, have taken what was superseded? If it could, nothing needs to give way
//! any more, though values of one key that come in one burst still meet in the queue.
//!
//! In come what was superseded, what was sent, and whether anything waits after the uplink took what it
//! can; the answer is about the last minimum stay.

use std::time::Duration;

use super::super::message::Tick;

/// The window is moved in this many steps: a tenth of the stay is soon enough.
const SLOTS: usize = 10;

/// What happened in the last minimum stay.
#[derive(Debug)]
pub struct Spared {
    slots: [Slot; SLOTS],
    current: usize,
    slot_began: Tick,
    slot_micros: u64,
    /// When the class was last looked at, and whether something waited then.
    marked: Tick,
    busy: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    superseded_bytes: u64,
    sent_bytes: u64,
    busy_micros: u64,
    idle_micros: u64,
}

impl Spared {
    /// Nothing happened yet; the answer is about the last `stay`.
    #[must_use]
    pub fn new(stay: Duration, now: Tick) -> Self {
        let stay_micros = u64::try_from(stay.as_micros()).unwrap_or(u64::MAX);
        Self {
            slots: [Slot::default(); SLOTS],
            current: 0,
            slot_began: now,
            slot_micros: (stay_micros / SLOTS as u64).max(1),
            marked: now,
            busy: true,
        }
    }

    /// A value of so many bytes was superseded.
    pub fn superseded(&mut self, bytes: u64) {
        self.slot().superseded_bytes += bytes;
    }

    /// A message of so many bytes left the queue, to be sent.
    pub fn sent(&mut self, bytes: u64) {
        self.slot().sent_bytes += bytes;
    }

    /// The uplink took what it can; `waits` when something of the class is left.
    pub fn mark(&mut self, waits: bool, now: Tick) {
        self.turn(now);
        let micros = now.since(self.marked).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let busy = std::mem::replace(&mut self.busy, waits);
        self.marked = now;
        match busy {
            true => self.slot().busy_micros += micros,
            false => self.slot().idle_micros += micros,
        }
    }

    /// Whether the uplink could not have taken what was superseded: at the rate that it showed while
    /// something waited, in the time that nothing did.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        let sum = |of: fn(&Slot) -> u64| self.slots.iter().map(of).map(u128::from).sum::<u128>();
        let superseded = sum(|slot| slot.superseded_bytes);
        let (sent, busy) = (sum(|slot| slot.sent_bytes), sum(|slot| slot.busy_micros));
        superseded * busy > sent * sum(|slot| slot.idle_micros)
    }

    fn slot(&mut self) -> &mut Slot {
        &mut self.slots[self.current % SLOTS]
    }

    /// Moves the window on.
    fn turn(&mut self, now: Tick) {
        let slots = now.since(self.slot_began).as_micros() / u128::from(self.slot_micros);
        let slots = u64::try_from(slots).unwrap_or(u64::MAX);
        for _ in 0..slots.min(SLOTS as u64) {
            self.current = (self.current + 1) % SLOTS;
            *self.slot() = Slot::default();
        }
        let micros = slots.saturating_mul(self.slot_micros);
        self.slot_began = self.slot_began.after(Duration::from_micros(micros));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAY: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> Tick {
        Tick::from_micros(millis * 1000)
    }

    /// A second of a class whose uplink takes `sent` bytes in `busy` milliseconds, with so much
    /// superseded meanwhile.
    fn second(spared: &mut Spared, number: u64, sent: u64, busy: u64, superseded: u64) {
        let start = number * 1000;
        spared.mark(busy > 0, at(start));
        spared.superseded(superseded);
        spared.sent(sent);
        spared.mark(false, at(start + busy));
    }

    #[test]
    fn is_it_needed_while_the_uplink_never_rests() {
        let mut spared = Spared::new(STAY, at(0));
        for number in 0..60 {
            second(&mut spared, number, 2_000, 1_000, 18_000);
            assert!(spared.is_needed(), "second {number}");
        }
    }

    /// Devices that send five values of a topic in one burst would keep the class coalescing for ever.
    #[test]
    fn is_it_over_when_the_uplink_could_take_the_bursts_whole() {
        let mut spared = Spared::new(STAY, at(0));
        for number in 0..8 {
            second(&mut spared, number, 1_000, 20, 4_000);
        }
        assert!(!spared.is_needed());
    }

    /// Three times what the uplink takes, in bursts: the queue is empty between them, for values were
    /// superseded, and would not be without.
    #[test]
    fn is_it_needed_when_the_bursts_are_more_than_the_uplink_takes() {
        let mut spared = Spared::new(STAY, at(0));
        for number in 0..60 {
            second(&mut spared, number, 100, 100, 2_900);
            assert!(spared.is_needed(), "second {number}");
        }
    }

    #[test]
    fn is_it_over_within_the_stay_when_the_overload_ends() {
        let mut spared = Spared::new(STAY, at(0));
        for number in 0..20 {
            second(&mut spared, number, 2_000, 1_000, 18_000);
        }
        for number in 20..25 {
            second(&mut spared, number, 1_000, 500, 0);
        }
        spared.mark(false, at(25_000));
        assert!(!spared.is_needed());
    }

    #[test]
    fn is_it_needed_while_the_uplink_takes_nothing() {
        let mut spared = Spared::new(STAY, at(0));
        spared.mark(true, at(10));
        spared.superseded(1);
        spared.mark(true, at(4_000));
        assert!(spared.is_needed());
        spared.mark(true, at(12_000));
        assert!(!spared.is_needed(), "it remembers more than the stay");
    }
}
