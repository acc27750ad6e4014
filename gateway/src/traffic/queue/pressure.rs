//! When a class, or the memory that all share, is under pressure, and when that is over. Two signals: how
//! full it is and how old the message at its front is. On and off have different thresholds and a
//! minimum stay, so that the level does not flap; and since coalescing removes its own signal (the queue
//! gets short because values are superseded), it ends only when the uplink could have taken what was
//! superseded too ([`spared`](super::spared)).

use std::time::Duration;

use super::super::message::Tick;
use super::Delivery;

/// How hard a class, or the memory, is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room and the front moves: nothing gives way.
    Calm,
    /// A `latest` class keeps only the newest value of each key.
    Coalescing,
    /// There is no more room: what may be lost is shed.
    Shedding,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Coalescing, Self::Shedding];

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

    /// The level in an operator's words, for the memory.
    #[must_use]
    pub const fn of_memory(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Coalescing => "under pressure: `latest` classes coalesce, the lowest first",
            Self::Shedding => "full: the lowest class gives way",
        }
    }
}

/// When pressure begins and when it may end. Begins at either of the `on` thresholds, ends below both of the
/// `off` ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureSettings {
    /// So full (in 1/1000 of the bound) is under pressure...
    pub full_on_permille: u32,
    /// ...and no more below this; the distance is the hysteresis.
    pub full_off_permille: u32,
    /// A front message so old says that the uplink is slow or gone.
    pub age_on: Duration,
    /// Below this age the front moves again.
    pub age_off: Duration,
    /// How long a level stays at least.
    pub stay: Duration,
}

impl PressureSettings {
    /// A class of which nothing else is said. Two seconds are far above the acknowledgement time of a
    /// satellite link (0.6 s), and far below what a reader of a latest value would call stale.
    pub const CLASS: Self = Self {
        full_on_permille: 500,
        full_off_permille: 250,
        age_on: Duration::from_secs(2),
        age_off: Duration::from_millis(500),
        stay: Duration::from_secs(5),
    };
    /// The memory: below the seven eighths that are all there is for classes below the first. What waits in
    /// it has no age of its own.
    pub const MEMORY: Self = Self {
        full_on_permille: 750,
        full_off_permille: 500,
        age_on: Duration::MAX,
        age_off: Duration::MAX,
        stay: Duration::from_secs(5),
    };
}

/// What is seen at one look.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// How full, in 1/1000 of the bound.
    pub full_permille: u64,
    /// How long the front message waits.
    pub front_age: Duration,
    /// Coalescing is needed, though the queue is short.
    pub needed: bool,
}

/// The pressure of one class, or of the memory.
#[derive(Debug)]
pub struct Pressure {
    settings: PressureSettings,
    level: Level,
    /// When the level was entered, or a threshold last said that it is still needed.
    since: Tick,
    entered: [u64; 3],
}

impl Pressure {
    /// Calm.
    #[must_use]
    pub const fn new(settings: PressureSettings) -> Self {
        Self {
            settings,
            level: Level::Calm,
            since: Tick::ZERO,
            entered: [0; 3],
        }
    }

    /// The level now.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How often each level was entered, in the order of [`Level::ALL`].
    #[must_use]
    pub const fn entered(&self) -> [u64; 3] {
        self.entered
    }

    /// How long a level stays at least.
    #[must_use]
    pub const fn stay(&self) -> Duration {
        self.settings.stay
    }

    /// Looks at the signs; says the new level if it changed.
    pub fn observe(&mut self, signs: Signs, now: Tick) -> Option<Level> {
        let (on, off) = (
            u64::from(self.settings.full_on_permille),
            u64::from(self.settings.full_off_permille),
        );
        let pressed = signs.full_permille >= on || signs.front_age >= self.settings.age_on;
        let relaxed = signs.full_permille < off && signs.front_age < self.settings.age_off;
        let stayed = now.since(self.since) >= self.settings.stay;
        match self.level {
            Level::Calm if pressed => self.enter(Level::Coalescing, now),
            Level::Calm => None,
            Level::Shedding if !relaxed && signs.full_permille < on && stayed => {
                self.enter(Level::Coalescing, now)
            }
            Level::Coalescing if !relaxed => {
                self.since = now;
                None
            }
            _ if relaxed && !signs.needed && stayed => self.enter(Level::Calm, now),
            _ => None,
        }
    }

