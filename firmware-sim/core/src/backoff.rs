//! How long to wait before the next try to connect: exponential with full jitter, so that a fleet
//! that lost its gateway in one moment does not come back in one moment. In goes how a connection
//! went, out come waits.
//!
//! Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
//! `wait = random(0, min(cap, base * 2^tries))`.

use core::time::Duration;

use crate::chance::Chance;
use crate::tick::micros;

/// Upper end of the first wait: a gateway that restarts is back in about a second.
pub const WAIT_BASE: Duration = Duration::from_millis(500);
/// A connection that lived this long proves that the far end is well: the next wait is short again.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// The waits of one link.
#[derive(Clone, Debug)]
pub struct Backoff {
    wait_max: Duration,
    tries: u32,
    chance: Chance,
}

impl Backoff {
    /// Waits of at most `wait_max`; `seed` must differ between devices, or the jitter is none.
    #[must_use]
    pub const fn new(wait_max: Duration, seed: u64) -> Self {
        Self {
            wait_max,
            tries: 0,
            chance: Chance::new(seed),
        }
    }

    /// The wait before the next try, after a connection that was up for `lived` (zero when it never was).
    pub fn wait_after(&mut self, lived: Duration) -> Duration {
        if lived >= STABLE_AFTER {
            self.tries = 0;
        }
        let doubled = WAIT_BASE.saturating_mul(2u32.saturating_pow(self.tries));
        self.tries = self.tries.saturating_add(1);
        let end = doubled.min(self.wait_max);
        Duration::from_micros(self.chance.up_to(micros(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(30);

    fn longest_after(failures: u32) -> Duration {
        let nth_wait = |seed| {
            let mut backoff = Backoff::new(CAP, seed);
            for _ in 0..failures {
                backoff.wait_after(Duration::ZERO);
            }
            backoff.wait_after(Duration::ZERO)
        };
        (0..2_000).map(nth_wait).max().unwrap()
    }

    #[test]
    fn do_waits_double_up_to_the_cap_and_use_it_all() {
        for (failures, end_millis) in [(0, 500), (1, 1_000), (3, 4_000), (6, 30_000), (90, 30_000)]
        {
            let (end, longest) = (Duration::from_millis(end_millis), longest_after(failures));
            assert!(
                longest <= end && longest > end * 9 / 10,
                "{failures}: {longest:?}"
            );
        }
    }

    #[test]
    fn does_only_a_stable_minute_reset() {
        let mut backoff = Backoff::new(CAP, 1);
        let short_life = STABLE_AFTER - Duration::from_millis(1);
        assert!((0..20).any(|_| backoff.wait_after(short_life) > WAIT_BASE));
        assert!(backoff.wait_after(STABLE_AFTER) <= WAIT_BASE);
    }
}
