//! One device of the fleet: the firmware, its power switch, its converter and its ledger. In come
//! the time and what arrived, out go bytes and what is to be done with the connection. It never
//! touches a socket.

use std::time::Duration;

use tidegate_device::chance::Chance;
use tidegate_device::outbox::OutboxSettings;
use tidegate_device::{CHANNELS_MAX, Channel, Device, Settings, Tick};

use super::powered::{Around, Parted, Powered};
use super::stage::Stage;
use crate::ledger::DeviceLedger;
use crate::scenario::orders::{Member, Orders, orders};
use crate::signal::{Signal, THRESHOLD};
use crate::wire::{Connect, Writer, first_packet};

/// What a connection must have answered by, and how often it is asked.
const OUTBOX: OutboxSettings = OutboxSettings {
    readings_confirmed: false,
    window: 4,
    ping_after: Duration::from_secs(20),
    connect_max: Duration::from_secs(10),
    acknowledge_max: Duration::from_secs(60),
    wait_max: Duration::from_secs(10),
};
/// One and a half times `ping_after`: the server's patience (MQTT 5, 3.1.2.10).
const KEEP_ALIVE_SECONDS: u16 = 30;

/// A device and all that belongs to it.
#[derive(Debug)]
pub struct Unit {
    member: Member,
    topic_prefix: Box<str>,
    start: Tick,
    powered: Option<Powered>,
    signal: Signal,
    ledger: DeviceLedger,
    obeyed: Obeyed,
    standing: Standing,
}

/// The orders that stand, and until when. Samples that were due before they ended are taken under
/// them, however late the turn comes: the same seed makes the same samples.
#[derive(Debug)]
struct Standing {
    until: Tick,
    network: bool,
    flat_out: Option<u64>,
    caught_up: bool,
}

/// The orders that were carried out last.
#[derive(Debug, Default, PartialEq)]
struct Obeyed {
    phase: Option<usize>,
    power_ons: u64,
    period: Duration,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What to do with the connection, before anything is written.
    pub link: Link,
    /// When the next turn is due, if nothing happens before.
    pub until: Tick,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Leave it as it is.
    Keep,
    /// Open one, and write the CONNECT that [`Unit::connect`] gives.
    Open,
    /// End it at once and without a word: network or power is gone, or nobody answers there.
    Cut,
}

impl Unit {
    /// The fleet's device `index`, not switched on yet.
    #[must_use]
    pub fn new(index: u32, stage: &Stage) -> Self {
        let seed = stage.seed;
        let topic = &stage.scenario.fleet.topic;
        Self {
            member: Member { index, seed },
            topic_prefix: format!("{topic}/{}/", stage.device(index)).into(),
            start: stage.start_of(index),
            powered: None,
            signal: Signal::new(Chance::new(seed ^ u64::from(index)).draw()),
            ledger: DeviceLedger::default(),
            obeyed: Obeyed::default(),
            standing: Standing {
                until: stage.start_of(index),
                network: true,
                flat_out: None,
                caught_up: true,
            },
        }
    }

    /// Does all that is due at `now`. Bytes for the connection are appended to `out`, when `may_write`.
    pub fn turn(&mut self, now: Tick, stage: &Stage, may_write: bool, out: &mut Vec<u8>) -> Turn {
        if now < self.start {
            return Turn {
                link: Link::Keep,
                until: self.start,
            };
        }
        if now >= self.standing.until && !self.standing.caught_up {
            let last = Tick::from_micros(self.standing.until.micros().saturating_sub(1));
            let (link, _) = self.live(now, last, stage, may_write, out);
            let powered = self.powered.as_mut();
            self.standing.caught_up = powered.is_none_or(|p| p.has_sampled(last, stage));
            return Turn { link, until: now };
        }
        // One order after the other, those too that came and went since the last turn.
        let (orders, power_went) = self.obey(now.min(self.standing.until), stage);
        let cut = power_went || self.obey_network(now, orders);
        let (link, until) = if cut {
            (Link::Cut, now)
        } else if self.standing.until <= now {
            (Link::Keep, now)
        } else {
            self.live(now, now, stage, may_write, out)
        };
        Turn {
            link,
            until: until.min(self.standing.until),
        }
    }

