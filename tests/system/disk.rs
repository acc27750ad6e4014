//! A disk that is full or broken, on real file systems of 24 MiB: does the gateway run on, acknowledge
//! nothing that is not safe, forward alarms meanwhile, and recover by itself when there is room again?

use std::time::{Duration, Instant};

use crate::broker::Stop;
use crate::device::Device;
use crate::disk_mount::{Kind, Mount};
use crate::fleet::{Fleet, Plan, wait_held};
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

/// The first level of topics of both guaranteed classes.
const GUARANTEED: [&str; 2] = ["alarm", "sure"];

/// Each fleet gets so many more answers.
#[track_caller]
fn all_more_answered(fleets: &mut [Fleet], count: u64) {
    for fleet in fleets {
        fleet.wait_more_answered(count, HOME);
    }
}

/// Messages are safe on disk again: an outage's are acknowledged in it.
#[track_caller]
fn disk_is_well_again(site: &mut SpoolSite) {
    site.outage();
    let mut fleet = site.play(&Plan::to("sure/again").messages(125));
    fleet.wait_all_answered(HOME);
    site.recover();
    fleet.finish_at_home(HOME);
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
    let plan = |topic| Plan::to(topic).payload_bytes(4_000);
    let values = site.play(&plan("value").per_second(125));
    let mut fleets = [plan("alarm").per_second(25), plan("sure")].map(|plan| site.play(&plan));
    wait_held(&fleets.each_ref(), QUIET, 3 * HOME);
    assert!(
        site.gateway.runs(),
        "the disk is full, and the gateway ended"
    );
    let bytes = fleets.iter().map(Fleet::answered).sum::<u64>() * 4_000;
    say(&format!(
        "{kind:?} of 24 MiB: {} MiB of guaranteed messages acknowledged",
        bytes >> 20
    ));
    assert!(bytes > 6 << 20, "{bytes} bytes fit");
    // With nothing left it is killed, and starts again.
    site.gateway.kill();
    drop(values);
    fleets.iter_mut().for_each(Fleet::stop);
    site.begin();
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    for fleet in fleets {
        fleet.finish_at_home(2 * HOME);
    }
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
    let plan = |topic| Plan::to(topic).payload_bytes(2_000).per_second(250);
    let mut fleets = GUARANTEED.map(|topic| site.play(&plan(topic)));
    all_more_answered(&mut fleets, 250);
    let stranger = mount.fill();
    wait_held(&fleets.each_ref(), QUIET, HOME);
    assert!(
        site.gateway.runs(),
        "the disk is full, and the gateway ended"
    );
    site.gateway
        .wait_for_line_with(&["no space", "full", "room"], SOON);
    // The uplink's word is enough, disk or no disk.
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    all_more_answered(&mut fleets, 500);
    site.outage();
    wait_held(&fleets.each_ref(), QUIET, HOME);
    drop(stranger);
    // By itself, still in the outage.
    all_more_answered(&mut fleets, 500);
    for fleet in &mut fleets {
        fleet.wait_all_answered(HOME);
    }
    site.recover();
    for fleet in fleets {
        fleet.finish_at_home(HOME);
    }
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
    let mut fleets = GUARANTEED.map(|topic| site.play(&Plan::to(topic).per_second(75)));
    all_more_answered(&mut fleets, 250);
    if let Err(why) = mount.break_down() {
        say(&format!(
            "SKIPPED: nothing is known of a read-only file system: {why}"
        ));
        return;
    }
    wait_held(&fleets.each_ref(), QUIET, HOME);
    assert!(site.gateway.runs(), "the disk broke, and the gateway ended");
    site.gateway
        .wait_for_line_with(&["read-only", "read only", "input/output"], SOON);
    // What cannot be settled on this disk may be sent again after it is repaired, not lost.
    site.recover();
    alarm_is_forwarded(&mut site, 0);
    all_more_answered(&mut fleets, 250);
    site.outage();
    wait_held(&fleets.each_ref(), QUIET, HOME);
    // Only a repair helps, for which the gateway has to let go of its files.
    site.gateway.signal("TERM");
    site.gateway.wait_for_end(SOON);
    mount.repair();
    site.begin();
    for fleet in &mut fleets {
        fleet.wait_all_answered(HOME);
    }
    site.recover();
    for fleet in fleets {
        fleet.finish_at_home(HOME);
    }
    disk_is_well_again(&mut site);
    site.end(Stop::Clean);
}
