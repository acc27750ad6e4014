//! The simulated cloud: takes the bytes that the relay writes, some time later, acknowledges some time
//! later still, out of order if it likes, and breaks in all the ways that its dice allow. It keeps its
//! own record of what arrived, and holds the gateway to its Receive Maximum and to order per topic.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use tidegate::traffic::accept::Protocol;
use tidegate::traffic::message::{Message, MessageId, Tick};
use tidegate::traffic::queue::{ClassSettings, Delivery};
use tidegate::traffic::send::encode::{ID_PROPERTY, REPLAYED_PROPERTY};
use tidegate::traffic::send::{Ack, Link, LinkCommand, LinkEvent, LinkLimits};
use tidegate::traffic::spool::Order;

use super::{Dice, class_of, identity_of};

pub struct Cloud {
    connections: u8,
    protocol: Protocol,
    links: [Line; 2],
    attempt: u64,
    receive_max: u16,
    delay_micros: u64,
    trouble_permille: u64,
    refuses: bool,
    /// Refuses some for good, until it is healed.
    picky: bool,
    healed: bool,
    arrived: HashSet<String>,
    refused: HashSet<String>,
    /// Alone in flight when the cloud ended a connection.
    alone: HashSet<String>,
    /// Refused, or alone in flight when the cloud ended a connection, or not where they were on the disk:
    /// those of the topic that come after them may pass. Nothing else may.
    passable: HashSet<String>,
    /// How often a message met with that.
    pub setbacks: u64,
    /// For each identity, when the gateway received it first and last, as a count of all receipts.
    receipts: HashMap<String, (u64, u64)>,
    received: u64,
    /// Of each topic, the latest first receipt of anything that arrived; replayed ones apart where the
    /// class lets them go beside what is live.
    newest: HashMap<(String, bool), u64>,
    orders: Vec<Order>,
    latest: Vec<bool>,
    /// Of each topic, the latest receipt of anything live that arrived in this life of the gateway.
    live: HashMap<String, u64>,
    /// Of each class, what was received until then may be overtaken: the disk kept it waiting.
    overtaken: Vec<u64>,
    /// What each message id names.
    ids: HashMap<MessageId, String>,
    /// How often each came, and how often it may: once, and once more for each time that it was in
    /// flight when a connection or the gateway ended, or settled when the disk forgot that.
    times: HashMap<MessageId, u64>,
    allowed: HashMap<MessageId, u64>,
    rest_sent: u64,
    taken: u64,
}

#[derive(Default)]
struct Line {
    up: bool,
    attempt: u64,
    stalled_until: Tick,
    down_until: Tick,
    /// On their way here.
    packets: Vec<(Tick, Publish)>,
    /// On their way back.
    acks: Vec<(Tick, Ack)>,
    /// In flight as the gateway sees it: unacknowledged, and with QoS 0 until it is told that they are
    /// written.
    in_flight: HashMap<u16, (String, Option<MessageId>)>,
    unwritten: Vec<(String, Option<MessageId>)>,
    /// The gateway asked for a new connection.
    given_up: bool,
    /// Unacknowledged as the cloud sees it.
    unacknowledged: HashSet<u16>,
    written: u64,
    told: u64,
}

struct Publish {
    id: u16,
    identity: String,
    /// With MQTT 5 alone.
    message_id: Option<MessageId>,
    replayed: bool,
}