    /// It coalesces at once, before anything is shed; says the level if that is news.
    pub fn coalesce(&mut self, now: Tick) -> Option<Level> {
        self.since = now;
        match self.level {
            Level::Calm => self.enter(Level::Coalescing, now),
            _ => None,
        }
    }

    /// Something was shed for want of room; says the level if that is news.
    pub fn shed(&mut self, now: Tick) -> Option<Level> {
        self.since = now;
        match self.level {
            Level::Shedding => None,
            _ => self.enter(Level::Shedding, now),
        }
    }

    fn enter(&mut self, level: Level, now: Tick) -> Option<Level> {
        self.level = level;
        self.since = now;
        self.entered[level as usize] += 1;
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

    fn pressure() -> Pressure {
        Pressure::new(PressureSettings::CLASS)
    }

    fn full(full_permille: u64) -> Signs {
        Signs {
            full_permille,
            front_age: FRESH,
            needed: false,
        }
    }

    #[test]
    fn it_comes_at_once_and_goes_only_after_the_stay() {
        let mut pressure = pressure();
        assert_eq!(pressure.observe(full(499), at(1)), None);
        assert_eq!(pressure.observe(full(500), at(1)), Some(Level::Coalescing));
        assert_eq!(pressure.observe(full(0), at(5)), None);
        assert_eq!(pressure.observe(full(0), at(6)), Some(Level::Calm));
        assert_eq!(pressure.entered(), [1, 1, 0]);
    }

    #[test]
    fn an_old_front_is_pressure() {
        let mut pressure = pressure();
        let front_age = PressureSettings::CLASS.age_on;
        let old = Signs {
            front_age,
            ..full(1)
        };
        assert_eq!(pressure.observe(old, at(9)), Some(Level::Coalescing));
    }

    #[test]
    fn need_keeps_it_up_though_the_queue_is_short() {
        let mut pressure = pressure();
        let needed = Signs {
            needed: true,
            ..full(1)
        };
        let _ = pressure.observe(full(900), at(0));
        for second in 1..100 {
            assert_eq!(pressure.observe(needed, at(second)), None);
        }
        assert_eq!(pressure.observe(full(1), at(100)), Some(Level::Calm));
    }

    #[test]
    fn between_the_thresholds_it_stays() {
        let mut pressure = pressure();
        let _ = pressure.observe(full(500), at(0));
        for second in 1..100 {
            assert_eq!(pressure.observe(full(260), at(second)), None);
        }
        assert_eq!(pressure.observe(full(249), at(103)), None);
        assert_eq!(pressure.observe(full(249), at(104)), Some(Level::Calm));
    }

    #[test]
    fn shedding_steps_down_through_coalescing() {
        let mut pressure = pressure();
        assert_eq!(pressure.shed(at(0)), Some(Level::Shedding));
        assert_eq!(pressure.shed(at(1)), None);
        assert_eq!(pressure.observe(full(400), at(3)), None);
        assert_eq!(pressure.observe(full(400), at(6)), Some(Level::Coalescing));
        assert_eq!(pressure.observe(full(10), at(11)), Some(Level::Calm));
    }

    #[test]
    fn does_the_memory_know_no_age() {
        let mut memory = Pressure::new(PressureSettings::MEMORY);
        assert_eq!(memory.observe(full(749), at(1)), None);
        assert_eq!(memory.observe(full(750), at(1)), Some(Level::Coalescing));
        assert_eq!(memory.observe(full(499), at(6)), Some(Level::Calm));
    }
}
