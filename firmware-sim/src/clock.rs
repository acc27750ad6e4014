//! The door to time: one start, and ticks counted from it. Everybody else is told the time.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the one reader of clocks"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidegate_device::Tick;

/// Counts from its making. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_wall_millis: i64,
}

impl Clock {
    /// A clock that shows [`Tick::ZERO`] now.
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = wall.map_or(0, |since| since.as_millis());
        Self {
            start: Instant::now(),
            start_wall_millis: i64::try_from(millis).unwrap_or(0),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Tick {
        let micros = self.start.elapsed().as_micros();
        Tick::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970 at [`Tick::ZERO`].
    #[must_use]
    pub const fn start_wall_millis(&self) -> i64 {
        self.start_wall_millis
    }
}
