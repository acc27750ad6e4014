//! Devices that connect straight to the gateway, the real `mosquitto_pub` among them: does what
//! they send arrive in the cloud as they sent it, once, with an id?

use std::collections::HashSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::broker::{INSTALL, mosquitto_pub, publish_with_mosquitto_pub};
use crate::device::Device;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::{self, Connect, Properties, Publish, Version};

const BOTH: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn does_mosquitto_pub_reach_the_cloud_in_both_versions_and_all_qos_each_message_with_its_id() {
    let mut site = Site::new();
    for version in BOTH {
        for qos in ["0", "1", "2"] {
            let text = format!("{version:?} {qos}");
            let arguments = ["-t", "plant/temperature", "-m", &text, "-q", qos];
            publish_with_mosquitto_pub(site.port(), version, &arguments);
        }
    }
    site.far.wait_for_count("plant/temperature", 6, SOON);
    let ledger = site.terminate();
    let arrived = site.far.arrived();
    assert_eq!(arrived.len(), 6, "each once: {arrived:?}");
    assert!(arrived.iter().all(|arrived| arrived.publish.qos == 1));
    let ids: HashSet<_> = arrived
        .iter()
        .map(|arrived| arrived.publish.id().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 6, "ids differ");
    assert_eq!(ledger.count("normal", "received"), 6);
    assert_eq!(ledger.count("normal", "delivered"), 6);
}

#[test]
fn do_payloads_that_are_empty_large_or_not_text_arrive_unchanged() {
    let site = Site::with(|configuration| {
        configuration
            .listener("packet_max = \"2MiB\"")
            .uplink("packet_max = \"2MiB\"")
    });
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..1024 * 1024_u32)
        .map(|i| ((i * 31) >> 3) as u8)
        .collect();
    let binary = b"\xff\xfe\x00\xc3\x28\x80".to_vec();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (large_file, binary_file) = (file("large", &large), file("binary", &binary));
    for version in BOTH {
        for (name, arguments, payload) in [
            ("empty", vec!["-n"], &Vec::new()),
            ("large", vec!["-f", &large_file], &large),
            ("binary", vec!["-f", &binary_file], &binary),
        ] {
            let topic = format!("{name}/{version:?}");
            let mut all = vec!["-t", &topic, "-q", "1"];
            all.extend(arguments);
            publish_with_mosquitto_pub(site.port(), version, &all);
            let arrived = site.far.wait_for_topic(&topic, SOON).publish;
            assert!(&arrived.payload == payload, "{topic} is changed");
        }
    }
}

#[test]
fn does_the_topic_go_through_the_template() {
    let site =
        Site::with(|configuration| configuration.uplink("topic = \"site/{gateway}/{topic}\""));
    publish_with_mosquitto_pub(site.port(), Version::V311, &["-t", "a/b", "-m", "x"]);
    site.far.wait_for_topic("site/box/a/b", SOON);
}

#[test]
fn does_a_condition_on_the_payload_decide() {
    let mut site = Site::with(|configuration| {
        configuration.section(
            "[[rule]]\ntopic = \"plant/+/vibration\"\nwhen = \"payload.rms > 7.1\"\nclass = \"critical\"",
        )
    });
    let mut device = Device::new(site.port(), Version::V311, "d");
    for payload in ["{\"rms\": 7.0}", "{\"rms\": 7.2}", "not JSON"] {
        device.publish("plant/7/vibration", payload, 1);
    }
    device.wait_all_answered(SOON);
    let ledger = site.terminate();
    assert_eq!(ledger.count("critical", "delivered"), 1);
    assert_eq!(ledger.count("normal", "delivered"), 2);
    assert_eq!(site.far.count("plant/7/vibration"), 3);
}

#[test]
fn does_retain_go_on() {
    let site = Site::new();
    publish_with_mosquitto_pub(site.port(), Version::V311, &["-t", "a", "-m", "x", "-r"]);
    assert!(site.far.wait_for_topic("a", SOON).publish.retain);
}

#[test]
fn does_an_uplink_that_speaks_3_1_1_get_every_message() {
    let site = Site::with(|configuration| configuration.uplink("protocol = \"3.1.1\""));
    site.proxy.wait_for_connections(2);
    let connections = site.proxy.connections();
    assert!(connections.iter().all(|c| c.version == Version::V311));
    let mut device = Device::new(site.port(), Version::V5, "d");
    let mut publish = Publish::new("a", "x", 1);
    publish.properties.content_type = Some("text/plain".into());
    device.send(publish);
    device.publish("alarm/a", "y", 2);
    device.wait_all_answered(SOON);
    for (topic, text) in [("a", "x"), ("alarm/a", "y")] {
        let arrived = site.far.wait_for_topic(topic, SOON).publish;
        assert_eq!(arrived.text(), text);
        assert_eq!(arrived.properties, Properties::default());
    }
}

#[test]
fn do_the_publishers_properties_go_on() {
    let site = Site::new();
    #[rustfmt::skip]
    publish_with_mosquitto_pub(site.port(), Version::V5, &[
        "-t", "p", "-m", "x", "-q", "1",
        "-D", "publish", "content-type", "text/plain",
        "-D", "publish", "response-topic", "answers/here",
        "-D", "publish", "correlation-data", "c-1",
        "-D", "publish", "payload-format-indicator", "1",
        "-D", "publish", "message-expiry-interval", "500",
        "-D", "publish", "user-property", "site", "north",
        "-D", "publish", "user-property", "site", "again",
    ]);
    let arrived = site.far.wait_for_topic("p", SOON).publish;
    let properties = &arrived.properties;
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(properties.response_topic.as_deref(), Some("answers/here"));
    assert_eq!(properties.correlation.as_deref(), Some(b"c-1".as_slice()));
    assert_eq!(properties.payload_format, Some(1));
    let expiry_s = properties.expiry_s.expect("what is left of the expiry");
    assert!((470..=500).contains(&expiry_s), "{expiry_s} s of 500");
    let values: Vec<_> = properties
        .user
        .iter()
        .filter(|(name, _)| name == "site")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(values, ["north", "again"]);
    assert!(arrived.id().is_some());
}

