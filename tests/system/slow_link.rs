//! A link of a few kbit/s behind a modem whose buffer holds seconds, with far more to send than it
//! takes and no `rate_max` to help: does an alarm wait behind bulk, is the link used, does every topic
//! stay at its latest value, and is the link ever taken for dead? `TIDEGATE_WHOLE=1` runs the whole
//! time; figures are printed, and what is asserted of them leaves room for a busy machine.

use std::thread::sleep;
use std::time::{Duration, Instant};

use firmware_sim::account::{Account, Latency};

use crate::broker::{Broker, BrokerOptions, Stop};
use crate::device::Device;
use crate::fleet::{Fleet, Plan};
use crate::gateway::{Configuration, Gateway};
use crate::network::NarrowLink;
use crate::spool_far::Far;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// The first large reading is sent this far into the load, the others so long after each other. It takes 33 s
/// at 256 kbit/s.
const LARGE_FROM: Duration = Duration::from_secs(3);
const LARGE_EVERY: Duration = Duration::from_secs(60);
const LARGE_BYTES: usize = 1024 * 1024;

fn whole() -> bool {
    std::env::var_os("TIDEGATE_WHOLE").is_some()
}

/// A gateway before a narrow link, and who watches at its other end.
struct Place {
    gateway: Gateway,
    far: Far,
    broker: Broker,
    link: NarrowLink,
}

