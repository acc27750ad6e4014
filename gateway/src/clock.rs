//! The only reader of clocks: monotonic time for everything that waits, wall time for what is told
//! to people and to the far end. Everywhere else the time is an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::traffic::message::{Tick, WallTime};

/// The process's clock. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts the monotonic clock at [`Tick::START`].
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock's door")]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
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

    /// The instant of a tick, for timers.
    #[must_use]
    pub fn instant(&self, tick: Tick) -> Instant {
        self.start + tick.since(Tick::START)
    }
}
