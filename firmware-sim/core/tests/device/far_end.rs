//! A far end made of plain lists, for tests of devices: it takes connections when the link is up,
//! keeps every arrival, and answers as told.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_device::outbox::OutboxSettings;
use tidegate_device::{
    Channel, Device, Kind, Message, Outgoing, Session, Settings, Step, Threshold, Tick, Value,
};

/// Raises at 80, clears at 75.
pub(crate) const THRESHOLD: Threshold = Threshold::new(Value(80_000), Value(75_000)).unwrap();

/// A device's settings, as a small sensor would have them.
pub(crate) fn settings(channels: &[Channel], readings_confirmed: bool) -> Settings<'_> {
    Settings {
        boot: 1,
        seed: 5,
        channels,
        outbox: OutboxSettings {
            readings_confirmed,
            window: 4,
            ping_after: Duration::from_secs(20),
            connect_max: Duration::from_secs(5),
            acknowledge_max: Duration::from_secs(30),
            wait_max: Duration::from_secs(30),
        },
        report_period: Duration::from_secs(60),
        start: Tick::ZERO,
    }
}

/// Samples all that is due by `now`, and makes the report.
pub(crate) fn sample(device: &mut Device, now: Tick, value: impl Fn(u8) -> Value) {
    while let Some(due) = device.due(now) {
        device.sample(due, value(due.channel));
    }
    device.report(now);
}

/// Everything that arrived, and what is not answered yet.
#[derive(Default)]
pub(crate) struct FarEnd {
    link: bool,
    session: bool,
    unanswered: Vec<u16>,
    pub(crate) arrivals: Vec<Outgoing>,
    pub(crate) connections: usize,
}

impl FarEnd {
    /// Lets connections come in again; `session` is what CONNACK will say.
    pub(crate) fn mend(&mut self, session: bool) {
        self.link = true;
        self.session = session;
    }

    /// Ends the connection and takes no new one; answers on the way are gone.
    pub(crate) fn break_link(&mut self, device: &mut Device, now: Tick) {
        self.link = false;
        self.unanswered.clear();
        device.disconnected(now);
    }

    /// Lets the device do all it wants to, and answers at most `answers` messages.
    pub(crate) fn turn(&mut self, device: &mut Device, now: Tick, answers: usize) {
        for _ in 0..10_000 {
            match device.poll(now) {
                Step::Connect => self.connect(device, now),
                Step::Publish(outgoing) => self.take(outgoing),
                Step::Ping => device.ponged(),
                Step::Disconnect => self.unanswered.clear(),
                Step::Wait(until) => {
                    assert!(until > now, "a wait that is over already spins");
                    if self.answer(device, answers) == 0 {
                        return;
                    }
                }
            }
            if answers != usize::MAX {
                self.answer(device, answers.min(1));
            }
        }
        panic!("the device never comes to rest");
    }

    /// How many different messages of `kind` arrived.
    pub(crate) fn distinct(&self, kind: Kind) -> u64 {
        let names: BTreeSet<_> = self
            .arrivals
            .iter()
            .filter(|arrival| arrival.message.kind() == kind)
            .map(|arrival| name(&arrival.message))
            .collect();
        names.len() as u64
    }

    /// Arrivals without repeats.
    pub(crate) fn first_arrivals(&self) -> impl Iterator<Item = &Message> {
        let mut seen = BTreeSet::new();
        self.arrivals
            .iter()
            .map(|arrival| &arrival.message)
            .filter(move |message| seen.insert((message.kind(), name(message))))
    }

    fn connect(&mut self, device: &mut Device, now: Tick) {
        if !self.link {
            device.disconnected(now);
            return;
        }
        self.connections += 1;
        self.unanswered.clear();
        device.connected(
            now,
            Session {
                present: self.session,
                receive_max: u16::MAX,
            },
        );
    }

    fn take(&mut self, outgoing: Outgoing) {
        self.arrivals.push(outgoing);
        if let Some(id) = outgoing.packet_id {
            assert!(!self.unanswered.contains(&id.get()), "packet id in use");
            self.unanswered.push(id.get());
        }
    }

    /// Answers the first ones; gives how many.
    fn answer(&mut self, device: &mut Device, answers: usize) -> usize {
        let count = self.unanswered.len().min(answers);
        for id in self.unanswered.drain(..count) {
            assert!(device.acknowledged(id).is_some(), "{id} was in flight");
        }
        count
    }
}

fn name(message: &Message) -> (u32, u8, u32) {
    let channel = match message.kind() {
        Kind::Reading => message.channel,
        Kind::Alarm | Kind::Report => 0,
    };
    (message.boot, channel, message.seq)
}