impl Cloud {
    pub fn new(
        dice: &mut Dice,
        connections: u8,
        protocol: Protocol,
        classes: &[ClassSettings],
    ) -> Self {
        Self {
            connections,
            protocol,
            links: Default::default(),
            attempt: 0,
            receive_max: if dice.permille(500) {
                1 + dice.below(30) as u16
            } else {
                u16::MAX
            },
            delay_micros: 1 + dice.below(400_000),
            trouble_permille: dice.below(60),
            refuses: dice.permille(200),
            picky: dice.permille(300),
            healed: false,
            arrived: HashSet::new(),
            refused: HashSet::new(),
            alone: HashSet::new(),
            passable: HashSet::new(),
            setbacks: 0,
            receipts: HashMap::new(),
            received: 0,
            newest: HashMap::new(),
            orders: classes.iter().map(|class| class.order).collect(),
            latest: classes
                .iter()
                .map(|class| class.delivery == Delivery::Latest)
                .collect(),
            live: HashMap::new(),
            overtaken: vec![0; classes.len()],
            ids: HashMap::new(),
            times: HashMap::new(),
            allowed: HashMap::new(),
            rest_sent: 0,
            taken: 0,
        }
    }

    pub fn heal(&mut self) {
        self.healed = true;
        self.refuses = false;
        self.picky = false;
        self.delay_micros = self.delay_micros.min(5_000);
        for line in &mut self.links {
            line.stalled_until = Tick::ZERO;
            line.down_until = Tick::ZERO;
        }
    }

    /// Connections that are up.
    pub fn up(&self) -> usize {
        self.links.iter().filter(|line| line.up).count()
    }

    /// Messages below the first class that were written so far.
    pub fn rest_sent(&self) -> u64 {
        self.rest_sent
    }

    pub fn distinct(&self) -> u64 {
        self.arrived.len() as u64
    }

    /// Publishes with QoS 1 that came here, and those with QoS 0 that were written: all that the
    /// gateway may count as delivered.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether it came here.
    pub fn has(&self, identity: &str) -> bool {
        self.arrived.contains(identity)
    }

    /// Whether it may be a dead letter: refused, or alone in flight when the cloud ended a connection.
    pub fn refused(&self, identity: &str) -> bool {
        self.refused.contains(identity) || self.alone.contains(identity)
    }

    pub fn trouble(&mut self, dice: &mut Dice, now: Tick) {
        for line in &mut self.links {
            if !dice.permille(self.trouble_permille) {
                continue;
            }
            let wait = now.after(Duration::from_micros(dice.below(5_000_000)));
            if dice.permille(500) {
                line.stalled_until = wait;
            } else {
                line.down_until = wait;
            }
        }
    }

