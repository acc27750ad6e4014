//! Do the tools measure what they claim? Broker, proxy, device and subscriber are tested against
//! mosquitto alone, without the gateway, so that a failure elsewhere means the gateway.

use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, Stop, publish_with_mosquitto_pub};
use crate::certificates::{Authority, Validity};
use crate::device::{self, Device};
use crate::gateway::Ledger;
use crate::proxy::Proxy;
use crate::subscriber::Subscriber;
use crate::wait::{SOON, wait_until};
use crate::wire::{Connect, Properties, Publish, Version};

#[test]
fn does_a_device_reach_a_subscriber_in_both_versions_and_all_qos() {
    let broker = Broker::start();
    let far = Subscriber::start(broker.address());
    for version in [Version::V311, Version::V5] {
        let mut device = Device::new(broker.port(), version, "d");
        for qos in 0..3 {
            device.publish("t", format!("{version:?} {qos}"), qos);
        }
        device.wait_all_answered(SOON);
        assert_eq!(device.answered().len(), 2);
        device.ping();
    }
    far.wait_for_count("t", 6, SOON);
}

#[test]
fn do_properties_survive_our_own_encoding() {
    let broker = Broker::start();
    let far = Subscriber::start(broker.address());
    let mut publish = Publish::new("p", "x", 1);
    publish.properties = Properties {
        payload_format: Some(1),
        content_type: Some("text/plain".into()),
        response_topic: Some("r".into()),
        correlation: Some(vec![0, 255]),
        user: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        ..Properties::default()
    };
    let mut device = Device::new(broker.port(), Version::V5, "d");
    device.send(publish.clone());
    let arrived = far.wait_for_topic("p", SOON).publish;
    assert_eq!(arrived.properties, publish.properties);
}

#[test]
fn does_a_will_fire_when_the_device_is_cut() {
    let broker = Broker::start();
    let far = Subscriber::start(broker.address());
    let mut connect = Connect::new(Version::V311, "d");
    connect.will = Some(Publish::new("will", "gone", 1));
    let device = Device::connect(broker.port(), &connect);
    device.cut();
    far.wait_for_topic("will", SOON);
}

#[test]
fn does_mosquitto_pub_publish() {
    let broker = Broker::start();
    let far = Subscriber::start(broker.address());
    publish_with_mosquitto_pub(
        broker.port(),
        Version::V5,
        &["-t", "m", "-m", "x", "-q", "2"],
    );
    far.wait_for_topic("m", SOON);
}

#[test]
fn does_the_broker_keep_a_session_only_with_persistence() {
    for (persistence, kept) in [(true, true), (false, false)] {
        let mut broker = Broker::with(&BrokerOptions {
            persistence,
            ..BrokerOptions::default()
        });
        let connect = Connect::persistent(Version::V311, "d");
        drop(Device::connect(broker.port(), &connect));
        broker.stop(Stop::Clean);
        broker.run();
        let device = Device::connect(broker.port(), &connect);
        assert_eq!(device.connack().session_present, kept);
    }
}

#[test]
fn does_the_broker_want_the_password() {
    let login = ("box".to_owned(), "secret".to_owned());
    let broker = Broker::with(&BrokerOptions {
        login: Some(login.clone()),
        ..BrokerOptions::default()
    });
    let mut connect = Connect::new(Version::V5, "d");
    let refused = device::dial(broker.address(), &connect, SOON).unwrap().1;
    assert_ne!(refused.code, 0);
    connect.login = Some(login);
    drop(Device::connect(broker.port(), &connect));
}

#[test]
fn does_the_broker_want_a_client_certificate() {
    let authority = Authority::new("ours");
    let server = authority.server(Validity::Good);
    let broker = Broker::with(&BrokerOptions {
        tls: Some(crate::broker::TlsFiles {
            client_authority: authority.file(),
            certificate: server.certificate,
            key: server.key,
        }),
        ..BrokerOptions::default()
    });
    let far = Subscriber::start(broker.address());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let client = authority.client(Validity::Good);
    let expired = authority.client(Validity::Expired);
    let publish = |topic: &str, certificate: Option<&crate::certificates::Files>| {
        let mut command = crate::broker::mosquitto_pub(broker.tls_port(), Version::V311);
        command.args(["--cafile", &path(&authority.file()), "-t", topic, "-m", "x"]);
        command.args(["-q", "1"]);
        if let Some(files) = certificate {
            command.args(["--cert", &path(&files.certificate)]);
            command.args(["--key", &path(&files.key)]);
        }
        crate::wait::run_to_end(&mut command, SOON).status.success()
    };
    assert!(!publish("expired", Some(&expired)));
    assert!(!publish("missing", None));
    assert!(publish("good", Some(&client)));
    far.wait_for_topic("good", SOON);
    assert_eq!(far.arrived().len(), 1);
}

