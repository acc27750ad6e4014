//! A device that is switched on: it samples, sends and hears. In come the time and packets, out go
//! bytes and what is to be done with the connection. It never touches a socket.

use tidegate_device::payload::{self, PAYLOAD_MAX};
use tidegate_device::{Device, Due, Outgoing, Session, Step, Tick};

use super::stage::{Stage, count};
use super::unit::Link;
use crate::ledger::DeviceLedger;
use crate::names;
use crate::signal::Signal;
use crate::wire::{Packet, Writer};

/// Bytes of one turn, before they are handed to the connection. More would let a device that is far
/// behind keep the others waiting.
const TURN_BYTES_MAX: usize = 16 * 1024;

/// The connection is not worth keeping: what came is no MQTT, or the server said no, or goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parted;

/// The device.
#[derive(Debug)]
pub(super) struct Powered {
    pub(super) device: Device,
    /// It has a connection, or asked for one.
    pub(super) linked: bool,
    /// The channel that is sampled next where no timer says so.
    pub(super) next_channel: u8,
    /// Readings that it made without its timer in this phase.
    pub(super) flat_out_made: u64,
}

/// What a device has around it in a turn.
pub(super) struct Around<'a> {
    pub(super) stage: &'a Stage,
    pub(super) signal: &'a mut Signal,
    pub(super) ledger: &'a mut DeviceLedger,
    pub(super) topic_prefix: &'a str,
    /// The network lets something through.
    pub(super) network: bool,
    /// The connection took all that was written so far.
    pub(super) may_write: bool,
    pub(super) out: &'a mut Vec<u8>,
}

impl Powered {
    /// Takes the samples that are due by `sample_until` and sends what can go, one moment after the other: what a
    /// late turn has to make up for must not look as if readings had been superseded. Gives what to
    /// do with the connection, and when the next turn is due.
    pub(super) fn turn(
        &mut self,
        now: Tick,
        sample_until: Tick,
        around: &mut Around<'_>,
    ) -> (Link, Tick) {
        let sample_until = sample_until.min(around.stage.end());
        loop {
            let sampled = self.sample_one_moment(now, sample_until, around);
            self.device.report(sample_until);
            if !around.may_write {
                if !sampled {
                    return (Link::Keep, self.next_due(around.stage));
                }
                continue;
            }
            match self.send(now, around) {
                Next::Wait(until) if !sampled => {
                    return (Link::Keep, until.min(self.next_due(around.stage)));
                }
                Next::Wait(_) => {}
                Next::Flush => return (Link::Keep, now),
                Next::Change(link) => return (link, now),
            }
        }
    }

    /// Sends as fast as the connection takes it, and makes a reading whenever none waits, until there are
    /// `readings_max`. Gives what to do with the connection, and when the next turn is due, if it takes
    /// nothing and nothing comes before.
    pub(super) fn flat_out(
        &mut self,
        now: Tick,
        readings_max: u64,
        around: &mut Around<'_>,
    ) -> (Link, Tick) {
        self.device.report(now);
        while around.may_write {
            match self.send(now, around) {
                Next::Wait(until)
                    if self.is_full()
                        || self.flat_out_made >= readings_max
                        || now >= around.stage.end() =>
                {
                    return (Link::Keep, until);
                }
                Next::Wait(_) => self.sample_at_once(now, around),
                Next::Flush => return (Link::Keep, now),
                Next::Change(link) => return (link, now),
            }
        }
        (Link::Keep, Tick::NEVER)
    }

    /// Whether what is there already cannot go.
    fn is_full(&self) -> bool {
        !self.device.is_up() || self.device.waiting().next().is_some()
    }

    fn sample_at_once(&mut self, now: Tick, around: &mut Around<'_>) {
        let channel = self.next_channel;
        self.next_channel = (channel + 1) % around.stage.scenario.fleet.channels;
        self.flat_out_made += 1;
        let value = around.signal.sample(channel);
        self.device.sample(Due { channel, at: now }, value);
    }

    /// Whether no sample is due by `until` any more.
    pub(super) fn has_sampled(&mut self, until: Tick, stage: &Stage) -> bool {
        self.device.sampler_mut().next_due() > until.min(stage.end())
    }

