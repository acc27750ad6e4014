//! The interrupt's side: when a channel is due, what its sample means, and whether it is an alarm.
//! In come the time and values; out go samples for the main loop and, through a queue that needs no
//! lock, alarms. It never waits: a full queue drops the alarm, counts it, and the gap in the
//! sequence tells the far end.

use core::time::Duration;

use heapless::Vec;
use heapless::spsc::{Producer, Queue};

use crate::counts::Counts;
use crate::message::{Body, Message, Value};
use crate::threshold::{Crossing, Threshold};
use crate::tick::{Tick, micros};

/// Channels of a device. Eight is what the converters of small controllers multiplex.
pub const CHANNELS_MAX: usize = 8;
/// Alarms that can wait for the main loop: each of eight channels raised and cleared nearly twice
/// while the link is away. 1.5 KiB of RAM.
pub const ALARMS_MAX: usize = ALARM_SLOTS - 1;
/// The queue keeps one slot empty to tell full from empty.
const ALARM_SLOTS: usize = 32;

/// From the interrupt to the main loop.
pub type AlarmQueue = Queue<Message, ALARM_SLOTS>;

/// One input of the converter.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// From one sample to the next; at least a microsecond.
    pub period: Duration,
    /// Its alarm limits, if it has any.
    pub threshold: Option<Threshold>,
}

/// A channel wants its sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Index of the channel.
    pub channel: u8,
    /// When it was due, which may be a while ago.
    pub at: Tick,
}

/// The interrupt's state.
#[derive(Debug)]
pub struct Sampler {
    boot: u32,
    wall_offset_millis: i64,
    inputs: Vec<Input, CHANNELS_MAX>,
    next_due: Tick,
    alarm_seq: u32,
    readings: Counts,
    alarms: Counts,
}

#[derive(Debug)]
struct Input {
    channel: Channel,
    due: Tick,
    in_alarm: bool,
    seq: u32,
}

impl Sampler {
    /// Channels that are all due at `start` for the first time: one timer drives them. Those beyond
    /// [`CHANNELS_MAX`] are left out. `boot` names this start.
    #[must_use]
    pub fn new(boot: u32, channels: &[Channel], start: Tick) -> Self {
        let inputs = channels.iter().take(CHANNELS_MAX).map(|&channel| Input {
            channel,
            due: start,
            in_alarm: false,
            seq: 0,
        });
        let mut sampler = Self {
            boot,
            wall_offset_millis: 0,
            inputs: inputs.collect(),
            next_due: Tick::ZERO,
            alarm_seq: 0,
            readings: Counts::default(),
            alarms: Counts::default(),
        };
        sampler.find_next_due();
        sampler
    }

    /// When the next sample is due; [`Tick::NEVER`] without channels.
    #[must_use]
    pub const fn next_due(&self) -> Tick {
        self.next_due
    }

    /// The next channel that is due by `now`, its timer set anew. No sample is skipped: an interrupt
    /// that comes late finds all that it missed, each with the time at which it was due.
    pub fn due(&mut self, now: Tick) -> Option<Due> {
        if now < self.next_due {
            return None;
        }
        let (index, input) = (0u8..).zip(&mut self.inputs).min_by_key(|(_, i)| i.due)?;
        let due = Due {
            channel: index,
            at: input.due,
        };
        input.due = due
            .at
            .after(input.channel.period.max(Duration::from_micros(1)));
        self.find_next_due();
        Some(due)
    }

    /// Takes the sample that was due. Gives the reading for the main loop (`None` for a channel that
    /// there is not); an alarm goes into `alarms`.
    pub fn sample(
        &mut self,
        due: Due,
        value: Value,
        alarms: &mut Producer<'_, Message>,
    ) -> Option<Message> {
        let wall_millis = self.wall_millis(due.at);
        let input = self.inputs.get_mut(usize::from(due.channel))?;
        input.seq = input.seq.wrapping_add(1);
        self.readings.made += 1;
        let reading = Message {
            boot: self.boot,
            seq: input.seq,
            channel: due.channel,
            due: due.at,
            wall_millis,
            body: Body::Reading(value),
        };
        let crossing = input
            .channel
            .threshold
            .and_then(|threshold| threshold.crossing(input.in_alarm, value));
        if let Some(crossing) = crossing {
            input.in_alarm = crossing == Crossing::Raised;
            self.alarm(&reading, Body::Alarm { crossing, value }, alarms);
        }
        Some(reading)
    }

    /// Samples all channels at another rate, counted from each one's last sample.
    pub fn set_period(&mut self, now: Tick, period: Duration) {
        for input in &mut self.inputs {
            let old = core::mem::replace(&mut input.channel.period, period);
            let last = Tick::from_micros(input.due.micros().saturating_sub(micros(old)));
            // What a faster rate would have taken in the past is not made up for.
            input.due = last.after(period).max(now.min(input.due));
        }
        self.find_next_due();
    }

    /// Lets no channel be due before `start`.
    pub fn rest_until(&mut self, start: Tick) {
        for input in &mut self.inputs {
            input.due = input.due.max(start);
        }
        self.find_next_due();
    }

    /// Sets the wall clock: what it shows at tick 0, in milliseconds since 1970.
    pub const fn set_wall_clock(&mut self, at_tick_zero_millis: i64) {
        self.wall_offset_millis = at_tick_zero_millis;
    }

    /// What the device's wall clock shows at `tick`, in milliseconds since 1970.
    #[must_use]
    pub const fn wall_millis(&self, tick: Tick) -> u64 {
        (tick.micros() / 1_000).saturating_add_signed(self.wall_offset_millis)
    }

    /// How many channels there are.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inputs.len()
    }

    /// Readings made, and alarms made and dropped; the main loop counts the rest.
    #[must_use]
    pub const fn counts(&self) -> (&Counts, &Counts) {
        (&self.readings, &self.alarms)
    }

    fn alarm(&mut self, reading: &Message, body: Body, alarms: &mut Producer<'_, Message>) {
        self.alarm_seq = self.alarm_seq.wrapping_add(1);
        self.alarms.made += 1;
        let alarm = Message {
            seq: self.alarm_seq,
            body,
            ..*reading
        };
        if alarms.enqueue(alarm).is_err() {
            self.alarms.dropped += 1;
        }
    }

    fn find_next_due(&mut self) {
        let next = self.inputs.iter().map(|input| input.due).min();
        self.next_due = next.unwrap_or(Tick::NEVER);
    }
}
