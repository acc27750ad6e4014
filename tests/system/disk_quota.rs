//! The quota is full: does the lowest class give way first, oldest first and counted, does the first
//! class still find room when the other guaranteed one is held, and does everything go on when the
//! uplink is back?

use std::time::Duration;

use crate::spool_load::{Load, Sender};
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
    let flood = |topic: &str| Sender::to(topic).payload_bytes(4_000);
    let load = Load::start(
        site.port(),
        &[
            flood("sure/a").each_second(600),
            flood("value/a").each_second(800),
            flood("minor/a").each_second(800),
        ],
    );
    wait_until("the guaranteed flood is held", 2 * HOME, || {
        // Neither of the others is ever held: they give way.
        load.progress(0).made > 0
            && load.answered_by(&[0]) < load.progress(0).made
            && bytes_on_disk(&site.spool()) > SIZE_MAX_BYTES * 8 / 10
    });
    load.wait_stuck_at(&[0], QUIET, 2 * HOME);
    // The others ask for more as fast as they are answered; they are not part of what follows.
    load.pause();
    let alarms = Load::numbered(site.port(), 10, &[Sender::to("alarm/a").count(1_000)]);
    alarms.wait_all_answered(HOME);
    let held = bytes_on_disk(&site.spool());
    assert!(held <= SIZE_MAX_BYTES, "{held} bytes on disk");
    site.recover();
    load.wait_all_answered(HOME);
    site.far.wait_for_all(&load, &[0], HOME);
    site.far.wait_for_all(&alarms, &[10], HOME);
    let ledger = site.terminate();
    for class in ["critical", "sure"] {
        assert_eq!(ledger.count(class, "evicted"), 0, "{ledger:?}");
    }
    for class in ["normal", "minor"] {
        assert!(ledger.count(class, "evicted") > 0, "{ledger:?}");
    }
    let tally = site.far.tally();
    for (device, class) in [(1, "normal"), (2, "minor")] {
        let gave_way = ledger.count(class, "evicted") + ledger.count(class, "shed");
        let missing = load.progress(device).made as usize - tally.different(device);
        assert_eq!(missing as u64, gave_way, "{ledger:?}");
    }
}
