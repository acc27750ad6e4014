//! The cloud is gone for a while: is what was taken meanwhile acknowledged when it is safe, is it all
//! there when the cloud is back, under the id that it had from the first, in its order, and does a
//! gateway that was stopped or killed in between still have it?

use std::collections::HashSet;
use std::time::Duration;

use crate::broker::Stop;
use crate::device::Device;
use crate::spool_load::{Load, Sender};
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

#[test]
fn does_all_that_was_taken_in_an_outage_arrive_after_it_in_order_and_once() {
    let mut site = SpoolSite::new();
    site.outage();
    let senders = ["alarm/a", "sure/a", "value/a"].map(|topic| Sender::to(topic).count(1_000));
    let load = Load::start(site.port(), &senders);
    // The cloud is away all the while: the disk's word is what they are answered on.
    load.wait_all_answered(HOME);
    assert!(bytes_in(&site.spool()) > 2 * 200_000, "nothing was written");
    site.recover();
    site.far.wait_for_all(&load, &[0, 1, 2], HOME);
    let ledger = site.terminate();
    for class in ["critical", "sure", "normal"] {
        assert_eq!(ledger.count(class, "received"), 1_000, "{class}");
        assert_eq!(ledger.count(class, "delivered"), 1_000, "{class}");
        assert_eq!(ledger.count(class, "on_disk"), 0, "{class}");
    }
    let tally = site.far.tally();
    assert!(tally.repeats.is_empty(), "{} repeats", tally.repeats.len());
    assert!(tally.overtaken.is_empty(), "{:?}", tally.overtaken);
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
    let topics = ["alarm/a", "sure/a", "value/a"];
    let load = Load::start(
        site.port(),
        &topics.map(|topic| Sender::to(topic).each_second(1_000)),
    );
    load.wait_answered(1_500, HOME);
    site.restart(how);
    load.go_to(site.port());
    let before = load.answered();
    load.wait_answered(before + 1_500, HOME);
    load.wait_all_answered(HOME);
    load.go_to(0);
    site.restart(how);
    site.recover();
    // What is buffered was acknowledged when it was taken: a kill may take it, a stop may not.
    let kept: &[usize] = match how {
        Stop::Clean => &[0, 1, 2],
        Stop::Kill => &[0, 1],
    };
    site.far.wait_for_all(&load, kept, HOME);
    let ledger = site.terminate();
    for device in kept {
        let class = ["critical", "sure", "normal"][*device];
        assert_eq!(ledger.count(class, "on_disk"), 0, "{class}");
        if matches!(how, Stop::Clean) {
            assert_eq!(ledger.found(class), 0, "{class}: {ledger:?}");
        }
    }
    if matches!(how, Stop::Clean) {
        assert_eq!(ledger.total("received"), u64::from(load.made()));
        assert_eq!(ledger.total("delivered"), u64::from(load.made()));
    }
    let tally = site.far.tally();
    // The third life took nothing in, so that nothing bears its epoch.
    assert_eq!(
        tally.epochs().len(),
        2,
        "an id changed: {:?}",
        tally.epochs()
    );
    let guaranteed = |(device, _): &&(usize, u32)| *device < 2;
    let overtaken: Vec<_> = tally.overtaken.iter().filter(guaranteed).collect();
    assert!(overtaken.is_empty(), "{overtaken:?}");
}

#[test]
fn does_a_strict_class_keep_its_order_while_backlog_and_live_traffic_leave() {
    let mut site = SpoolSite::new();
    site.outage();
    let topics = ["alarm/a", "sure/a", "sure/b"];
    let load = Load::start(
        site.port(),
        &topics.map(|topic| Sender::to(topic).each_second(400)),
    );
    load.wait_answered(1_500, HOME);
    for _ in 0..2 {
        site.recover();
        let before = load.answered();
        load.wait_answered(before + 800, HOME);
        site.outage();
        let before = load.answered();
        load.wait_answered(before + 800, HOME);
    }
    site.recover();
    load.wait_all_answered(HOME);
    site.far.wait_for_all(&load, &[0, 1, 2], HOME);
    site.terminate();
    let tally = site.far.tally();
    assert!(tally.overtaken.is_empty(), "{:?}", tally.overtaken);
    let made: usize = (0..3).map(|device| tally.different(device)).sum();
    assert_eq!(made, load.made() as usize);
    assert_eq!(tally.ids(), made, "a message has two ids");
}

#[test]
fn does_a_message_whose_time_runs_out_on_the_disk_count_as_expired() {
    for how in [Stop::Clean, Stop::Kill] {
        let mut site = SpoolSite::classed(SHORT_LIVED, |configuration| configuration);
        site.outage();
        let senders = ["alarm/a", "sure/a", "value/a"].map(|topic| Sender::to(topic).count(50));
        let load = Load::start(site.port(), &senders);
        load.wait_all_answered(SOON);
        wait_for_bytes(&site.spool(), 1);
        load.go_to(0);
        let taken = std::time::Instant::now();
        site.restart(how);
        wait_until("the messages are two seconds old", SOON, || {
            taken.elapsed() > Duration::from_millis(2_100)
        });
        site.recover();
        site.far.wait_for_all(&load, &[0], HOME);
        let mut device = Device::new(site.port(), Version::V5, "d");
        assert!(device.publish_and_wait("sure/b", "000 00000099", 1) < 0x80);
        let ledger = site.terminate();
        let tally = site.far.tally();
        for device in [1, 2] {
            assert_eq!(tally.different(device), 0, "device {device} after {how:?}");
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
    let load = Load::start(site.port(), &[Sender::to("alarm/a").count(200)]);
    load.wait_all_answered(SOON);
    load.go_to(0);
    site.restart(Stop::Kill);
    site.recover();
    site.far.wait_for_all(&load, &[0], HOME);
    assert_eq!(site.far.tally().replayed, 200);
    let live = Load::start(site.port(), &[Sender::to("alarm/b").count(200)]);
    live.wait_all_answered(SOON);
    site.terminate();
    assert_eq!(site.far.tally().replayed, 200, "live messages are marked");
    let sent = site.proxy.sent();
    let marked = |topic: &str| {
        let sent = sent.iter().filter(|sent| sent.publish.topic == topic);
        sent.map(|sent| sent.publish.user("tidegate-replayed"))
            .collect::<HashSet<_>>()
    };
    assert_eq!(marked("alarm/a"), HashSet::from([Some("1")]));
    assert_eq!(marked("alarm/b"), HashSet::from([None]));
}

#[test]
fn does_one_device_that_outruns_a_slow_link_overflow_to_the_disk_and_lose_nothing() {
    let mut site = SpoolSite::with(|configuration| {
        configuration
            .gateway("memory_max = \"8MiB\"")
            .uplink("rate_max = \"2Mbit\"")
    });
    site.wait_connected();
    // Three times what one client may hold in memory, a third of it in a second.
    let flood = Sender::to("value/a").payload_bytes(2_000);
    let load = Load::start(site.port(), &[flood.count(3_000).each_second(1_000)]);
    load.wait_all_answered(HOME);
    assert!(
        bytes_in(&site.spool()) > 0,
        "nothing overflowed to the disk"
    );
    site.far.wait_for_all(&load, &[0], HOME);
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "shed"), 0, "{ledger:?}");
    assert_eq!(ledger.count("normal", "delivered"), 3_000, "{ledger:?}");
}
