//! The whole path under a simulated clock: seeded devices that resend, a cloud that stalls, drops,
//! reorders PUBACKs, refuses and goes away. After each step the ledger balances and is held against
//! what both ends counted themselves. A failure names the seed and the step: run that seed alone with
//! `TIDEGATE_SEED=n`; the number of seeds is `TIDEGATE_SEEDS` (1,000 unless said), counted from
//! `TIDEGATE_SEED` if both are given.

mod cloud;
mod device;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate::traffic::accept::Protocol;
use tidegate::traffic::lanes::Batch;
use tidegate::traffic::message::{ClassId, Message, Tick, WallTime};
use tidegate::traffic::queue::{ClassSettings, Delivery};
use tidegate::traffic::relay::{Relay, RelaySettings};
use tidegate::traffic::send::{Link, PropertiesPolicy, RemoteSettings, UplinkSettings};
use tidegate::traffic::settle::Outcome;
use tidegate::traffic::spool::SpoolPolicy;

use cloud::Cloud;
use device::Device;

/// Steps of one seed in which anything may happen; then everything heals.
const STEPS: u32 = 400;
/// Turns that healing may take before it counts as stuck.
const HEALING_TURNS_MAX: u32 = 20_000;

#[test]
fn the_ledger_balances_and_nothing_acknowledged_is_lost_whatever_the_seed() {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let from = number("TIDEGATE_SEED");
    let count = number("TIDEGATE_SEEDS").unwrap_or(if from.is_some() { 1 } else { 1000 });
    let seeds = from.unwrap_or(0)..from.unwrap_or(0) + count;
    let mut delivered = 0;
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| world.run());
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("simulation failed: seed {seed}, step {}", world.step);
            std::panic::resume_unwind(panic);
        }
        delivered += world.delivered();
    }
    assert!(delivered > 0, "{seeds:?} delivered nothing");
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to choose faults.
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True `n` times in 1000.
    pub fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }
}

