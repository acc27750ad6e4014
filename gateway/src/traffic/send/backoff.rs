//! How long to wait before the next try to connect: exponential with full jitter, so that a fleet
//! that lost its cloud in one moment does not come back in one moment. In come the time and how a
//! connection went, out go waits. It never reads a clock and never waits itself.
//!
//! Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
//! `wait = random(0, min(cap, base * 2^tries))`.

use std::time::Duration;

use crate::traffic::message::Tick;

/// Upper end of the first wait. A broker that restarts is back in about a second.
pub const WAIT_BASE: Duration = Duration::from_millis(500);
/// A connection that lived this long proves that the far end is well: the next wait is short again.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Longest wait of a try that was hurried.
pub const HURRIED_WAIT_MAX: Duration = Duration::from_millis(250);
/// Hurried tries in each [`HURRY_SPAN`]. An alarm that waits for an hour must not become a storm of
/// handshakes, least of all from a fleet whose alarms have one cause.
pub const HURRIES_MAX: u32 = 4;
/// The time over which [`HURRIES_MAX`] counts.
pub const HURRY_SPAN: Duration = Duration::from_secs(60);

/// The waits of one link.
#[derive(Clone, Debug)]
pub struct Backoff {
    wait_max: Duration,
    tries: u32,
    random: u64,
    hurry_span_start: Tick,
    hurries: u32,
}

impl Backoff {
    /// Waits of at most `wait_max`; `seed` must differ between gateways, or the jitter is none.
    #[must_use]
    pub const fn new(wait_max: Duration, seed: u64) -> Self {
        Self {
            wait_max,
            tries: 0,
            random: seed,
            hurry_span_start: Tick::ZERO,
            hurries: 0,
        }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let doubled = WAIT_BASE.saturating_mul(2u32.saturating_pow(self.tries));
        self.tries = self.tries.saturating_add(1);
        self.below(doubled.min(self.wait_max))
    }

    /// The wait after an answer that will hardly change by itself: from half the cap to the cap.
    pub fn long_wait(&mut self) -> Duration {
        let half = self.wait_max / 2;
        half + self.below(half)
    }

    /// A connection ended after `lived`.
    pub fn ended(&mut self, lived: Duration) {
        if lived >= STABLE_AFTER {
            self.tries = 0;
        }
    }

    /// Shortens the wait that ends at `until`, because a message of the first class waits. Gives
    /// the new end; the same one when enough was hurried already.
    pub fn hurry(&mut self, now: Tick, until: Tick) -> Tick {
        let hurried = now.after(HURRIED_WAIT_MAX);
        if until <= hurried || !self.may_hurry(now) {
            return until;
        }
        now.after(self.below(HURRIED_WAIT_MAX))
    }

    fn may_hurry(&mut self, now: Tick) -> bool {
        if now.since(self.hurry_span_start) >= HURRY_SPAN {
            self.hurry_span_start = now;
            self.hurries = 0;
        }
        self.hurries = self.hurries.saturating_add(1);
        self.hurries <= HURRIES_MAX
    }

    /// Evenly spread from zero to `end`.
    fn below(&mut self, end: Duration) -> Duration {
        let end_micros = u64::try_from(end.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw() % end_micros.saturating_add(1).max(1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): enough to spread a fleet, nothing secret hangs on it.
    const fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    /// The longest of many gateways' waits after `tries` failures.
    fn longest(tries: u32) -> Duration {
        (0..2_000)
            .map(|seed| {
                let mut backoff = Backoff::new(CAP, seed);
                let _ = (0..tries).map(|_| backoff.wait()).count();
                backoff.wait()
            })
            .max()
            .unwrap()
    }

    #[test]
    fn do_waits_double_up_to_the_cap() {
        for (tries, end_millis) in [
            (0, 500),
            (1, 1_000),
            (3, 4_000),
            (6, 30_000),
            (4_000, 30_000),
        ] {
            let end = Duration::from_millis(end_millis);
            let longest = longest(tries);
            assert!(longest <= end, "{tries} tries: {longest:?} is over {end:?}");
            assert!(
                longest > end * 9 / 10,
                "{tries} tries: {longest:?} never nears {end:?}"
            );
        }
    }

    #[test]
    fn does_a_fleet_spread_over_the_whole_wait() {
        let waits: Vec<_> = (0..4_000)
            .map(|seed| Backoff::new(CAP, seed).wait())
            .collect();
        for quarter in 0..4u32 {
            let (from, to) = (WAIT_BASE * quarter / 4, WAIT_BASE * (quarter + 1) / 4);
            let share = waits.iter().filter(|w| (from..to).contains(*w)).count();
            assert!(
                (800..1_200).contains(&share),
                "quarter {quarter}: {share} of 4000"
            );
        }
    }

    #[test]
    fn does_only_a_stable_minute_reset() {
        let mut backoff = Backoff::new(CAP, 1);
        let _ = (0..20).map(|_| backoff.wait()).count();
        backoff.ended(STABLE_AFTER - Duration::from_millis(1));
        assert!((0..20).any(|_| backoff.wait() > WAIT_BASE));
        backoff.ended(STABLE_AFTER);
        assert!(backoff.wait() <= WAIT_BASE);
    }

    #[test]
    fn does_hurry_shorten_a_few_waits_and_never_spin() {
        let mut backoff = Backoff::new(CAP, 7);
        let until = at(130);
        let hurried = (0..100)
            .filter(|_| backoff.hurry(at(100), until) < until)
            .count();
        assert_eq!(hurried, HURRIES_MAX as usize);
        let after_the_span = backoff.hurry(at(161), at(190));
        assert!(after_the_span <= at(161).after(HURRIED_WAIT_MAX));
    }

    #[test]
    fn does_hurry_leave_a_short_wait_alone() {
        let mut backoff = Backoff::new(CAP, 7);
        let until = at(5).after(Duration::from_millis(100));
        assert_eq!(backoff.hurry(at(5), until), until);
    }

    #[test]
    fn is_the_long_wait_near_the_cap() {
        let mut backoff = Backoff::new(CAP, 3);
        assert!((0..1_000).all(|_| (CAP / 2..=CAP).contains(&backoff.long_wait())));
    }
}
