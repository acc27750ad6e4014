//! The table `[spool]`, and what of `[[class]]` is about the disk. What the file leaves open hangs on
//! the size of the disk.

use std::time::Duration;

use super::GatewaySettings;
use super::class::Classes;
use super::reader::{Range, Reading, Section};
use super::tree::Table;
use super::units::{show_rate, show_size};
use super::uplink::RATE_MAX;
use crate::traffic::queue::Delivery;
use crate::traffic::spool::{SpoolClass, SpoolPolicy, SpoolSettings};

const MIB: u64 = 1 << 20;

/// How large a file of the spool becomes, and so the least that is given up at a time.
pub(in crate::control) const SEGMENT_BYTES: u64 = 16 * MIB;

/// The spool's folder, in the state folder.
const FOLDER: &str = "spool";

const SIZE_MAX: Range<u64> = Range {
    default: 1 << 30,
    least: 2 * SEGMENT_BYTES,
    most: 1 << 40,
    why: "the spool is files of 16MiB, and two must fit: one is read while the other is written; write \"32MiB\" or more, or name a larger disk in `state_dir`",
};

/// A class's share of the spool.
pub(super) const SPOOL_MAX: Range<u64> = Range {
    why: "the spool is files of 16MiB, and a class has two at least; write \"32MiB\" or more, or leave it out",
    ..SIZE_MAX
};

const DISK_FREE_MIN: Range<u64> = Range {
    default: 256 * MIB,
    least: 0,
    most: 1 << 40,
    why: "more than any disk of an edge box",
};

const COMMIT_INTERVAL: Range<Duration> = Range {
    default: Duration::from_millis(100),
    least: Duration::from_millis(10),
    most: Duration::from_secs(5),
    why: "shorter, and each message costs a sync of its own; longer, and senders wait for their acknowledgements",
};

/// At most what late is at most.
const SPOOL_AFTER: Range<Duration> = Range {
    default: Duration::from_secs(2),
    least: Duration::from_millis(100),
    most: Duration::from_secs(5),
    why: "shorter, and a busy link wears the disk out for nothing; longer, and senders wait too long for a word",
};

const BACKLOG_SHARE: Range<u32> = Range {
    default: 300,
    least: 50,
    most: 900,
    why: "neither the backlog nor what is live may starve",
};

const LIVE_SHARE_MIN: Range<u32> = Range {
    default: 200,
    ..BACKLOG_SHARE
};

/// `[spool]`, with the folder, the classes and the size of the disk that it is for.
pub(super) fn read(
    reading: &mut Reading<'_>,
    table: Option<Table<'_>>,
    gateway: &GatewaySettings,
    classes: &Classes,
    uplink_rate_bytes_max: Option<u64>,
) -> SpoolSettings {
    let disk = reading.surroundings.disk_bytes(&gateway.state_dir);
    let mut section = Section::open(reading, "[spool]", table);
    section.never(
        "enabled",
        "the spool cannot be switched off",
        "while the uplink takes what comes, nothing is written; `size_max` bounds it",
    );
    let settings = settings(&mut section, gateway, classes, disk);
    check_disk(&mut section, &settings, disk);
    check_shares(&mut section, &settings);
    check_replay_rate(&mut section, &settings, uplink_rate_bytes_max);
    let promised = section.has("size_max");
    section.done();
    check_classes(reading, &settings, classes, promised);
    settings
}

fn settings(
    s: &mut Section<'_, '_, '_>,
    gateway: &GatewaySettings,
    classes: &Classes,
    disk_bytes: Option<u64>,
) -> SpoolSettings {
    let size = s.optional_size("size_max", &SIZE_MAX);
    let free = s.optional_size("disk_free_min", &DISK_FREE_MIN);
    SpoolSettings {
        dir: gateway.state_dir.join(FOLDER),
        size_bytes_max: size.unwrap_or_else(|| default_size(disk_bytes)),
        disk_free_bytes_min: free.unwrap_or_else(|| default_free(disk_bytes)),
        policy: SpoolPolicy {
            commit_interval: s.time("commit_interval", &COMMIT_INTERVAL),
            spool_after: s.time("spool_after", &SPOOL_AFTER),
            backlog_share_permille: s.share("backlog_share", &BACKLOG_SHARE),
            live_share_min_permille: s.share("live_share_min", &LIVE_SHARE_MIN),
            replay_rate_bytes_max: s.optional_rate("replay_rate_max", &RATE_MAX),
        },
        classes: classes.settings.iter().map(spool_class).collect(),
        default_class: gateway.default_class,
    }
}

/// A quarter of the disk, so that what else lives on the box does too; on a tiny one the least that
/// works, which `disk_free_min` bounds.
fn default_size(disk_bytes: Option<u64>) -> u64 {
    let quarter = disk_bytes.map_or(SIZE_MAX.default, |bytes| bytes / 4);
    quarter.clamp(SIZE_MAX.least, SIZE_MAX.default)
}

fn default_free(disk_bytes: Option<u64>) -> u64 {
    let eighth = disk_bytes.map_or(DISK_FREE_MIN.default, |bytes| bytes / 8);
    eighth.min(DISK_FREE_MIN.default)
}

