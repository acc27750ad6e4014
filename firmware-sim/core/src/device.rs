//! A whole device in one piece, for a main loop without interrupts: sampler, alarm queue and outbox
//! side by side. In come samples, the time and what the link reports; out go the outbox's steps.

use core::time::Duration;

use crate::counts::{ByKind, Counts};
use crate::message::{Message, Value};
use crate::outbox::{Outbox, OutboxSettings, Session, Step};
use crate::sampler::{AlarmQueue, Channel, Due, Sampler};
use crate::tick::Tick;

/// What a device is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Names this start; must differ from the device's other starts.
    pub boot: u32,
    /// Spreads reconnects; must differ between devices.
    pub seed: u64,
    /// Its inputs, at most [`crate::CHANNELS_MAX`].
    pub channels: &'a [Channel],
    /// How it sends.
    pub outbox: OutboxSettings,
    /// From the start to the first report on itself, and from one to the next.
    pub report_period: Duration,
    /// When it starts: the first samples and the first try to connect are due.
    pub start: Tick,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    sampler: Sampler,
    alarms: AlarmQueue,
    outbox: Outbox,
    boot: u32,
    report_period: Duration,
    report_due: Tick,
    report_seq: u32,
}

impl Device {
    /// A device that was just switched on.
    #[must_use]
    pub fn new(settings: &Settings<'_>) -> Self {
        Self {
            sampler: Sampler::new(settings.boot, settings.channels, settings.start),
            alarms: AlarmQueue::new(),
            outbox: Outbox::new(settings.outbox, settings.seed, settings.start),
            boot: settings.boot,
            report_period: settings.report_period.max(Duration::from_millis(1)),
            report_due: settings.start.after(settings.report_period),
            report_seq: 0,
        }
    }

    /// The next channel that is due by `now`; see [`Sampler::due`].
    pub fn due(&mut self, now: Tick) -> Option<Due> {
        self.sampler.due(now)
    }

    /// The sample that was due.
    pub fn sample(&mut self, due: Due, value: Value) {
        let (mut alarms, _) = self.alarms.split();
        if let Some(reading) = self.sampler.sample(due, value, &mut alarms) {
            self.outbox.keep(reading);
        }
    }

    /// Makes the report, when one is due by `now`.
    pub fn report(&mut self, now: Tick) {
        if now < self.report_due {
            return;
        }
        let counts = self.counts();
        self.report_seq = self.report_seq.wrapping_add(1);
        let resent = counts.alarm.resent + counts.report.resent + counts.reading.resent;
        self.outbox.keep(Message {
            boot: self.boot,
            seq: self.report_seq,
            channel: 0,
            due: self.report_due,
            wall_millis: self.sampler.wall_millis(self.report_due),
            body: Message::report_of(&counts.reading, &counts.alarm, resent),
        });
        // A device that slept through several reports makes one, not all of them.
        let next = self.report_due.after(self.report_period);
        self.report_due = if next > now {
            next
        } else {
            now.after(self.report_period)
        };
    }

    /// What to do at `now`. To be asked again after each step, until it says to wait. The wait is
    /// the link's; [`Self::next_due`] says when the next sample or report is due.
    pub fn poll(&mut self, now: Tick) -> Step {
        let (_, mut alarms) = self.alarms.split();
        self.outbox.poll(now, &mut alarms)
    }

    /// When the next sample or report is due.
    #[must_use]
    pub fn next_due(&self) -> Tick {
        self.sampler.next_due().min(self.report_due)
    }

    /// CONNACK came and said yes.
    pub fn connected(&mut self, now: Tick, session: Session) {
        self.outbox.connected(now, session);
    }

    /// The connection is gone, or never came.
    pub fn disconnected(&mut self, now: Tick) {
        self.outbox.disconnected(now);
    }

    /// PUBACK; gives the message that is safe now.
    pub fn acknowledged(&mut self, packet_id: u16) -> Option<Message> {
        self.outbox.acknowledged(packet_id)
    }

    /// PUBACK that refuses; gives the message, which is not sent again.
    pub fn refused(&mut self, packet_id: u16) -> Option<Message> {
        self.outbox.refused(packet_id)
    }

    /// PINGRESP.
    pub const fn ponged(&mut self) {
        self.outbox.ponged();
    }

    /// The interrupt's side, to set clocks and rates.
    pub const fn sampler_mut(&mut self) -> &mut Sampler {
        &mut self.sampler
    }

    /// Whether the connection is there.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.outbox.is_up()
    }

    /// Nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.alarms.is_empty()
            && self.outbox.waiting().next().is_none()
            && self.outbox.in_flight().next().is_none()
    }

    /// What waits to be sent for the first time.
    pub fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.alarms.iter().chain(self.outbox.waiting())
    }

    /// What was sent and is not acknowledged.
    pub fn in_flight(&self) -> impl Iterator<Item = &Message> {
        self.outbox.in_flight()
    }

    /// What became of every sequence number so far.
    #[must_use]
    pub const fn counts(&self) -> ByKind<Counts> {
        let mut counts = *self.outbox.counts();
        let (readings, alarms) = self.sampler.counts();
        counts.reading.add(readings);
        counts.alarm.add(alarms);
        counts.report.made += self.report_seq as u64;
        counts
    }
}
