//! The relay against an upstream that the test plays: what do its answers, its silence and its broken
//! connections make of a message, and what is its sender told?

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::traffic::message::{QoS, Receipt, sample};
use crate::traffic::queue::Delivery;
use crate::traffic::send::tests::uplink;
use crate::traffic::send::{Ack, LinkEvent, LinkLimits, UplinkSettings};

mod latest;
mod slowing;
mod spool;

const FIRST: u8 = 0;
const SURE: u8 = 1;
const NORMAL: u8 = 2;
const WALL: WallTime = WallTime::from_micros(1_700_000_000_000_000);

/// One PUBLISH that the relay handed over.
#[derive(Clone, Debug)]
struct Published {
    link: Link,
    packet_id: u16,
    /// With the message id, and nothing else that could change.
    properties: Vec<u8>,
    payload: String,
}

/// The relay with one sender, and the world around it.
struct World {
    relay: Relay,
    sender: DoorId,
    now: Tick,
    attempts: [u64; 2],
    published: Vec<Published>,
    reconnects: Vec<Link>,
}

impl World {
    /// Classes `critical` and `sure` are guaranteed, `normal` is buffered.
    fn new(change: impl FnOnce(&mut UplinkSettings)) -> Self {
        Self::with_classes(change, |_| {})
    }

    fn with_classes(
        change: impl FnOnce(&mut UplinkSettings),
        change_class: impl FnMut(&mut ClassSettings),
    ) -> Self {
        let class = |name, delivery| ClassSettings {
            client_bytes_max: 1 << 20,
            order: crate::traffic::spool::Order::LiveFirst,
            ..ClassSettings::new(name, delivery, 1 << 20)
        };
        let mut settings = RelaySettings {
            gateway: "box".to_owned(),
            epoch: 7,
            memory_bytes_max: 4 << 20,
            memory_pressure: PressureSettings::MEMORY,
            classes: vec![
                class("critical", Delivery::Guaranteed),
                class("sure", Delivery::Guaranteed),
                class("normal", Delivery::Buffered),
            ],
            uplink: uplink(),
            spool: SpoolPolicy::default(),
            next_segment: 1,
        };
        change(&mut settings.uplink);
        settings.classes.iter_mut().for_each(change_class);
        let mut relay = Relay::new(&settings);
        let sender = relay.open(Arc::from("device"), false);
        Self {
            relay,
            sender,
            now: Tick::ZERO,
            attempts: [0; 2],
            published: Vec::new(),
            reconnects: Vec::new(),
        }
    }

    /// With both connections up.
    fn with_two() -> Self {
        let mut world = Self::new(|uplink| uplink.connections = 2);
        world.up(Link::Urgent);
        world.up(Link::Bulk);
        world
    }

    fn up(&mut self, link: Link) {
        self.attempts[link as usize] += 1;
        let event = LinkEvent::Up {
            link,
            attempt: self.attempts[link as usize],
            limits: LinkLimits::DEFAULT,
        };
        self.relay.link_event(event, self.now);
    }

    fn down(&mut self, link: Link, by_peer: bool) {
        let event = LinkEvent::Down {
            link,
            attempt: self.attempts[link as usize],
            reason: None,
            by_peer,
        };
        self.relay.link_event(event, self.now);
    }

    fn answer(&mut self, published: &Published, reason: u8) {
        let event = LinkEvent::Acks {
            link: published.link,
            attempt: self.attempts[published.link as usize],
            acks: vec![Ack {
                packet_id: published.packet_id,
                reason,
            }],
        };
        self.relay.link_event(event, self.now);
    }

    fn arrive_on(&mut self, class: u8, topic: &str, payload: &str) {
        let message = sample(topic, payload.as_bytes());
        self.take(message, class, Some(0));
    }

    fn arrive(&mut self, class: u8, payload: &str, token: Option<u32>) {
        self.take(sample("t", payload.as_bytes()), class, token);
    }

    fn take(&mut self, mut message: Message, class: u8, token: Option<u32>) {
        message.class = ClassId(class);
        message.received = self.now;
        message.receipt = Receipt {
            door: self.sender,
            token,
        };
        if token.is_none() {
            message.qos = QoS::AtMostOnce;
        }
        let batch = Batch {
            door: self.sender,
            at: self.now,
            messages: vec![message],
            unreadable: 0,
            forgotten: 0,
            room: None,
        };
        self.relay.arrive(batch, self.now);
    }