struct World {
    dice: Dice,
    relay: Relay,
    classes: Vec<ClassSettings>,
    memory_max: u64,
    devices: Vec<Device>,
    cloud: Cloud,
    now: Tick,
    step: u32,
    /// Messages handed to the relay, by class: our own count.
    handed: Vec<u64>,
    /// The lanes of the first class and of the rest.
    lanes: [VecDeque<Batch>; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d);
        let memory_max = (16 * 1024) << dice.below(7);
        let classes = classes(&mut dice, memory_max);
        let settings = RelaySettings {
            gateway: "sim".into(),
            epoch: seed,
            memory_bytes_max: memory_max,
            classes: classes.clone(),
            uplink: uplink(&mut dice),
            spool: SpoolPolicy::default(),
            next_segment: 1,
        };
        let mut relay = Relay::new(&settings);
        let devices = (0..1 + dice.below(6))
            .map(|index| Device::new(index, classes.len(), &mut relay, &mut dice))
            .collect();
        let connections = settings.uplink.connections;
        Self {
            cloud: Cloud::new(&mut dice, connections, settings.uplink.protocol),
            relay,
            memory_max,
            devices,
            now: Tick::from_micros(1),
            step: 0,
            handed: vec![0; classes.len() + 1],
            lanes: Default::default(),
            classes,
            dice,
        }
    }

    fn run(&mut self) {
        while self.step < STEPS {
            self.step += 1;
            self.devices_act();
            self.cloud.trouble(&mut self.dice, self.now);
            self.turn();
        }
        if self.dice.permille(200) {
            return self.finish();
        }
        self.cloud.heal();
        let mut turns = 0;
        while !(self.relay.is_idle() && self.devices.iter().all(Device::is_done)) {
            turns += 1;
            assert!(
                turns < HEALING_TURNS_MAX,
                "stuck: {:?}, {:?}",
                self.relay.waiting(),
                self.relay
            );
            self.devices_resend();
            self.turn();
        }
        self.check_ends();
    }

    /// The end in the middle of things: what is in the lanes is turned away, the rest counted out.
    fn finish(&mut self) {
        let _ = self.relay.finish();
        for batch in std::mem::take(&mut self.lanes).into_iter().flatten() {
            for message in &batch.messages {
                self.handed[message.class.index().min(self.classes.len())] += 1;
            }
            let _ = self.relay.turn_away(batch);
        }
        assert!(self.relay.is_idle(), "{:?}", self.relay.waiting());
        self.check();
    }

    fn turn(&mut self) {
        self.drain_lanes();
        self.now = self
            .now
            .after(Duration::from_micros(1 + self.dice.below(30_000)));
        for event in self.cloud.events(&mut self.dice, self.now) {
            self.relay.link_event(event, self.now);
        }
        let (set_aside, met) = (self.relay.setbacks(), self.cloud.setbacks);
        assert!(set_aside <= met, "{set_aside} set aside for {met} refusals");
        let (up, sent) = (self.cloud.up(), self.cloud.rest_sent());
        self.relay
            .turn(self.now, WallTime::from_micros(self.now.micros()));
        for link in Link::BOTH {
            while let Some(command) = self.relay.take_command(link) {
                self.cloud.command(link, command, &mut self.dice, self.now);
            }
        }
        self.pass_notices();
        if up == 1 && self.cloud.rest_sent() > sent {
            let waits = self.relay.queues().class(ClassId::FIRST).waiting();
            assert_eq!(
                waits, 0,
                "another class was sent while the first class waits"
            );
        }
        self.check();
    }

    fn devices_act(&mut self) {
        for index in 0..self.devices.len() {
            if self.dice.permille(10) {
                self.devices[index].reconnect(&mut self.relay);
            }
            let batch = self.devices[index].publish(&mut self.dice, self.now, &self.classes);
            self.put(batch);
        }
        self.devices_resend();
    }

    fn devices_resend(&mut self) {
        for index in 0..self.devices.len() {
            self.devices[index].lose_patience(&mut self.relay, self.now);
            let batch = self.devices[index].resend(self.now, &self.classes);
            self.put(batch);
        }
    }

    /// Puts a device's batch into the lanes, first class and rest apart.
    fn put(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        let first = |message: &Message| message.class == ClassId::FIRST;
        let (urgent, rest): (Vec<_>, Vec<_>) = batch.messages.into_iter().partition(first);
        for (lane, messages) in self.lanes.iter_mut().zip([urgent, rest]) {
            let batch = Batch {
                messages,
                room: None,
                ..batch
            };
            lane.extend((!batch.messages.is_empty()).then_some(batch));
        }
    }

    /// Drains the lanes as far as the relay takes them, as its task does.
    fn drain_lanes(&mut self) {
        while self.relay.takes_urgent(self.now) {
            let Some(batch) = self.lanes[0].pop_front() else {
                break;
            };
            self.hand_over(batch);
        }
        while let Some(batch) = self.lanes[1].pop_front() {
            if !self.relay.takes_rest(batch.at, self.now) {
                self.lanes[1].push_front(batch);
                break;
            }
            self.hand_over(batch);
        }
    }

    fn hand_over(&mut self, batch: Batch) {
        for message in &batch.messages {
            self.handed[message.class.index().min(self.classes.len())] += 1;
            self.cloud.receipt(message.body.payload());
        }
        self.relay.arrive(batch, self.now);
        self.pass_notices();
        self.check();
    }

    fn pass_notices(&mut self) {
        for (door, notices) in self.relay.take_notices() {
            let device = self.devices.iter_mut().find(|device| device.door == door);
            let Some(device) = device else { continue };
            let before = device.acknowledged().count();
            device.notices(notices, self.now);
            for (identity, class) in device.acknowledged().skip(before) {
                let guaranteed = self.classes[class].delivery == Delivery::Guaranteed;
                let safe = self.cloud.has(identity);
                assert!(
                    safe || !guaranteed,
                    "{identity} acknowledged before it was safe"
                );
            }
        }
    }

    fn check(&self) {
        let ledger = self.relay.ledger();
        assert!(
            ledger.balances(&self.relay.waiting()),
            "the ledger does not balance"
        );
        for (account, handed) in ledger.accounts().iter().zip(&self.handed) {
            assert_eq!(account.received, *handed, "received of {}", account.class);
        }
        let delivered: u64 = ledger
            .accounts()
            .iter()
            .map(|a| a.ended(Outcome::Delivered))
            .sum();
        assert!(
            delivered <= self.cloud.taken(),
            "delivered {delivered}, arrived {}",
            self.cloud.taken()
        );
        assert!(self.relay.queues().bytes() <= self.memory_max, "memory");
    }

    fn check_ends(&self) {
        for device in &self.devices {
            for (identity, class) in device.acknowledged() {
                let guaranteed = self.classes[class].delivery == Delivery::Guaranteed;
                let there = self.cloud.has(identity);
                assert!(
                    there || !guaranteed || self.cloud.refused(identity),
                    "{identity} was acknowledged and is not at the far end"
                );
            }
        }
    }

    fn delivered(&self) -> u64 {
        self.cloud.distinct()
    }
}

fn classes(dice: &mut Dice, memory_max: u64) -> Vec<ClassSettings> {
    let deliveries = [
        Delivery::Guaranteed,
        Delivery::Buffered,
        Delivery::Latest,
        Delivery::Guaranteed,
    ];
    let count = 1 + dice.below(4) as usize;
    let mut class = |index: usize| {
        let queue_bytes_max = memory_max >> dice.below(3);
        ClassSettings {
            name: Arc::from(format!("class{index}")),
            delivery: deliveries[index],
            weight: 1 + dice.below(5) as u32,
            ttl: None,
            queue_bytes_max,
            client_bytes_max: queue_bytes_max >> dice.below(3),
            // QoS 0 has no second chance, so a doubled alarm would overtake it.
            spool_bytes_max: None,
            order: tidegate::traffic::spool::Order::LiveFirst,
            replay_topic: None,
            keep_qos0: index > 0 && dice.permille(200),
        }
    };
    (0..count).map(&mut class).collect()
}

fn uplink(dice: &mut Dice) -> UplinkSettings {
    UplinkSettings {
        remote: RemoteSettings {
            host: "cloud".into(),
            port: 1883,
            tls: None,
            username: None,
            password: None,
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
        },
        protocol: if dice.permille(500) {
            Protocol::V5
        } else {
            Protocol::V311
        },
        topic: "{topic}".into(),
        client_id: "sim".into(),
        connections: 1 + dice.below(2) as u8,
        rate_bytes_max: dice.permille(300).then(|| 20_000 + dice.below(200_000)),
        publish_max: dice.permille(300).then(|| 50 + dice.below(500) as u32),
        packet_bytes_max: None,
        properties: PropertiesPolicy::Full,
        ack_timeout: Duration::from_secs(20),
        retry_max: Duration::from_secs(60),
    }
}