    /// What happened since the last call.
    pub fn events(&mut self, dice: &mut Dice, now: Tick) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        for link in Link::BOTH {
            if link == Link::Urgent && self.connections == 1 {
                continue;
            }
            self.connect_or_break(link, dice, now, &mut events);
            self.arrive(link, dice, now);
            self.acknowledge(link, dice, now, &mut events);
        }
        events
    }

    pub fn command(&mut self, link: Link, command: LinkCommand, dice: &mut Dice, now: Tick) {
        let line = &mut self.links[link as usize];
        match command {
            LinkCommand::Write { attempt, packets } if line.up && attempt == line.attempt => {
                line.written += packets.len() as u64;
                let other = &self.links[link.other() as usize];
                let doubled: HashSet<_> = other.in_flight.values().map(|(_, id)| *id).collect();
                let line = &mut self.links[link as usize];
                let at = now.after(Duration::from_micros(dice.below(self.delay_micros)));
                let at = line.packets.last().map_or(at, |(last, _)| at.max(*last));
                for publish in parse(self.protocol, &packets) {
                    self.rest_sent += u64::from(!publish.identity.contains("/0/"));
                    self.taken += u64::from(publish.id == 0);
                    if let Some(id) = publish.message_id.filter(|id| doubled.contains(&Some(*id))) {
                        *self.allowed.entry(id).or_insert(1) += 1;
                    }
                    let sent = (publish.identity.clone(), publish.message_id);
                    match publish.id {
                        0 => line.unwritten.push(sent),
                        id => drop(line.in_flight.insert(id, sent)),
                    }
                    line.packets.push((at, publish));
                }
            }
            LinkCommand::Reconnect { attempt } if line.up && attempt == line.attempt => {
                line.given_up = true;
                line.down_until = line.down_until.max(now.after(Duration::from_millis(1)));
            }
            _ => {}
        }
    }

    fn connect_or_break(
        &mut self,
        link: Link,
        dice: &mut Dice,
        now: Tick,
        events: &mut Vec<LinkEvent>,
    ) {
        let line = &mut self.links[link as usize];
        if line.up && now < line.down_until {
            let attempt = line.attempt;
            let by_peer = !line.given_up && dice.permille(500);
            if by_peer && line.in_flight.len() + line.unwritten.len() == 1 {
                self.setbacks += 1;
                let sent = line.unwritten.iter().chain(line.in_flight.values());
                let sent: Vec<_> = sent.map(|(identity, _)| identity.clone()).collect();
                self.passable.extend(sent.iter().cloned());
                self.alone.extend(sent);
            }
            self.end(link);
            events.push(LinkEvent::Down {
                link,
                attempt,
                reason: None,
                by_peer,
            });
        } else if !line.up && now >= line.down_until {
            self.attempt += 1;
            line.up = true;
            line.attempt = self.attempt;
            let limits = LinkLimits {
                receive_max: self.receive_max,
                ..LinkLimits::DEFAULT
            };
            events.push(LinkEvent::Up {
                link,
                attempt: self.attempt,
                limits,
            });
        }
    }

    /// A connection ended. Some of what was on its way arrives all the same, unacknowledged.
    fn end(&mut self, link: Link) {
        let line = &mut self.links[link as usize];
        let down_until = line.down_until;
        let fresh = Line {
            down_until,
            ..Line::default()
        };
        let line = std::mem::replace(line, fresh);
        let sent = line.unwritten.iter().chain(line.in_flight.values());
        self.may_repeat(sent.filter_map(|(_, id)| *id));
        let half = line.packets.len() / 2;
        for (_, publish) in line.packets.into_iter().take(half) {
            self.record(&publish);
        }
    }

    /// The gateway is gone, and its connections with it.
    pub fn gateway_ends(&mut self, now: Tick) {
        for link in Link::BOTH {
            self.end(link);
            let line = &mut self.links[link as usize];
            line.down_until = line.down_until.max(now.after(Duration::from_millis(1)));
        }
        // What it does not know of any more goes beside what it knows.
        self.newest.retain(|(_, replayed), _| !replayed);
        self.live.clear();
    }

    /// These ended, and the disk forgot that: they may come again, behind others even.
    pub fn may_come_back(&mut self, ids: Vec<MessageId>) {
        let identities = ids.iter().filter_map(|id| self.ids.get(id)).cloned();
        self.passable.extend(identities);
        self.may_repeat(ids);
    }

    /// These lost their place on the disk, and with it that in their class, if they are in memory still.
    pub fn pass(&mut self, identities: Vec<String>) {
        self.passable.extend(identities);
    }

    /// Each of these may come once more.
    fn may_repeat(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        for id in ids {
            *self.allowed.entry(id).or_insert(1) += 1;
        }
    }

    /// The disk keeps a class waiting: what it has may be overtaken.
    pub fn may_be_overtaken(&mut self, class: usize) {
        self.overtaken[class] = self.received;
    }

    /// Whether the gateway gave this id to this message.
    pub fn knows(&self, id: MessageId, identity: &str) -> bool {
        self.ids.get(&id).is_some_and(|known| known == identity)
    }

    fn arrive(&mut self, link: Link, dice: &mut Dice, now: Tick) {
        let line = &mut self.links[link as usize];
        if now < line.stalled_until {
            return;
        }
        let there = line.packets.iter().take_while(|(at, _)| *at <= now).count();
        let packets: Vec<_> = line.packets.drain(..there).collect();
        for (_, publish) in packets {
            if publish.id != 0 {
                let line = &mut self.links[link as usize];
                assert!(line.unacknowledged.insert(publish.id), "packet id in use");
                let most = usize::from(self.receive_max);
                assert!(
                    line.unacknowledged.len() <= most,
                    "Receive Maximum exceeded"
                );
            } else if (class_of(&publish.identity) == 0) != (link == Link::Urgent) {
                // Nobody tells when it arrived, and its class may go over its own connection again.
                self.passable.insert(publish.identity.clone());
            }
            let reason = self.judge(&publish, dice);
            let delay = Duration::from_micros(dice.below(self.delay_micros));
            if publish.id != 0 {
                let ack = Ack {
                    packet_id: publish.id,
                    reason,
                };
                self.links[link as usize].acks.push((now.after(delay), ack));
            }
        }
    }

    fn judge(&mut self, publish: &Publish, dice: &mut Dice) -> u8 {
        if self.refuses && self.protocol == Protocol::V5 && publish.id != 0 && dice.permille(20) {
            let reasons = [0x97, 0x80, 0x87, 0x99];
            let reason = reasons[dice.below(4) as usize];
            self.setbacks += 1;
            self.passable.insert(publish.identity.clone());
            self.refused.insert(publish.identity.clone());
            return reason;
        }
        if self.picky && self.protocol == Protocol::V5 && publish.id != 0 && is_odd(publish) {
            self.setbacks += 1;
            self.passable.insert(publish.identity.clone());
            self.refused.insert(publish.identity.clone());
            return 0x99;
        }
        self.record(publish);
        0
    }

    /// Notes that the gateway received a message, and how it calls it.
    pub fn receipt(&mut self, id: MessageId, message: &Message) {
        self.received += 1;
        let at = self.received;
        let identity = identity_of(message.body.payload());
        let receipts = self.receipts.entry(identity.clone()).or_insert((at, at));
        receipts.1 = at;
        assert!(self.ids.insert(id, identity).is_none(), "an id given twice");
    }

    /// Notes an arrival.
    fn record(&mut self, publish: &Publish) {
        self.taken += u64::from(publish.id != 0);
        if let Some(id) = publish.message_id {
            self.check_id(id, publish);
        }
        let first_time = self.arrived.insert(publish.identity.clone());
        if self.latest[class_of(&publish.identity)] && self.protocol == Protocol::V5 {
            self.check_latest(publish, first_time);
        }
        if let Some(replayed) = self.track(publish) {
            self.check_order(publish, replayed, first_time);
        }
    }

    fn check_id(&mut self, id: MessageId, publish: &Publish) {
        let identity = &publish.identity;
        assert!(self.knows(id, identity), "{identity} came as {id:?}");
        let times = self.times.entry(id).or_insert(0);
        *times += 1;
        let allowed = self.allowed.get(&id).copied().unwrap_or(1);
        assert!(
            *times <= allowed,
            "{identity} came {times} times and may come {allowed} times"
        );
    }

    /// An old value that comes from the disk never follows a newer one of its key, but where its class keeps
    /// its order and the disk kept that waiting.
    fn check_latest(&mut self, publish: &Publish, first_time: bool) {
        let identity = &publish.identity;
        let (first, last) = self.receipts[identity];
        let class = class_of(identity);
        let kept_waiting = self.orders[class] == Order::Strict && last <= self.overtaken[class];
        let live = self.live.entry(topic_of(identity)).or_insert(0);
        if !publish.replayed {
            *live = first.max(*live);
        } else if first_time && !kept_waiting && !self.passable.contains(identity) {
            assert!(last >= *live, "{identity} came after a newer value");
        }
    }

    /// Whose order it keeps: that of what is live, or of what is replayed beside it. `None`: MQTT 3.1.1
    /// does not tell which.
    fn track(&self, publish: &Publish) -> Option<bool> {
        match (self.orders[class_of(&publish.identity)], self.protocol) {
            (Order::Strict, _) => Some(false),
            (Order::LiveFirst, Protocol::V5) => Some(publish.replayed),
            (Order::LiveFirst, Protocol::V311) => None,
        }
    }

    /// What was received before may repeat and never be overtaken, unless it was refused itself, or the
    /// disk kept it waiting.
    fn check_order(&mut self, publish: &Publish, replayed: bool, first_time: bool) {
        let identity = &publish.identity;
        let (first, last) = self.receipts[identity];
        let topic = (topic_of(identity), replayed);
        let newest = self.newest.entry(topic).or_insert(0);
        let ordered = !first_time
            || last >= *newest
            || last <= self.overtaken[class_of(identity)]
            || self.passable.contains(identity);
        assert!(
            ordered,
            "{identity} was overtaken on its topic (replayed: {replayed})"
        );
        // What was refused goes again beside the others, whatever waits of them.
        if !self.refused.contains(identity) && !self.alone.contains(identity) {
            *newest = first.max(*newest);
        }
    }

    fn acknowledge(&mut self, link: Link, dice: &mut Dice, now: Tick, events: &mut Vec<LinkEvent>) {
        let line = &mut self.links[link as usize];
        if !line.up || now < line.stalled_until {
            return;
        }
        let attempt = line.attempt;
        if line.written > line.told {
            line.told = line.written;
            line.unwritten.clear();
            events.push(LinkEvent::Written {
                link,
                attempt,
                total: line.told,
            });
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut line.acks)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        line.acks = later;
        let mut acks: Vec<_> = due.into_iter().map(|(_, ack)| ack).collect();
        for index in 0..acks.len() {
            let left = (acks.len() - index) as u64;
            acks.swap(index, index + dice.below(left) as usize);
        }
        for ack in &acks {
            line.unacknowledged.remove(&ack.packet_id);
            line.in_flight.remove(&ack.packet_id);
        }
        if dice.permille(20) {
            acks.push(Ack {
                packet_id: 60_000,
                reason: 0,
            });
        }
        events.push(LinkEvent::Acks {
            link,
            attempt,
            acks,
        });
    }
}

