//! What we write, read back by rumqttc's codecs, which had no part in writing it.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::*;
use crate::traffic::message::{ClassId, sample};
use crate::traffic::queue::Delivery;
use crate::traffic::send::tests::uplink;

const NOW: (Tick, WallTime) = (
    Tick::from_micros(5_000_000),
    WallTime::from_micros(1_000_000_000),
);

fn packet(id: Option<u16>) -> Packet {
    Packet {
        id,
        retain: true,
        bytes_max: u64::MAX,
        now: NOW,
    }
}

fn encoder(protocol: Protocol, properties: PropertiesPolicy, topic: &str) -> Encoder {
    let mut settings = uplink();
    settings.protocol = protocol;
    settings.properties = properties;
    settings.topic = topic.to_owned();
    Encoder::new(&settings, "box-7", &[class(None)])
}

fn class(replay_topic: Option<&str>) -> ClassSettings {
    ClassSettings {
        replay_topic: replay_topic.map(str::to_owned),
        ..ClassSettings::new("critical", Delivery::Buffered, 1 << 20)
    }
}

fn read_5(bytes: &[u8]) -> v5::Publish {
    let mut buffer = BytesMut::from(bytes);
    match v5::Packet::read(&mut buffer, None).unwrap() {
        v5::Packet::Publish(publish) if buffer.is_empty() => publish,
        other => panic!("{other:?} and {} bytes", buffer.len()),
    }
}

fn user_properties(publish: &v5::Publish) -> Vec<(String, String)> {
    let properties = publish.properties.clone();
    properties.map(|p| p.user_properties).unwrap_or_default()
}

