//! The uplink is slow, refuses, or is away: what waits is bounded and lost by rule only, the first
//! class goes first when it is back, and the log says clearly what is wrong.

use std::collections::HashSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Stop};
use crate::device::Device;
use crate::gateway::Gateway;
use crate::site::Site;
use crate::subscriber::Subscriber;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// What the gateway holds in memory now, in KiB.
fn resident_kib(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let line = line.expect("the process has memory");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn are_guaranteed_messages_beyond_memory_held_and_delivered_when_the_uplink_is_back() {
    const DEVICES: usize = 8;
    const EACH: usize = 200;
    const PAYLOAD_BYTES: usize = 16 * 1024;
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("memory_max = \"4MiB\"")
            .uplink("retry_max = \"1s\"")
            .no_room_on_disk()
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let before_kib = resident_kib(&site.gateway);
    let mut expected = HashSet::new();
    let mut devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let version = [Version::V311, Version::V5][number % 2];
            let mut device = Device::new(site.port(), version, &format!("device-{number}"));
            for message in 0..EACH {
                let text = format!("{number} {message:03} ");
                let mut payload = text.clone().into_bytes();
                payload.resize(PAYLOAD_BYTES, b'.');
                expected.insert(payload.clone());
                device.publish(&format!("alarm/{number}"), payload, 1);
            }
            device
        })
        .collect();
    // Others are served meanwhile, whatever is held.
    let bystander = Device::new(site.port(), Version::V311, "bystander");
    for _ in 0..200 {
        bystander.ping();
    }
    for device in &devices {
        assert!(device.answered().is_empty(), "acknowledged before safe");
        assert!(!device.is_closed());
    }
    let grown_kib = resident_kib(&site.gateway).saturating_sub(before_kib);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB more than before");
    site.proxy.come_back();
    for device in &mut devices {
        device.wait_all_answered(Duration::from_secs(60));
    }
    let acknowledged: HashSet<_> = site.proxy.acknowledged().into_keys().collect();
    assert!(acknowledged == expected, "something was lost");
    assert_eq!(site.proxy.repeats(), 0);
    for number in 0..DEVICES {
        let texts = site.far.texts(&format!("alarm/{number}"));
        assert!(texts.is_sorted(), "device {number} is out of order");
    }
    let ledger = site.terminate();
    let count = (DEVICES * EACH) as u64;
    assert_eq!(ledger.count("critical", "received"), count);
    assert_eq!(ledger.count("critical", "delivered"), count);
}

/// Fills the gateway with values, then alarms, while the uplink is away. Gives how many values left
/// before the last alarm.
fn values_before_the_last_alarm(connections: usize) -> usize {
    let site = Site::with(|configuration| {
        configuration
            .uplink(&format!("connections = {connections}"))
            .uplink("retry_max = \"1s\"")
    });
    site.proxy.wait_for_connections(connections);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "values");
    for number in 0..400 {
        device.publish("value/a", format!("value {number:03} {:200}", ""), 1);
    }
    device.wait_all_answered(SOON);
    let mut alarms = Device::new(site.port(), Version::V5, "alarms");
    for number in 0..15 {
        alarms.publish("alarm/a", format!("alarm {number}"), 1);
    }
    alarms.ping();
    assert!(alarms.answered().is_empty(), "acknowledged before safe");
    site.proxy.come_back();
    site.far.wait_for_count("", 415, SOON);
    alarms.wait_all_answered(SOON);
    let sent = site.proxy.sent();
    let alarm = |topic: &str| topic.starts_with("alarm/");
    let last = sent.iter().rposition(|sent| alarm(&sent.publish.topic));
    let before = sent[..last.unwrap()].iter();
    before.filter(|sent| !alarm(&sent.publish.topic)).count()
}

#[test]
fn do_alarms_that_came_last_leave_first_on_one_connection() {
    assert_eq!(values_before_the_last_alarm(1), 0);
}

