//! The acknowledgement time of one connection: smoothed as in RFC 6298, and its base, the least of
//! the last minutes as in RFC 6817, against which queueing shows.

use std::time::Duration;

use super::super::message::Tick;

/// How long one minimum counts; two periods are kept, so that the base follows a changed route
/// within two minutes.
const BASE_PERIOD: Duration = Duration::from_secs(60);

/// The measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct AckTime {
    smoothed: Option<Duration>,
    base: [Option<Duration>; 2],
    period_start: Tick,
}

impl AckTime {
    /// Takes a sample; gives the base, and what the sample lies above it.
    pub fn sample(&mut self, time: Duration, now: Tick) -> (Duration, Duration) {
        self.smoothed = Some(self.smoothed.map_or(time, |old| (old * 7 + time) / 8));
        if now.since(self.period_start) >= BASE_PERIOD {
            self.base = [None, self.base[0]];
            self.period_start = now;
        }
        self.base[0] = Some(self.base[0].map_or(time, |old| old.min(time)));
        let base = self.base.iter().flatten().min().copied().unwrap_or(time);
        (base, time.saturating_sub(base))
    }

    /// Whether the sample at `now` was the first of its period.
    #[must_use]
    pub fn is_new_period(&self, now: Tick) -> bool {
        self.period_start == now && self.base[1].is_some()
    }

    /// The smoothed time; `None` before the first sample.
    #[must_use]
    pub const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queueing_is_what_lies_above_the_least() {
        let mut time = AckTime::default();
        let ms = Duration::from_millis;
        assert_eq!(time.sample(ms(30), Tick::ZERO), (ms(30), ms(0)));
        assert_eq!(time.sample(ms(80), Tick::ZERO), (ms(30), ms(50)));
        assert_eq!(time.sample(ms(20), Tick::ZERO), (ms(20), ms(0)));
        assert_eq!(time.sample(ms(80), Tick::ZERO), (ms(20), ms(60)));
    }

    #[test]
    fn a_longer_route_becomes_the_base_after_two_periods() {
        let mut time = AckTime::default();
        let ms = Duration::from_millis;
        let _ = time.sample(ms(20), Tick::ZERO);
        let at = |minutes: u64| Tick::from_micros(minutes * 60_000_000);
        let _ = time.sample(ms(300), at(1));
        assert_eq!(time.sample(ms(300), at(1)), (ms(20), ms(280)));
        assert_eq!(time.sample(ms(300), at(2)), (ms(300), ms(0)));
    }
}
