//! Flash wears out: with the uplink well, does a guaranteed message ever touch the disk, on a fast
//! link and on a satellite's?

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::spool_load::{Load, Sender};
use crate::spool_site::{HOME, SpoolSite, bytes_in, say, whole};

/// Devices, and what they send together in a second.
const DEVICES: u32 = 20;
const EACH_SECOND: u32 = 5_000;
/// Nothing is late before this (`spool_after`, the default); a machine on which an acknowledgement
/// takes nearly as long says nothing about the gateway.
const SPOOL_AFTER: Duration = Duration::from_secs(2);
/// How often a machine that was too busy is asked again.
const TRIES: usize = 4;

#[test]
fn does_a_fast_uplink_keep_5000_guaranteed_messages_a_second_off_the_disk() {
    nothing_is_written_at(Duration::from_millis(1));
}

#[test]
fn does_a_satellite_uplink_keep_5000_guaranteed_messages_a_second_off_the_disk() {
    nothing_is_written_at(Duration::from_millis(300));
}

/// What one run came to.
struct Run {
    written_bytes: u64,
    grown_bytes: u64,
    sent: u32,
    slowest: Duration,
}

fn nothing_is_written_at(round_trip: Duration) {
    let duration = Duration::from_secs(if whole() { 60 } else { 8 });
    for _ in 0..TRIES {
        let run = run_at(round_trip, duration);
        let Run {
            written_bytes,
            grown_bytes,
            sent,
            slowest,
        } = run;
        let figures = format!(
            "round trip {round_trip:?}: {sent} guaranteed messages in {duration:?}, slowest \
             acknowledgement {slowest:?}, {written_bytes} bytes written, spool grown by {grown_bytes}"
        );
        say(&figures);
        if written_bytes == 0 && grown_bytes == 0 {
            // A machine that did not keep the pace says nothing either.
            if sent >= EACH_SECOND * duration.as_secs() as u32 * 9 / 10 {
                return;
            }
        } else {
            assert!(slowest >= late(round_trip) / 2, "{figures}");
        }
    }
    say(&format!(
        "SKIPPED: this machine was {TRIES} times too busy to acknowledge {EACH_SECOND} messages a \
         second at a round trip of {round_trip:?}; nothing is known of writes in good times"
    ));
}

/// When a message counts as late.
fn late(round_trip: Duration) -> Duration {
    SPOOL_AFTER.max(4 * round_trip)
}

fn run_at(round_trip: Duration, duration: Duration) -> Run {
    let site = SpoolSite::new();
    site.wait_connected();
    site.proxy.forget();
    site.proxy.delay(round_trip / 2);
    let senders: Vec<_> = (0..DEVICES)
        .map(|device| {
            let topic = ["alarm", "sure"][device as usize % 2];
            Sender::to(&format!("{topic}/{device}"))
                .window(250)
                .each_second(EACH_SECOND / DEVICES)
        })
        .collect();
    // The window follows the acknowledgement time from its first moments on.
    let warm = Load::start(site.port(), &senders);
    warm.wait_answered(EACH_SECOND, HOME);
    warm.wait_all_answered(HOME);
    drop(warm);
    let written = site.gateway.written_bytes();
    let held = bytes_in(&site.spool());
    let load = Load::start(site.port(), &senders);
    let end = Instant::now() + duration;
    sleep(end.saturating_duration_since(Instant::now()));
    let sent = load.answered();
    load.wait_all_answered(HOME);
    Run {
        written_bytes: site.gateway.written_bytes() - written,
        grown_bytes: bytes_in(&site.spool()).saturating_sub(held),
        sent,
        slowest: load.slowest(),
    }
}
