//! The reader against the protocol's rules, against another codec, and against noise.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::*;
use crate::traffic::accept::Protocol::{self, V5, V311};
use crate::traffic::message::QoS;

const MAX: u32 = 1 << 20;

fn read(bytes: &[u8], protocol: Protocol) -> Result<Packet<'_>, Fault> {
    let frame = frame(bytes, MAX)?.expect("a whole header");
    assert_eq!(frame.total_len, bytes.len(), "one packet");
    packet(frame.first, frame.body(bytes).unwrap(), protocol)
}

fn read_publish(bytes: &[u8], protocol: Protocol) -> Result<Publish<'_>, Fault> {
    read(bytes, protocol).map(|packet| match packet {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    })
}

fn packed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn is_a_frame_found_only_when_its_header_is_whole() {
    assert_eq!(frame(&[], MAX), Ok(None));
    assert_eq!(frame(&[0x30], MAX), Ok(None));
    assert_eq!(frame(&[0x30, 0x80], MAX), Ok(None));
    let found = frame(&[0x30, 0x80, 0x01], MAX).unwrap().unwrap();
    assert_eq!((found.header_len, found.total_len), (3, 131));
    assert_eq!(found.body(&[0x30, 0x80, 0x01]), None);
    let long = frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], u32::MAX).unwrap_err();
    assert_eq!(long.reason, reason::MALFORMED);
    let large = frame(&[0x30, 0xFF, 0xFF, 0x7F], MAX).unwrap_err();
    assert_eq!(large.reason, reason::PACKET_TOO_LARGE);
}

#[test]
fn is_a_publish_read_with_all_its_fields() {
    // The properties take 5 + 3 + 7 + 2 bytes.
    let bytes = packed(
        0x3B,
        b"\0\x03a/b\x12\x34\x11\x02\0\0\0\x3C\x23\0\x05\x26\0\x01k\0\x01v\x01\x01pay",
    );
    let publish = read_publish(&bytes, V5).unwrap();
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"pay"[..]));
    assert_eq!(
        (publish.qos, publish.dup, publish.retain),
        (QoS::AtLeastOnce, true, true)
    );
    assert_eq!((publish.packet_id, publish.alias), (0x1234, Some(5)));
    assert_eq!(publish.expiry_seconds, Some(60));
    assert_eq!(&*publish.forwardable(), b"\x26\0\x01k\0\x01v\x01\x01");
}

#[test]
fn is_every_forbidden_publish_refused() {
    let cases: [(u8, &[u8], Protocol, &str); 20] = [
        (0x36, b"\0\x01a\0\x01", V311, "QoS 3"),
        (0x38, b"\0\x01a", V311, "DUP with QoS 0"),
        (0x32, b"\0\x01a\0\0", V311, "packet id 0"),
        (0x32, b"\0\x01a\0", V311, "half a packet id"),
        (0x30, b"\0\0", V311, "no topic"),
        (0x30, b"\0\0\0", V5, "no topic and no alias"),
        (0x30, b"\0\x02a", V311, "half a topic"),
        (0x30, b"\0\x02\xC3\x28", V311, "not UTF-8"),
        (0x30, b"\0\x03\xED\xA0\x80", V311, "a surrogate"),
        (0x30, b"\0\x01\0", V311, "NUL"),
        (0x30, b"\0\x03a/+", V311, "wildcard"),
        (0x30, b"\0\x03a/#", V311, "wildcard"),
        (0x30, b"\0\x01a", V5, "no property length"),
        (0x30, b"\0\x01a\x05\x01", V5, "properties end inside"),
        (0x30, b"\0\x01a\x04\x01\0\x01\0", V5, "a property twice"),
        (0x30, b"\0\x01a\x02\x01\x02", V5, "a flag of 2"),
        (0x30, b"\0\x01a\x03\x23\0\0", V5, "alias 0"),
        (
            0x30,
            b"\0\x01a\x02\x0B\x01",
            V5,
            "a subscription id from a client",
        ),
        (
            0x30,
            b"\0\x01a\x04\x08\0\x01#",
            V5,
            "response topic with a wildcard",
        ),
        (0x30, b"\0\x01a\x80\0", V5, "a padded property length"),
    ];
    for (first, body, protocol, what) in cases {
        assert!(
            read_publish(&packed(first, body), protocol).is_err(),
            "{what}"
        );
    }
    // The overrun that lenient codecs take: the last property ends beyond the properties.
    assert!(read_publish(&packed(0x30, b"\0\x01a\x02\x02\0\0\0\x01x"), V5).is_err());
}