    /// A turn; gives what was handed over because of it.
    fn turn(&mut self) -> Vec<Published> {
        self.relay.turn(self.now, WALL);
        let before = self.published.len();
        for link in Link::BOTH {
            while let Some(command) = self.relay.take_command(link) {
                match command {
                    LinkCommand::Write { packets, .. } => {
                        self.published.extend(publishes(link, &packets));
                    }
                    LinkCommand::Reconnect { attempt } => {
                        assert_eq!(attempt, self.attempts[link as usize]);
                        self.reconnects.push(link);
                    }
                    other => panic!("{other:?} is not asked of the relay"),
                }
            }
        }
        self.published[before..].to_vec()
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// The answers since the last call, in order.
    fn answers(&mut self) -> Vec<(u32, Answer)> {
        let notices = self.relay.take_notices();
        let notices = notices.into_iter().flat_map(|(_, notices)| notices);
        notices
            .filter_map(|notice| match notice {
                Notice::Answer { token, answer } => Some((token, answer)),
                _ => None,
            })
            .collect()
    }

    fn ended(&self, class: u8, outcome: Outcome) -> u64 {
        self.relay.ledger().accounts()[usize::from(class)].ended(outcome)
    }
}

/// The PUBLISH packets (MQTT 5, 3.3) in these bytes, all with QoS 1.
fn publishes(link: Link, mut bytes: &[u8]) -> Vec<Published> {
    let mut published = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0] & 0b1111_0110, 0b0011_0010, "PUBLISH with QoS 1");
        let (length, rest) = variable(&bytes[1..]);
        let (packet, after) = rest.split_at(length);
        let topic_bytes = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
        let packet = &packet[2 + topic_bytes..];
        let packet_id = u16::from_be_bytes([packet[0], packet[1]]);
        let (length, packet) = variable(&packet[2..]);
        let (properties, payload) = packet.split_at(length);
        published.push(Published {
            link,
            packet_id,
            properties: properties.to_vec(),
            payload: String::from_utf8(payload.to_vec()).unwrap(),
        });
        bytes = after;
    }
    published
}

/// A variable byte integer (MQTT 5, 1.5.5), and what follows it.
fn variable(bytes: &[u8]) -> (usize, &[u8]) {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return (value, &bytes[place + 1..]);
        }
    }
    panic!("a variable byte integer without end");
}

fn payloads(published: &[Published]) -> Vec<&str> {
    let all = published.iter();
    all.map(|published| published.payload.as_str()).collect()
}

#[test]
fn does_a_new_connection_wait_behind_what_is_held_of_the_same_topic() {
    let one = sample("t", b"1").memory_bytes();
    let mut world = World::with_classes(|_| {}, |class| class.client_bytes_max = one);
    world.arrive(1, "1", Some(1));
    world.arrive(1, "2", Some(2));
    world.sender = world.relay.open(Arc::from("device"), false);
    world.arrive(1, "3", Some(3));
    world.up(Link::Bulk);
    for _ in 0..3 {
        for published in world.turn() {
            world.answer(&published, 0);
        }
    }
    let order: Vec<_> = world.published.iter().map(|p| &p.payload[..]).collect();
    assert_eq!(order, ["1", "2", "3"]);
}

#[test]
fn is_what_the_upstream_refuses_for_good_a_dead_letter_and_its_sender_told() {
    for class in [FIRST, SURE] {
        for reason in [0x90, 0x95, 0x99] {
            let mut world = World::new(|_| {});
            world.up(Link::Bulk);
            world.arrive(class, "bad", Some(1));
            world.arrive(class, "good", Some(2));
            let sent = world.turn();
            assert_eq!(payloads(&sent), ["bad", "good"]);
            world.answer(&sent[0], reason);
            let refused = Answer::Refused(Refusal::Upstream);
            assert_eq!(world.answers(), [(1, refused)], "{reason:#x}");
            world.answer(&sent[1], 0);
            assert_eq!(world.answers(), [(2, Answer::Accepted)]);
            assert_eq!(world.ended(class, Outcome::DeadLetter), 1);
            assert_eq!(world.ended(class, Outcome::Delivered), 1);
            world.wait(Duration::from_secs(60));
            assert!(world.turn().is_empty(), "a dead letter is sent again");
            assert!(world.relay.is_idle());
        }
    }
}

