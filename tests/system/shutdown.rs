//! The end: SIGTERM and SIGINT drain, return the rest, print a ledger that both ends can confirm,
//! and end with 0. A second signal does not wait.

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::site::Site;
use crate::wait::{SOON, code, wait_until};
use crate::wire::Version;

#[test]
fn does_the_ledger_agree_with_what_both_ends_counted() {
    for name in ["TERM", "INT"] {
        let mut site = Site::with(|configuration| configuration.rule("debug/#", "discard"));
        site.proxy.wait_for_connections(2);
        #[rustfmt::skip]
        let traffic = [
            ("alarm/a", "critical", 50), ("value/a", "normal", 120),
            ("low/a", "low", 100), ("debug/a", "discard", 30),
        ];
        for version in [Version::V311, Version::V5] {
            let mut device = Device::new(site.port(), version, &format!("{version:?}"));
            for (topic, _, count) in traffic {
                for number in 0..count {
                    device.publish(topic, format!("{version:?} {topic} {number}"), number % 3);
                }
            }
            device.wait_all_answered(SOON);
            device.ping();
        }
        site.gateway.signal(name);
        let status = site.gateway.wait_for_end(SOON);
        assert_eq!(status.code(), Some(0), "after SIG{name}");
        let ledger = site.gateway.ledger();
        site.far.settle();
        for (topic, class, count) in traffic {
            let count = 2 * u64::from(count);
            assert_eq!(ledger.count(class, "received"), count, "{class}");
            let delivered = ledger.count(class, "delivered");
            assert_eq!(delivered, site.far.count(topic) as u64, "{class}");
            if ["critical", "normal"].contains(&class) {
                assert_eq!(delivered, count, "{class}");
            }
        }
        assert_eq!(ledger.count("discard", "delivered"), 0);
        assert_eq!(ledger.count("discard", "shed"), 60);
        assert_eq!(ledger.total("in_memory"), 0);
    }
}

#[test]
fn are_guaranteed_messages_that_cannot_leave_returned_and_not_acknowledged() {
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("drain_max = \"1s\"")
            .no_room_on_disk()
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    for number in 0..15 {
        device.publish("alarm/a", format!("{number}"), 1);
    }
    device.ping();
    let ledger = site.terminate();
    wait_until("the device is let go", SOON, || device.is_closed());
    assert!(device.answered().is_empty(), "acknowledged before safe");
    assert_eq!(ledger.count("critical", "received"), 15);
    assert_eq!(ledger.count("critical", "returned"), 15);
}

/// The relay takes no more of a class of which more than a quarter of the memory is held, nor what comes
/// with it or behind it; so the lane fills, and what comes then waits inside the connections.
#[test]
fn is_all_that_devices_wrote_received_although_it_never_left_their_connections() {
    let guaranteed = "[[class]]\nname = \"critical\"\ndelivery = \"guaranteed\"\n\
                      [[class]]\nname = \"sure\"\ndelivery = \"guaranteed\"\n\
                      [[class]]\nname = \"normal\"\ndelivery = \"buffered\"\n\
                      [[class]]\nname = \"low\"\ndelivery = \"latest\"\n";
    let mut site = Site::with(|configuration| {
        configuration
            .gateway("memory_max = \"4MiB\"\ndrain_max = \"1s\"")
            .listener("packet_max = \"64KiB\"")
            .section(guaranteed)
            .no_room_on_disk()
            .rule("sure/#", "sure")
    });
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let port = site.port();
    // Half a megabyte each: the first ones fill the memory and then what may be held.
    let mut sure = 0;
    let mut fill = |number: u32| {
        let mut device = Device::new(port, Version::V311, &format!("sure {number}"));
        for _ in 0..30 {
            device.publish("sure/a", vec![b's'; 16_000], 1);
            sure += 1;
        }
        device
    };
    let _sure: Vec<Device> = (0..16).map(&mut fill).collect();
    let mut loose = Vec::new();
    // More of them than the lane has batches; and little from each, for all connections together are full.
    for number in 0..80 {
        let mut device = Device::new(port, Version::V5, &format!("loose {number}"));
        device.publish("sure/b", "it is not let in", 0);
        for _ in 0..5 {
            device.publish("value/a", vec![b'v'; 100], 0);
        }
        device.publish("value/a", "it is acknowledged when admitted", 1);
        device.ping();
        loose.push(device);
    }
    let unanswered: usize = loose.iter().map(Device::unanswered).sum();
    assert!(unanswered > 5, "only {unanswered} are not in the relay");
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "received"), 80 * 6, "{ledger:?}");
    let unanswered: usize = loose.iter().map(Device::unanswered).sum();
    assert_eq!(ledger.count("normal", "returned"), unanswered as u64);
    assert!(ledger.count("sure", "received") <= sure + 80);
}

#[test]
fn does_what_waits_leave_while_the_gateway_drains() {
    let mut site = Site::new();
    site.proxy.wait_for_connections(2);
    site.proxy.delay(Duration::from_millis(200));
    let mut device = Device::new(site.port(), Version::V5, "d");
    for number in 0..20 {
        device.publish("alarm/a", format!("{number}"), 1);
    }
    device.ping();
    let ledger = site.terminate();
    assert_eq!(ledger.count("critical", "delivered"), 20);
    assert_eq!(site.far.count("alarm/a"), 20);
    device.wait_all_answered(SOON);
}

#[test]
fn does_a_second_signal_end_it_at_once() {
    let mut site = Site::with(|configuration| configuration.gateway("drain_max = \"60s\""));
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V311, "d");
    device.publish("alarm/a", "x", 1);
    device.ping();
    let before = site.gateway.lines().len();
    site.gateway.signal("TERM");
    wait_until("it says that it stops", SOON, || {
        site.gateway.lines().len() > before
    });
    assert!(site.gateway.runs(), "it drains");
    let start = Instant::now();
    site.gateway.signal("INT");
    let status = site.gateway.wait_for_end(SOON);
    // 128 and the number of SIGINT, as shells have it.
    assert_eq!(code(status), 130);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}
