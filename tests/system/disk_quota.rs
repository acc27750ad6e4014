//! The quota is full: does the lowest class give way first, oldest first and counted, does the first
//! class still find room when the other guaranteed one is held, and does everything go on when the
//! uplink is back?

use std::time::Duration;

use crate::fleet::{Plan, total_far, wait_held};
use crate::spool_site::{HOME, SpoolSite, bytes_on_disk};
use crate::wait::wait_until;

/// The least that can be said.
const SIZE_MAX_BYTES: u64 = 32 << 20;
/// Answers that stand still for so long do not come any more: twenty times the commit interval.
const QUIET: Duration = Duration::from_secs(2);

const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "sure"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
[[class]]
name = "minor"
delivery = "buffered"

[[rule]]
topic = "alarm/#"
class = "critical"
[[rule]]
topic = "sure/#"
class = "sure"
[[rule]]
topic = "minor/#"
class = "minor"

[spool]
size_max = "32MiB"
disk_free_min = "1MiB"
"#;

#[test]
fn does_the_lowest_class_give_way_first_and_the_first_class_last() {
    let mut site = SpoolSite::classed(CLASSES, |configuration| {
        configuration.gateway("memory_max = \"8MiB\"")
    });
    site.outage();
    let flood = |topic| Plan::to(topic).payload_bytes(4_000);
    let mut sure = site.play(&flood("sure").per_second(150));
    let mut lesser = ["value", "minor"].map(|topic| site.play(&flood(topic).per_second(200)));
    wait_until("the guaranteed flood is held", 2 * HOME, || {
        // Neither of the others is ever held: they give way.
        sure.unanswered() > 0 && bytes_on_disk(&site.spool()) > SIZE_MAX_BYTES * 8 / 10
    });
    wait_held(&[&sure], QUIET, 2 * HOME);
    // They make nothing more; the others are not part of what follows.
    sure.stop();
    lesser
        .iter_mut()
        .for_each(|fleet| fleet.wait_all_answered(HOME));
    let mut alarms = site.play(&Plan::to("alarm").messages(250));
    alarms.wait_all_answered(HOME);
    let held = bytes_on_disk(&site.spool());
    assert!(held <= SIZE_MAX_BYTES, "{held} bytes on disk");
    site.recover();
    sure.finish_at_home(2 * HOME);
    alarms.finish_at_home(HOME);
    let ledger = site.terminate();
    for class in ["critical", "sure"] {
        assert_eq!(ledger.count(class, "evicted"), 0, "{ledger:?}");
    }
    for class in ["normal", "minor"] {
        assert!(ledger.count(class, "evicted") > 0, "{ledger:?}");
    }
    for (fleet, class) in lesser.into_iter().zip(["normal", "minor"]) {
        let gave_way = ledger.count(class, "evicted") + ledger.count(class, "shed");
        let account = fleet.finish().account;
        let missing = account.total(|kind| kind.sent) - total_far(&account, |far| far.arrived);
        assert_eq!(missing, gave_way, "{ledger:?}");
    }
}
