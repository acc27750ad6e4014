//! One device goes mad and sends as fast as it can, in each class in turn: do the others' alarms and
//! readings wait for it? Figures are printed; what is asserted leaves room for a busy machine and a
//! build without optimization.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::{Device, dial};
use crate::site::Site;
use crate::wait::SOON;
use crate::wire::{Connect, Publish, Version};

const OTHERS: usize = 10;
const ROUNDS: u32 = 60;
const ROUND: Duration = Duration::from_millis(50);

/// How long the others waited for each alarm and for each reading, sorted.
fn beside_a_flood(topic: &str) -> [Vec<Duration>; 2] {
    let mut site = Site::new();
    let address = ([127, 0, 0, 1], site.port()).into();
    let (mut stream, _) = dial(address, &Connect::new(Version::V311, "mad"), SOON).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flood =
        {
            let packets = Publish::new(topic, "x".repeat(60), 0)
                .encode(Version::V311)
                .repeat(500);
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && stream.write_all(&packets).is_ok() {}
            })
        };
    let name = |n| format!("d{n}");
    let mut others: Vec<_> = (0..OTHERS)
        .map(|n| Device::new(site.port(), Version::V311, &name(n)))
        .collect();
    let (start, mut sent) = (Instant::now(), Vec::new());
    for round in 0..ROUNDS {
        let due = start + ROUND * round;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push(Instant::now());
        for device in &mut others {
            device.publish("value/other", format!("{round}"), 1);
            if round % 10 == 0 {
                device.publish("alarm/other", format!("{round}"), 1);
            }
        }
    }
    for device in &others {
        device.wait_all_answered(SOON);
    }
    stop.store(true, Ordering::Relaxed);
    let delays = ["alarm/other", "value/other"].map(|topic| {
        let answered = others.iter().flat_map(Device::answered);
        let of_topic = answered.filter(|answered| answered.publish.topic == topic);
        let mut delays: Vec<_> = of_topic
            .map(|answered| {
                let round: usize = answered.publish.text().parse().unwrap();
                answered.at.duration_since(sent[round])
            })
            .collect();
        delays.sort_unstable();
        delays
    });
    for (what, delays) in ["alarms", "readings"].iter().zip(&delays) {
        let of = |permille: usize| delays[(delays.len() * permille / 1000).min(delays.len() - 1)];
        println!(
            "a flood on {topic}: {what} p50 {:?}, p99 {:?}",
            of(500),
            of(990)
        );
    }
    let lines = site.gateway.lines().len();
    assert!(lines < 80, "{lines} lines in the log");
    site.gateway.kill();
    flood.join().unwrap();
    delays
}

#[track_caller]
fn check(delays: &[Vec<Duration>; 2]) {
    for delays in delays {
        let p90 = delays[delays.len() * 9 / 10];
        assert!(p90 < Duration::from_millis(800), "{p90:?}");
    }
}

#[test]
fn do_others_wait_for_a_flood_of_values() {
    check(&beside_a_flood("low/mad"));
}

#[test]
fn do_others_wait_for_a_flood_in_a_class_that_is_acknowledged_when_taken() {
    check(&beside_a_flood("value/mad"));
}

#[test]
fn do_others_wait_for_a_flood_of_alarms() {
    check(&beside_a_flood("alarm/mad"));
}
