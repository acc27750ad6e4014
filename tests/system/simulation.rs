//! The whole path under a simulated clock: days of ordinary traffic, of overload, of a slow link and of a
//! device gone mad; seeded devices that resend, a cloud that stalls, drops,
//! reorders PUBACKs, refuses, for good or for now, and goes away, a disk that is slow, full, failing or damaged, and a gateway
//! that is killed, or stopped, and starts again on what the disk kept. After each step the ledger balances and is held against
//! what both ends counted themselves. A failure names the seed and the step: run that seed alone with
//! `TIDEGATE_SEED=n`; the number of seeds is `TIDEGATE_SEEDS` (1,000 unless said), counted from
//! `TIDEGATE_SEED` if both are given.

mod cloud;
mod device;
mod disk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tidegate::traffic::accept::Protocol;
use tidegate::traffic::lanes::Batch;
use tidegate::traffic::message::{ClassId, Message, MessageId, QoS, Tick, WallTime};
use tidegate::traffic::queue::class::ClassQueue;
use tidegate::traffic::queue::pressure::{Level, PressureSettings};
use tidegate::traffic::queue::{ClassSettings, Delivery, WhenFull};
use tidegate::traffic::relay::{Relay, RelaySettings};
use tidegate::traffic::send::window::WINDOW_BYTES_MAX;
use tidegate::traffic::send::{Link, PropertiesPolicy, RemoteSettings, UplinkSettings};
use tidegate::traffic::settle::Outcome;
use tidegate::traffic::spool::replay::READ_AHEAD_BYTES;
use tidegate::traffic::spool::{Order, SpoolPolicy};

use cloud::Cloud;
use device::Device;
use disk::Disk;

/// Steps of one seed in which anything may happen; then everything heals.
const STEPS: u32 = 250;
/// Turns without a delivery after which healing counts as stuck.
const HEALING_TURNS_MAX: u32 = 5_000;
/// How long a stop waits for the disk.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long pressure may last when nothing comes and nothing waits: twice the stay, shedding's and
/// coalescing's, and a look each.
const CALM_MAX: Duration = Duration::from_secs(11);

/// What is the matter all day long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// Nothing.
    Ordinary,
    /// Every device sends many times what it does on other days.
    Overload,
    /// The uplink carries a few messages a second.
    SlowLink,
    /// One device floods this class.
    Flood(usize),
}

impl Day {
    fn new(dice: &mut Dice, classes: usize) -> Self {
        match dice.below(8) {
            0 => Self::Overload,
            1 => Self::SlowLink,
            2 => Self::Flood(dice.below(classes as u64) as usize),
            _ => Self::Ordinary,
        }
    }
}

