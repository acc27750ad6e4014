//! What a device says: readings, alarms and, now and then, how it is itself.

use crate::counts::Counts;
use crate::threshold::Crossing;
use crate::tick::Tick;

/// A measured value in thousandths of its unit: microcontrollers have no floating point to spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(pub i32);

/// What sort of message it is; each has sequence numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A limit was crossed. Must arrive: QoS 1, never replaced by a newer one.
    Alarm,
    /// How the device is. QoS 1.
    Report,
    /// A sample of one channel. The latest is worth more than all older ones.
    Reading,
}

impl Kind {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Alarm, Self::Report, Self::Reading];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Report => "report",
            Self::Reading => "reading",
        }
    }
}

/// The content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A limit of a channel was crossed.
    Alarm {
        /// Which way.
        crossing: Crossing,
        /// The value that did it.
        value: Value,
    },
    /// How the device is: its counts of readings and alarms at that time.
    Report {
        /// Readings that a newer one replaced before they were sent.
        superseded: u32,
        /// Alarms that found no room.
        dropped: u32,
        /// Messages that were sent again.
        resent: u32,
    },
    /// A sample.
    Reading(Value),
}

/// One message. `boot`, what it is of, and `seq` name it for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number that this start of the device was given.
    pub boot: u32,
    /// Counts from 1: alarms and reports for the device, readings for each channel. A gap is a loss
    /// to whoever reads it; which ones are none (superseded here) the device knows.
    pub seq: u32,
    /// Index of the channel; 0 for a report.
    pub channel: u8,
    /// When it was due, by the device's own counter. Latency counts from here.
    pub due: Tick,
    /// The same by the device's wall clock, in milliseconds since 1970. It may be wrong: clocks are.
    pub wall_millis: u64,
    /// The content.
    pub body: Body,
}

impl Message {
    /// What sort of message it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Alarm { .. } => Kind::Alarm,
            Body::Report { .. } => Kind::Report,
            Body::Reading(_) => Kind::Reading,
        }
    }

    /// The device's report on itself.
    pub(crate) const fn report_of(readings: &Counts, alarms: &Counts, resent: u64) -> Body {
        Body::Report {
            superseded: readings.superseded as u32,
            dropped: alarms.dropped as u32,
            resent: resent as u32,
        }
    }
}