#[test]
fn do_alarms_that_came_last_not_wait_for_bulk_on_two_connections() {
    // Two streams run side by side, so some bulk leaves meanwhile; not the queue of it.
    let before = values_before_the_last_alarm(2);
    assert!(before < 100, "{before} of 400 values before the last alarm");
}

#[test]
fn does_an_alarm_overtake_the_backlog_on_a_slow_link() {
    for connections in [1, 2] {
        let site = Site::with(|configuration| {
            configuration
                .uplink(&format!("connections = {connections}"))
                .uplink("rate_max = \"64kbit\"")
        });
        site.proxy.wait_for_connections(connections);
        let mut device = Device::new(site.port(), Version::V311, "values");
        for number in 0..150 {
            device.publish("value/a", format!("value {number:03} {:1000}", ""), 1);
        }
        device.wait_all_answered(SOON);
        let mut alarms = Device::new(site.port(), Version::V311, "alarms");
        let start = Instant::now();
        alarms.publish("alarm/a", "fire", 1);
        let took = site.far.wait_for_topic("alarm/a", SOON).at - start;
        let waiting = 150 - site.far.count("value/");
        assert!(took < Duration::from_secs(2), "the alarm took {took:?}");
        assert!(waiting > 50, "the link was not slow: {waiting} wait");
    }
}

#[test]
fn is_an_unreachable_uplink_named_and_tried_for_ever() {
    let mut broker = Broker::start();
    broker.stop(Stop::Clean);
    let configuration = Site::configuration(broker.port()).uplink("retry_max = \"1s\"");
    let mut gateway = Gateway::start(&configuration);
    gateway.wait_for_line("refused", SOON);
    let mut device = Device::new(gateway.port(), Version::V311, "d");
    assert!(device.publish_and_wait("value/a", "x", 1) < 0x80);
    device.publish("alarm/a", "y", 1);
    broker.run();
    let far = Subscriber::start(broker.address());
    device.wait_all_answered(SOON);
    // The value may have come before the far end listened; the next one does not.
    device.publish("value/b", "z", 1);
    far.wait_for_topic("value/b", SOON);
}

#[test]
fn is_a_refusing_uplink_named_and_tried_again() {
    for (version, code) in [("5", 0x87), ("3.1.1", 5)] {
        let broker = Broker::start();
        let proxy = crate::proxy::Proxy::start(broker.address());
        proxy.refuse("", code);
        let far = Subscriber::start(broker.address());
        let configuration = Site::configuration(proxy.port())
            .uplink("retry_max = \"1s\"")
            .uplink(&format!("protocol = \"{version}\""));
        let mut gateway = Gateway::start(&configuration);
        gateway.wait_for_line("not authori", SOON);
        proxy.welcome();
        let mut device = Device::new(gateway.port(), Version::V311, "d");
        device.publish("alarm/a", "x", 1);
        far.wait_for_topic("alarm/a", SOON);
    }
}

#[test]
fn does_a_guaranteed_qos_0_message_that_finds_no_room_count_as_refused() {
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("memory_max = \"4MiB\"")
            .gateway("drain_max = \"1s\"")
            .no_room_on_disk()
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    for _ in 0..600 {
        device.publish("alarm/a", vec![b'.'; 16 * 1024], 0);
    }
    device.ping();
    let ledger = site.terminate();
    assert_eq!(ledger.count("critical", "received"), 600);
    let refused = ledger.count("critical", "refused");
    assert!(refused > 0, "{ledger:?}");
    // Nobody can bring a QoS 0 message again: what waited when the gateway ended is told as shed.
    assert_eq!(ledger.count("critical", "shed"), 600 - refused);
}

