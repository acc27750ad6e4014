//! A token bucket: what the link or the cloud limits, wire bytes or publishes a second.

use std::time::Duration;

use super::super::message::Tick;

/// A bucket holds what this long a time brings: bursts stay far below a second, which is how clouds
/// measure.
const BURST: Duration = Duration::from_millis(100);

/// Micro-tokens in a token, so that a tick of one microsecond adds `rate` of them.
const MICRO: i128 = 1_000_000;

/// The bucket. Tokens are bytes or publishes, whatever its owner counts.
#[derive(Debug)]
pub struct Bucket {
    rate: i128,
    burst: i128,
    level: i128,
    at: Tick,
}

impl Bucket {
    /// A full bucket that gains `rate` tokens a second (0 counts as 1).
    #[must_use]
    pub fn new(rate: u64, now: Tick) -> Self {
        let rate = i128::from(rate.max(1));
        let burst = (rate * i128::from(BURST.as_micros() as u64)).max(MICRO);
        Self {
            rate,
            burst,
            level: burst,
            at: now,
        }
    }

    /// Whether anything may be taken now. What is taken may then exceed what is there: the debt is
    /// waited for afterwards, so that a message larger than the bucket still passes.
    pub fn open(&mut self, now: Tick) -> bool {
        self.fill(now);
        self.level > 0
    }

    /// Takes tokens.
    pub fn take(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * MICRO;
    }

    /// When it opens again; `now` or earlier when it is open.
    #[must_use]
    pub fn opens_at(&self) -> Tick {
        if self.level > 0 {
            return self.at;
        }
        let micros = (1 - self.level).div_euclid(self.rate) + 1;
        self.at.after(Duration::from_micros(
            u64::try_from(micros).unwrap_or(u64::MAX),
        ))
    }

    fn fill(&mut self, now: Tick) {
        let micros = i128::try_from(now.since(self.at).as_micros()).unwrap_or(i128::MAX);
        self.level = self
            .burst
            .min(self.level.saturating_add(micros.saturating_mul(self.rate)));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any time the bucket gives at most rate x time + one burst + one last message.
        #[test]
        fn never_more_than_the_rate(rate in 1_u64..100_000, steps in prop::collection::vec((0_u64..50_000, 1_u64..500), 1..500)) {
            let mut bucket = Bucket::new(rate, Tick::ZERO);
            let (mut now, mut taken, mut largest) = (Tick::ZERO, 0_u64, 0_u64);
            for (wait, tokens) in steps {
                now = now.after(Duration::from_micros(wait));
                while bucket.open(now) {
                    bucket.take(tokens);
                    taken += tokens;
                    largest = largest.max(tokens);
                }
                let bound = rate * now.micros() / 1_000_000 + (rate / 10).max(1) + largest + 1;
                prop_assert!(taken <= bound, "{taken} > {bound}");
            }
        }
    }

    #[test]
    fn it_opens_when_it_says() {
        let mut bucket = Bucket::new(90, Tick::ZERO);
        bucket.take(20);
        let opens = bucket.opens_at();
        assert!(!bucket.open(Tick::from_micros(opens.micros() - 2)));
        assert!(bucket.open(opens));
    }
}