#[test]
fn are_the_small_packets_read_strictly() {
    let disconnect = |reason, session_expiry_seconds| {
        Ok(Packet::Disconnect {
            reason,
            session_expiry_seconds,
        })
    };
    assert_eq!(
        read(&[0xE0, 0], V5),
        disconnect(0, None),
        "legal, and two bytes long"
    );
    assert_eq!(read(&[0xE0, 1, 4], V5), disconnect(4, None));
    assert_eq!(
        read(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9], V5),
        disconnect(0, Some(9))
    );
    assert!(read(&[0xE0, 1, 0], V311).is_err());
    assert!(read(&[0xE1, 0], V311).is_err());
    assert_eq!(read(&[0xC0, 0], V311), Ok(Packet::Ping));
    assert!(read(&[0xC0, 1, 0], V311).is_err());
    assert_eq!(
        read(&[0x62, 2, 0, 7], V311),
        Ok(Packet::Release { packet_id: 7 })
    );
    assert_eq!(
        read(&[0x62, 3, 0, 7, 0x92], V5),
        Ok(Packet::Release { packet_id: 7 })
    );
    assert_eq!(
        read(&[0x62, 4, 0, 7, 0, 0], V5),
        Ok(Packet::Release { packet_id: 7 })
    );
    for wrong in [
        &[0x60, 2, 0, 7][..],
        &[0x62, 2, 0, 0],
        &[0x62, 3, 0, 7, 0],
        &[0x40, 2, 0, 1],
    ] {
        assert!(read(wrong, V311).is_err(), "{wrong:?}");
    }
    for wrong in [
        &[0x62, 3, 0, 7, 1][..],
        &[0xF0, 0],
        &[0x10, 0],
        &[0x20, 2, 0, 0],
        &[0x00, 0],
    ] {
        assert!(read(wrong, V5).is_err(), "{wrong:?}");
    }
}

#[test]
fn are_subscriptions_checked_and_their_qos_found() {
    let bytes = packed(0x82, b"\0\x05\0\0\x03a/#\x01\0\x01+\x2E");
    let Ok(Packet::Subscribe {
        packet_id: 5,
        filters,
    }) = read(&bytes, V5)
    else {
        panic!("a valid SUBSCRIBE");
    };
    assert_eq!(filters.asked().collect::<Vec<_>>(), [1, 2]);
    for (body, protocol) in [
        (&b"\0\x05"[..], V311),
        (b"\0\x05\0\x01a\x03", V311),
        (b"\0\x05\0\x01a\x04", V311),
        (b"\0\x05\0\x02a#\0", V311),
        (b"\0\x05\0\x03#/a\0", V311),
        (b"\0\x05\0\0\0", V311),
        (b"\0\x05\0\0\x01a\x30", V5),
        (b"\0\x05\0\0\x0A$share/g/t\x04", V5),
    ] {
        assert!(read(&packed(0x82, body), protocol).is_err(), "{body:?}");
    }
    let unsubscribe = read(&packed(0xA2, b"\0\x05\0\x01a\0\x01b"), V311).map(|_| ());
    assert_eq!(unsubscribe, Ok(()));
    assert!(read(&packed(0xA2, b"\0\x05"), V311).is_err());
}

fn read_connect(bytes: &[u8]) -> Result<Connect<'_>, ConnectFault> {
    let frame = frame(bytes, MAX).unwrap().unwrap();
    connect(frame.first, frame.body(bytes).unwrap())
}

