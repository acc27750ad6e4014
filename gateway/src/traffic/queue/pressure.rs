//! When a class is under pressure, and when that is over. Two signals: how full its queue is and how
//! old the message at its front is. On and off have different thresholds and a minimum stay, so
//! that the level does not flap; and since coalescing removes its own signal (the queue gets short
//! because values are superseded), coalescing ends only when nothing was superseded for that stay.

use std::time::Duration;

use super::super::message::Tick;
use super::Delivery;

/// How hard a class is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room and the front moves: nothing gives way.
    Calm,
    /// A `latest` class keeps only the newest value of each key.
    Coalescing,
    /// The class is full: what it may lose is shed.
    Shedding,
}

impl Level {
    /// The level in an operator's words, for a class of this delivery.
    #[must_use]
    pub const fn of(self, delivery: Delivery) -> &'static str {
        match (self, delivery) {
            (Self::Calm, _) => "calm",
            (Self::Coalescing, Delivery::Latest) => {
                "coalescing: only the newest value of each key stays"
            }
            (Self::Coalescing, _) => "under pressure: its messages wait",
            (Self::Shedding, _) => "shedding: it or one of its clients has no more room",
        }
    }
}

/// A queue this full (in 1/1000 of its bound) is under pressure...
const FULL_ON_PERMILLE: u64 = 500;
/// ...and no more below this; the distance is the hysteresis.
const FULL_OFF_PERMILLE: u64 = 250;
/// A front message this old says that the uplink is slow or gone: far above the acknowledgement
/// time of a satellite link (0.6 s), far below what a reader of a latest value would call stale.
const AGE_ON: Duration = Duration::from_secs(2);
/// Below this age the front moves again.
const AGE_OFF: Duration = Duration::from_millis(500);
/// How long a level stays at least.
pub const STAY: Duration = Duration::from_secs(5);

/// The pressure of one class.
#[derive(Debug)]
pub struct Pressure {
    level: Level,
    /// When the level was entered, or the last sign that it is still needed was seen.
    since: Tick,
    /// How often the level changed.
    changes: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            level: Level::Calm,
            since: Tick::ZERO,
            changes: 0,
        }
    }
}

impl Pressure {
    /// The level now.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How often the level changed.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Looks at the queue; says the new level if it changed.
    pub fn observe(
        &mut self,
        bytes: u64,
        bytes_max: u64,
        front_age: Duration,
        now: Tick,
    ) -> Option<Level> {
        let permille = bytes.saturating_mul(1000) / bytes_max.max(1);
        let pressed = permille >= FULL_ON_PERMILLE || front_age >= AGE_ON;
        let relaxed = permille < FULL_OFF_PERMILLE && front_age < AGE_OFF;
        match self.level {
            Level::Calm if pressed => self.enter(Level::Coalescing, now),
            Level::Calm => None,
            _ if !relaxed => {
                if self.level == Level::Coalescing {
                    self.since = now;
                }
                self.leave_shedding(permille, now)
            }
            _ if now.since(self.since) >= STAY => self.enter(Level::Calm, now),
            _ => None,
        }
    }

    /// Something was superseded: coalescing is still needed.
    pub fn superseded(&mut self, now: Tick) {
        self.since = now;
    }

    /// Something was shed for want of room; says the level if that is news.
    pub fn shed(&mut self, now: Tick) -> Option<Level> {
        self.since = now;
        match self.level {
            Level::Shedding => None,
            _ => self.enter(Level::Shedding, now),
        }
    }

    fn leave_shedding(&mut self, permille: u64, now: Tick) -> Option<Level> {
        let over = self.level == Level::Shedding
            && permille < FULL_ON_PERMILLE
            && now.since(self.since) >= STAY;
        if over {
            self.enter(Level::Coalescing, now)
        } else {
            None
        }
    }

    fn enter(&mut self, level: Level, now: Tick) -> Option<Level> {
        self.level = level;
        self.since = now;
        self.changes += 1;
        Some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn it_comes_at_once_and_goes_only_after_the_stay() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.observe(499, 1000, FRESH, at(1)), None);
        assert_eq!(
            pressure.observe(500, 1000, FRESH, at(1)),
            Some(Level::Coalescing)
        );
        assert_eq!(pressure.observe(0, 1000, FRESH, at(5)), None);
        assert_eq!(pressure.observe(0, 1000, FRESH, at(6)), Some(Level::Calm));
    }

    #[test]
    fn an_old_front_is_pressure() {
        let mut pressure = Pressure::default();
        assert_eq!(
            pressure.observe(1, 1000, AGE_ON, at(9)),
            Some(Level::Coalescing)
        );
    }

    #[test]
    fn superseding_keeps_it_up_though_the_queue_is_short() {
        let mut pressure = Pressure::default();
        let _ = pressure.observe(900, 1000, FRESH, at(0));
        for second in 1..100 {
            pressure.superseded(at(second));
            assert_eq!(pressure.observe(1, 1000, FRESH, at(second)), None);
        }
        assert_eq!(pressure.observe(1, 1000, FRESH, at(104)), Some(Level::Calm));
    }

    #[test]
    fn shedding_steps_down_through_coalescing() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.shed(at(0)), Some(Level::Shedding));
        assert_eq!(pressure.shed(at(1)), None);
        assert_eq!(pressure.observe(400, 1000, FRESH, at(3)), None);
        assert_eq!(
            pressure.observe(400, 1000, FRESH, at(6)),
            Some(Level::Coalescing)
        );
        assert_eq!(pressure.observe(10, 1000, FRESH, at(11)), Some(Level::Calm));
    }
}