/// Those that a picky cloud refuses: one in ten.
fn is_odd(publish: &Publish) -> bool {
    publish.identity.ends_with('7')
}

fn parse(protocol: Protocol, packets: &[u8]) -> Vec<Publish> {
    let mut buffer = BytesMut::from(packets);
    let mut all = Vec::new();
    while !buffer.is_empty() {
        all.push(match protocol {
            Protocol::V311 => match v4::Packet::read(&mut buffer, usize::MAX).unwrap() {
                v4::Packet::Publish(p) => publish(p.pkid, p.topic, &p.payload, &[]),
                other => panic!("{other:?}"),
            },
            Protocol::V5 => match v5::Packet::read(&mut buffer, None).unwrap() {
                v5::Packet::Publish(p) => {
                    let topic = String::from_utf8(p.topic.to_vec()).unwrap();
                    let properties = p.properties.map(|p| p.user_properties);
                    publish(p.pkid, topic, &p.payload, &properties.unwrap_or_default())
                }
                other => panic!("{other:?}"),
            },
        });
    }
    all
}

fn publish(id: u16, topic: String, payload: &[u8], properties: &[(String, String)]) -> Publish {
    let find = |name| properties.iter().find(|(own, _)| own == name);
    let replayed = find(REPLAYED_PROPERTY).is_some();
    let identity = identity_of(payload);
    // MQTT 3.1.1 does not say whether it is replayed, but the topic may.
    let own = topic.strip_prefix("replay/").unwrap_or(&topic);
    assert_eq!(own, topic_of(&identity), "{identity}");
    Publish {
        id,
        identity,
        message_id: find(ID_PROPERTY).map(|(_, text)| message_id(text)),
        replayed,
    }
}

fn message_id(text: &str) -> MessageId {
    let mut parts = text.split(':').skip(1);
    let mut number = || u64::from_str_radix(parts.next().unwrap(), 16).unwrap();
    MessageId {
        epoch: number(),
        sequence: number(),
    }
}

/// The topic that a device published it on.
fn topic_of(identity: &str) -> String {
    identity.rsplit_once('/').unwrap().0.to_owned()
}