#[test]
fn does_a_used_up_quota_only_slow_its_connection() {
    let mut world = World::with_two();
    world.arrive(SURE, "x", Some(1));
    let first = world.turn().remove(0);
    let mut sent = first.clone();
    for round in 0..10 {
        assert_eq!(
            (sent.link, &sent.properties),
            (Link::Bulk, &first.properties)
        );
        world.answer(&sent, 0x97);
        assert!(world.turn().is_empty());
        // The other connection goes on.
        world.arrive(FIRST, "alarm", Some(100 + round));
        let alarm = world.turn();
        assert_eq!(payloads(&alarm), ["alarm"]);
        world.answer(&alarm[0], 0);
        world.wait(QUOTA_PAUSE - Duration::from_micros(1));
        assert!(world.turn().is_empty(), "sent while the quota is used up");
        world.wait(Duration::from_micros(1));
        sent = world.turn().remove(0);
    }
    world.answer(&sent, 0);
    assert_eq!(world.ended(SURE, Outcome::Delivered), 1);
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 0);
    assert!(world.answers().contains(&(1, Answer::Accepted)));
    assert!(world.reconnects.is_empty(), "a connection was given up");
}

/// An upstream whose connection ends whenever it is sent `bad`, and that takes everything else, for so
/// many seconds; a good message comes each second if there are `others`. Gives how often it was `bad`
/// alone that was in flight.
fn end_whenever_bad_is_sent(world: &mut World, by_peer: bool, others: bool, seconds: u32) -> usize {
    let mut alone = 0;
    world.arrive(SURE, "bad", Some(0));
    world.up(Link::Bulk);
    for second in 1..=seconds {
        if others {
            world.arrive(SURE, "good", Some(second));
        }
        loop {
            let sent = world.turn();
            if sent.is_empty() {
                break;
            }
            let bad = sent.iter().position(|sent| sent.payload == "bad");
            for good in &sent[..bad.unwrap_or(sent.len())] {
                world.answer(good, 0);
            }
            if bad.is_some() {
                alone += usize::from(sent.len() == 1);
                world.down(Link::Bulk, by_peer);
                world.up(Link::Bulk);
                break;
            }
        }
        world.wait(Duration::from_secs(1));
    }
    alone
}

#[test]
fn is_a_message_that_ends_three_connections_a_dead_letter_once_others_passed() {
    let mut world = World::new(|_| {});
    let alone = end_whenever_bad_is_sent(&mut world, true, true, 60);
    assert!((3..=6).contains(&alone), "{alone} times");
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 1);
    assert_eq!(world.ended(SURE, Outcome::Delivered), 60);
    let answers = world.answers();
    assert!(answers.contains(&(0, Answer::Refused(Refusal::Upstream))));
    let accepted = answers
        .iter()
        .filter(|(_, answer)| *answer == Answer::Accepted);
    assert_eq!(accepted.count(), 60);
}

#[test]
fn is_a_message_never_blamed_for_what_the_network_or_the_upstream_does() {
    // The network ends the connections; or the upstream does, but nothing else passes either.
    for (by_peer, others) in [(false, true), (false, false), (true, false)] {
        let mut world = World::new(|_| {});
        let alone = end_whenever_bad_is_sent(&mut world, by_peer, others, 300);
        assert!(alone >= 3, "{alone} times");
        assert_eq!(world.ended(SURE, Outcome::DeadLetter), 0);
        let answers = world.answers();
        assert!(answers.iter().all(|(token, _)| *token != 0), "{answers:?}");
        // Once it may pass, it does.
        world.wait(Duration::from_secs(600));
        let sent = world.turn();
        let bad = sent.iter().find(|sent| sent.payload == "bad");
        world.answer(bad.unwrap(), 0);
        assert!(world.answers().contains(&(0, Answer::Accepted)));
    }
}

/// An alarm that was not acknowledged over the urgent connection for two seconds: its two copies.
fn doubled() -> (World, [Published; 2]) {
    let mut world = World::with_two();
    world.arrive(FIRST, "alarm", Some(1));
    let original = world.turn().remove(0);
    assert_eq!(original.link, Link::Urgent);
    world.wait(Duration::from_micros(1_999_999));
    assert!(world.turn().is_empty(), "doubled too early");
    world.wait(Duration::from_micros(1));
    assert_eq!(world.relay.deadline(Tick::ZERO), world.now);
    let copy = world.turn().remove(0);
    assert_eq!(copy.link, Link::Bulk);
    assert_eq!(copy.properties, original.properties, "another id");
    assert_eq!(copy.payload, "alarm");
    world.wait(Duration::from_secs(2));
    assert!(world.turn().is_empty(), "a third copy");
    assert!(world.answers().is_empty(), "acknowledged before safe");
    (world, [original, copy])
}

