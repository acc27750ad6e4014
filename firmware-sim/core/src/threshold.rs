//! A local alarm limit with hysteresis: a value that trembles around the limit gives one alarm,
//! not a thousand. In come values, out come crossings.

use crate::message::Value;

/// The limits of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    raise_at: Value,
    clear_at: Value,
}

/// A value went over a limit that it had not gone over before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// From well to alarm.
    Raised,
    /// From alarm to well.
    Cleared,
}

impl Threshold {
    /// Raises at `raise_at` and above, clears at `clear_at` and below. `None` unless `clear_at` is
    /// below `raise_at`: the gap is the hysteresis.
    #[must_use]
    pub const fn new(raise_at: Value, clear_at: Value) -> Option<Self> {
        if clear_at.0 < raise_at.0 {
            Some(Self { raise_at, clear_at })
        } else {
            None
        }
    }

    /// What `value` changes for a channel that is in alarm, or is not.
    #[must_use]
    pub fn crossing(&self, in_alarm: bool, value: Value) -> Option<Crossing> {
        if !in_alarm && value >= self.raise_at {
            Some(Crossing::Raised)
        } else if in_alarm && value <= self.clear_at {
            Some(Crossing::Cleared)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_trembling_value_give_one_alarm() {
        let threshold = Threshold::new(Value(100), Value(90)).unwrap();
        let mut in_alarm = false;
        let mut crossings = 0;
        for value in [99, 100, 99, 100, 91, 101, 95, 90, 91, 99, 90, 89] {
            if let Some(crossing) = threshold.crossing(in_alarm, Value(value)) {
                in_alarm = crossing == Crossing::Raised;
                crossings += 1;
            }
        }
        assert_eq!((crossings, in_alarm), (2, false), "one raised, one cleared");
    }

    #[test]
    fn is_a_threshold_without_hysteresis_refused() {
        assert_eq!(Threshold::new(Value(5), Value(5)), None);
        assert_eq!(Threshold::new(Value(5), Value(6)), None);
    }
}