#[test]
fn does_the_proxy_know_what_was_acknowledged() {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address());
    proxy.swallow(Some(Box::new(|sent| sent.publish.payload == b"two")));
    let mut device = Device::new(proxy.port(), Version::V5, "d");
    for payload in ["one", "two", "three"] {
        device.publish("t", payload, 1);
    }
    wait_until("two are answered", SOON, || device.unanswered() == 1);
    assert_eq!(proxy.sent().len(), 3);
    assert_eq!(proxy.swallowed(), 1);
    assert!(!proxy.acknowledged().contains_key(b"two".as_slice()));
    assert_eq!(proxy.acknowledged().len(), 2);
    // What is resent on a new connection is a repeat, and is acknowledged this time.
    proxy.swallow(None);
    let device = device.reconnect(proxy.port());
    device.wait_all_answered(SOON);
    assert_eq!(proxy.repeats(), 1);
    assert_eq!(proxy.acknowledged().len(), 3);
}

#[test]
fn does_the_proxy_hide_a_black_hole_and_cut_when_told() {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address());
    let far = Subscriber::start(broker.address());
    let mut urgent = Device::new(proxy.port(), Version::V5, "box-urgent");
    let mut bulk = Device::new(proxy.port(), Version::V5, "box");
    proxy.wait_for_connections(2);
    proxy.black_hole("-urgent");
    urgent.publish("hole", "x", 1);
    bulk.publish_and_wait("bulk", "x", 1);
    wait_until("the proxy took it", SOON, || proxy.sent().len() == 2);
    assert_eq!(far.count("hole"), 0);
    assert!(!urgent.is_closed());
    proxy.go_away();
    wait_until("both are cut", SOON, || {
        urgent.is_closed() && bulk.is_closed()
    });
    let connect = Connect::new(Version::V311, "late");
    let address = ([127, 0, 0, 1], proxy.port()).into();
    assert!(device::dial(address, &connect, SOON).is_err());
    proxy.come_back();
    drop(Device::connect(proxy.port(), &connect));
}

#[test]
fn does_the_proxy_refuse_delay_and_allow_one_at_a_time() {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address());
    let far = Subscriber::start(broker.address());
    proxy.refuse("-urgent", 0x97);
    let address = ([127, 0, 0, 1], proxy.port()).into();
    let connect = Connect::new(Version::V5, "box-urgent");
    let (_, connack) = device::dial(address, &connect, SOON).unwrap();
    assert_eq!(connack.code, 0x97);
    proxy.allow_one_at_a_time();
    let first = Device::new(proxy.port(), Version::V5, "box");
    let mut second = Device::new(proxy.port(), Version::V5, "box-2");
    wait_until("the first is ended", SOON, || first.is_closed());
    assert_eq!(first.disconnect_reason(), Some(0x8e));
    proxy.delay(Duration::from_millis(100));
    let start = std::time::Instant::now();
    second.publish_and_wait("slow", "x", 1);
    assert!(start.elapsed() >= Duration::from_millis(200));
    far.wait_for_topic("slow", SOON);
}

#[test]
fn is_a_ledger_read_and_weighed() {
    let line = "2026-11-21 INFO ledger class=normal received=3 made_here=1 delivered=4 shed=0";
    let ledger = Ledger::read(&[line.to_owned()]);
    ledger.check_balance();
    assert_eq!(ledger.count("normal", "delivered"), 4);
    let lossy = Ledger::read(&[line.replace("delivered=4", "delivered=3")]);
    assert!(std::panic::catch_unwind(|| lossy.check_balance()).is_err());
}