#[test]
fn is_a_late_alarm_sent_over_the_other_connection_and_the_silent_one_given_up() {
    let (mut world, [original, copy]) = doubled();
    world.answer(&copy, 0);
    assert_eq!(world.answers(), [(1, Answer::Accepted)]);
    world.turn();
    assert_eq!(world.reconnects, [Link::Urgent]);
    // Its acknowledgement comes after all, then its end.
    world.answer(&original, 0);
    world.down(Link::Urgent, false);
    world.wait(Duration::from_secs(30));
    assert!(world.turn().is_empty(), "sent again");
    assert!(world.answers().is_empty(), "answered twice");
    assert_eq!(world.ended(FIRST, Outcome::Delivered), 1);
    assert!(world.relay.is_idle());
}

#[test]
fn is_a_doubled_alarm_settled_once_when_the_first_copy_is_acknowledged_first() {
    let (mut world, [original, copy]) = doubled();
    world.answer(&original, 0);
    assert_eq!(world.answers(), [(1, Answer::Accepted)]);
    world.answer(&copy, 0);
    world.wait(Duration::from_secs(30));
    assert!(world.turn().is_empty(), "sent again");
    assert!(world.answers().is_empty(), "answered twice");
    assert!(world.reconnects.is_empty(), "both connections answered");
    assert_eq!(world.ended(FIRST, Outcome::Delivered), 1);
    assert!(world.relay.is_idle());
}

#[test]
fn is_a_doubled_alarm_sent_again_when_both_connections_end() {
    let (mut world, [original, _]) = doubled();
    for link in Link::BOTH {
        world.down(link, false);
        assert_eq!(world.ended(FIRST, Outcome::Delivered), 0);
    }
    world.up(Link::Bulk);
    let sent = world.turn();
    assert_eq!(payloads(&sent), ["alarm"]);
    assert_eq!(sent[0].properties, original.properties);
    world.answer(&sent[0], 0);
    assert_eq!(world.answers(), [(1, Answer::Accepted)]);
    assert_eq!(world.ended(FIRST, Outcome::Delivered), 1);
}

/// The copy's connection broke and the message kept its mark: later alarms got a second chance, it
/// never again, and they overtook it (found by seed 17641 of the simulation).
#[test]
fn does_a_message_whose_copy_is_lost_get_another_second_chance() {
    let (mut world, [original, _]) = doubled();
    world.down(Link::Bulk, true);
    assert!(world.turn().is_empty());
    world.up(Link::Bulk);
    let again = world.turn();
    assert_eq!(payloads(&again), ["alarm"]);
    assert_eq!(
        (again[0].link, &again[0].properties),
        (Link::Bulk, &original.properties)
    );
    world.answer(&again[0], 0);
    assert_eq!(world.answers(), [(1, Answer::Accepted)]);
    assert_eq!(world.ended(FIRST, Outcome::Delivered), 1);
}

/// A later alarm went over the new urgent connection, while the one before it waited on the silent bulk
/// connection alone (found by seed 16767 of the simulation).
#[test]
fn does_an_alarm_whose_first_connection_came_back_go_there_again_before_later_ones() {
    let mut world = World::with_two();
    world.arrive(FIRST, "one", Some(1));
    let original = world.turn().remove(0);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.turn()[0].link, Link::Bulk);
    world.down(Link::Urgent, true);
    world.arrive(FIRST, "two", Some(2));
    world.wait(Duration::from_millis(50));
    world.up(Link::Urgent);
    // One at a time: nothing was acknowledged over the connection before.
    for (token, payload) in [(1, "one"), (2, "two")] {
        let sent = world.turn();
        assert_eq!(payloads(&sent), [payload]);
        assert_eq!(sent[0].link, Link::Urgent, "{payload}");
        assert!(token == 2 || sent[0].properties == original.properties);
        world.answer(&sent[0], 0);
        assert_eq!(world.answers(), [(token, Answer::Accepted)]);
    }
    world.turn();
    assert_eq!(world.reconnects, [Link::Bulk], "the silent one is given up");
    world.down(Link::Bulk, false);
    world.up(Link::Bulk);
    assert!(world.turn().is_empty(), "sent again");
    assert_eq!(world.ended(FIRST, Outcome::Delivered), 2);
    assert!(world.relay.is_idle());
}

