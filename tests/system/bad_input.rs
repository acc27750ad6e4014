//! Packets that no device should send: that connection ends with the protocol's reason, nobody
//! else notices, and the log stays readable.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::broker::BrokerOptions;
use crate::device::Device;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::{self, Connect, Publish, Version};

/// What a stranger may send instead of CONNECT.
fn first_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let mut other_protocol = Connect::new(Version::V311, "d").encode();
    other_protocol[4..8].copy_from_slice(b"HTTP");
    vec![
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS hello", vec![0x16, 3, 1, 0, 2, 1, 0]),
        (
            "PUBLISH first",
            Publish::new("a", "x", 0).encode(Version::V311),
        ),
        (
            "a length of five bytes",
            vec![0x10, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        ("another protocol's name", other_protocol),
    ]
}

/// What a connected device may send wrongly.
fn later_bytes(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let publish = |topic: &str, qos, packet_id| {
        let mut publish = Publish::new(topic, "x", qos);
        publish.packet_id = packet_id;
        publish.encode(version)
    };
    let mut not_utf8 = publish("ab", 0, 0);
    not_utf8[4] = 0xff;
    vec![
        ("QoS 3", publish("a", 3, 1)),
        ("a wildcard in the topic", publish("a/+", 1, 1)),
        ("NUL in the topic", publish("a\0b", 1, 1)),
        ("a topic that is not UTF-8", not_utf8),
        ("packet id 0", publish("a", 1, 0)),
        ("a second CONNECT", Connect::new(version, "d").encode()),
        (
            "SUBSCRIBE with wrong flags",
            wire::packet(0x80, &[0, 1, 0, 1, b'a', 0]),
        ),
        ("type 0", vec![0, 0]),
    ]
}

#[test]
fn do_malformed_packets_end_only_their_own_connection() {
    let mut site = Site::new();
    let mut bystander = Device::new(site.port(), Version::V5, "bystander");
    let mut good = 0;
    for (name, bytes) in first_bytes() {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port())).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        // Closed or reset: both are an end. A time-out is not.
        let ended = match stream.read_to_end(&mut answer) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ended, "{name} is not answered by an end");
        bystander.publish_and_wait("good", "x", 1);
        good += 1;
    }
    for version in [Version::V311, Version::V5] {
        for (name, bytes) in later_bytes(version) {
            let device = Device::new(site.port(), version, "bad");
            device.send_raw(bytes);
            wait_until(name, SOON, || device.is_closed());
            if version == Version::V5 {
                let reason = device.disconnect_reason();
                assert!(reason.is_some_and(|r| r >= 0x80), "{name}: {reason:?}");
            }
            bystander.publish_and_wait("good", "x", 1);
            good += 1;
        }
    }
    assert!(!bystander.is_closed());
    let ledger = site.terminate();
    assert_eq!(ledger.total("received"), good);
    assert_eq!(ledger.total("delivered"), good);
    assert_eq!(site.far.count("good") as u64, good);
}

#[test]
fn does_a_burst_of_malformed_connections_leave_the_log_readable() {
    let site = Site::new();
    site.proxy.wait_for_connections(2);
    let before = site.gateway.lines().len();
    for number in 0..500 {
        let device = Device::new(site.port(), Version::V311, &format!("bad-{number}"));
        device.send_raw(vec![0, 0]);
        wait_until("it is closed", SOON, || device.is_closed());
    }
    let mut bystander = Device::new(site.port(), Version::V5, "bystander");
    bystander.publish_and_wait("good", "x", 1);
    let lines = site.gateway.lines().len() - before;
    // Ten a minute, for the minute that it began in and the one that it ended in, and a little
    // for what is said of what was left out.
    assert!(
        (1..=25).contains(&lines),
        "{lines} lines for 500 connections"
    );
}

#[test]
fn is_a_message_larger_than_the_uplink_takes_refused_to_its_sender_and_counted() {
    let announced = BrokerOptions {
        lines: vec!["max_packet_size 16384".to_owned()],
        ..BrokerOptions::default()
    };
    let by_the_cloud = Site::on_broker(&announced, |configuration| configuration);
    let by_the_operator =
        Site::with(|configuration| configuration.uplink("packet_max = \"16KiB\""));
    for mut site in [by_the_cloud, by_the_operator] {
        site.proxy.wait_for_connections(2);
        let large = || vec![b'x'; 20 * 1024];
        let mut told = Device::new(site.port(), Version::V5, "told");
        for (topic, qos) in [("a", 1), ("a", 2), ("alarm/a", 1)] {
            let reason = told.publish_and_wait(topic, large(), qos);
            assert!(reason >= 0x80, "{topic} QoS {qos}: {reason:#x}");
        }
        // 3.1.1 has no word for it: the message is answered and counted.
        let mut untold = Device::new(site.port(), Version::V311, "untold");
        untold.publish_and_wait("a", large(), 1);
        assert!(told.publish_and_wait("small", "x", 1) < 0x80);
        site.far.wait_for_topic("small", SOON);
        let ledger = site.terminate();
        assert_eq!(ledger.total("refused"), 4);
        assert_eq!(ledger.total("received"), 5);
        assert_eq!(site.far.arrived().len(), 1);
    }
}
