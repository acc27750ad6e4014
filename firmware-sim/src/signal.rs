//! What a device's converter measures: a calm value that trembles, and now and then one above the
//! alarm limit. In come a seed and how many alarms there should be, out come values, the same each
//! time.

use std::time::Duration;

use tidegate_device::chance::Chance;
use tidegate_device::{Threshold, Value};

/// Raises at 80, clears at 75.
pub const THRESHOLD: Option<Threshold> = Threshold::new(Value(80_000), Value(75_000));
/// A calm value is 20.000 to 24.999, one that alarms 90.000 to 94.999.
const CALM: i32 = 20_000;
const HOT: i32 = 90_000;
const TREMBLE: u64 = 4_999;

/// The converter of one device.
#[derive(Debug)]
pub struct Signal {
    chance: Chance,
    /// One bit for each channel that is hot.
    hot: u8,
    /// A calm channel gets hot when a number below this is drawn.
    odds: u64,
}

impl Signal {
    /// The signal of this seed, without alarms until their number is set.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            hot: 0,
            odds: 0,
        }
    }

    /// So many alarms a minute from `channels` that are sampled each `period`. An excursion is one
    /// sample long and makes two: raised and cleared.
    pub fn set_alarms(&mut self, per_minute: f64, channels: u8, period: Duration) {
        let samples = 60.0 / period.as_secs_f64() * f64::from(channels);
        let excursions = per_minute / 2.0;
        // While one lasts, no other begins: only the calm samples are asked.
        let odds = excursions / (samples - excursions).max(excursions);
        self.odds = (odds.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
    }

    /// The next sample of a channel.
    pub fn sample(&mut self, channel: u8) -> Value {
        let bit = 1u8.checked_shl(u32::from(channel)).unwrap_or(0);
        let hot = self.hot & bit == 0 && self.odds > 0 && self.chance.draw() <= self.odds;
        let base = if hot {
            self.hot |= bit;
            HOT
        } else {
            self.hot &= !bit;
            CALM
        };
        let tremble = i32::try_from(self.chance.up_to(TREMBLE)).unwrap_or(0);
        Value(base + tremble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarms_in_an_hour(per_minute: f64, period: Duration) -> usize {
        let mut signal = Signal::new(1);
        signal.set_alarms(per_minute, 4, period);
        let samples = (3_600.0 / period.as_secs_f64()) as usize;
        let hot = (0..samples * 4)
            .filter(|index| signal.sample((index % 4) as u8).0 >= 80_000)
            .count();
        hot * 2
    }

    #[test]
    fn are_there_as_many_alarms_as_asked_for() {
        for (per_minute, period) in [(6.0, 1_000), (60.0, 100), (120.0, 1_000), (240.0, 1_000)] {
            let expected = per_minute * 60.0;
            let made = alarms_in_an_hour(per_minute, Duration::from_millis(period)) as f64;
            assert!(
                (made / expected - 1.0).abs() < 0.15,
                "{made} for {expected}"
            );
        }
        assert_eq!(alarms_in_an_hour(0.0, Duration::from_secs(1)), 0);
    }
}
