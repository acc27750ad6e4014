//! The cloud is gone for a while: is what was taken meanwhile acknowledged when it is safe, is it all
//! there when the cloud is back, under the id that it had from the first, in its order, and does a
//! gateway that was stopped or killed in between still have it?

use std::collections::HashSet;
use std::time::Duration;

use crate::broker::Stop;
use crate::device::Device;
use crate::fleet::{Fleet, Plan, total_far};
use crate::spool_site::{HOME, SpoolSite, bytes_in, wait_for_bytes};
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// Classes whose buffered messages are worth little after two seconds.
const SHORT_LIVED: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "brief"
delivery = "guaranteed"
ttl = "2s"
[[class]]
name = "normal"
delivery = "buffered"
ttl = "2s"

[[rule]]
topic = "alarm/#"
class = "critical"
[[rule]]
topic = "sure/#"
class = "brief"
"#;

/// The first level of what is of each class of a site, and the class.
const TOPICS: [&str; 3] = ["alarm", "sure", "value"];
const CLASSES: [&str; 3] = ["critical", "sure", "normal"];

/// Each of the fleets gets so many more answers.
#[track_caller]
fn more_answered(fleets: &mut [Fleet], count: u64) {
    for fleet in fleets {
        fleet.wait_more_answered(count, HOME);
    }
}

/// What the fleets made is answered, and they make nothing new.
#[track_caller]
fn all_answered(fleets: &mut [Fleet]) {
    for fleet in fleets {
        fleet.wait_all_answered(HOME);
    }
}

#[test]
fn does_all_that_was_taken_in_an_outage_arrive_after_it_in_order_and_once() {
    let mut site = SpoolSite::new();
    site.outage();
    let mut fleets = TOPICS.map(|topic| site.play(&Plan::to(topic).messages(250)));
    // The cloud is away all the while: the disk's word is what they are answered on.
    all_answered(&mut fleets);
    assert!(bytes_in(&site.spool()) > 2 * 200_000, "nothing was written");
    site.recover();
    for fleet in fleets {
        let account = fleet.finish_in_order(HOME);
        assert_eq!(total_far(&account, |far| far.duplicate), 0, "{account}");
    }
    let ledger = site.terminate();
    for class in CLASSES {
        assert_eq!(ledger.count(class, "received"), 1_000, "{class}");
        assert_eq!(ledger.count(class, "delivered"), 1_000, "{class}");
        assert_eq!(ledger.count(class, "on_disk"), 0, "{class}");
    }
    let tally = site.far.tally();
    assert!(tally.repeats.is_empty(), "{} repeats", tally.repeats.len());
}

#[test]
fn does_a_gateway_that_is_stopped_in_an_outage_still_have_all_it_acknowledged() {
    nothing_acknowledged_is_lost_over_restarts(Stop::Clean);
}

#[test]
fn does_a_gateway_that_is_killed_in_an_outage_still_have_all_guaranteed_it_acknowledged() {
    nothing_acknowledged_is_lost_over_restarts(Stop::Kill);
}

/// Two lives take messages, a third one only sends them.
fn nothing_acknowledged_is_lost_over_restarts(how: Stop) {
    let mut site = SpoolSite::new();
    site.outage();
    let plans = TOPICS.map(|topic| Plan::to(topic).per_second(250));
    let mut fleets = plans.map(|plan| site.play(&plan));
    more_answered(&mut fleets, 500);
    site.restart(how);
    more_answered(&mut fleets, 500);
    all_answered(&mut fleets);
    site.restart(how);
    site.recover();
    let mut sent = 0;
    for (fleet, class) in fleets.into_iter().zip(CLASSES) {
        let account = match (class, &how) {
            // What is buffered was acknowledged when it was taken: a kill may take it, a stop may not.
            ("normal", Stop::Kill) => fleet.finish().account,
            ("normal", Stop::Clean) => fleet.finish_at_home(HOME),
            _ => fleet.finish_in_order(HOME),
        };
        sent += account.total(|kind| kind.sent);
    }
    let ledger = site.terminate();
    for class in CLASSES {
        match how {
            Stop::Kill if class == "normal" => continue,
            Stop::Kill => {}
            Stop::Clean => assert_eq!(ledger.found(class), 0, "{class}: {ledger:?}"),
        }
        assert_eq!(ledger.count(class, "on_disk"), 0, "{class}");
    }
    if matches!(how, Stop::Clean) {
        assert_eq!(ledger.total("received"), sent);
        assert_eq!(ledger.total("delivered"), sent);
    }
    let tally = site.far.tally();
    // The third life took nothing in, so that nothing bears its epoch.
    assert_eq!(
        tally.epochs().len(),
        2,
        "an id changed: {:?}",
        tally.epochs()
    );
}

