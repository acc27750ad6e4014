//! A token bucket that is told the time.

use crate::traffic::message::Tick;

/// Microseconds in a minute.
const MINUTE: u64 = 60_000_000;

/// So many at once, so many a minute after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    burst: u64,
    per_minute: u64,
    /// Tokens times [`MINUTE`], so that nothing is lost by rounding.
    filled: u64,
    at: Tick,
}

impl Bucket {
    /// A full bucket.
    pub(super) const fn new(burst: u64, per_minute: u64, now: Tick) -> Self {
        Self {
            burst,
            per_minute,
            filled: burst * MINUTE,
            at: now,
        }
    }

    /// Whether a token can be taken that leaves `reserve` behind.
    pub(super) fn has(&mut self, reserve: u64, now: Tick) -> bool {
        let passed = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.filled = self
            .filled
            .saturating_add(passed.saturating_mul(self.per_minute))
            .min(self.burst * MINUTE);
        self.at = self.at.max(now);
        self.filled >= (reserve + 1) * MINUTE
    }

    /// Takes one. Ask [`Bucket::has`] before.
    pub(super) fn take(&mut self) {
        self.filled = self.filled.saturating_sub(MINUTE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(bucket: &mut Bucket, reserve: u64, now: Tick) -> u32 {
        let mut count = 0;
        while bucket.has(reserve, now) {
            bucket.take();
            count += 1;
        }
        count
    }

    #[test]
    fn is_the_rate_kept_after_the_burst() {
        let mut bucket = Bucket::new(40, 9, Tick::ZERO);
        assert_eq!(taken(&mut bucket, 0, Tick::ZERO), 40);
        let mut count = 0;
        let mut now = Tick::ZERO;
        for _ in 0..600_000 {
            now = now.after(Duration::from_millis(1));
            count += taken(&mut bucket, 0, now);
        }
        assert_eq!(count, 90, "ten minutes");
        let late = now.after(Duration::from_secs(86_400));
        assert_eq!(taken(&mut bucket, 0, late), 40, "no more than the burst");
        assert_eq!(taken(&mut bucket, 0, Tick::NEVER), 40);
        assert_eq!(taken(&mut bucket, 0, Tick::ZERO), 0, "time never goes back");
    }

    #[test]
    fn does_a_reserve_stay() {
        let mut bucket = Bucket::new(10, 9, Tick::ZERO);
        assert_eq!(taken(&mut bucket, 3, Tick::ZERO), 7);
        assert_eq!(taken(&mut bucket, 0, Tick::ZERO), 3);
    }
}