#[test]
fn the_ledger_balances_and_nothing_acknowledged_is_lost_whatever_the_seed() {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let from = number("TIDEGATE_SEED");
    let count = number("TIDEGATE_SEEDS").unwrap_or(if from.is_some() { 1 } else { 1000 });
    let seeds = from.unwrap_or(0)..from.unwrap_or(0) + count;
    let (mut delivered, mut buried) = (0, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        let run = std::panic::AssertUnwindSafe(|| world.run());
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("simulation failed: seed {seed}, step {}", world.step);
            std::panic::resume_unwind(panic);
        }
        delivered += world.delivered();
        buried += world.disk.buried.len();
    }
    assert!(delivered > 0, "{seeds:?} delivered nothing");
    assert!(count < 100 || buried > 0, "{seeds:?} had no dead letter");
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
    settings: RelaySettings,
    relay: Relay,
    classes: Vec<ClassSettings>,
    devices: Vec<Device>,
    cloud: Cloud,
    disk: Disk,
    now: Tick,
    step: u32,
    step_micros: u64,
    /// Times in 1000 that the gateway is killed, or stopped, in a step.
    ends_permille: u64,
    /// Of this life of the gateway: messages handed to the relay, by class: our own count; all that it
    /// numbered; and what the cloud had refused before.
    handed: Vec<u64>,
    numbered: u64,
    met: u64,
    /// Delivered in earlier lives.
    delivered: u64,
    /// Shed or superseded in earlier lives, by class.
    given_up: Vec<u64>,
    /// The lanes of the first class and of the rest.
    lanes: [VecDeque<Batch>; 2],
    /// Identities of what may expire, or goes with QoS 0.
    may_miss: HashSet<String>,
    /// Sent with QoS 0.
    unanswered: HashSet<String>,
    /// Of each topic the last that the gateway received in this life, and that it may not forget.
    final_values: HashMap<String, String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d);
        let memory_max = (16 * 1024) << dice.below(7);
        let classes = classes(&mut dice, memory_max);
        let day = Day::new(&mut dice, classes.len());
        let mut disk = Disk::new(&mut dice, &classes);
        let now = Tick::START;
        let settings = RelaySettings {
            gateway: "sim".into(),
            epoch: dice.next(),
            memory_bytes_max: memory_max,
            memory_pressure: PressureSettings::MEMORY,
            classes: classes.clone(),
            uplink: uplink(&mut dice, day),
            spool: policy(&mut dice),
            next_segment: disk.open(&mut dice, now),
        };
        let mut relay = Relay::new(&settings);
        let devices = (0..1 + dice.below(6))
            .map(|index| Device::new(index, classes.len(), day, &mut relay, &mut dice))
            .collect();
        let connections = settings.uplink.connections;
        let protocol = settings.uplink.protocol;
        Self {
            cloud: Cloud::new(&mut dice, connections, protocol, &classes),
            disk,
            settings,
            relay,
            devices,
            now,
            step: 0,
            step_micros: [30_000, 30_000, 100_000, 400_000][dice.below(4) as usize],
            ends_permille: dice.below(3) * 4,
            handed: vec![0; classes.len() + 1],
            numbered: 0,
            met: 0,
            delivered: 0,
            given_up: vec![0; classes.len()],
            lanes: Default::default(),
            may_miss: HashSet::new(),
            unanswered: HashSet::new(),
            final_values: HashMap::new(),
            classes,
            dice,
        }
    }

    fn run(&mut self) {
        while self.step < STEPS {
            self.step += 1;
            self.devices_act();
            self.cloud.trouble(&mut self.dice, self.now);
            self.disk.trouble(&mut self.dice, self.now);
            if self.dice.permille(30) {
                self.try_again();
            }
            self.turn();
            if self.dice.permille(self.ends_permille) {
                match self.dice.permille(700) {
                    true => self.crash(),
                    false => self.stop(),
                }
            }
        }
        if self.dice.permille(100) {
            return self.finish();
        }
        self.cloud.heal();
        self.disk.heal();
        self.step_micros = match self.settings.uplink.rate_bytes_max {
            // What waits takes its time.
            Some(..20_000) => 100_000,
            _ => self.step_micros.min(100_000),
        };
        let (mut turns, mut delivered) = (0, 0);
        while !self.is_home() {
            turns += 1;
            if self.delivered_now() > delivered {
                (turns, delivered) = (0, self.delivered_now());
            }
            assert!(
                turns < HEALING_TURNS_MAX,
                "stuck: {:?}, {:?} on disk, {:?}",
                self.relay.waiting(),
                self.disk.ids().collect::<Vec<_>>(),
                self.relay
            );
            self.devices_resend();
            self.try_again();
            self.turn();
        }
        self.check_ends();
        self.check_calm();
    }

    /// When nothing comes any more, full fidelity comes back by itself.
    fn check_calm(&mut self) {
        let until = self.now.after(CALM_MAX);
        while self.now < until {
            self.turn();
        }
        let queues = self.relay.queues();
        let levels = queues.iter().map(ClassQueue::level);
        for level in levels.chain([queues.pressure().level()]) {
            assert_eq!(level, Level::Calm, "pressure without end");
        }
        assert_eq!(queues.index_bytes(), 0, "keys are remembered for nothing");
    }

    /// Of each topic of a `latest` class the last value is there, if nothing was shed.
    fn check_final_values(&self) {
        for identity in self.final_values.values() {
            let class = class_of(identity);
            let account = &self.relay.ledger().accounts()[class];
            let gone = [Outcome::Shed, Outcome::Refused, Outcome::Returned];
            let gone: u64 = gone.iter().map(|outcome| account.ended(*outcome)).sum();
            let latest = self.classes[class].delivery == Delivery::Latest;
            let excused = self.may_miss.contains(identity) || self.is_excused(identity);
            assert!(
                !latest || gone > 0 || excused || self.cloud.has(identity),
                "{identity} is the newest of its key, and missing"
            );
        }
    }

    /// The operator has all dead letters tried again, and what rests on the disk for it took none.
    fn try_again(&mut self) {
        let _ = self.relay.pause_replay(None, false);
        for class in (0..self.classes.len()).map(|n| ClassId(n as u8)) {
            let there = self.disk.dead_letters(class);
            let _ = self.relay.try_again(class, &there);
        }
    }

    fn is_home(&self) -> bool {
        let on_disk = self.relay.waiting().iter().any(|class| class.on_disk > 0);
        let known = (0..self.classes.len()).all(|n| self.disk.knows_all(ClassId(n as u8)));
        let done = self.devices.iter().all(Device::is_done);
        known && done && !on_disk && self.relay.is_idle() && self.disk.is_empty()
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

    /// Killed: what is not committed is gone, and the last of what is settled is forgotten.
    fn crash(&mut self) {
        let forgotten = self.disk.crash();
        self.cloud.may_come_back(forgotten);
        self.begin_life();
    }

    /// Stopped as its task does it, by an operator who does not look whether the disk is well.
    fn stop(&mut self) {
        self.relay.drain();
        for _ in 0..self.dice.below(20) {
            self.turn();
        }
        let mends = self.dice.permille(700);
        if mends {
            self.disk.heal_for_now();
        }
        self.relay.stop();
        let until = self.now.after(WRITE_MAX);
        self.turn();
        while !self.relay.is_written() && self.now < until {
            self.turn();
        }
        let written = self.relay.is_written();
        let lost = self.relay.finish();
        let whole = written && self.disk.was_well(self.now);
        assert!(lost == 0 || !whole, "{lost} lost at a clean stop");
        self.pass_commands();
        for batch in std::mem::take(&mut self.lanes).into_iter().flatten() {
            for message in &batch.messages {
                self.handed[message.class.index().min(self.classes.len())] += 1;
            }
            let _ = self.relay.turn_away(batch);
        }
        self.check();
        self.disk.close(&mut self.dice, self.now);
        let known = (0..self.classes.len()).all(|n| self.disk.knows_all(ClassId(n as u8)));
        if known && whole {
            for (index, waiting) in self.relay.waiting()[..self.classes.len()]
                .iter()
                .enumerate()
            {
                let there = self.disk.count(ClassId(index as u8));
                assert_eq!(waiting.on_disk, there, "on disk of class {index}");
            }
        }
        self.crash();
    }

    /// The gateway starts again on what the disk kept; devices bring what was not acknowledged.
    fn begin_life(&mut self) {
        self.check_promise();
        self.delivered += self.delivered_now();
        for class in 0..self.classes.len() {
            self.given_up[class] += self.given_up_now(class);
        }
        self.cloud.gateway_ends(self.now);
        self.lanes = Default::default();
        self.handed.fill(0);
        self.final_values.clear();
        self.numbered = 0;
        self.met = self.cloud.setbacks;
        self.settings.epoch = self.dice.next();
        self.settings.next_segment = self.disk.open(&mut self.dice, self.now);
        self.relay = Relay::new(&self.settings);
        for device in &mut self.devices {
            device.meet(&mut self.relay);
        }
    }

    fn turn(&mut self) {
        self.drain_lanes();
        self.now = self
            .now
            .after(Duration::from_micros(1 + self.dice.below(self.step_micros)));
        for event in self.cloud.events(&mut self.dice, self.now) {
            self.relay.link_event(event, self.now);
        }
        for report in self.disk.step(&mut self.dice, self.now) {
            self.relay.spool_report(report, self.now);
        }
        self.cloud.pass(self.disk.take_gone());
        self.follow_overtaken();
        let (set_aside, met) = (self.relay.setbacks(), self.cloud.setbacks - self.met);
        assert!(set_aside <= met, "{set_aside} set aside for {met} refusals");
        let (up, sent) = (self.cloud.up(), self.cloud.rest_sent());
        let all_live = self.disk.knows_all(ClassId::FIRST)
            && self.disk.count(ClassId::FIRST) == 0
            && self.disk.gone_at.is_none();
        self.relay
            .turn(self.now, WallTime::from_micros(self.now.micros()));
        for link in Link::BOTH {
            while let Some(command) = self.relay.take_command(link) {
                self.cloud.command(link, command, &mut self.dice, self.now);
            }
        }
        self.pass_commands();
        self.pass_notices();
        if up == 1 && all_live && self.cloud.rest_sent() > sent {
            let waits = self.relay.queues().class(ClassId::FIRST).waiting();
            assert_eq!(
                waits, 0,
                "another class was sent while the first class waits"
            );
        }
        self.check();
    }

    fn pass_commands(&mut self) {
        while let Some(command) = self.relay.take_spool_command() {
            self.disk.command(command, &mut self.dice, self.now);
        }
    }

    /// Sending never waits for the disk: what it keeps waiting may be overtaken.
    fn follow_overtaken(&mut self) {
        for index in 0..self.classes.len() {
            if self.disk.is_overtaken(ClassId(index as u8), self.now) {
                self.cloud.may_be_overtaken(index);
            }
        }
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
                forgotten: 0,
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
            if !self.relay.takes_rest(&batch, self.now) {
                self.lanes[1].push_front(batch);
                break;
            }
            self.hand_over(batch);
        }
    }

    fn hand_over(&mut self, batch: Batch) {
        for message in &batch.messages {
            self.handed[message.class.index().min(self.classes.len())] += 1;
            self.numbered += 1;
            let id = MessageId {
                epoch: self.settings.epoch,
                sequence: self.numbered,
            };
            self.cloud.receipt(id, message);
            let identity = identity_of(message.body.payload());
            let topic = message.body.topic().to_owned();
            self.final_values.insert(topic, identity);
            let class = message.class.index();
            let unanswered = message.qos == QoS::AtMostOnce;
            let unsure = unanswered && self.classes[class].keep_qos0;
            if unanswered {
                self.unanswered.insert(identity_of(message.body.payload()));
            }
            if unsure || message.expires != Tick::NEVER {
                self.may_miss.insert(identity_of(message.body.payload()));
            }
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
                let safe = self.cloud.has(identity) || self.disk.committed.contains(identity);
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
        for (index, account) in ledger.accounts()[..self.classes.len()].iter().enumerate() {
            let found = self.disk.found(ClassId(index as u8));
            assert_eq!(account.found, found as i64, "found of {}", account.class);
        }
        let delivered = self.delivered + self.delivered_now();
        assert!(
            delivered <= self.cloud.taken(),
            "delivered {delivered}, arrived {}",
            self.cloud.taken()
        );
        let read_ahead = READ_AHEAD_BYTES * self.classes.len() as u64;
        let bytes_max = self.settings.memory_bytes_max + read_ahead + 2 * WINDOW_BYTES_MAX;
        let bytes = self.relay.queues().bytes();
        assert!(bytes <= bytes_max, "{bytes} bytes in memory");
    }

    fn delivered_now(&self) -> u64 {
        let accounts = self.relay.ledger().accounts().iter();
        accounts.map(|a| a.ended(Outcome::Delivered)).sum()
    }

    /// What was acknowledged is at the far end or on the disk, at every moment.
    fn check_promise(&self) {
        let on_disk = self.disk.identities();
        for device in &self.devices {
            for (identity, class) in device.acknowledged() {
                let guaranteed = self.classes[class].delivery == Delivery::Guaranteed;
                let there = on_disk.contains(identity.as_str()) || self.cloud.has(identity);
                assert!(
                    there || !guaranteed || self.is_excused(identity),
                    "{identity} was acknowledged and is neither at the far end nor on the disk"
                );
            }
        }
        for (id, identity) in self.disk.ids() {
            assert!(
                self.cloud.knows(id, identity),
                "{identity} stands as {id:?}"
            );
        }
    }

    /// Whether a message may be missing in spite of everything. Of a guaranteed class what is refused is on
    /// the disk too, until it gives way there as a dead letter; if the disk does not take it either, its
    /// sender is told where that can be.
    fn is_excused(&self, identity: &String) -> bool {
        let guaranteed = self.classes[class_of(identity)].delivery == Delivery::Guaranteed;
        let told = self.unanswered.contains(identity)
            || self
                .devices
                .iter()
                .any(|device| device.was_refused(identity));
        let gone = !guaranteed || self.disk.evicted.contains(identity) || told;
        self.cloud.refused(identity) && gone || self.disk.damaged.contains(identity)
    }

    fn check_ends(&self) {
        self.check_promise();
        self.check_final_values();
        for identity in &self.disk.buried {
            let gone = self.disk.evicted.contains(identity) || self.disk.damaged.contains(identity);
            assert!(
                gone || self.cloud.has(identity),
                "the dead letter {identity} was on the disk and did not come home"
            );
        }
        let mut missing = vec![0; self.classes.len()];
        for identity in &self.disk.committed {
            let evicted = self.disk.evicted.contains(identity);
            let may_go = evicted || self.may_miss.contains(identity);
            let class = class_of(identity);
            let guaranteed = self.classes[class].delivery == Delivery::Guaranteed;
            if self.cloud.has(identity) || may_go || self.is_excused(identity) {
                continue;
            }
            assert!(
                !guaranteed,
                "{identity} was on the disk and did not come home"
            );
            missing[class] += 1;
        }
        // Shed or superseded in memory while it was on its way to the disk.
        for (class, missing) in missing.into_iter().enumerate() {
            let given_up = self.given_up[class] + self.given_up_now(class);
            assert!(
                missing <= given_up,
                "{missing} of class {class} were on the disk and did not come home, and {given_up} were given up"
            );
        }
    }

    fn given_up_now(&self, class: usize) -> u64 {
        let account = &self.relay.ledger().accounts()[class];
        account.ended(Outcome::Shed) + account.ended(Outcome::Superseded)
    }

    fn delivered(&self) -> u64 {
        self.cloud.distinct()
    }
}

