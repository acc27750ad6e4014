//! One device goes mad and sends as fast as it can, in each class in turn: do the others' alarms and
//! readings wait for it? Figures are printed; what is asserted leaves room for a busy machine and a
//! build without optimization.

use std::thread::sleep;
use std::time::Duration;

use firmware_sim::watch::FarEnd;

use crate::fleet::{Fleet, Plan};
use crate::site::Site;
use crate::wait::SOON;

/// Devices that behave: 20 readings and 2 alarms a second each.
const OTHERS: u32 = 10;
const LENGTH: Duration = Duration::from_secs(3);
/// The flood sends so many at least, thirty times what the others do: without optimization the gateway itself is
/// slow.
const FLOOD_MIN: u64 = 20_000;
/// Nine of ten alarms, and nine of ten readings, are answered in this time.
const P90_MAX: Duration = Duration::from_millis(800);

#[track_caller]
fn do_others_wait_beside_a_flood_on(topic: &str) {
    let mut site = Site::with(|configuration| configuration.rule("+/+/alarm", "critical"));
    // What arrives is not what is asked here.
    let play = |plan: Plan, first_device| {
        Fleet::numbered(site.port(), &plan, first_device, FarEnd::default())
    };
    let mad = Plan::to(topic).devices(1).with("readings_qos = 0");
    let mut mad = play(mad.payload_bytes(100), OTHERS);
    let others = Plan::to("value").devices(OTHERS);
    let mut others = play(others.per_second(20).alarms_per_minute(120), 0);
    sleep(LENGTH);
    others.wait_all_answered(SOON);
    mad.stop();
    assert!(mad.sent() > FLOOD_MIN, "{} are no flood", mad.sent());
    let lines = site.gateway.lines().len();
    assert!(lines < 80, "{lines} lines in the log");
    let played = others.finish();
    let account = &played.account;
    let answered = &played.pace.answered;
    for (what, times, of) in [
        ("alarms", &answered.alarm, &account.alarm),
        ("readings", &answered.reading, &account.reading),
    ] {
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        println!(
            "a flood of {} on {topic}: {} {what}, p50 {:?}, p99 {:?}",
            mad.sent(),
            times.len(),
            at(0.5),
            at(0.99)
        );
        // One that gave way to the next waited too.
        assert!(
            of.made >= 20 && times.len() * 10 >= of.made * 9,
            "{account}"
        );
        assert!(at(0.9) < P90_MAX, "{what}: {:?}", at(0.9));
    }
    site.gateway.kill();
}

#[test]
fn do_others_wait_for_a_flood_of_values() {
    do_others_wait_beside_a_flood_on("low/mad");
}

#[test]
fn do_others_wait_for_a_flood_in_a_class_that_is_acknowledged_when_taken() {
    do_others_wait_beside_a_flood_on("value/mad");
}

#[test]
fn do_others_wait_for_a_flood_of_alarms() {
    do_others_wait_beside_a_flood_on("alarm/mad");
}