#[test]
fn is_every_forbidden_connect_refused_and_answered_in_its_version() {
    let cases: [(&[u8], Option<Protocol>, &str); 12] = [
        (b"\0\x04MQTX\x04\x02\0\0\0\x01c", None, "another protocol"),
        (b"\0\x06MQIsdp\x03\x02\0\0\0\x01c", Some(V311), "3.1"),
        (
            b"\0\x04MQTT\x06\x02\0\0\0\0\x01c",
            Some(V5),
            "a later version",
        ),
        (
            b"\0\x04MQTT\x04\x03\0\0\0\x01c",
            Some(V311),
            "reserved flag",
        ),
        (
            b"\0\x04MQTT\x04\x0A\0\0\0\x01c",
            Some(V311),
            "will QoS without will",
        ),
        (
            b"\0\x04MQTT\x04\x22\0\0\0\x01c",
            Some(V311),
            "will retain without will",
        ),
        (
            b"\0\x04MQTT\x04\x1E\0\0\0\x01c\0\x01t\0\0",
            Some(V311),
            "will QoS 3",
        ),
        (
            b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01#\0\0",
            Some(V311),
            "will topic",
        ),
        (
            b"\0\x04MQTT\x04\x42\0\0\0\x01c\0\x01p",
            Some(V311),
            "password alone",
        ),
        (
            b"\0\x04MQTT\x04\x02\0\0\0\x01cX",
            Some(V311),
            "bytes left over",
        ),
        (
            b"\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01c",
            Some(V5),
            "Receive Maximum 0",
        ),
        (
            b"\0\x04MQTT\x05\x02\0\0\x04\x16\0\x01d\0\x01c",
            Some(V5),
            "authentication data alone",
        ),
    ];
    for (body, answer, what) in cases {
        assert_eq!(
            read_connect(&packed(0x10, body)).unwrap_err().answer,
            answer,
            "{what}"
        );
    }
    let binary_password = packed(0x10, b"\0\x04MQTT\x05\x42\0\0\0\0\x01c\0\x02\xFF\xFE");
    assert!(
        read_connect(&binary_password).is_ok(),
        "a password is binary"
    );
    assert!(
        read_connect(&packed(0x11, b"\0\x04MQTT\x04\x02\0\0\0\x01c")).is_err(),
        "flags"
    );
}

#[test]
fn does_another_codecs_connect_read_the_same() {
    let mut written = BytesMut::new();
    let mut sample = v4::Connect::new("device-1");
    sample.keep_alive = 30;
    sample.clean_session = false;
    sample.last_will = Some(v4::LastWill::new(
        "w/t",
        "gone",
        rumqttc::QoS::ExactlyOnce,
        true,
    ));
    sample.set_login("u", "p");
    sample.write(&mut written).unwrap();
    let read = read_connect(&written).unwrap();
    assert_eq!(
        (read.protocol, read.client_id, read.keep_alive),
        (V311, "device-1", 30)
    );
    assert_eq!((read.clean, read.session_expiry_seconds), (false, u32::MAX));
    let will = read.will.unwrap();
    assert_eq!((will.topic.as_str(), &*will.payload), ("w/t", &b"gone"[..]));
    assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));

    let mut written = BytesMut::new();
    let mut properties = v5::ConnectProperties::new();
    properties.session_expiry_interval = Some(77);
    properties.max_packet_size = Some(1000);
    properties.request_problem_info = Some(0);
    properties.user_properties = vec![("k".into(), "v".into())];
    let sample = v5::Connect {
        keep_alive: 9,
        client_id: "device-5".into(),
        clean_start: true,
        properties: Some(properties),
    };
    let will = v5::LastWill::new(
        "w",
        "bye",
        rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        false,
        Some(v5::LastWillProperties {
            delay_interval: Some(5),
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(6),
            content_type: Some("x".into()),
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        }),
    );
    sample.write(&Some(will), &None, &mut written).unwrap();
    let read = read_connect(&written).unwrap();
    assert_eq!((read.protocol, read.session_expiry_seconds), (V5, 77));
    assert_eq!((read.packet_bytes_max, read.problem_info), (1000, false));
    let will = read.will.unwrap();
    assert_eq!((will.delay_seconds, will.expiry_seconds), (5, Some(6)));
    assert_eq!(&*will.properties, b"\x01\x01\x03\0\x01x");
}

