//! A link of a few kbit/s behind a modem whose buffer holds seconds, with far more to send than it
//! takes and no `rate_max` to help: does an alarm wait behind bulk, is the link used, does every topic
//! stay at its latest value, and is the link ever taken for dead? `TIDEGATE_WHOLE=1` runs the whole
//! time; figures are printed, and what is asserted of them leaves room for a busy machine.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, BrokerOptions};
use crate::device::Device;
use crate::gateway::{Configuration, Gateway};
use crate::network::NarrowLink;
use crate::subscriber::{Arrived, Subscriber};
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

const TOPICS: usize = 200;
/// Readings of one tick, which is 10 ms: 2,000 a second.
const READINGS: usize = 20;
const TICK: Duration = Duration::from_millis(10);
/// Ticks from one alarm to the next: 5 a second.
const ALARM_TICKS: u32 = 20;
/// Ticks from one large reading to the next. It takes 33 s at 256 kbit/s.
const LARGE_TICKS: u32 = 6000;
const LARGE_BYTES: usize = 1024 * 1024;

fn whole() -> bool {
    std::env::var_os("TIDEGATE_WHOLE").is_some()
}

/// A gateway before a narrow link, and who watches at its other end.
struct Place {
    gateway: Gateway,
    far: Subscriber,
    broker: Broker,
    link: NarrowLink,
}

impl Place {
    fn new(kbit: u32, change: impl FnOnce(Configuration) -> Configuration) -> Option<Self> {
        let link = NarrowLink::new(kbit)?;
        let broker = Broker::with(&BrokerOptions {
            namespace: Some((link.far_namespace(), link.far_address_wide())),
            lines: vec!["max_inflight_messages 0".to_owned()],
            ..BrokerOptions::default()
        });
        let far = Subscriber::start(broker.address());
        let url = format!("mqtt://{}:{}", link.far_address(), broker.port());
        let configuration = Configuration::to_url(&url)
            .rule("alarm/#", "critical")
            .rule("low/#", "low")
            .rule("large/#", "low");
        let gateway = Gateway::start(&change(configuration));
        Some(Self {
            gateway,
            far,
            broker,
            link,
        })
    }

    /// How often a connection to the upstream was lost.
    fn losses(&self) -> usize {
        let lines = self.gateway.lines();
        lines
            .iter()
            .filter(|line| line.contains("connection lost"))
            .count()
    }
}

/// What was sent, and when it was due.
#[derive(Default)]
struct Load {
    alarms: Vec<Instant>,
    /// The last value of each topic.
    last: HashMap<String, String>,
    large: usize,
}

impl Load {
    /// Sends readings and alarms for so long; none is sent before it is due, and none is left out.
    fn run(&mut self, place: &Place, time: Duration, large: bool) {
        let mut sensor = Device::new(place.gateway.port(), Version::V5, "sensor");
        let mut bulky = Device::new(place.gateway.port(), Version::V5, "bulky");
        let mut alarms = Device::new(place.gateway.port(), Version::V5, "alarms");
        let start = Instant::now();
        let ticks = u32::try_from(time.as_millis() / TICK.as_millis()).unwrap();
        let mut reading = 0;
        for tick in 0..ticks {
            let due = start + TICK * tick;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for _ in 0..READINGS {
                let topic = format!("low/{}", reading % TOPICS);
                let value = format!("{reading:0>100}");
                sensor.publish(&topic, value.clone(), 0);
                self.last.insert(topic, value);
                reading += 1;
            }
            if tick % ALARM_TICKS == 0 {
                alarms.publish("alarm/a", format!("{}", self.alarms.len()), 1);
                self.alarms.push(due);
            }
            if large && tick % LARGE_TICKS == 300 {
                bulky.publish("large/a", vec![b'x'; LARGE_BYTES], 1);
                self.large += 1;
            }
        }
        sensor.ping();
    }

    /// How late each alarm came, sorted.
    fn alarm_delays(&self, arrived: &[Arrived]) -> Vec<Duration> {
        let mut delays = HashMap::new();
        for alarm in arrived.iter().filter(|a| a.publish.topic == "alarm/a") {
            let number: usize = alarm.publish.text().parse().unwrap();
            delays
                .entry(number)
                .or_insert(alarm.at.duration_since(self.alarms[number]));
        }
        let mut delays: Vec<_> = delays.into_values().collect();
        delays.sort_unstable();
        delays
    }

    #[track_caller]
    fn wait_for_final_values(&self, place: &Place, deadline: Duration) {
        wait_until("every topic is at its final value", deadline, || {
            let arrived = place.far.arrived();
            let mut latest = HashMap::new();
            for Arrived { publish, .. } in &arrived {
                latest.insert(&*publish.topic, publish);
            }
            let is_final = |(topic, value): (&String, &String)| {
                latest
                    .get(&**topic)
                    .is_some_and(|publish| publish.text() == *value)
            };
            self.last.iter().all(is_final)
        });
    }
}