    /// What a server sent.
    pub(super) fn hear(
        &mut self,
        now: Tick,
        packet: Packet<'_>,
        stage: &Stage,
        ledger: &mut DeviceLedger,
    ) -> Result<(), Parted> {
        match packet {
            Packet::Connack { code: 1.., .. } => {
                count(&stage.tally.refused);
                return Err(Parted);
            }
            Packet::Connack {
                session_present,
                receive_max,
                ..
            } => {
                let session = Session {
                    present: session_present,
                    receive_max,
                };
                self.device.connected(now, session);
            }
            Packet::Puback { packet_id, reason } => {
                self.answered(now, (packet_id, reason), stage, ledger);
            }
            Packet::Pingresp => self.device.ponged(),
            Packet::Disconnect => return Err(Parted),
            Packet::Publish(_) | Packet::Suback(_) | Packet::Other => {}
        }
        Ok(())
    }

    fn answered(
        &mut self,
        now: Tick,
        (packet_id, reason): (u16, u8),
        stage: &Stage,
        ledger: &mut DeviceLedger,
    ) {
        let answered = if reason < 0x80 {
            let message = self.device.acknowledged(packet_id);
            message.inspect(|message| ledger.acknowledged(message))
        } else {
            self.device.refused(packet_id)
        };
        if let Some(message) = answered {
            count(&stage.tally.answered);
            let mut pace = stage.tally.pace.borrow_mut();
            pace.answered(message.kind(), message.due, now);
        }
    }

    /// All channels that are due first, if that is by `until`; whether there were any.
    fn sample_one_moment(&mut self, now: Tick, until: Tick, around: &mut Around<'_>) -> bool {
        let moment = self.device.sampler_mut().next_due();
        if moment > until {
            return false;
        }
        around.stage.tally.pace.borrow_mut().sampled(moment, now);
        while let Some(due) = self.device.due(moment) {
            self.device.sample(due, around.signal.sample(due.channel));
        }
        true
    }

    fn next_due(&self, stage: &Stage) -> Tick {
        let due = self.device.next_due();
        if due > stage.end() { Tick::NEVER } else { due }
    }

    fn send(&mut self, now: Tick, around: &mut Around<'_>) -> Next {
        while around.out.len() < TURN_BYTES_MAX {
            match self.device.poll(now) {
                Step::Wait(until) => return Next::Wait(until),
                Step::Publish(outgoing) => publish(&outgoing, around),
                Step::Ping => around.writer().pingreq(),
                Step::Connect if around.network => {
                    self.linked = true;
                    return Next::Change(Link::Open);
                }
                Step::Connect => self.device.disconnected(now),
                Step::Disconnect => {
                    self.linked = false;
                    count(&around.stage.tally.broken);
                    return Next::Change(Link::Cut);
                }
            }
        }
        Next::Flush
    }
}

enum Next {
    Wait(Tick),
    /// There is more to send; what is written has to go first.
    Flush,
    Change(Link),
}

impl Around<'_> {
    fn writer(&mut self) -> Writer<'_> {
        Writer {
            buffer: self.out,
            protocol: self.stage.protocol,
        }
    }
}

fn publish(outgoing: &Outgoing, around: &mut Around<'_>) {
    let message = &outgoing.message;
    let mut buffer = [0; PAYLOAD_MAX];
    let fleet = &around.stage.scenario.fleet;
    let form = fleet.payload;
    // Every message fits: the device's own tests say so.
    let payload = payload::write(message, form, &mut buffer).unwrap_or_default();
    let topics = fleet.topics_per_channel;
    let name = names::spread_level(message.kind(), message.channel, message.seq, topics);
    let payload = (payload, fleet.payload_bytes_min);
    let topic = (around.topic_prefix, &*name);
    let packet_id = outgoing.packet_id.map(std::num::NonZeroU16::get);
    around
        .writer()
        .publish(topic, packet_id, outgoing.dup, payload);
    let tally = &around.stage.tally;
    count(&tally.sent);
    if outgoing.again {
        count(&tally.resent);
        return;
    }
    around.ledger.sent(message);
    if packet_id.is_some() {
        count(&tally.asked);
    }
}
