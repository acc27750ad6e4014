//! A link that is too slow for what comes: does the gateway send no more than it is told to, does each
//! class get its share, and does an alarm wait behind any of it?

use std::time::{Duration, Instant};

use firmware_sim::watch::FarEnd;

use crate::device::Device;
use crate::fleet::{Fleet, Plan};
use crate::proxy::Sent;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
weight = 3
[[class]]
name = "low"
delivery = "buffered"
weight = 1
"#;

/// 512 kbit/s.
const BYTES_A_SECOND: f64 = 64_000.0;
/// What is measured begins when both classes wait.
const MEASURED: Duration = Duration::from_secs(5);

/// A site whose uplink may carry 512 kbit/s, with twice as much waiting as goes out in the test, large
/// messages in one class and small ones in the other; and since when.
fn slow() -> (Site, Instant) {
    let site = Site::with(|configuration| {
        configuration
            .uplink("rate_max = \"512kbit\"")
            .section(CLASSES)
    });
    site.proxy.wait_for_connections(2);
    for (topic, bytes, messages, first_device) in [("value", 1000, 125, 0), ("low", 200, 500, 4)] {
        let plan = Plan::to(topic).payload_bytes(bytes).messages(messages);
        let mut fleet = Fleet::numbered(site.port(), &plan, first_device, FarEnd::default());
        fleet.wait_all_answered(SOON);
    }
    (site, Instant::now())
}

fn bytes<'a>(sent: impl Iterator<Item = &'a Sent>) -> f64 {
    sent.map(|sent| sent.bytes as f64).sum()
}

#[test]
fn do_classes_share_a_slow_link_by_weight_and_within_its_rate() {
    let (site, start) = slow();
    wait_until("the time of measuring is over", SOON, || {
        start.elapsed() > MEASURED
    });
    let sent = site.proxy.sent();
    let end = start + MEASURED;
    let within: Vec<_> = sent
        .iter()
        .filter(|sent| sent.at > start && sent.at < end)
        .collect();
    let of = |topic: &str| {
        let within = within.iter().copied();
        bytes(within.filter(|sent| sent.publish.topic.starts_with(topic)))
    };
    let (normal, low) = (of("value/"), of("low/"));
    let ratio = normal / low;
    assert!(
        (3.0 * 0.85..3.0 * 1.15).contains(&ratio),
        "{normal} bytes against {low}: {ratio:.2}, and not 3"
    );
    // The headers of TCP and IP are part of the rate, and not of what is counted here.
    let rate = (normal + low) / MEASURED.as_secs_f64() / BYTES_A_SECOND;
    assert!((0.85..=1.02).contains(&rate), "{rate:.3} of the rate");
}

#[test]
fn does_an_alarm_pass_what_waits_for_a_slow_link() {
    let (site, _) = slow();
    let mut device = Device::new(site.port(), Version::V5, "d");
    for number in 0..5 {
        let start = Instant::now();
        device.publish("alarm/a", format!("fire {number}"), 1);
        device.wait_all_answered(SOON);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    }
    let before = site.proxy.sent().len();
    assert!(before < 2000, "nothing waited: {before} of 2500 are sent");
}
