//! How long to wait before the next try to connect: exponential with full jitter.

use std::time::Duration;

const WAIT_BASE: Duration = Duration::from_millis(500);
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// The waits of one connection.
#[derive(Debug)]
pub(super) struct Backoff {
    wait_max: Duration,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// Waits of at most `wait_max`.
    pub(super) const fn new(wait_max: Duration, seed: u64) -> Self {
        Self {
            wait_max,
            tries: 0,
            random: seed | 1,
        }
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Duration {
        let end = WAIT_BASE.saturating_mul(2u32.saturating_pow(self.tries));
        self.tries = self.tries.saturating_add(1);
        let micros = u64::try_from(end.min(self.wait_max).as_micros()).unwrap_or(u64::MAX);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_micros(self.random % micros.saturating_add(1))
    }

    /// A connection ended after `lived`.
    pub(super) fn ended(&mut self, lived: Duration) {
        if lived >= STABLE_AFTER {
            self.tries = 0;
        }
    }
}