/// The delay that all but this part (in 1/1000) of them stay below.
fn quantile(sorted: &[Duration], permille: usize) -> Duration {
    sorted[(sorted.len() * permille / 1000).min(sorted.len() - 1)]
}

fn show(name: &str, delays: &[Duration]) {
    println!(
        "{name}: {} alarms, p50 {:?}, p99 {:?}, max {:?}",
        delays.len(),
        quantile(delays, 500),
        quantile(delays, 990),
        delays[delays.len() - 1],
    );
}

#[test]
fn does_an_alarm_pass_what_a_narrow_link_cannot_take_while_that_uses_the_link() {
    let Some(place) = Place::new(256, |configuration| configuration) else {
        return;
    };
    let mut load = Load::default();
    let time = Duration::from_secs(if whole() { 300 } else { 15 });
    let (from, before) = (Instant::now(), place.link.sent_bytes());
    load.run(&place, time, false);
    let sent = place.link.sent_bytes() - before;
    let used = sent as f64 / from.elapsed().as_secs_f64() / 32_000.0;
    load.wait_for_final_values(&place, SOON);
    let delays = load.alarm_delays(&place.far.arrived());
    show("256 kbit/s", &delays);
    println!("{:.1} % of the link used", used * 100.0);
    assert_eq!(delays.len(), load.alarms.len(), "alarms are missing");
    assert_eq!(place.losses(), 0);
    assert!(quantile(&delays, 990) < Duration::from_millis(600));
    assert!(used > 0.75, "{used} of the link used");
}

#[test]
fn does_a_large_reading_on_a_narrow_link_hold_an_alarm() {
    let Some(place) = Place::new(256, |configuration| configuration) else {
        return;
    };
    let mut load = Load::default();
    let time = Duration::from_secs(if whole() { 300 } else { 15 });
    load.run(&place, time, true);
    place.link.set_rate(20_000);
    load.wait_for_final_values(&place, SOON);
    place.far.wait_for_count("large/a", load.large, SOON);
    let delays = load.alarm_delays(&place.far.arrived());
    show("256 kbit/s and large readings", &delays);
    assert_eq!(delays.len(), load.alarms.len(), "alarms are missing");
    assert_eq!(place.losses(), 0);
    assert!(quantile(&delays, 990) < Duration::from_millis(1200));
}

/// Others declare such a link dead: PINGREQ, or what answers it, waits behind minutes of bulk.
#[test]
fn does_an_hours_backlog_on_a_link_of_50_kbit_cost_a_keep_alive() {
    let backlog = if whole() { 50_000 } else { 5_000 };
    let Some(mut place) = Place::new(50, |configuration| {
        configuration
            .uplink("keep_alive = \"5s\"")
            .uplink("ack_timeout = \"10s\"")
    }) else {
        return;
    };
    place.broker.stop(crate::broker::Stop::Clean);
    place
        .gateway
        .wait_for_line_with(&["connection lost", "no connection"], SOON);
    let mut device = Device::new(place.gateway.port(), Version::V311, "sensor");
    for number in 0..backlog {
        device.publish("value/a", format!("{number:0>100}"), 0);
    }
    device.ping();
    let connected = |place: &Place| {
        let lines = place.gateway.lines();
        lines
            .iter()
            .filter(|line| line.contains(": connected to"))
            .count()
    };
    let before = connected(&place);
    let link_before = place.link.sent_bytes();
    place.broker.run();
    place.far.wait_subscribed();
    wait_until("both connections are up", SOON, || {
        connected(&place) == before + 2
    });
    let losses = place.losses();
    let mut alarms = Device::new(place.gateway.port(), Version::V5, "alarms");
    let mut load = Load::default();
    let start = Instant::now();
    let time = Duration::from_secs(if whole() { 600 } else { 15 });
    while start.elapsed() < time {
        let due = start + Duration::from_millis(200) * u32::try_from(load.alarms.len()).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        alarms.publish("alarm/a", format!("{}", load.alarms.len()), 1);
        load.alarms.push(due);
    }
    let used = (place.link.sent_bytes() - link_before) as f64 / start.elapsed().as_secs_f64();
    assert!(
        place.far.count("value/") < backlog,
        "there is no backlog any more"
    );
    place.far.wait_for_count("alarm/a", load.alarms.len(), SOON);
    let delays = load.alarm_delays(&place.far.arrived());
    show("50 kbit/s and a backlog", &delays);
    println!("{:.1} % of the link used", used / 62.5);
    let on_the_slow_link = place.far.count("value/");
    assert_eq!(place.losses(), losses, "a connection was given up");
    assert!(on_the_slow_link > 0, "the backlog stands still");
    place.link.set_rate(20_000);
    place.far.wait_for_count("value/a", backlog, SOON * 3);
    assert_eq!(place.losses(), losses, "a connection was given up");
    assert!(quantile(&delays, 990) < Duration::from_secs(3));
}
