//! What a fleet goes through: a list of phases, valid by construction. In comes a file's text, out
//! come a [`Scenario`] or all its faults at once; [`orders`] says what a phase asks of one device at
//! one time.

mod file;
pub mod orders;
#[cfg(test)]
mod tests;
mod written;

use std::time::Duration;

use tidegate_device::Tick;
use tidegate_device::payload::Form;

pub use file::{Fault, Faults};

/// What is played when nobody names a file: the whole story in a minute.
pub const STORY: &str = include_str!("../../config/scenarios/story.toml");

/// A week of phases of a minute: each costs memory at the far end.
const REPEATS_MAX: f64 = 10_000.0;

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What all phases share.
    pub fleet: Fleet,
    /// The first phase; there always is one.
    first: Phase,
    others: Vec<Phase>,
}

/// What all phases share.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Channels of each device.
    pub channels: u8,
    /// How payloads are written.
    pub payload: Form,
    /// Whether readings go with QoS 1.
    pub readings_confirmed: bool,
    /// First level, or levels, of every topic.
    pub topic: String,
    /// How many devices connect in a second when the fleet starts.
    pub connect_per_second: f64,
    /// Topics that the readings of one channel go round: more than one where many topics are wanted
    /// from few devices.
    pub topics_per_channel: u32,
    /// From one report of a device on itself to the next.
    pub report_period: Duration,
    /// Readings and reports of a device that may be unacknowledged.
    pub window: usize,
    /// Payloads that are shorter are filled up with spaces to so many bytes.
    pub payload_bytes_min: usize,
}

/// One phase.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its kind, as the file says it.
    pub name: &'static str,
    /// How long it takes.
    pub length: Duration,
    /// Samples a second, of each channel.
    pub readings_per_second: f64,
    /// Alarms a minute, of each device; as many are raised as cleared.
    pub alarms_per_minute: f64,
    /// What is the matter.
    pub act: Act,
}

/// What is the matter in a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Nothing.
    Steady,
    /// All sample faster.
    Burst {
        /// So many times.
        factor: f64,
    },
    /// Alarms everywhere.
    AlarmStorm {
        /// Of the devices that have them, 0 to 1.
        share: f64,
        /// How many each.
        alarms_per_minute: f64,
    },
    /// The network comes and goes.
    Flapping {
        /// Of the devices that are behind it, 0 to 1.
        share: f64,
        /// It holds for so long.
        up: Duration,
        /// It is gone for so long.
        down: Duration,
    },
    /// Devices lose power now and then, and what they had in memory.
    Rebooting {
        /// Of the devices that do, 0 to 1.
        share: f64,
        /// From the power's return to its next loss.
        every: Duration,
        /// From its loss to its return.
        off: Duration,
    },
    /// Wall clocks are wrong.
    ClockSkew {
        /// Of the devices that have one, 0 to 1.
        share: f64,
        /// By up to so much, either way.
        skew: Duration,
    },
    /// The first devices of the fleet sample faster.
    Mad {
        /// How many of them.
        devices: u32,
        /// So many times.
        factor: f64,
    },
    /// All sample as fast as their connections take it: a reading is made when the one before it has
    /// left, so that none is superseded in a device. There are no alarms in it.
    FlatOut {
        /// A device that made so many rests until the phase ends.
        readings_max: u64,
    },
    /// All lose power at once and come back at once.
    AllAtOnce {
        /// From loss to return.
        off: Duration,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// All that is wrong with it, each fault with its line.
    pub fn read(text: &str) -> Result<Self, Faults> {
        file::read(text)
    }

    /// The same scenario in `length` altogether: each phase keeps its part.
    #[must_use]
    pub fn scaled_to(mut self, length: Duration) -> Self {
        let factor = length.as_secs_f64() / self.length().as_secs_f64();
        for phase in std::iter::once(&mut self.first).chain(&mut self.others) {
            phase.length = phase.length.mul_f64(factor);
        }
        self
    }

    /// The same phases again and again, as often as they fit into `length`, but once at least.
    #[must_use]
    pub fn repeated_for(mut self, length: Duration) -> Self {
        let times = length.as_secs_f64() / self.length().as_secs_f64();
        let round: Vec<_> = self.phases().cloned().collect();
        for _ in 1..(times.min(REPEATS_MAX) as usize) {
            self.others.extend_from_slice(&round);
        }
        self
    }

    /// All phases together.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.phases().map(|phase| phase.length).sum()
    }

    /// In the order of playing.
    pub fn phases(&self) -> impl Iterator<Item = &Phase> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The phase at `now`, its index and when it began; the last one after the end.
    #[must_use]
    pub fn at(&self, now: Tick) -> (usize, &Phase, Tick) {
        let (mut index, mut current, mut start) = (0, &self.first, Tick::ZERO);
        for phase in &self.others {
            let end = start.after(current.length);
            if now < end {
                break;
            }
            (index, current, start) = (index + 1, phase, end);
        }
        (index, current, start)
    }

    /// When the last phase ends.
    #[must_use]
    pub fn end(&self) -> Tick {
        Tick::ZERO.after(self.length())
    }
}

impl Phase {
    /// From one sample of a channel to the next, for a device that samples `factor` times faster.
    #[must_use]
    pub fn period(&self, factor: f64) -> Duration {
        Duration::from_secs_f64(1.0 / (self.readings_per_second * factor))
    }
}
