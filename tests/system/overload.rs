//! More comes than the uplink takes, for a while: does every topic stay at its latest value, does each
//! alarm arrive, is what gave way told, and is all as before when it is over?

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// 128 kbit/s, some 60 of these readings a second; half a second of pressure begins it, two of calm end it.
const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
when_full = "drop-newest"
queue_max = "64KiB"
[[class]]
name = "low"
delivery = "latest"
pressure_age_on = "500ms"
pressure_stay = "2s"
"#;
const STAY: Duration = Duration::from_secs(2);
const TOPICS: u32 = 40;
/// Ten times what the uplink takes.
const ROUNDS: u32 = 75;

fn site() -> Site {
    let site = Site::with(|configuration| {
        configuration
            .uplink("rate_max = \"128kbit\"")
            .uplink("properties = \"full\"")
            .section(CLASSES)
    });
    site.proxy.wait_for_connections(2);
    site
}

#[test]
fn is_every_final_value_there_and_full_fidelity_back_after_an_overload() {
    let mut site = site();
    let mut device = Device::new(site.port(), Version::V5, "d");
    let mut alarms = Device::new(site.port(), Version::V5, "alarms");
    let start = Instant::now();
    for round in 0..ROUNDS {
        for topic in 0..TOPICS {
            device.publish(&format!("low/{topic}"), format!("{round:0>100}"), 0);
        }
        alarms.publish_and_wait("alarm/a", format!("{round}"), 1);
        let due = start + round * Duration::from_millis(66);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    device.ping();
    let last = format!("{:0>100}", ROUNDS - 1);
    for topic in 0..TOPICS {
        let topic = format!("low/{topic}");
        wait_until(&format!("the newest of {topic} arrives"), SOON, || {
            site.far.texts(&topic).last() == Some(&last)
        });
        assert!(site.far.texts(&topic).is_sorted(), "{topic} went back");
    }
    let over = Instant::now();
    let deadline = STAY + Duration::from_secs(3);
    site.gateway
        .wait_for_line("class low is now calm", deadline);
    assert!(over.elapsed() < deadline);

    // Calm, nothing is merged.
    for number in 0..5 {
        device.publish("low/calm", format!("{number}"), 0);
    }
    device.ping();
    site.far.wait_for_count("low/calm", 5, SOON);
    let ledger = site.terminate();
    assert_eq!(site.far.count("alarm/"), ROUNDS as usize);
    let superseded = ledger.count("low", "superseded");
    assert!(superseded > u64::from(ROUNDS * TOPICS / 2), "{superseded}");
    assert_eq!(ledger.count("low", "shed"), 0);
    let lines = site.gateway.lines();
    let changes = lines
        .iter()
        .filter(|line| line.contains("class low is now"));
    assert_eq!(changes.count(), 2, "{lines:#?}");

    // What went out says how many values it stands for, and none is missing.
    let mut stood_for: HashMap<String, u32> = HashMap::new();
    for sent in site.proxy.sent() {
        let properties = &sent.publish.properties.user;
        let count = properties.iter().find(|(name, _)| name == "tidegate-count");
        let count = count.map_or(1, |(_, count)| count.parse().unwrap());
        *stood_for.entry(sent.publish.topic).or_default() += count;
    }
    for topic in 0..TOPICS {
        assert_eq!(stood_for[&format!("low/{topic}")], ROUNDS);
    }
}

#[test]
fn is_the_sender_of_what_a_full_class_refuses_told_so() {
    const QUOTA_EXCEEDED: u8 = 0x97;
    let mut site = Site::with(|configuration| configuration.section(CLASSES).no_room_on_disk());
    site.proxy.wait_for_connections(2);
    site.proxy.go_away();
    let mut device = Device::new(site.port(), Version::V5, "d");
    let ids: Vec<_> = (0..200)
        .map(|number| device.publish("value/a", format!("{number:0>1000}"), 1))
        .collect();
    device.wait_all_answered(SOON);
    let reasons: Vec<_> = ids.iter().map(|id| device.reason(*id).unwrap()).collect();
    let refused = reasons.iter().filter(|reason| **reason == QUOTA_EXCEEDED);
    let refused = refused.count() as u64;
    assert!(refused > 0 && reasons[0] == 0, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| [0, QUOTA_EXCEEDED].contains(reason))
    );
    let line = site
        .gateway
        .wait_for_line("class normal is now shedding", SOON);
    assert!(line.contains("INFO"), "{line}");
    site.proxy.come_back();
    site.far
        .wait_for_count("value/", 200 - refused as usize, SOON);
    let ledger = site.terminate();
    assert_eq!(ledger.count("normal", "shed"), refused);
    assert!(
        site.far.texts("value/a")[0].ends_with("00"),
        "the oldest gave way"
    );
}
