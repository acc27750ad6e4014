//! Two connections where the cloud allows them, one where it does not: does the first class have a
//! stream of its own, and does everything arrive when it cannot have one?

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// Sends an alarm and a value and waits for both in the cloud.
#[track_caller]
fn both_arrive(site: &Site, name: &str) {
    let mut device = Device::new(site.port(), Version::V5, name);
    for topic in [format!("alarm/{name}"), format!("value/{name}")] {
        device.publish(&topic, topic.clone(), 1);
        site.far.wait_for_topic(&topic, SOON);
    }
    device.wait_all_answered(SOON);
}

#[test]
fn does_the_first_class_have_a_connection_of_its_own() {
    let site = Site::new();
    site.proxy.wait_for_connections(2);
    both_arrive(&site, "d");
    for sent in site.proxy.sent() {
        let alarm = sent.publish.topic.starts_with("alarm/");
        assert_eq!(sent.client_id.ends_with("-urgent"), alarm, "{sent:?}");
    }
}

#[test]
fn does_one_connection_carry_everything_where_the_operator_says_one() {
    let site = Site::with(|configuration| configuration.uplink("connections = 1"));
    both_arrive(&site, "d");
    assert_eq!(site.proxy.connections().len(), 1);
}

#[test]
fn does_everything_arrive_when_the_second_connection_is_refused() {
    for (version, code) in [("5", 0x97), ("3.1.1", 5)] {
        let broker = crate::broker::Broker::start();
        let proxy = crate::proxy::Proxy::start(broker.address());
        proxy.refuse("-urgent", code);
        let far = crate::subscriber::Subscriber::start(broker.address());
        let configuration =
            Site::configuration(proxy.port()).uplink(&format!("protocol = \"{version}\""));
        let site = Site {
            gateway: crate::gateway::Gateway::start(&configuration),
            far,
            proxy,
            broker,
        };
        both_arrive(&site, "d");
    }
}

#[test]
fn does_everything_arrive_when_the_two_take_each_other_over() {
    let broker = crate::broker::Broker::start();
    let proxy = crate::proxy::Proxy::start(broker.address());
    proxy.allow_one_at_a_time();
    let far = crate::subscriber::Subscriber::start(broker.address());
    let configuration = Site::configuration(proxy.port()).uplink("retry_max = \"1s\"");
    let site = Site {
        gateway: crate::gateway::Gateway::start(&configuration),
        far,
        proxy,
        broker,
    };
    both_arrive(&site, "first");
    // The quarrel ends: one connection stays, for longer than any back-off here.
    let mut seen = (0, Instant::now());
    wait_until("one connection stays", Duration::from_secs(40), || {
        let connections = site.proxy.connections();
        if connections.len() != seen.0 {
            seen = (connections.len(), Instant::now());
        }
        let alive = connections.iter().filter(|c| c.alive).count();
        alive == 1 && seen.1.elapsed() > Duration::from_secs(4)
    });
    both_arrive(&site, "second");
    assert_eq!(site.proxy.connections().len(), seen.0);
}