impl Place {
    fn new(kbit: u32, change: impl FnOnce(Configuration) -> Configuration) -> Option<Self> {
        let link = NarrowLink::new(kbit)?;
        let broker = Broker::with(&BrokerOptions {
            // What comes before the far end is back waits for it.
            persistence: true,
            namespace: Some((link.far_namespace(), link.far_address_wide())),
            lines: vec!["max_inflight_messages 0".to_owned()],
            ..BrokerOptions::default()
        });
        let far = Far::start(broker.address());
        let url = format!("mqtt://{}:{}", link.far_address(), broker.port());
        let configuration = Configuration::to_url(&url)
            .rule("+/+/alarm", "critical")
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

    fn play(&self, plan: &Plan) -> Fleet {
        Fleet::start(self.gateway.port(), plan, &self.far)
    }

    /// 2,000 readings a second on 200 topics, and 5 alarms.
    fn play_too_much(&self) -> Fleet {
        let plan = Plan::to("low").devices(50).with("channels = 4");
        self.play(&plan.payload_bytes(100).per_second(10).alarms_per_minute(6))
    }

    /// How often a connection to the upstream was lost.
    fn losses(&self) -> usize {
        self.lines_with("connection lost")
    }

    fn lines_with(&self, text: &str) -> usize {
        let lines = self.gateway.lines();
        lines.iter().filter(|line| line.contains(text)).count()
    }
}

/// Waits until all that is promised of such a fleet has arrived: each alarm, and each topic's final value.
/// Gives the alarms' latency.
#[track_caller]
fn promised(fleet: Fleet) -> Latency {
    let account = fleet.finish_superseded(SOON);
    let readings = account.reading.far_end.as_ref().unwrap();
    assert_eq!(readings.final_values_missing, 0, "{account}");
    let alarms = account.alarm.far_end.as_ref().unwrap();
    assert_eq!(alarms.arrived, account.alarm.made, "{account}");
    assert!(alarms.arrived > 50, "{account}");
    alarms.latency
}

/// Of the readings, where these are the alarms.
fn reading_latency(account: &Account) -> Latency {
    account.reading.far_end.as_ref().unwrap().latency
}

/// Prints how late alarms came; gives what 99 of 100 stayed below.
fn p99_of(name: &str, latency: &Latency) -> Duration {
    let [p50, p99, max] =
        [latency.p50_us, latency.p99_us, latency.max_us].map(Duration::from_micros);
    println!("{name}: alarms p50 {p50:?}, p99 {p99:?}, max {max:?}");
    p99
}

#[test]
fn does_an_alarm_pass_what_a_narrow_link_cannot_take_while_that_uses_the_link() {
    let Some(place) = Place::new(256, |configuration| configuration) else {
        return;
    };
    let time = Duration::from_secs(if whole() { 300 } else { 15 });
    let (from, before) = (Instant::now(), place.link.sent_bytes());
    let fleet = place.play_too_much();
    sleep(time);
    let sent = place.link.sent_bytes() - before;
    let used = sent as f64 / from.elapsed().as_secs_f64() / 32_000.0;
    let p99 = p99_of("256 kbit/s", &promised(fleet));
    println!("{:.1} % of the link used", used * 100.0);
    assert_eq!(place.losses(), 0);
    assert!(p99 < Duration::from_millis(600));
    assert!(used > 0.75, "{used} of the link used");
}

#[test]
fn does_a_large_reading_on_a_narrow_link_hold_an_alarm() {
    let Some(place) = Place::new(256, |configuration| configuration) else {
        return;
    };
    let mut bulky = Device::new(place.gateway.port(), Version::V5, "bulky");
    let fleet = place.play_too_much();
    let start = Instant::now();
    let time = Duration::from_secs(if whole() { 300 } else { 15 });
    let (mut due, mut large) = (LARGE_FROM, 0);
    while due < time {
        sleep(due.saturating_sub(start.elapsed()));
        let mut payload = format!("000 {large:08}").into_bytes();
        payload.resize(LARGE_BYTES, b'.');
        bulky.publish("large/a", payload, 1);
        large += 1;
        due += LARGE_EVERY;
    }
    sleep(time.saturating_sub(start.elapsed()));
    bulky.wait_all_answered(SOON);
    place.link.set_rate(20_000);
    let p99 = p99_of("256 kbit/s and large readings", &promised(fleet));
    wait_until("the last large reading arrives", SOON, || {
        place.far.tally().arrivals(0, large - 1) > 0
    });
    assert_eq!(place.losses(), 0);
    assert!(p99 < Duration::from_millis(1200));
}

/// Others declare such a link dead: PINGREQ, or what answers it, waits behind minutes of bulk.
#[test]
fn does_an_hours_backlog_on_a_link_of_50_kbit_cost_a_keep_alive() {
    const DEVICES: u32 = 10;
    let backlog = if whole() { 50_000 } else { 5_000 };
    let Some(mut place) = Place::new(50, |configuration| {
        configuration
            .uplink("keep_alive = \"5s\"")
            .uplink("ack_timeout = \"10s\"")
    }) else {
        return;
    };
    place.broker.stop(Stop::Clean);
    place
        .gateway
        .wait_for_line_with(&["connection lost", "no connection"], SOON);
    let plan = Plan::to("value").devices(DEVICES).payload_bytes(100);
    let mut sensors = place.play(&plan.messages(backlog / DEVICES));
    sensors.wait_all_answered(SOON);
    let connected = |place: &Place| place.lines_with(": connected to");
    let before = connected(&place);
    let link_before = place.link.sent_bytes();
    place.broker.run();
    place.far.subscriber.wait_subscribed();
    wait_until("both connections are up", SOON, || {
        connected(&place) == before + 2
    });
    let losses = place.losses();
    let start = Instant::now();
    let alarms = place.play(&Plan::to("alarm").devices(1).per_second(5));
    sleep(Duration::from_secs(if whole() { 600 } else { 15 }));
    let used = (place.link.sent_bytes() - link_before) as f64 / start.elapsed().as_secs_f64();
    let on_the_slow_link = sensors.arrived();
    assert!(
        on_the_slow_link < u64::from(backlog),
        "there is no backlog any more"
    );
    assert!(on_the_slow_link > 0, "the backlog stands still");
    let account = alarms.finish_at_home(SOON);
    let p99 = p99_of("50 kbit/s and a backlog", &reading_latency(&account));
    println!("{:.1} % of the link used", used / 62.5);
    assert_eq!(place.losses(), losses, "a connection was given up");
    place.link.set_rate(20_000);
    sensors.finish_at_home(SOON);
    assert_eq!(place.losses(), losses, "a connection was given up");
    assert!(p99 < Duration::from_secs(3));
}