#[test]
fn is_a_guaranteed_message_answered_only_after_its_own_puback() {
    let mut world = World::new(|_| {});
    world.arrive(NORMAL, "normal", Some(1));
    world.arrive(SURE, "one", Some(2));
    world.arrive(FIRST, "alarm", Some(3));
    world.arrive(SURE, "two", Some(4));
    assert_eq!(world.answers(), [(1, Answer::Accepted)], "normal only");
    world.up(Link::Bulk);
    let sent = world.turn();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0].payload, "alarm");
    let written = LinkEvent::Written {
        link: Link::Bulk,
        attempt: 1,
        total: 1 << 20,
    };
    world.relay.link_event(written, world.now);
    assert!(world.answers().is_empty(), "written is not safe");
    // One that was never sent, and one of a connection that is gone.
    for (attempt, packet_id) in [(1, 999), (0, sent[0].packet_id)] {
        let acks = vec![Ack {
            packet_id,
            reason: 0,
        }];
        let link = Link::Bulk;
        let event = LinkEvent::Acks {
            link,
            attempt,
            acks,
        };
        world.relay.link_event(event, world.now);
    }
    assert!(world.answers().is_empty(), "another's PUBACK");
    for (payload, token) in [("two", Some(4)), ("normal", None), ("one", Some(2))] {
        let of = sent.iter().find(|sent| sent.payload == payload).unwrap();
        world.answer(of, 0);
        let answered: Vec<_> = world.answers().iter().map(|(token, _)| *token).collect();
        assert_eq!(answered, Vec::from_iter(token), "{payload}");
    }
    // Nobody subscribes to it: still taken (MQTT 5, 3.4.2.1).
    world.answer(&sent[0], 0x10);
    assert_eq!(world.answers(), [(3, Answer::Accepted)]);
}

#[test]
fn does_the_end_count_what_senders_still_have_and_what_is_lost() {
    let (mut world, _) = doubled();
    world.arrive(SURE, "its sender has it", Some(2));
    world.arrive(SURE, "nobody can bring it again", None);
    world.turn();
    // The alarm stays in flight, and the others wait again.
    world.down(Link::Bulk, false);
    world.arrive(NORMAL, "acknowledged", Some(3));
    world.arrive(NORMAL, "qos 0", None);
    world.relay.take_notices();
    assert!(!world.relay.is_idle());
    assert_eq!(world.relay.finish(), 3);
    assert_eq!(
        world.ended(FIRST, Outcome::Returned),
        1,
        "its copies are one"
    );
    assert_eq!(world.ended(SURE, Outcome::Returned), 1);
    assert_eq!(world.ended(SURE, Outcome::Shed), 1);
    assert_eq!(world.ended(NORMAL, Outcome::Shed), 2);
    assert!(world.relay.is_idle());
    assert!(world.answers().is_empty(), "acknowledged before safe");
}

#[test]
fn do_publishes_a_second_stay_within_what_the_cloud_allows_on_each_connection() {
    const EACH_SECOND: u32 = 20;
    let mut world = World::new(|uplink| {
        uplink.connections = 2;
        uplink.publish_max = Some(EACH_SECOND);
    });
    world.up(Link::Urgent);
    world.up(Link::Bulk);
    for token in 0..200 {
        world.arrive(FIRST, "alarm", Some(token));
        world.arrive(SURE, "sure", Some(200 + token));
    }
    let mut times = [Vec::new(), Vec::new()];
    while world.now < Tick::ZERO.after(Duration::from_secs(5)) {
        for sent in world.turn() {
            times[sent.link as usize].push(world.now);
            world.answer(&sent, 0);
        }
        let next = world.relay.deadline(world.now);
        assert!(next > world.now, "it would spin");
        world.now = next;
    }
    for times in times {
        assert!(times.len() >= 95, "{} in five seconds", times.len());
        // A tenth of a second's worth may go at once.
        let most = EACH_SECOND as usize + EACH_SECOND as usize / 10;
        for (first, at) in times.iter().enumerate() {
            let second = at.after(Duration::from_secs(1));
            let within = times[first..].iter().filter(|time| **time < second);
            assert!(within.count() <= most + 1, "too many after {at:?}");
        }
    }
}