/// Seeds of the fuzz test: valid packets of both versions.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        packed(0x10, b"\0\x04MQTT\x04\x02\0\x3C\0\x03dev"),
        packed(0x10, b"\0\x04MQTT\x04\xEE\0\x3C\0\x03dev\0\x01t\0\x01p\0\x01u\0\x01p"),
        packed(0x10, b"\0\x04MQTT\x05\x06\0\x3C\x05\x11\0\0\0\x09\0\x03dev\x07\x18\0\0\0\x05\x01\x01\0\x01t\0\x01p"),
        packed(0x30, b"\0\x07a/b/c/dpayload"),
        packed(0x32, b"\0\x03a/b\0\x01{\"rms\":7.1}"),
        packed(0x34, b"\0\x03a/b\0\x01\0payload"),
        packed(0x32, b"\0\x03a/b\0\x01\x11\x02\0\0\0\x3C\x23\0\x05\x26\0\x01k\0\x01v\x01\x01pay"),
        packed(0x32, b"\0\0\0\x01\x03\x23\0\x05pay"),
        packed(0x62, b"\0\x01\0\0"),
        packed(0x82, b"\0\x05\0\0\x03a/#\x01\0\x01+\x2E"),
        packed(0x82, b"\0\x05\0\x03a/#\x01"),
        packed(0xA2, b"\0\x05\0\0\x03a/#"),
        packed(0xC0, b""),
        packed(0xE0, b"\0\x05\x11\0\0\0\x09"),
        packed(0xF0, b"\x18\0"),
    ]
}

/// xorshift64*: the same inputs on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len().max(1));
            match self.next(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), self.next(256) as u8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                4 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][self.next(5)],
                _ => bytes.extend_from_slice(&[self.next(256) as u8; 3]),
            }
        }
        // Mostly the length is mended, so that what lies behind the fixed header is reached.
        if bytes.len() >= 2 && bytes.len() < 128 && self.next(4) > 0 {
            bytes[1] = (bytes.len() - 2) as u8;
        }
    }
}

/// What is accepted must also be in bounds: nothing read lies outside the packet.
fn check(bytes: &[u8]) -> bool {
    let Ok(Some(frame)) = frame(bytes, MAX) else {
        return false;
    };
    assert!(frame.header_len <= 5 && frame.total_len >= frame.header_len);
    let Some(body) = frame.body(bytes) else {
        return false;
    };
    let first = connect(frame.first, body).is_ok();
    let mut accepted = first;
    for protocol in [V311, V5] {
        match packet(frame.first, body, protocol) {
            Ok(Packet::Publish(publish)) => {
                assert!(!publish.topic.contains(['+', '#', '\0']));
                assert!(!publish.topic.is_empty() || publish.alias.is_some());
                assert_eq!(publish.packet_id == 0, publish.qos == QoS::AtMostOnce);
                assert!(publish.forwardable().len() + publish.payload.len() <= body.len());
                accepted = true;
            }
            Ok(Packet::Subscribe { filters, .. }) => {
                assert!(filters.asked().count() > 0);
                accepted = true;
            }
            Ok(_) => accepted = true,
            Err(fault) => assert!(fault.reason >= 0x80),
        }
    }
    accepted
}

/// How many: `TIDEGATE_FUZZ`, a million unless said.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test may be told how long to run"
)]
fn does_a_million_of_mutated_packets_pass_without_a_panic() {
    let packets = std::env::var("TIDEGATE_FUZZ").map_or(1_000_000, |n| n.parse().unwrap());
    let seeds = seeds();
    assert_eq!(
        seeds.iter().filter(|seed| check(seed)).count(),
        seeds.len() - 1,
        "all but AUTH"
    );
    let mut noise = Noise(0x71DE_6A7E);
    let mut accepted = 0;
    let mut bytes = Vec::new();
    for _ in 0..packets {
        bytes.clear();
        bytes.extend_from_slice(&seeds[noise.next(seeds.len())]);
        noise.mutate(&mut bytes);
        accepted += usize::from(check(&bytes));
    }
    // Both sides of every check are reached: neither all nor nothing passes.
    let share = (packets / 20..packets / 10 * 9).contains(&accepted);
    assert!(share, "{accepted} accepted");
}
