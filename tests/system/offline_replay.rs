//! The backlog comes home: at once, by itself, on where it stopped when it is broken off, and the way
//! that its class says.

use std::time::{Duration, Instant};

use crate::broker::Stop;
use crate::proxy::Sent;
use crate::spool_load::{Load, Sender};
use crate::spool_site::{HOME, SpoolSite};
use crate::wait::{SOON, wait_until};

/// The promise: replay starts within this time of CONNACK.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A PUBACK takes so long from the broker to the gateway at most.
const ON_THE_WAY: Duration = Duration::from_millis(300);

/// A class each for both orders.
const ORDERS: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "fresh"
delivery = "buffered"
order = "live-first"
replay_topic = "late/{gateway}/{topic}"
[[class]]
name = "old"
delivery = "buffered"
order = "strict"

[[rule]]
topic = "alarm/#"
class = "critical"
[[rule]]
topic = "old/#"
class = "old"
"#;

/// A site with a backlog on its disk and nothing in its memory; the cloud is away.
fn with_backlog(site: &mut SpoolSite, senders: &[Sender]) -> Load {
    site.outage();
    let load = Load::start(site.port(), senders);
    load.wait_all_answered(HOME);
    load.go_to(0);
    site.restart(Stop::Clean);
    load
}

/// How long after the first CONNACK behind `since` the first message of a topic left.
#[track_caller]
fn start_of(site: &SpoolSite, topic: &str, since: Instant) -> Duration {
    let sent = site.proxy.sent();
    let first = sent
        .iter()
        .find(|sent| sent.publish.topic == topic && sent.at >= since);
    let first = first.unwrap_or_else(|| panic!("{topic} never left"));
    let connections = site.proxy.connections();
    let connacks = connections
        .iter()
        .filter_map(|connection| connection.connack_at);
    let connack = connacks.filter(|at| *at >= since).min().unwrap();
    first.at.saturating_duration_since(connack)
}

#[test]
fn does_the_backlog_start_home_within_a_second_of_connack() {
    let mut site = SpoolSite::new();
    let topics = ["alarm/a", "sure/a", "value/a"];
    let senders = topics.map(|topic| Sender::to(topic).count(300));
    let restarted = with_backlog(&mut site, &senders);
    let since = Instant::now();
    site.recover();
    site.far.wait_for_all(&restarted, &[0, 1, 2], HOME);
    for topic in topics {
        let took = start_of(&site, topic, since);
        assert!(took < AT_ONCE, "{topic} started {took:?} after CONNACK");
    }
    // The same where the gateway lived through the outage.
    site.outage();
    let others = ["alarm/b", "sure/b", "value/b"];
    let load = Load::start(
        site.port(),
        &others.map(|topic| Sender::to(topic).count(300)),
    );
    load.wait_all_answered(HOME);
    let since = Instant::now();
    site.broker.run();
    wait_until("everything left", SOON, || {
        let sent = site.proxy.sent();
        let new = |sent: &&Sent| others.contains(&sent.publish.topic.as_str());
        sent.iter().filter(new).count() >= 900
    });
    for topic in others {
        let took = start_of(&site, topic, since);
        assert!(took < AT_ONCE, "{topic} started {took:?} after CONNACK");
    }
}

#[test]
fn does_a_replay_that_breaks_off_go_on_where_it_stopped() {
    const COUNT: u32 = 6_000;
    const CUTS: usize = 4;
    let mut site = SpoolSite::new();
    let load = with_backlog(&mut site, &[Sender::to("sure/a").count(COUNT)]);
    site.proxy.delay(Duration::from_millis(5));
    site.proxy.go_away();
    site.recover();
    let mut settled = 0;
    for cut in 1..=CUTS {
        site.proxy.come_back();
        let goal = cut * COUNT as usize / (CUTS + 1);
        wait_until("a part is home", HOME, || site.far.tally().at.len() >= goal);
        site.proxy.go_away();
        settled += site.far.tally().within(ON_THE_WAY, Instant::now());
    }
    site.proxy.come_back();
    site.far.wait_for_all(&load, &[0], HOME);
    let bound = settled + site.proxy.broken_off();
    let ledger = site.terminate();
    assert_eq!(ledger.count("sure", "delivered"), u64::from(COUNT));
    let tally = site.far.tally();
    let repeats = tally.repeats.len();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
    assert!(tally.overtaken.is_empty(), "{:?}", tally.overtaken);
}