    /// A device with power samples what is due by `sample_until`, and sends.
    fn live(
        &mut self,
        now: Tick,
        sample_until: Tick,
        stage: &Stage,
        may_write: bool,
        out: &mut Vec<u8>,
    ) -> (Link, Tick) {
        let Some(powered) = &mut self.powered else {
            return (Link::Cut, Tick::NEVER);
        };
        let mut around = Around {
            stage,
            signal: &mut self.signal,
            ledger: &mut self.ledger,
            topic_prefix: &self.topic_prefix,
            network: self.standing.network,
            may_write,
            out,
        };
        if let Some(readings_max) = self.standing.flat_out {
            powered.flat_out(now, readings_max, &mut around)
        } else {
            powered.turn(now, sample_until, &mut around)
        }
    }

    /// Appends the CONNECT.
    pub fn connect(&self, stage: &Stage, out: &mut Vec<u8>) {
        let mut writer = Writer {
            buffer: out,
            protocol: stage.protocol,
        };
        writer.connect(&Connect {
            client_id: &stage.device(self.member.index),
            keep_alive_seconds: KEEP_ALIVE_SECONDS,
            clean: false,
        });
    }

    /// The connection is gone, or never came.
    pub fn disconnected(&mut self, now: Tick) {
        if let Some(powered) = &mut self.powered {
            powered.linked = false;
            powered.device.disconnected(now);
        }
    }

    /// Takes the packets in `bytes`; gives how many bytes they took.
    ///
    /// # Errors
    /// [`Parted`] when the connection has to be ended.
    pub fn hear(&mut self, now: Tick, stage: &Stage, bytes: &[u8]) -> Result<usize, Parted> {
        let mut taken = 0;
        while let (Some(powered), Some(rest)) = (&mut self.powered, bytes.get(taken..)) {
            let packet = first_packet(rest, stage.protocol).map_err(|_malformed| Parted)?;
            let Some((packet, length)) = packet else {
                break;
            };
            taken += length;
            powered.hear(now, packet, stage, &mut self.ledger)?;
        }
        Ok(taken)
    }

    /// Whether it went through everything until the end, and has nothing left to say. A device without power
    /// says nothing.
    #[must_use]
    pub fn is_idle(&self, stage: &Stage) -> bool {
        let through = self.standing.until == Tick::NEVER || self.start > stage.end();
        through && self.powered.as_ref().is_none_or(|p| p.device.is_idle())
    }

    /// Whether it samples as fast as its connection takes it.
    #[must_use]
    pub const fn is_flat_out(&self) -> bool {
        self.standing.flat_out.is_some()
    }

