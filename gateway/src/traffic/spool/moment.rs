//! Times that hold over restarts. What is kept says in which boot it was written, when in that boot,
//! and what the wall clock said; here that becomes a [`Tick`] of this process again.
//!
//! Within a boot the boot's own time counts, so that a step of the wall clock expires nothing. From
//! another boot only the wall clock leads here, as that boot knew it last: a clock that was set in the
//! meantime corrects what was written before. While the clock stands before what was written, no
//! time has passed.

use crate::traffic::message::{Tick, WallTime};

/// Boots remembered at most: more than any sensible backlog spans, and 4 KiB.
const BOOTS_MAX: usize = 128;

/// One boot of the machine; all zero when the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

/// A moment as it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The boot.
    pub boot: BootId,
    /// Microseconds since the boot, sleep included.
    pub boottime_micros: u64,
    /// What the wall clock said.
    pub wall: WallTime,
}

/// A moment in all clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// This process's clock.
    pub tick: Tick,
    /// The others.
    pub stamp: Stamp,
}

impl Moment {
    /// The stamp of a tick at or before this moment.
    pub(super) fn stamp_at(&self, tick: Tick) -> Stamp {
        let ago = self.tick.since(tick).as_micros() as u64;
        Stamp {
            boot: self.stamp.boot,
            boottime_micros: self.stamp.boottime_micros.saturating_sub(ago),
            wall: WallTime::from_micros(self.stamp.wall.micros().saturating_sub(ago)),
        }
    }

    /// What the wall clock says of a tick at or before this moment.
    pub(super) fn wall_of(&self, tick: Tick) -> WallTime {
        self.stamp_at(tick).wall
    }

    fn before(&self, ago_micros: u64) -> Tick {
        Tick::from_micros(self.tick.micros().saturating_sub(ago_micros))
    }
}

/// What is known of boots: the latest stamp of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Boots(Vec<Stamp>);

impl Boots {
    /// Takes a stamp in, unless a later one of its boot is known.
    pub(super) fn learn(&mut self, stamp: Stamp) {
        match self.0.iter_mut().find(|known| known.boot == stamp.boot) {
            Some(known) if known.boottime_micros > stamp.boottime_micros => {}
            Some(known) => *known = stamp,
            None => {
                if self.0.len() >= BOOTS_MAX {
                    self.0.remove(0);
                }
                self.0.push(stamp);
            }
        }
    }

    /// When it was by the wall clock, as its boot knew it last.
    pub(super) fn wall(&self, stamp: Stamp) -> WallTime {
        let Some(known) = self.0.iter().find(|known| known.boot == stamp.boot) else {
            return stamp.wall;
        };
        let later = known.boottime_micros.saturating_sub(stamp.boottime_micros);
        let earlier = stamp.boottime_micros.saturating_sub(known.boottime_micros);
        let wall = known.wall.micros().saturating_sub(later);
        WallTime::from_micros(wall.saturating_add(earlier))
    }

    /// When it was by this process's clock, seen from `now`.
    pub(super) fn tick(&self, stamp: Stamp, now: Moment) -> Tick {
        let same = stamp.boot == now.stamp.boot && stamp.boot != BootId::default();
        let (then, today) = if same {
            (stamp.boottime_micros, now.stamp.boottime_micros)
        } else {
            (self.wall(stamp).micros(), now.stamp.wall.micros())
        };
        now.before(today.saturating_sub(then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;
    const YEAR_2026: u64 = 1_770_000_000_000_000;

    fn stamp(boot: u8, boottime_micros: u64, wall: u64) -> Stamp {
        Stamp {
            boot: BootId([boot; 16]),
            boottime_micros,
            wall: WallTime::from_micros(wall),
        }
    }

    fn ago(boots: &Boots, then: Stamp, now: Stamp) -> u64 {
        let now = Moment {
            tick: Tick::START,
            stamp: now,
        };
        Tick::START.micros() - boots.tick(then, now).micros()
    }

    #[test]
    fn does_a_step_of_the_wall_clock_age_nothing_within_a_boot() {
        let boots = Boots::default();
        let (then, now) = (stamp(1, HOUR, 0), stamp(1, 3 * HOUR, YEAR_2026));
        assert_eq!(ago(&boots, then, now), 2 * HOUR);
    }

    #[test]
    fn does_the_wall_clock_count_over_boots() {
        let boots = Boots::default();
        let then = stamp(1, HOUR, YEAR_2026);
        assert_eq!(ago(&boots, then, stamp(2, 0, YEAR_2026 + HOUR)), HOUR);
        // The clock is not set yet: no time has passed.
        assert_eq!(ago(&boots, then, stamp(2, 0, 5)), 0);
    }

    #[test]
    fn does_a_clock_that_was_set_later_correct_what_was_written_before() {
        let mut boots = Boots::default();
        let then = stamp(1, HOUR, 77);
        boots.learn(stamp(1, 2 * HOUR, YEAR_2026));
        boots.learn(stamp(1, HOUR, 77));
        assert_eq!(boots.wall(then), WallTime::from_micros(YEAR_2026 - HOUR));
        assert_eq!(ago(&boots, then, stamp(2, 0, YEAR_2026 + HOUR)), 2 * HOUR);
    }

    #[test]
    fn does_an_unknown_boot_never_count_as_the_same() {
        let boots = Boots::default();
        let (then, now) = (stamp(0, 9 * HOUR, 5), stamp(0, HOUR, 5 + HOUR));
        assert_eq!(ago(&boots, then, now), HOUR);
    }
}