#[test]
fn does_a_strict_class_keep_its_order_while_backlog_and_live_traffic_leave() {
    let mut site = SpoolSite::new();
    site.outage();
    let topics = ["alarm", "sure/a", "sure/b"];
    let mut fleets = topics.map(|topic| site.play(&Plan::to(topic).per_second(100)));
    for round in 0..3 {
        if round > 0 {
            site.recover();
            more_answered(&mut fleets, 250);
            site.outage();
        }
        more_answered(&mut fleets, 250);
    }
    site.recover();
    all_answered(&mut fleets);
    let arrived: u64 = fleets
        .into_iter()
        .map(|fleet| {
            let account = fleet.finish_in_order(HOME);
            assert_eq!(
                total_far(&account, |far| far.arrived),
                account.total(|kind| kind.sent)
            );
            account.total(|kind| kind.sent)
        })
        .sum();
    site.terminate();
    let tally = site.far.tally();
    assert_eq!(tally.ids() as u64, arrived, "a message has two ids");
}

#[test]
fn does_a_message_whose_time_runs_out_on_the_disk_count_as_expired() {
    for how in [Stop::Clean, Stop::Kill] {
        let mut site = SpoolSite::classed(SHORT_LIVED, |configuration| configuration);
        site.outage();
        let plan = |topic| Plan::to(topic).devices(1).messages(50);
        let mut fleets = TOPICS.map(|topic| site.play(&plan(topic)));
        for fleet in &mut fleets {
            fleet.wait_answered(50, SOON);
        }
        wait_for_bytes(&site.spool(), 1);
        let taken = std::time::Instant::now();
        site.restart(how);
        wait_until("the messages are two seconds old", SOON, || {
            taken.elapsed() > Duration::from_millis(2_100)
        });
        site.recover();
        let [alarms, brief, value] = fleets;
        alarms.finish_at_home(HOME);
        let mut device = Device::new(site.port(), Version::V5, "d");
        assert!(device.publish_and_wait("sure/b", "000 00000099", 1) < 0x80);
        let ledger = site.terminate();
        for expired in [brief, value] {
            let account = expired.finish().account;
            let arrived = total_far(&account, |far| far.arrived);
            assert_eq!(arrived, 0, "after {how:?}: {account}");
        }
        assert_eq!(ledger.count("brief", "expired"), 50, "{ledger:?}");
        assert_eq!(ledger.count("brief", "on_disk"), 0, "{ledger:?}");
        assert_eq!(ledger.count("critical", "expired"), 0, "{ledger:?}");
    }
}

#[test]
fn is_what_comes_from_the_disk_marked_and_nothing_else() {
    let mut site = SpoolSite::with(|configuration| configuration.uplink("properties = \"full\""));
    site.outage();
    let mut fleet = site.play(&Plan::to("alarm/a").messages(50));
    fleet.wait_all_answered(SOON);
    site.restart(Stop::Kill);
    site.recover();
    fleet.finish_at_home(HOME);
    assert_eq!(site.far.tally().replayed, 200);
    let live = site.play(&Plan::to("alarm/b").messages(50));
    live.finish_at_home(SOON);
    site.terminate();
    assert_eq!(site.far.tally().replayed, 200, "live messages are marked");
    let sent = site.proxy.sent();
    let marked = |topic: &str| {
        let sent = sent
            .iter()
            .filter(|sent| sent.publish.topic.starts_with(topic));
        sent.map(|sent| sent.publish.user("tidegate-replayed"))
            .collect::<HashSet<_>>()
    };
    assert_eq!(marked("alarm/a/"), HashSet::from([Some("1")]));
    assert_eq!(marked("alarm/b/"), HashSet::from([None]));
}

#[test]
fn does_one_device_that_outruns_a_slow_link_overflow_to_the_disk_and_lose_nothing() {
    let mut site = SpoolSite::with(|configuration| {
        configuration
            .gateway("memory_max = \"8MiB\"")
            .uplink("rate_max = \"2Mbit\"")
    });
    site.wait_connected();
    // Three times what one client may hold in memory, as fast as it is answered.
    let flood = Plan::to("value").devices(1).payload_bytes(2_000);
    let mut flood = site.play(&flood.messages(3_000));
    flood.wait_all_answered(HOME);
    assert!(
        bytes_in(&site.spool()) > 0,
        "nothing overflowed to the disk"
    );
    flood.finish_at_home(HOME);
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "shed"), 0, "{ledger:?}");
    assert_eq!(ledger.count("normal", "delivered"), 3_000, "{ledger:?}");
}
