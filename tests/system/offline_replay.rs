//! The backlog comes home: at once, by itself, on where it stopped when it is broken off, and the way
//! that its class says.

use std::time::{Duration, Instant};

use crate::broker::Stop;
use crate::device::Device;
use crate::fleet::{Fleet, Plan};
use crate::spool_site::{HOME, SpoolSite};
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

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
fn with_backlog(site: &mut SpoolSite, plans: &[Plan]) -> Vec<Fleet> {
    let fleets = backlog(site, plans);
    site.restart(Stop::Clean);
    fleets
}

/// What fleets played while the cloud was away; it still is.
fn backlog(site: &mut SpoolSite, plans: &[Plan]) -> Vec<Fleet> {
    site.outage();
    let mut fleets: Vec<_> = plans.iter().map(|plan| site.play(plan)).collect();
    for fleet in &mut fleets {
        fleet.wait_all_answered(HOME);
    }
    fleets
}

fn is_below(topic: &str, level: &str) -> bool {
    let rest = topic.strip_prefix(level);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// How long after the first CONNACK behind `since` the first message of a first level left.
#[track_caller]
fn start_of(site: &SpoolSite, topic: &str, since: Instant) -> Duration {
    let sent = site.proxy.sent();
    let first = sent
        .iter()
        .find(|sent| is_below(&sent.publish.topic, topic) && sent.at >= since);
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
    let topics = ["alarm", "sure", "value"];
    let plans = topics.map(|topic| Plan::to(topic).messages(75));
    let restarted = with_backlog(&mut site, &plans);
    let since = Instant::now();
    site.recover();
    for fleet in restarted {
        fleet.finish_at_home(HOME);
    }
    for topic in topics {
        let took = start_of(&site, topic, since);
        assert!(took < AT_ONCE, "{topic} started {took:?} after CONNACK");
    }
    // The same where the gateway lived through the outage.
    backlog(&mut site, &plans);
    let since = Instant::now();
    site.broker.run();
    wait_until("everything left", SOON, || {
        let sent = site.proxy.sent();
        sent.iter().filter(|sent| sent.at >= since).count() >= 900
    });
    for topic in topics {
        let took = start_of(&site, topic, since);
        assert!(took < AT_ONCE, "{topic} started {took:?} after CONNACK");
    }
}

#[test]
fn does_a_replay_that_breaks_off_go_on_where_it_stopped() {
    const COUNT: u32 = 6_000;
    const CUTS: usize = 4;
    let mut site = SpoolSite::new();
    let backlog = with_backlog(
        &mut site,
        &[Plan::to("sure").devices(10).messages(COUNT / 10)],
    );
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
    for fleet in backlog {
        fleet.finish_in_order(HOME);
    }
    let bound = settled + site.proxy.broken_off();
    let ledger = site.terminate();
    assert_eq!(ledger.count("sure", "delivered"), u64::from(COUNT));
    let tally = site.far.tally();
    let repeats = tally.repeats.len();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
}

#[test]
fn does_a_replay_whose_gateway_is_killed_repeat_a_second_at_most() {
    const COUNT: u32 = 6_000;
    const KILLS: usize = 3;
    let mut site = SpoolSite::new();
    let backlog = with_backlog(
        &mut site,
        &[Plan::to("sure").devices(10).messages(COUNT / 10)],
    );
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
    for fleet in backlog {
        fleet.finish_in_order(HOME);
    }
    let bound = settled + site.proxy.broken_off();
    site.terminate();
    let tally = site.far.tally();
    let repeats = tally.repeats.len();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
}

#[test]
fn does_fresh_data_not_wait_for_a_backlog_unless_its_class_is_strict() {
    let mut site = SpoolSite::classed(ORDERS, |configuration| {
        // What a slow link does: the backlog takes seconds.
        configuration
            .uplink("rate_max = \"1Mbit\"")
            .gateway("default_class = \"fresh\"")
    });
    let backlog = ["fresh", "old"].map(|topic| Plan::to(topic).messages(250));
    let fleets = with_backlog(&mut site, &backlog);
    site.recover();
    wait_until("the backlog is on its way", SOON, || {
        site.far.tally().at.len() > 100
    });
    let mut device = Device::new(site.port(), Version::V5, "d");
    device.publish_and_wait("fresh/live", "000 00000000", 1);
    device.publish_and_wait("old/live", "001 00000000", 1);
    for fleet in fleets {
        fleet.finish_at_home(HOME);
    }
    wait_until("the live ones are home", SOON, || {
        let tally = site.far.tally();
        tally.arrivals(0, 0) == 1 && tally.arrivals(1, 0) == 1
    });
    let sent = site.proxy.sent();
    let topics: Vec<_> = sent.iter().map(|sent| &*sent.publish.topic).collect();
    let place = |topic: &str| {
        let place = topics.iter().position(|sent| *sent == topic);
        place.unwrap_or_else(|| panic!("{topic} never left under it"))
    };
    let last = |level: &str| {
        let backlog = topics
            .iter()
            .rposition(|sent| is_below(sent, level) && !sent.ends_with("live"));
        backlog.unwrap_or_else(|| panic!("{level} never left"))
    };
    // The class's backlog bears the name that it asks for, what is live bears its own.
    assert!(
        place("fresh/live") < last("late/box/fresh"),
        "fresh data waited"
    );
    assert!(place("old/live") > last("old"), "strict was overtaken");
    for topic in &topics {
        let levels = ["late/box/fresh", "fresh", "old"];
        let known = levels.into_iter().any(|level| is_below(topic, level));
        assert!(known, "{topic}");
    }
    let fresh = topics.iter().filter(|sent| is_below(sent, "fresh"));
    assert_eq!(fresh.count(), 1, "backlog under a live topic");
}