#[test]
fn does_buffered_overflow_shed_the_oldest_and_count_it() {
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("memory_max = \"4MiB\"")
            .uplink("retry_max = \"1s\"")
            .no_room_on_disk()
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    for number in 0..600 {
        let mut payload = format!("{number:03}").into_bytes();
        payload.resize(16 * 1024, b'.');
        device.publish("value/a", payload, 1);
    }
    device.wait_all_answered(SOON);
    site.proxy.come_back();
    wait_until("the newest arrives", SOON, || {
        let texts = site.far.texts("value/a");
        texts.last().is_some_and(|text| text.starts_with("599"))
    });
    let ledger = site.terminate();
    let arrived = site.far.texts("value/a");
    assert!(arrived.is_sorted(), "out of order");
    assert_eq!(ledger.count("normal", "received"), 600);
    assert_eq!(ledger.count("normal", "delivered"), arrived.len() as u64);
    let shed = ledger.count("normal", "shed");
    assert!(shed > 0, "600 messages of 16 KiB fit into 4 MiB?");
    assert_eq!(shed, 600 - arrived.len() as u64);
}

#[test]
fn does_a_message_whose_time_ran_out_while_the_uplink_was_away_count_as_expired() {
    const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
ttl = "2s"
[[class]]
name = "low"
delivery = "latest"
"#;
    let mut site =
        Site::with(|configuration| configuration.uplink("retry_max = \"1s\"").section(CLASSES));
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    for number in 0..10 {
        device.publish("value/a", format!("old {number}"), number % 2);
        device.publish("low/a", format!("{number}"), 1);
    }
    device.ping();
    device.wait_all_answered(SOON);
    sleep(Duration::from_millis(2_100));
    site.proxy.come_back();
    site.proxy.wait_for_connections(2);
    device.publish("value/a", "new", 1);
    site.far.wait_for_topic("value/a", SOON);
    let ledger = site.terminate();
    assert_eq!(site.far.texts("value/a"), ["new"]);
    assert_eq!(ledger.count("normal", "received"), 11);
    assert_eq!(ledger.count("normal", "expired"), 10);
    assert_eq!(ledger.count("normal", "delivered"), 1);
    // Without a time to live the newest still goes.
    assert_eq!(ledger.count("low", "expired"), 0);
    let low = site.far.texts("low/a");
    assert_eq!(low.last().map(String::as_str), Some("9"));
}

#[test]
fn does_latest_keep_the_newest_of_each_key_under_pressure_and_count_the_rest() {
    const TOPICS: [&str; 3] = ["low/a", "low/b", "low/c"];
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("memory_max = \"4MiB\"")
            .uplink("retry_max = \"1s\"")
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    for number in 0..200 {
        for topic in TOPICS {
            let mut payload = format!("{number:03}").into_bytes();
            payload.resize(16 * 1024, b'.');
            device.publish(topic, payload, 1);
        }
    }
    device.wait_all_answered(SOON);
    site.proxy.come_back();
    for topic in TOPICS {
        wait_until(&format!("the newest of {topic} arrives"), SOON, || {
            let texts = site.far.texts(topic);
            texts.last().is_some_and(|text| text.starts_with("199"))
        });
    }
    let ledger = site.terminate();
    assert!(ledger.count("low", "superseded") > 0, "{ledger:?}");
    assert_eq!(ledger.count("low", "received"), 600);
    let arrived = site.far.count("low/") as u64;
    assert_eq!(ledger.count("low", "delivered"), arrived);
    for topic in TOPICS {
        assert!(site.far.texts(topic).is_sorted(), "{topic} is out of order");
    }
}

#[test]
fn are_publishes_a_second_kept_to_what_the_cloud_allows() {
    const EACH_SECOND: u32 = 20;
    const COUNT: u32 = 100;
    let site = Site::with(|configuration| {
        configuration
            .uplink("connections = 1")
            .uplink(&format!("publish_max = {EACH_SECOND}"))
    });
    site.proxy.wait_for_connections(1);
    let mut device = Device::new(site.port(), Version::V311, "d");
    for number in 0..COUNT {
        device.publish("value/a", format!("{number}"), 1);
    }
    site.far.wait_for_count("value/", COUNT as usize, SOON);
    let arrived = site.far.arrived();
    let took = arrived[COUNT as usize - 1].at - arrived[0].at;
    // A second's worth may go at once.
    let least = Duration::from_secs(u64::from(COUNT / EACH_SECOND) - 2);
    assert!(took >= least, "{COUNT} publishes in {took:?}");
}