fn spool_class(class: &crate::traffic::queue::ClassSettings) -> SpoolClass {
    SpoolClass {
        name: class.name.clone(),
        evictable: class.delivery != Delivery::Guaranteed,
        bytes_max: class.spool_bytes_max,
    }
}

fn check_disk(s: &mut Section<'_, '_, '_>, settings: &SpoolSettings, disk_bytes: Option<u64>) {
    let Some(disk) = disk_bytes else { return };
    let (size, free) = (settings.size_bytes_max, settings.disk_free_bytes_min);
    let shown = about(disk);
    if s.has("disk_free_min") && free >= disk {
        let free = show_size(free);
        let what =
            format!("`disk_free_min` is {free}, and the disk of `state_dir` has {shown} in all");
        let hint =
            "nothing would ever be written; make it smaller, or name a larger disk in `state_dir`";
        s.fault("disk_free_min", what, hint);
    } else if s.has("size_max") && size.saturating_add(free) > disk {
        let what = format!(
            "`size_max` does not fit: the disk of `state_dir` has {shown}, of which {} stay free (`disk_free_min`)",
            about(free)
        );
        let hint = "the spool is full before that; make `size_max` smaller, or name a larger disk in `state_dir`";
        s.warn("size_max", what, hint);
    }
}

fn check_shares(s: &mut Section<'_, '_, '_>, settings: &SpoolSettings) {
    if settings.policy.backlog_share_permille + settings.policy.live_share_min_permille > 1000 {
        let what = "`backlog_share` and `live_share_min` are more than the whole link together";
        let hint = "a backlog of the first class and the others' live traffic can want both; make one smaller";
        let key = if s.has("backlog_share") {
            "backlog_share"
        } else {
            "live_share_min"
        };
        s.fault(key, what.to_owned(), hint);
    }
}

fn check_replay_rate(
    s: &mut Section<'_, '_, '_>,
    settings: &SpoolSettings,
    uplink_rate_bytes_max: Option<u64>,
) {
    if let (Some(replay), Some(uplink)) =
        (settings.policy.replay_rate_bytes_max, uplink_rate_bytes_max)
        && replay >= uplink
    {
        let what = format!(
            "`replay_rate_max` has no effect: the uplink's `rate_max` is {}",
            show_rate(uplink)
        );
        s.warn("replay_rate_max", what, "make it smaller, or take it out");
    }
}

/// The classes' shares against the whole. Where the file does not say the whole, the disk has set
/// it: then it warns, since the same file may serve larger boxes.
fn check_classes(
    reading: &mut Reading<'_>,
    settings: &SpoolSettings,
    classes: &Classes,
    promised: bool,
) {
    let whole = settings.size_bytes_max;
    let mut find = |at, what, hint: &str| match promised {
        true => reading.fault(at, what, hint),
        false => reading.warn(at, what, hint),
    };
    let shown = match promised {
        true => format!("`size_max` is {}", show_size(whole)),
        false => format!("this disk gives the spool {}", about(whole)),
    };
    let mut guaranteed = 0_u64;
    for (class, at) in classes.settings.iter().zip(&classes.spool_places) {
        let Some(share) = class.spool_bytes_max else {
            continue;
        };
        if share > whole {
            let what = format!("`spool_max` of class `{}`: {shown}", class.name);
            let hint = "a class has no more than the whole; make it smaller, or `size_max` in [spool] larger";
            find(at.clone(), what, hint);
        } else if class.delivery == Delivery::Guaranteed {
            guaranteed = guaranteed.saturating_add(share);
            if guaranteed > whole && guaranteed - share <= whole {
                let what = format!(
                    "the guaranteed classes' `spool_max` are {} together, and {shown}",
                    show_size(guaranteed)
                );
                let hint = "none of them gives way to another, so not all can have it; make one smaller, or `size_max` in [spool] larger";
                find(at.clone(), what, hint);
            }
        }
    }
}

/// A size that nobody wrote, to whole units.
pub(in crate::control) fn about(bytes: u64) -> String {
    let unit = match bytes {
        0..10_240 => 1,
        10_240..10_485_760 => 1 << 10,
        10_485_760..10_737_418_240 => MIB,
        _ => 1 << 30,
    };
    show_size(bytes / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_the_default_leave_room_on_every_disk() {
        assert_eq!(default_size(None), 1 << 30);
        assert_eq!(default_size(Some(200 << 30)), 1 << 30);
        assert_eq!(default_free(Some(200 << 30)), 256 * MIB);
        assert_eq!(default_size(Some(2 << 30)), 512 * MIB);
        for disk in [24 * MIB, 64 * MIB, 500 * MIB, 8 << 30] {
            let (size, free) = (default_size(Some(disk)), default_free(Some(disk)));
            assert!(size >= 2 * SEGMENT_BYTES && size <= (disk / 4).max(2 * SEGMENT_BYTES));
            assert!(free <= disk / 8, "{disk}");
        }
    }

    #[test]
    fn is_a_size_that_nobody_wrote_readable() {
        assert_eq!(about(270_553_161_728), "251GiB");
        assert_eq!(about(1 << 30), "1GiB");
        assert_eq!(about(24_000_000), "22MiB");
        assert_eq!(about(999), "999B");
    }
}
