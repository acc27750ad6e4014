//! A week in a device's life, in simulated time: a link that comes and goes, a far end that forgets
//! sessions, alarms now and then. It must take seconds.

use std::time::Duration;

use crate::far_end::{self, FarEnd, THRESHOLD, settings};
use tidegate_device::chance::Chance;
use tidegate_device::{Channel, Device, Kind, Tick, Value};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

#[test]
fn is_nothing_unaccounted_for_after_a_week() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }; 4];
    let mut device = Device::new(&settings(&channels, true));
    let mut far_end = FarEnd::default();
    let mut chance = Chance::new(11);
    let (mut now, end) = (Tick::ZERO, Tick::ZERO.after(WEEK));
    let mut link_changes = Tick::ZERO;
    while now < end {
        now = device.next_due();
        if now >= link_changes {
            link_changes = now.after(Duration::from_secs(chance.up_to(7_200)));
            if chance.in_a_million(300_000) {
                far_end.break_link(&mut device, now);
            } else {
                far_end.mend(chance.in_a_million(500_000));
            }
        }
        let hot = chance.in_a_million(300);
        far_end::sample(&mut device, now, |_| {
            Value(if hot { 95_000 } else { 20_000 })
        });
        let answers = chance.up_to(3) as usize;
        far_end.turn(&mut device, now, answers);
    }
    far_end.mend(true);
    for _ in 0..100 {
        now = now.after(Duration::from_secs(1));
        far_end.turn(&mut device, now, usize::MAX);
    }

    let counts = device.counts();
    assert!(device.is_idle());
    assert_eq!(counts.reading.made, 4 * (7 * 24 * 3_600 + 1));
    assert!(counts.alarm.made > 500, "{counts:?}");
    assert!(
        counts.reading.superseded > 0 && counts.reading.resent > 0,
        "{counts:?}"
    );
    assert_eq!(
        far_end.distinct(Kind::Alarm),
        counts.alarm.made - counts.alarm.dropped
    );
    assert_eq!(
        far_end.distinct(Kind::Reading),
        counts.reading.made - counts.reading.superseded
    );
}
