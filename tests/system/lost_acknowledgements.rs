//! PUBACKs that never come, and connections that are up and carry nothing: is the alarm out in
//! three seconds all the same, under the same id, and counted once?

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::proxy::Sent;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// The promise: an alarm gets a second chance in `max(2 s, 4 x acknowledgement time)`, so it is out
/// in this time on a link that is not slow.
const OUT: Duration = Duration::from_secs(3);

fn sent_of(site: &Site, text: &str) -> Vec<Sent> {
    let mut sent = site.proxy.sent();
    sent.retain(|sent| sent.publish.text() == text);
    sent
}

fn same_id(sent: &[Sent]) -> bool {
    let first = sent[0].publish.id().expect("an id");
    sent.iter().all(|sent| sent.publish.id() == Some(first))
}

#[track_caller]
fn urgent_connection_is_replaced(site: &Site) {
    wait_until("the urgent connection is new", SOON, || {
        let connections = site.proxy.connections();
        let mut urgent = connections
            .iter()
            .filter(|connection| connection.client_id.ends_with("-urgent"));
        urgent.next_back().is_some_and(|last| last.alive) && connections.len() > 2
    });
}

#[test]
fn does_an_alarm_whose_puback_is_swallowed_go_over_the_other_connection() {
    let mut site = Site::new();
    site.proxy.wait_for_connections(2);
    let urgent = |sent: &Sent| sent.client_id.ends_with("-urgent");
    site.proxy.swallow(Some(Box::new(urgent)));
    let mut device = Device::new(site.port(), Version::V5, "d");
    let start = Instant::now();
    device.publish("alarm/a", "fire", 1);
    device.wait_all_answered(SOON);
    let took = device.answered()[0].at - start;
    assert!(took <= OUT, "the alarm took {took:?}");
    let sent = sent_of(&site, "fire");
    assert!(urgent(&sent[0]) && !urgent(&sent[1]), "{sent:?}");
    assert!(same_id(&sent), "{sent:?}");
    site.far.wait_for_count("alarm/a", 2, SOON);
    let ledger = site.terminate();
    assert_eq!(ledger.count("critical", "received"), 1);
    assert_eq!(ledger.count("critical", "delivered"), 1);
}

#[test]
fn is_a_message_whose_puback_is_swallowed_sent_again_on_a_new_connection() {
    for version in ["5", "3.1.1"] {
        let mut site = Site::with(|configuration| {
            configuration
                .uplink("connections = 1")
                .uplink("ack_timeout = \"2s\"")
                .uplink(&format!("protocol = \"{version}\""))
        });
        site.proxy.wait_for_connections(1);
        let first_life = |sent: &Sent| sent.connection == 0 && sent.publish.payload != b"passes";
        site.proxy.swallow(Some(Box::new(first_life)));
        let mut device = Device::new(site.port(), Version::V311, "d");
        for (topic, text) in [("alarm/a", "fire"), ("a", "passes"), ("a", "value")] {
            device.publish(topic, text, 1);
        }
        device.wait_all_answered(SOON);
        wait_until("all are acknowledged upstream", SOON, || {
            site.proxy.acknowledged().len() == 3
        });
        for text in ["fire", "value"] {
            let sent = sent_of(&site, text);
            assert_eq!(sent.len(), 2, "{sent:?}");
            assert_ne!(sent[0].connection, sent[1].connection);
            assert!(version == "3.1.1" || same_id(&sent), "{sent:?}");
        }
        let ledger = site.terminate();
        assert_eq!(ledger.total("received"), 3);
        assert_eq!(ledger.total("delivered"), 3);
    }
}

#[test]
fn is_an_alarm_out_in_three_seconds_when_its_idle_connection_is_a_black_hole() {
    let site = Site::with(|configuration| {
        configuration
            .uplink("ack_timeout = \"4s\"")
            .uplink("retry_max = \"1s\"")
    });
    site.proxy.wait_for_connections(2);
    let mut device = Device::new(site.port(), Version::V5, "d");
    device.publish_and_wait("alarm/warm", "warm", 1);
    site.proxy.black_hole("-urgent");
    let start = Instant::now();
    device.publish("alarm/a", "fire", 1);
    let arrived = site.far.wait_for_topic("alarm/a", SOON);
    let took = arrived.at - start;
    assert!(took <= OUT, "the alarm took {took:?}");
    device.wait_all_answered(SOON);
    let sent = sent_of(&site, "fire");
    assert!(sent[0].vanished && !sent[1].vanished, "{sent:?}");
    assert!(!sent[1].client_id.ends_with("-urgent"), "{sent:?}");
    assert!(same_id(&sent), "{sent:?}");
    // The dead connection is found out and replaced.
    urgent_connection_is_replaced(&site);
    assert!(device.publish_and_wait("alarm/b", "again", 1) < 0x80);
}

#[test]
fn is_a_black_hole_found_by_keep_alive_when_nothing_is_sent() {
    let site = Site::with(|configuration| {
        configuration
            .uplink("keep_alive = \"5s\"")
            .uplink("retry_max = \"1s\"")
    });
    site.proxy.wait_for_connections(2);
    site.proxy.black_hole("-urgent");
    // Given up after one and a half of it, then made anew.
    urgent_connection_is_replaced(&site);
}

#[test]
fn does_bulk_that_went_into_a_black_hole_go_again() {
    let mut site = Site::with(|configuration| {
        configuration
            .uplink("ack_timeout = \"2s\"")
            .uplink("client_id = \"box\"")
    });
    site.proxy.wait_for_connections(2);
    site.proxy.black_hole("box");
    let mut device = Device::new(site.port(), Version::V5, "d");
    for number in 0..200 {
        device.publish("a", format!("{number:03}"), 1);
    }
    site.far.wait_for_count("a", 200, SOON);
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "delivered"), 200);
    let expected: Vec<_> = (0..200).map(|number| format!("{number:03}")).collect();
    assert_eq!(site.far.texts("a"), expected);
}

#[test]
fn does_a_satellites_delay_repeat_nothing() {
    let mut site = Site::new();
    site.proxy.wait_for_connections(2);
    site.proxy.delay(Duration::from_millis(300));
    let mut device = Device::new(site.port(), Version::V5, "d");
    for number in 0..50 {
        device.publish("alarm/a", format!("alarm {number}"), 1);
        device.publish("a", format!("value {number}"), 1);
    }
    device.wait_all_answered(SOON);
    site.far.wait_for_count("", 100, SOON);
    site.terminate();
    assert_eq!(site.proxy.repeats(), 0);
}