fn property(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn does_the_id_name_gateway_start_and_message() {
    let mut message = sample("a/b", b"21.5");
    message.epoch = 0xabc;
    message.sequence = 0x1f;
    let mut out = Vec::new();
    let mut encoder = encoder(Protocol::V5, PropertiesPolicy::Id, "{topic}");
    let bytes = encoder
        .publish(&mut out, &message, packet(Some(7)))
        .unwrap();
    assert_eq!(bytes, out.len() as u64);
    let publish = read_5(&out);
    assert_eq!(
        (publish.pkid, publish.qos as u8, publish.dup),
        (7, 1, false)
    );
    assert_eq!(
        user_properties(&publish),
        [property(ID_PROPERTY, "box-7:abc:1f")]
    );
}

#[test]
fn does_full_add_class_time_and_count_and_leave_the_default_count_out() {
    let mut message = sample("a/b", b"");
    message.class = ClassId::FIRST;
    message.received = Tick::from_micros(4_000_000);
    let mut encoder = encoder(Protocol::V5, PropertiesPolicy::Full, "{topic}");
    for (stands_for, expected) in [(1, None), (12, Some("12"))] {
        message.stands_for = stands_for;
        let mut out = Vec::new();
        encoder
            .publish(&mut out, &message, packet(Some(1)))
            .unwrap();
        let properties = user_properties(&read_5(&out));
        assert!(properties.contains(&property(CLASS_PROPERTY, "critical")));
        assert!(properties.contains(&property(RECEIVED_PROPERTY, "999000")));
        let count = properties.iter().find(|(name, _)| name == COUNT_PROPERTY);
        assert_eq!(count.map(|(_, value)| value.as_str()), expected);
    }
}

#[test]
fn does_none_add_nothing() {
    let mut out = Vec::new();
    let mut encoder = encoder(Protocol::V5, PropertiesPolicy::None, "{topic}");
    encoder
        .publish(&mut out, &sample("a/b", b"x"), packet(Some(1)))
        .unwrap();
    assert_eq!(read_5(&out).properties, None);
}

#[test]
fn does_what_is_left_of_the_publishers_expiry_go_on() {
    let mut message = sample("a", b"x");
    message.publisher_expires = Tick::from_micros(8_500_000);
    let mut out = Vec::new();
    let mut encoder = encoder(Protocol::V5, PropertiesPolicy::Id, "{topic}");
    encoder
        .publish(&mut out, &message, packet(Some(1)))
        .unwrap();
    let expiry = read_5(&out).properties.unwrap().message_expiry_interval;
    assert_eq!(expiry, Some(4), "3.5 s, rounded up");
}

#[test]
fn does_the_topic_go_through_the_template() {
    let mut out = Vec::new();
    let mut encoder = encoder(
        Protocol::V311,
        PropertiesPolicy::Id,
        "site/{gateway}/{topic}/x",
    );
    encoder
        .publish(&mut out, &sample("a/b", b"x"), packet(Some(1)))
        .unwrap();
    match v4::Packet::read(&mut BytesMut::from(&out[..]), usize::MAX).unwrap() {
        v4::Packet::Publish(publish) => assert_eq!(publish.topic, "site/box-7/a/b/x"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn is_a_packet_beyond_the_limit_refused_and_nothing_written() {
    let mut encoder = encoder(Protocol::V5, PropertiesPolicy::Id, "{topic}");
    let message = sample("a", &[b'x'; 1000]);
    let mut out = b"before".to_vec();
    let limited = |bytes_max| Packet {
        bytes_max,
        ..packet(Some(1))
    };
    let exact = encoder
        .publish(&mut Vec::new(), &message, packet(Some(1)))
        .unwrap();
    let refused = encoder.publish(&mut out, &message, limited(exact - 1));
    assert_eq!(refused, Err(TooLarge { bytes: exact }));
    assert_eq!(out, b"before");
    assert!(encoder.publish(&mut out, &message, limited(exact)).is_ok());
}

proptest! {
    /// Whatever topic and payload, both versions and both QoS: the codec reads what went in, the
    /// size is what was said, and never less than what was known before.
    #[test]
    fn does_the_codec_read_what_went_in(
        topic in "[a-zA-Zäö/0-9]{1,300}",
        payload in prop::collection::vec(any::<u8>(), 0..20_000),
        id in prop::option::of(1_u16..),
        retain: bool,
    ) {
        let mut message = sample(&topic, &payload);
        message.retain = retain;
        for protocol in [Protocol::V311, Protocol::V5] {
            let mut out = Vec::new();
            let mut encoder = encoder(protocol, PropertiesPolicy::Full, "{topic}");
            let bytes = encoder.publish(&mut out, &message, packet(id)).unwrap();
            prop_assert_eq!(bytes, out.len() as u64);
            let most = encoder.bytes_at_most(&message);
            prop_assert!((bytes..bytes + 150).contains(&most), "{most} for {bytes}");
            let read = match protocol {
                Protocol::V5 => {
                    let p = read_5(&out);
                    (p.topic.to_vec(), p.payload.to_vec(), p.pkid, p.retain)
                }
                Protocol::V311 => match v4::Packet::read(&mut BytesMut::from(&out[..]), usize::MAX) {
                    Ok(v4::Packet::Publish(p)) => {
                        (p.topic.into_bytes(), p.payload.to_vec(), p.pkid, p.retain)
                    }
                    other => panic!("{other:?}"),
                },
            };
            prop_assert_eq!(read, (topic.clone().into_bytes(), payload.clone(), id.unwrap_or(0), retain));
        }
    }
}

#[test]
fn is_what_is_replayed_marked_and_never_retained() {
    let mut message = sample("a/b", b"21.5");
    message.class = ClassId::FIRST;
    message.retain = true;
    message.replayed = true;
    let mut settings = uplink();
    settings.properties = PropertiesPolicy::Full;
    let mut encoder = Encoder::new(&settings, "box-7", &[class(Some("late/{topic}"))]);
    let mut out = Vec::new();
    encoder
        .publish(&mut out, &message, packet(Some(7)))
        .unwrap();
    let replayed = read_5(&out);
    assert_eq!(
        (&replayed.topic[..], replayed.retain),
        (&b"late/a/b"[..], false)
    );
    assert!(user_properties(&replayed).contains(&property(REPLAYED_PROPERTY, "1")));
    assert!(out.len() as u64 <= encoder.bytes_at_most(&message));
    message.replayed = false;
    out.clear();
    encoder
        .publish(&mut out, &message, packet(Some(8)))
        .unwrap();
    let live = read_5(&out);
    assert_eq!((&live.topic[..], live.retain), (&b"a/b"[..], true));
}