/// What a payload begins with: device, class and number.
fn identity_of(payload: &[u8]) -> String {
    let text = std::str::from_utf8(payload).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// The class that is part of an identity.
fn class_of(identity: &str) -> usize {
    identity.split('/').nth(1).unwrap().parse().unwrap()
}

fn policy(dice: &mut Dice) -> SpoolPolicy {
    SpoolPolicy {
        commit_interval: Duration::from_millis(1 + dice.below(500)),
        spool_after: Duration::from_millis(100 + dice.below(4000)),
        backlog_share_permille: 50 + dice.below(900) as u32,
        live_share_min_permille: 50 + dice.below(900) as u32,
        replay_rate_bytes_max: dice.permille(200).then(|| 100_000 + dice.below(400_000)),
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
            weight: 1 + dice.below(5) as u32,
            client_bytes_max: queue_bytes_max >> dice.below(3),
            when_full: match dice.permille(250) {
                true => WhenFull::DropNewest,
                false => WhenFull::DropOldest,
            },
            order: match dice.permille(500) {
                true => Order::Strict,
                false => Order::LiveFirst,
            },
            replay_topic: dice.permille(200).then(|| "replay/{topic}".into()),
            // QoS 0 has no second chance, so a doubled alarm would overtake it.
            keep_qos0: index > 0 && dice.permille(200),
            ..ClassSettings::new(&format!("class{index}"), deliveries[index], queue_bytes_max)
        }
    };
    (0..count).map(&mut class).collect()
}

fn uplink(dice: &mut Dice, day: Day) -> UplinkSettings {
    let slow = (day == Day::SlowLink).then(|| 4_000 + dice.below(12_000));
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
        rate_bytes_max: slow.or_else(|| dice.permille(300).then(|| 20_000 + dice.below(200_000))),
        publish_max: dice.permille(300).then(|| 50 + dice.below(500) as u32),
        packet_bytes_max: None,
        properties: PropertiesPolicy::Full,
        ack_timeout: Duration::from_secs(20),
        retry_max: Duration::from_secs(60),
    }
}