#[test]
fn does_a_message_that_waited_carry_what_is_left_of_its_expiry_and_an_expired_one_not_go() {
    let mut site = Site::with(|configuration| configuration.uplink("retry_max = \"1s\""));
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let start = Instant::now();
    let mut device = Device::new(site.port(), Version::V5, "d");
    for (text, expiry_s) in [("short", 1), ("long", 300)] {
        let mut publish = Publish::new("p", text, 1);
        publish.properties.expiry_s = Some(expiry_s);
        device.send(publish);
    }
    device.wait_all_answered(SOON);
    wait_until("two seconds pass", SOON, || {
        start.elapsed() > Duration::from_secs(2)
    });
    site.proxy.come_back();
    let arrived = site.far.wait_for_topic("p", SOON).publish;
    assert_eq!(arrived.text(), "long");
    let left_s = arrived.properties.expiry_s.expect("an expiry");
    assert!((250..300).contains(&left_s), "{left_s} s of 300");
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "expired"), 1);
    assert_eq!(site.far.texts("p"), ["long"]);
}

#[test]
fn does_the_will_of_a_killed_mosquitto_pub_arrive() {
    let site = Site::new();
    for version in BOTH {
        let topic = format!("will/{version:?}");
        #[rustfmt::skip]
        let mut child = mosquitto_pub(site.port(), version)
            .args(["-l", "-q", "1", "-t", "line"])
            .args(["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1"])
            .stdin(Stdio::piped())
            .spawn()
            .expect(INSTALL);
        let before = site.far.count("line");
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"here\n").unwrap();
        site.far.wait_for_count("line", before + 1, SOON);
        assert_eq!(site.far.count(&topic), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let will = site.far.wait_for_topic(&topic, SOON).publish;
        assert_eq!(will.text(), "gone");
    }
}

#[test]
fn does_the_gateways_shutdown_fire_no_will() {
    let mut site = Site::new();
    let devices = BOTH.map(|version| {
        let mut connect = Connect::new(version, &format!("{version:?}"));
        connect.will = Some(Publish::new("will", "gone", 1));
        let mut device = Device::connect(site.port(), &connect);
        device.publish_and_wait("hello", "x", 1);
        device
    });
    site.terminate();
    for device in &devices {
        wait_until("the device is let go", SOON, || device.is_closed());
    }
    assert_eq!(site.far.count("will"), 0);
}

#[test]
fn is_a_device_told_what_it_may_send() {
    let site = Site::with(|configuration| configuration.listener("packet_max = \"64KiB\""));
    let device = Device::new(site.port(), Version::V5, "d");
    let announced = &device.connack().properties;
    assert_eq!(announced.packet_bytes_max, Some(64 * 1024));
    assert!(
        announced
            .receive_max
            .is_some_and(|receive_max| receive_max > 0)
    );
}

#[test]
fn is_a_resend_after_a_reconnect_the_same_message() {
    for qos in [1, 2] {
        let mut site = Site::with(|configuration| configuration.uplink("retry_max = \"1s\""));
        site.proxy.wait_for_connections(2);
        site.proxy.go_away();
        let connect = Connect::persistent(Version::V5, "d");
        let mut device = Device::connect(site.port(), &connect);
        for i in 0..10 {
            device.publish("alarm/a", format!("{i}"), qos);
        }
        device.ping();
        let device = device.reconnect(site.port());
        assert!(device.connack().session_present);
        device.ping();
        assert!(device.answered().is_empty(), "acknowledged before safe");
        site.proxy.come_back();
        device.wait_all_answered(SOON);
        let ledger = site.terminate();
        let expected: Vec<_> = (0..10).map(|i| format!("{i}")).collect();
        assert_eq!(site.far.texts("alarm/a"), expected, "QoS {qos}");
        assert_eq!(ledger.count("critical", "delivered"), 10);
    }
}

#[test]
fn is_a_rebooted_devices_packet_id_1_a_new_message() {
    let mut site = Site::new();
    for text in ["before", "after"] {
        let mut device = Device::new(site.port(), Version::V311, "d");
        device.publish("alarm/a", text, 1);
        device.wait_all_answered(SOON);
        device.cut();
    }
    site.terminate();
    assert_eq!(site.far.texts("alarm/a"), ["before", "after"]);
}

#[test]
fn does_a_subscribe_get_the_answer_that_the_operator_chose() {
    for (policy, granted) in [("refuse", false), ("accept", true)] {
        let site = Site::with(|configuration| {
            configuration.listener(&format!("subscribe = \"{policy}\""))
        });
        for version in BOTH {
            let mut device = Device::new(site.port(), version, "d");
            device.send_raw(wire::subscribe(version, "commands/#", 1));
            wait_until("SUBACK", SOON, || device.suback().is_some());
            let code = *device.suback().unwrap().last().unwrap();
            assert_eq!(code < 0x80, granted, "{policy} {version:?}: {code:#x}");
            // And the connection lives on.
            assert!(device.publish_and_wait("a", "x", 1) < 0x80);
        }
    }
}