    /// Whether its connection was accepted and stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.powered.as_ref().is_some_and(|p| p.device.is_up())
    }

    /// Switches it off for good and gives its ledger.
    #[must_use]
    pub fn finish(mut self) -> DeviceLedger {
        self.power_off();
        self.ledger
    }

    /// Brings power, rates and clock to what the phase asks at a moment. Gives the orders, and whether the
    /// power went.
    fn obey(&mut self, at: Tick, stage: &Stage) -> (Orders, bool) {
        let over = at >= stage.end();
        let (index, phase, began) = stage.scenario.at(at.min(stage.end()));
        let mut orders = orders(phase, self.member, at.since(began));
        let mut until = at
            .after(orders.stand_for)
            .min(began.after(phase.length))
            .min(stage.end());
        if over {
            // What waits is to be delivered: the network holds and no power goes. What is off stays off.
            orders.network = true;
            orders.flat_out = None;
            orders.power = self.powered.is_some();
            orders.power_ons = self.obeyed.power_ons;
            until = Tick::NEVER;
        }
        if self.standing.flat_out.is_some() && orders.flat_out.is_none() {
            self.rest_until(at);
        }
        self.standing = Standing {
            until,
            network: orders.network,
            flat_out: orders.flat_out,
            // Without a timer nothing is due that a late turn could have missed.
            caught_up: orders.flat_out.is_some(),
        };
        if let Some(powered) = self
            .powered
            .as_mut()
            .filter(|_| self.obeyed.phase != Some(index))
        {
            powered.flat_out_made = 0;
        }
        let power_went = self.obey_power(began, stage, orders, index);
        (orders, power_went)
    }

    /// Off, on, or both since the last turn: then what was in memory is gone all the same.
    fn obey_power(&mut self, began: Tick, stage: &Stage, orders: Orders, phase: usize) -> bool {
        let same_phase = self.obeyed.phase == Some(phase);
        let returned = same_phase && orders.power_ons > self.obeyed.power_ons;
        let goes = self.powered.is_some() && (!orders.power || returned);
        if goes {
            self.power_off();
        }
        let wanted = Obeyed {
            phase: Some(phase),
            power_ons: orders.power_ons,
            period: orders.period,
        };
        if orders.power && self.powered.is_none() {
            let start = began.after(orders.powered_at).max(self.start);
            self.power_on(start, stage, orders);
        } else if wanted != self.obeyed {
            self.obey_rates(began, stage, orders);
        }
        self.obeyed = wanted;
        goes
    }

    /// Whether the network took the connection away.
    fn obey_network(&mut self, now: Tick, orders: Orders) -> bool {
        let cut = !orders.network && self.powered.as_ref().is_some_and(|p| p.linked);
        if cut {
            self.disconnected(now);
        }
        cut
    }

    /// Timers that stood still have missed nothing, and go on after `now`.
    fn rest_until(&mut self, now: Tick) {
        if let Some(powered) = &mut self.powered {
            let next = now.after(Duration::from_micros(1));
            powered.device.sampler_mut().rest_until(next);
        }
    }

    fn obey_rates(&mut self, began: Tick, stage: &Stage, orders: Orders) {
        let channels = stage.scenario.fleet.channels;
        self.signal
            .set_alarms(orders.alarms_per_minute, channels, orders.period);
        if let Some(powered) = &mut self.powered {
            let sampler = powered.device.sampler_mut();
            sampler.set_wall_clock(stage.wall_millis + orders.skew_millis);
            if orders.period != self.obeyed.period {
                sampler.set_period(began, orders.period);
            }
        }
    }

    fn power_on(&mut self, start: Tick, stage: &Stage, orders: Orders) {
        let fleet = &stage.scenario.fleet;
        let channels = [Channel {
            period: orders.period,
            threshold: THRESHOLD,
        }; CHANNELS_MAX];
        let starts = u32::try_from(self.ledger.starts.len()).unwrap_or(u32::MAX);
        let boot = stage.first_boot.wrapping_add(starts);
        let index = u64::from(self.member.index);
        let mut chance = Chance::new(stage.seed ^ (index << 32 | u64::from(starts)));
        let mut device = Device::new(&Settings {
            boot,
            seed: chance.draw(),
            channels: channels
                .get(..usize::from(fleet.channels))
                .unwrap_or(&channels),
            outbox: OutboxSettings {
                readings_confirmed: fleet.readings_confirmed,
                window: fleet.window,
                ..OUTBOX
            },
            report_period: fleet.report_period,
            start,
        });
        // Devices that start at the same moment do not sample at the same moment.
        let period_micros = start.after(orders.period).micros() - start.micros();
        let spread = Duration::from_micros(chance.up_to(period_micros));
        device.sampler_mut().rest_until(start.after(spread));
        self.ledger.start(boot);
        self.powered = Some(Powered {
            device,
            linked: false,
            next_channel: 0,
            flat_out_made: 0,
        });
        self.obeyed.period = orders.period;
        self.obey_rates(start, stage, orders);
    }

    fn power_off(&mut self) {
        if let Some(Powered { device, .. }) = self.powered.take() {
            let counts = device.counts();
            self.ledger
                .end(&counts, device.waiting(), device.in_flight());
        }
    }
}
