//! A disk that is full or broken, on real file systems of 24 MiB: does the gateway run on, acknowledge
//! nothing that is not safe, forward alarms meanwhile, and recover by itself when there is room again?

use std::time::{Duration, Instant};

use crate::broker::Stop;
use crate::device::Device;
use crate::disk_mount::{Kind, Mount};
use crate::spool_load::{Load, Sender};
use crate::spool_site::{HOME, SpoolSite, say};
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// Answers that stand still for so long do not come any more: twenty times the commit interval.
const QUIET: Duration = Duration::from_secs(2);
/// An alarm that waits for the disk would take longer.
const FORWARDED_IN: Duration = Duration::from_secs(3);

/// The file system, unless it cannot be had: that is said, beside the tests' captured output.
fn mount(kind: Kind) -> Option<Mount> {
    match Mount::new(kind) {
        Ok(mount) => Some(mount),
        Err(why) => {
            say(&format!(
                "SKIPPED: nothing is known of a full {kind:?}: {why}"
            ));
            None
        }
    }
}

/// A site whose state is there, with a quota that the file system cannot hold.
fn site_on(mount: &Mount) -> SpoolSite {
    SpoolSite::with(|configuration| {
        configuration
            .state_dir(&mount.path().join("state"))
            .section("[spool]\nsize_max = \"64MiB\"\ndisk_free_min = \"0B\"")
    })
}

/// An alarm goes through, now, whatever the disk does.
#[track_caller]
fn alarm_is_forwarded(site: &mut SpoolSite, number: u32) {
    let mut device = Device::new(site.port(), Version::V5, "bell");
    let start = Instant::now();
    let text = format!("009 {number:08}");
    assert!(device.publish_and_wait("alarm/bell", text, 1) < 0x80);
    let took = start.elapsed();
    assert!(took < FORWARDED_IN, "the alarm took {took:?}");
    wait_until("the alarm arrives", SOON, || {
        site.far.tally().arrivals(9, number) > 0
    });
}

/// Messages are safe on disk again: an outage's are acknowledged in it.
#[track_caller]
fn disk_is_well_again(site: &mut SpoolSite) {
    site.outage();
    let load = Load::numbered(site.port(), 20, &[Sender::to("sure/again").count(500)]);
    load.wait_all_answered(HOME);
    site.recover();
    site.far.wait_for_all(&load, &[20], HOME);
}

#[test]
fn does_a_tmpfs_that_the_backlog_fills_cost_nothing_acknowledged() {
    filled_by_the_backlog(Kind::Tmpfs);
}

#[test]
fn does_an_ext4_that_the_backlog_fills_cost_nothing_acknowledged() {
    filled_by_the_backlog(Kind::Ext4);
}

fn filled_by_the_backlog(kind: Kind) {
    let Some(mount) = mount(kind) else { return };
    let mut site = site_on(&mount);
    site.outage();
    let senders = [
        Sender::to("alarm/a").payload_bytes(4_000).each_second(100),
        Sender::to("sure/a").payload_bytes(4_000),
        Sender::to("value/a").payload_bytes(4_000).each_second(500),
    ];
    let load = Load::start(site.port(), &senders);
    load.wait_stuck_at(&[0, 1], QUIET, 3 * HOME);
    assert!(
        site.gateway.runs(),
        "the disk is full, and the gateway ended"
    );
    let bytes = u64::from(load.answered_by(&[0, 1])) * 4_000;
    say(&format!(
        "{kind:?} of 24 MiB: {} MiB of guaranteed messages acknowledged",
        bytes >> 20
    ));
    assert!(bytes > 6 << 20, "{bytes} bytes fit");
    // With nothing left it is killed, and starts again.
    site.gateway.kill();
    load.go_to(0);
    site.begin();
    load.pause();
    load.go_to(site.port());
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    load.wait_all_answered(2 * HOME);
    site.far.wait_for_all(&load, &[0, 1], HOME);
    disk_is_well_again(&mut site);
    let ledger = site.terminate();
    assert_eq!(ledger.total("on_disk"), 0, "{ledger:?}");
}

#[test]
fn does_a_tmpfs_that_a_stranger_fills_cost_nothing_acknowledged() {
    filled_by_a_stranger(Kind::Tmpfs);
}

#[test]
fn does_an_ext4_that_a_stranger_fills_cost_nothing_acknowledged() {
    filled_by_a_stranger(Kind::Ext4);
}

fn filled_by_a_stranger(kind: Kind) {
    let Some(mount) = mount(kind) else { return };
    let mut site = site_on(&mount);
    site.outage();
    let topics = ["alarm/a", "sure/a"];
    let load = Load::start(
        site.port(),
        &topics.map(|topic| Sender::to(topic).payload_bytes(2_000).each_second(1_000)),
    );
    load.wait_answered(500, HOME);
    let stranger = mount.fill();
    load.wait_stuck_at(&[0, 1], QUIET, HOME);
    assert!(
        site.gateway.runs(),
        "the disk is full, and the gateway ended"
    );
    site.gateway
        .wait_for_line_with(&["no space", "full", "room"], SOON);
    // The uplink's word is enough, disk or no disk.
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    let before = load.answered();
    load.wait_answered(before + 1_000, HOME);
    site.outage();
    load.wait_stuck_at(&[0, 1], QUIET, HOME);
    drop(stranger);
    // By itself, still in the outage.
    let before = load.answered();
    load.wait_answered(before + 1_000, HOME);
    load.wait_all_answered(HOME);
    site.recover();
    site.far.wait_for_all(&load, &[0, 1], HOME);
    disk_is_well_again(&mut site);
    let ledger = site.terminate();
    assert_eq!(ledger.total("on_disk"), 0, "{ledger:?}");
}

#[test]
fn does_a_file_system_that_turns_read_only_cost_nothing_acknowledged() {
    let Some(mut mount) = mount(Kind::Ext4) else {
        return;
    };
    let mut site = site_on(&mount);
    site.outage();
    let load = Load::start(
        site.port(),
        &["alarm/a", "sure/a"].map(|topic| Sender::to(topic).each_second(300)),
    );
    load.wait_answered(500, HOME);
    if let Err(why) = mount.break_down() {
        say(&format!(
            "SKIPPED: nothing is known of a read-only file system: {why}"
        ));
        return;
    }
    load.wait_stuck_at(&[0, 1], QUIET, HOME);
    assert!(site.gateway.runs(), "the disk broke, and the gateway ended");
    site.gateway
        .wait_for_line_with(&["read-only", "read only", "input/output"], SOON);
    // What cannot be settled on this disk may be sent again after it is repaired, not lost.
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    let before = load.answered();
    load.wait_answered(before + 500, HOME);
    site.outage();
    load.wait_stuck_at(&[0, 1], QUIET, HOME);
    // Only a repair helps, for which the gateway has to let go of its files.
    site.gateway.signal("TERM");
    load.go_to(0);
    site.gateway.wait_for_end(SOON);
    mount.repair();
    site.begin();
    load.go_to(site.port());
    load.wait_all_answered(HOME);
    site.recover();
    site.far.wait_for_all(&load, &[0, 1], HOME);
    disk_is_well_again(&mut site);
    site.end(Stop::Clean);
}
