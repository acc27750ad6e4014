//! Flash wears out: with the uplink well, does a guaranteed message ever touch the disk, on a fast
//! link and on a satellite's?

use std::thread::sleep;
use std::time::{Duration, Instant};

use firmware_sim::Kind;

use crate::fleet::{Fleet, Plan};
use crate::spool_site::{HOME, SpoolSite, bytes_in, say, whole};

/// Devices, half of them of each guaranteed class, and what they send together in a second. A device has 28
/// messages on their way at most, which at 50 a second is more than half a second.
const DEVICES: u32 = 100;
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
    sent: u64,
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
            if sent >= u64::from(EACH_SECOND) * duration.as_secs() * 9 / 10 {
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
    let plan = |topic| {
        let plan = Plan::to(topic).devices(DEVICES / 2);
        plan.per_second(EACH_SECOND / DEVICES)
    };
    let plans = ["alarm", "sure"].map(plan);
    // The window follows the acknowledgement time from its first moments on.
    for mut fleet in plans.each_ref().map(|plan| site.play(plan)) {
        fleet.wait_answered(u64::from(EACH_SECOND / 2), HOME);
        fleet.finish_at_home(HOME);
    }
    let written = site.gateway.written_bytes();
    let held = bytes_in(&site.spool());
    let fleets = plans.each_ref().map(|plan| site.play(plan));
    let end = Instant::now() + duration;
    sleep(end.saturating_duration_since(Instant::now()));
    let sent = fleets.iter().map(Fleet::answered).sum();
    let slowest = fleets.map(|mut fleet| {
        fleet.wait_all_answered(HOME);
        let pace = fleet.finish().pace;
        let answered = Kind::ALL.map(|kind| pace.answered.of(kind).max());
        // Counted from when a sample was due: what the devices were late by is none of the gateway's.
        let slowest = answered.into_iter().max().unwrap_or(0);
        slowest.saturating_sub(pace.late.max())
    });
    Run {
        written_bytes: site.gateway.written_bytes() - written,
        grown_bytes: bytes_in(&site.spool()).saturating_sub(held),
        sent,
        slowest: Duration::from_micros(slowest.into_iter().max().unwrap_or(0)),
    }
}
