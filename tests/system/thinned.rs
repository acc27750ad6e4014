//! A class that is thinned by time: does an outage leave a coarser curve instead of a hole, does a link
//! that is paid by the byte carry one value of a key in a period, and what is said of the values that gave
//! way?

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::site::Site;
use crate::subscriber::Subscriber;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// What comes home after an outage may wait for the disk for 5 s.
const HOME: Duration = Duration::from_secs(30);
/// Rounded down to milliseconds, two times can seem one closer than they are.
const ROUNDED: u64 = 1;

/// A site whose class `low` has these lines, and whose far end is told everything.
fn site(lines: &str) -> Site {
    let classes = format!(
        "[[class]]\nname = \"critical\"\ndelivery = \"guaranteed\"\n\
         [[class]]\nname = \"normal\"\ndelivery = \"buffered\"\n\
         [[class]]\nname = \"low\"\ndelivery = \"latest\"\n{lines}\n"
    );
    let site = Site::with(|configuration| {
        configuration
            .uplink("retry_max = \"1s\"")
            .uplink("properties = \"full\"")
            .section(&classes)
    });
    site.proxy.wait_for_connections(2);
    site
}

/// A value as the far end got it.
#[derive(Debug)]
struct Value {
    number: u64,
    at: Instant,
    /// When the gateway received it, in milliseconds.
    received: u64,
    stands_for: u64,
    replayed: bool,
}

fn values(far: &Subscriber, topic: &str) -> Vec<Value> {
    let arrived = far.arrived().into_iter();
    let of_topic = arrived.filter(|arrived| arrived.publish.topic == topic);
    let value = |arrived: crate::subscriber::Arrived| {
        let user = |name: &str| arrived.publish.user(name).map(|text| text.parse().unwrap());
        Value {
            number: json(&arrived.publish.payload)["n"].as_u64().unwrap(),
            at: arrived.at,
            received: user("tidegate-received-ms").unwrap(),
            stands_for: user("tidegate-count").unwrap_or(1),
            replayed: arrived.publish.user("tidegate-replayed").is_some(),
        }
    };
    of_topic.map(value).collect()
}

fn json(payload: &[u8]) -> serde_json::Value {
    serde_json::from_slice(payload).unwrap()
}

fn stand_for(values: &[Value]) -> u64 {
    values.iter().map(|value| value.stands_for).sum()
}

/// Sends values of these topics for so long, one of each every 50 ms; gives how many of each.
fn send(device: &mut Device, topics: &[&str], duration: Duration) -> u64 {
    let (start, mut number) = (Instant::now(), 0);
    while start.elapsed() < duration {
        number += 1;
        for topic in topics {
            device.publish(topic, format!("{{\"n\":{number}}}"), 1);
        }
        sleep(Duration::from_millis(50));
    }
    device.wait_all_answered(SOON);
    number
}

#[test]
fn does_an_outage_leave_one_value_of_a_key_for_each_period_and_the_newest() {
    let mut site = site("thin = \"1s\"");
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V5, "device");
    let topics = ["low/a", "low/b"];
    let sent = send(&mut device, &topics, Duration::from_secs(6));
    site.proxy.come_back();
    for topic in topics {
        wait_until("every value is there or stood for", HOME, || {
            stand_for(&values(&site.far, topic)) == sent
        });
        let values = values(&site.far, topic);
        let (curve, live): (Vec<_>, Vec<_>) = values.iter().partition(|value| value.replayed);
        let live: Vec<_> = live.iter().map(|value| value.number).collect();
        assert_eq!(live, [sent], "{topic}: the newest alone waits in memory");
        assert!((4..=6).contains(&curve.len()), "{topic}: {curve:?}");
        let apart = |two: &[&Value]| two[0].received + 1_000 <= two[1].received + ROUNDED;
        assert!(curve.windows(2).all(apart), "{topic}: {curve:?}");
        let near = |two: &[&Value]| two[1].received <= two[0].received + 2_000;
        assert!(curve.windows(2).all(near), "{topic}, a hole: {curve:?}");
    }
    let ledger = site.terminate();
    let delivered = ledger.count("low", "delivered");
    assert_eq!(ledger.count("low", "received"), 2 * sent);
    assert_eq!(ledger.count("low", "superseded"), 2 * sent - delivered);
    assert_eq!(ledger.count("low", "on_disk"), 0);
}

#[test]
fn does_a_link_paid_by_the_byte_carry_one_value_of_a_key_in_a_period_and_the_last_one() {
    let mut site = site("every = \"1s\"");
    let mut device = Device::new(site.port(), Version::V311, "device");
    let start = Instant::now();
    let sent = send(&mut device, &["low/a"], Duration::from_millis(3_500));
    wait_until("every value is there or stood for", SOON, || {
        stand_for(&values(&site.far, "low/a")) == sent
    });
    let periods = start.elapsed().as_secs() + 1;
    let values = values(&site.far, "low/a");
    assert_eq!(values.last().unwrap().number, sent, "the last value");
    assert!(values.len() as u64 <= periods, "{values:?} in {periods} s");
    assert!(values.len() >= 3, "{values:?}");
    assert!(values[0].at < start + Duration::from_millis(900), "at once");
    let ledger = site.terminate();
    assert_eq!(
        ledger.count("low", "superseded"),
        sent - values.len() as u64
    );
}

#[test]
fn does_a_summary_say_what_the_superseded_values_were() {
    let mut site = site("summary = \"/n\"\nsummary_topic = \"{topic}/in-short/{gateway}\"");
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V5, "device");
    let sent = send(&mut device, &["low/a"], Duration::from_secs(4));
    device.publish_and_wait("low/a", "{\"n\":null}", 1);
    device.publish_and_wait("low/a", "{\"n\":1000000}", 1);
    let unread = "superseded values have no number at /n";
    site.gateway.wait_for_line(unread, SOON);
    site.proxy.come_back();
    let summary = site.far.wait_for_topic("low/a/in-short/box", HOME).publish;
    let said = json(&summary.payload);
    let mean = (1 + sent) as f64 / 2.0;
    assert_eq!(said["count"], sent, "{said}");
    assert_eq!(
        (&said["min"], &said["max"]),
        (&1.0.into(), &(sent as f64).into())
    );
    assert!(
        (said["mean"].as_f64().unwrap() - mean).abs() < 1e-6,
        "{said}"
    );
    let span = said["to"].as_u64().unwrap() - said["from"].as_u64().unwrap();
    assert!((3_500..30_000).contains(&span), "{said}");
    assert!(summary.id().is_some(), "it is a message like any other");
    let values = values(&site.far, "low/a");
    assert_eq!((values.len(), values[0].stands_for), (1, sent + 2));
    let ledger = site.terminate();
    assert_eq!(ledger.count("low", "made_here"), 1);
    assert_eq!(ledger.count("low", "delivered"), 2);
    assert_eq!(ledger.count("low", "superseded"), sent + 1);
    let told = site.gateway.lines();
    let told = told
        .iter()
        .filter(|line| line.contains("have no number at /n"));
    assert_eq!(told.count(), 1);
}
