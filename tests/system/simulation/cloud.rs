//! The simulated cloud: takes the bytes that the relay writes, some time later, acknowledges some time
//! later still, out of order if it likes, and breaks in all the ways that its dice allow. It keeps its
//! own record of what arrived, and holds the gateway to its Receive Maximum and to order per topic.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use tidegate::traffic::accept::Protocol;
use tidegate::traffic::message::Tick;
use tidegate::traffic::send::{Ack, Link, LinkCommand, LinkEvent, LinkLimits};

use super::Dice;

pub struct Cloud {
    connections: u8,
    protocol: Protocol,
    links: [Line; 2],
    attempt: u64,
    receive_max: u16,
    delay_micros: u64,
    trouble_permille: u64,
    refuses: bool,
    healed: bool,
    /// Identity to times arrived.
    arrived: HashMap<String, u64>,
    refused: HashSet<String>,
    /// Refused, or alone in flight when the cloud ended a connection: those of the topic that come after
    /// them may pass. Nothing else may.
    passable: HashSet<String>,
    /// How often a message met with that.
    pub setbacks: u64,
    /// For each identity, when the gateway received it first and last, as a count of all receipts.
    receipts: HashMap<String, (u64, u64)>,
    received: u64,
    /// Of each topic, the latest first receipt of anything that arrived.
    newest: HashMap<String, u64>,
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
    in_flight: HashMap<u16, String>,
    unwritten: Vec<String>,
    /// The gateway asked for a new connection.
    given_up: bool,
    /// Unacknowledged as the cloud sees it.
    unacknowledged: HashSet<u16>,
    written: u64,
    told: u64,
}

struct Publish {
    id: u16,
    topic: String,
    identity: String,
}

impl Cloud {
    pub fn new(dice: &mut Dice, connections: u8, protocol: Protocol) -> Self {
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
            healed: false,
            arrived: HashMap::new(),
            refused: HashSet::new(),
            passable: HashSet::new(),
            setbacks: 0,
            receipts: HashMap::new(),
            received: 0,
            newest: HashMap::new(),
            rest_sent: 0,
            taken: 0,
        }
    }

    pub fn heal(&mut self) {
        self.healed = true;
        self.refuses = false;
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
        self.arrived.contains_key(identity)
    }

    pub fn refused(&self, identity: &str) -> bool {
        self.refused.contains(identity)
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
                let at = now.after(Duration::from_micros(dice.below(self.delay_micros)));
                let at = line.packets.last().map_or(at, |(last, _)| at.max(*last));
                for publish in parse(self.protocol, &packets) {
                    self.rest_sent += u64::from(!publish.identity.contains("/0/"));
                    self.taken += u64::from(publish.id == 0);
                    match publish.id {
                        0 => line.unwritten.push(publish.identity.clone()),
                        id => drop(line.in_flight.insert(id, publish.identity.clone())),
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
                self.passable.extend(line.unwritten.drain(..));
                self.passable
                    .extend(line.in_flight.drain().map(|(_, identity)| identity));
            }
            // Some of what was on its way arrives all the same, unacknowledged.
            let half = line.packets.len() / 2;
            let late: Vec<_> = line.packets.drain(..half).collect();
            let down_until = line.down_until;
            *line = Line {
                down_until,
                ..Line::default()
            };
            events.push(LinkEvent::Down {
                link,
                attempt,
                reason: None,
                by_peer,
            });
            for (_, publish) in late {
                self.record(&publish);
            }
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
        self.record(publish);
        0
    }

    /// Notes that the gateway received a message.
    pub fn receipt(&mut self, payload: &[u8]) {
        self.received += 1;
        let at = self.received;
        let receipts = self
            .receipts
            .entry(identity_of(payload))
            .or_insert((at, at));
        receipts.1 = at;
    }

    /// Notes an arrival. What was received before may repeat and never be overtaken, unless it was
    /// refused itself.
    fn record(&mut self, publish: &Publish) {
        let times = self.arrived.entry(publish.identity.clone()).or_insert(0);
        *times += 1;
        self.taken += u64::from(publish.id != 0);
        let (first, last) = self.receipts[&publish.identity];
        let newest = self.newest.entry(publish.topic.clone()).or_insert(0);
        let ordered = *times > 1 || last >= *newest || self.passable.contains(&publish.identity);
        assert!(ordered, "{} was overtaken on its topic", publish.identity);
        *newest = first.max(*newest);
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

fn parse(protocol: Protocol, packets: &[u8]) -> Vec<Publish> {
    let mut buffer = BytesMut::from(packets);
    let mut all = Vec::new();
    while !buffer.is_empty() {
        let (id, topic, payload) = match protocol {
            Protocol::V311 => match v4::Packet::read(&mut buffer, usize::MAX).unwrap() {
                v4::Packet::Publish(p) => (p.pkid, p.topic, p.payload),
                other => panic!("{other:?}"),
            },
            Protocol::V5 => match v5::Packet::read(&mut buffer, None).unwrap() {
                v5::Packet::Publish(p) => (
                    p.pkid,
                    String::from_utf8(p.topic.to_vec()).unwrap(),
                    p.payload,
                ),
                other => panic!("{other:?}"),
            },
        };
        all.push(Publish {
            id,
            topic,
            identity: identity_of(&payload),
        });
    }
    all
}

fn identity_of(payload: &[u8]) -> String {
    let text = std::str::from_utf8(payload).unwrap();
    text.split(' ').next().unwrap().to_owned()
}
