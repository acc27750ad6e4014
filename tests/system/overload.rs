//! More comes than the uplink takes, for a while: does every topic stay at its latest value, does each
//! alarm arrive, is what gave way told, and is all as before when it is over?

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::fleet::{Fleet, Plan};
use crate::proxy::{Proxy, Sent};
use crate::site::Site;
use crate::spool_site::SpoolSite;
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
/// How long ten times as much comes as the uplink takes: 600 readings a second on 40 topics.
const LOAD: Duration = Duration::from_secs(5);
/// Readings that come when it is over.
const CALM: u64 = 5;
const RULES: &str = r#"
[[rule]]
topic = "+/+/alarm"
class = "critical"
[[rule]]
topic = "low/#"
class = "low"
"#;

#[test]
fn is_every_final_value_there_and_full_fidelity_back_after_an_overload() {
    let mut site = SpoolSite::classed(&format!("{CLASSES}{RULES}"), |configuration| {
        configuration
            .uplink("rate_max = \"128kbit\"")
            .uplink("properties = \"full\"")
    });
    site.wait_connected();
    let plan = Plan::to("low")
        .devices(10)
        .with("channels = 4\nreadings_qos = 0");
    let plan = plan.payload_bytes(100).per_second(15);
    let front = Proxy::start(([127, 0, 0, 1], site.port()).into());
    let plan = plan.alarms_per_minute(90);
    let fleet = Fleet::start(front.port(), &plan, &site.far);
    sleep(LOAD);
    let account = fleet.finish_superseded(SOON);
    let over = Instant::now();
    let deadline = STAY + Duration::from_secs(3);
    site.gateway
        .wait_for_line("class low is now calm", deadline);
    assert!(over.elapsed() < deadline);

    // Calm, nothing is merged.
    let mut device = Device::new(site.port(), Version::V5, "d");
    for number in 0..CALM {
        device.publish("low/calm", format!("000 {number:08}"), 0);
    }
    device.ping();
    wait_until("each of them arrives", SOON, || {
        site.far.tally().different(0) as u64 == CALM
    });
    let ledger = site.terminate();
    let alarms = account.alarm.far_end.as_ref().unwrap();
    assert!(alarms.arrived > 0, "{account}");
    assert_eq!(alarms.arrived, account.alarm.made, "{account}");
    let readings = account.reading.far_end.as_ref().unwrap();
    assert_eq!(readings.final_values_missing, 0, "{account}");
    assert_eq!(readings.out_of_order, 0, "{account}");
    let superseded = ledger.count("low", "superseded");
    assert!(superseded > account.reading.sent / 2, "{superseded}");
    assert_eq!(ledger.count("low", "shed"), 0);
    let changes = site.gateway.lines();
    let changes = changes
        .iter()
        .filter(|line| line.contains("class low is now"));
    assert_eq!(changes.count(), 2, "{:#?}", site.gateway.lines());

    // What went out says how many values it stands for, and none is missing.
    let count = |sent: &Sent| {
        let count = sent.publish.user("tidegate-count");
        count.map_or(1, |count| count.parse().unwrap())
    };
    let [mut made, stood_for] = [(&front, None), (&site.proxy, Some(count))].map(values_of_low);
    assert_eq!(made.len(), 40, "{made:?}");
    made.insert("low/calm".to_owned(), CALM);
    assert_eq!(stood_for, made);
}

/// How many values passed here on each topic of the class.
fn values_of_low((proxy, count): (&Proxy, Option<impl Fn(&Sent) -> u64>)) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for sent in proxy.sent() {
        let count = count.as_ref().map_or(1, |count| count(&sent));
        let topic = sent.publish.topic;
        if topic.starts_with("low/") && !topic.ends_with("/alarm") {
            *values.entry(topic).or_default() += count;
        }
    }
    values
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
