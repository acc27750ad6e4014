//! The only reader of clocks: monotonic time for everything that waits, wall time for what is told
//! to people and to the far end. Everywhere else the time is an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::traffic::message::{Tick, WallTime};
use crate::traffic::spool::moment::{BootId, Moment, Stamp};

/// Where Linux says which boot this is (proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The process's clock. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    boot: BootId,
}

impl Clock {
    /// Starts the monotonic clock at [`Tick::START`].
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock's door")]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            boot: boot(),
        }
    }

    /// Monotonic time since the start, in microseconds.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock's door")]
    pub fn now(&self) -> Tick {
        Tick::START.after(Instant::now().duration_since(self.start))
    }

    /// Wall time now, in microseconds since 1970 (UTC). A clock that stands before 1970 reads 0.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock's door")]
    pub fn wall(&self) -> WallTime {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        WallTime::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Now in all clocks, also those that hold over restarts.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(since_boot.tv_nsec).unwrap_or(0);
        Moment {
            tick: self.now(),
            stamp: Stamp {
                boot: self.boot,
                boottime_micros: seconds * 1_000_000 + nanos / 1000,
                wall: self.wall(),
            },
        }
    }

    /// The instant of a tick, for timers.
    #[must_use]
    pub fn instant(&self, tick: Tick) -> Instant {
        self.start + tick.since(Tick::START)
    }
}

/// This boot; all zero where the system does not say.
#[allow(clippy::disallowed_methods, reason = "this is the clock's door")]
fn boot() -> BootId {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let digits = text.bytes().filter(u8::is_ascii_hexdigit);
    let mut id = BootId::default();
    for (at, digit) in digits.take(32).enumerate() {
        let value = char::from(digit).to_digit(16).unwrap_or(0) as u8;
        if let Some(byte) = id.0.get_mut(at / 2) {
            *byte = *byte << 4 | value;
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_boot_known_and_its_time_running() {
        let clock = Clock::start();
        let (first, second) = (clock.moment(), Clock::start().moment());
        assert_ne!(first.stamp.boot, BootId::default());
        assert_eq!(first.stamp.boot, second.stamp.boot);
        assert!(second.stamp.boottime_micros >= first.stamp.boottime_micros);
        assert!(first.stamp.boottime_micros > 0 && first.tick >= Tick::START);
    }
}