#[test]
fn does_a_replay_whose_gateway_is_killed_repeat_a_second_at_most() {
    const COUNT: u32 = 6_000;
    const KILLS: usize = 3;
    let mut site = SpoolSite::new();
    let load = with_backlog(&mut site, &[Sender::to("sure/a").count(COUNT)]);
    site.proxy.delay(Duration::from_millis(5));
    site.recover();
    let mut settled = 0;
    for kill in 1..=KILLS {
        let goal = kill * COUNT as usize / (KILLS + 1);
        wait_until("a part is home", HOME, || site.far.tally().at.len() >= goal);
        site.gateway.kill();
        // Twice the second: this machine is busy, and the disk too.
        let tally = site.far.tally();
        settled += tally.within(2 * AT_ONCE, Instant::now());
        drop(tally);
        site.begin();
    }
    site.far.wait_for_all(&load, &[0], HOME);
    let bound = settled + site.proxy.broken_off();
    site.terminate();
    let tally = site.far.tally();
    let repeats = tally.repeats.len();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
    assert!(tally.overtaken.is_empty(), "{:?}", tally.overtaken);
}

#[test]
fn does_fresh_data_not_wait_for_a_backlog_unless_its_class_is_strict() {
    let mut site = SpoolSite::classed(ORDERS, |configuration| {
        // What a slow link does: the backlog takes seconds.
        configuration
            .uplink("rate_max = \"1Mbit\"")
            .gateway("default_class = \"fresh\"")
    });
    let backlog = [
        Sender::to("fresh/a").count(1_000),
        Sender::to("old/a").count(1_000),
    ];
    let load = with_backlog(&mut site, &backlog);
    site.recover();
    wait_until("the backlog is on its way", SOON, || {
        site.far.tally().at.len() > 100
    });
    let mut device = crate::device::Device::new(site.port(), crate::wire::Version::V5, "d");
    // As numbers behind those of the load.
    device.publish_and_wait("fresh/a", "000 00005000", 1);
    device.publish_and_wait("old/a", "001 00005000", 1);
    site.far.wait_for_all(&load, &[0, 1], HOME);
    wait_until("the live ones are home", SOON, || {
        let tally = site.far.tally();
        tally.arrivals(0, 5000) == 1 && tally.arrivals(1, 5000) == 1
    });
    let sent = site.proxy.sent();
    let place = |text: &str| {
        let place = sent
            .iter()
            .position(|sent| sent.publish.payload.starts_with(text.as_bytes()));
        place.unwrap_or_else(|| panic!("{text} never left"))
    };
    let last = |prefix: &str| {
        let of = |sent: &Sent| sent.publish.payload.starts_with(prefix.as_bytes());
        sent.iter().rposition(of).unwrap()
    };
    assert!(
        place("000 00005000") < last("000 00000999"),
        "fresh data waited"
    );
    assert!(
        place("001 00005000") > last("001 00000999"),
        "strict was overtaken"
    );
    for sent in &sent {
        let topic = &sent.publish.topic;
        let live = sent.publish.payload.ends_with(b" 00005000");
        let wanted = match (sent.publish.payload.starts_with(b"000"), live) {
            (true, true) => "fresh/a",
            (true, false) => "late/box/fresh/a",
            (false, _) => "old/a",
        };
        assert_eq!(topic, wanted, "{}", sent.publish.text());
    }
}
