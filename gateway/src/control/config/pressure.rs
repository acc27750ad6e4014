//! When a class, or the memory, is under pressure: thresholds that begin it and thresholds that end it.

use std::fmt::Display;
use std::time::Duration;

use super::reader::{Range, Section};
use super::units;
use crate::traffic::queue::pressure::PressureSettings;

const FULL_ON: Range<u32> = Range {
    default: PressureSettings::CLASS.full_on_permille,
    least: 50,
    most: 1000,
    why: "a part of `queue_max`: below 0.05 a burst would begin it, 1.0 is full",
};

const FULL_OFF: Range<u32> = Range {
    default: PressureSettings::CLASS.full_off_permille,
    least: 10,
    most: 990,
    why: "a part of `queue_max`, below `pressure_on`",
};

const AGE_ON: Range<Duration> = Range {
    default: PressureSettings::CLASS.age_on,
    least: Duration::from_millis(100),
    most: Duration::from_secs(86_400),
    why: "pressure is looked for ten times a second",
};

const AGE_OFF: Range<Duration> = Range {
    default: PressureSettings::CLASS.age_off,
    least: Duration::from_millis(10),
    most: Duration::from_secs(86_400),
    why: "below `pressure_age_on`; a link's own time must fit in it",
};

const STAY: Range<Duration> = Range {
    default: PressureSettings::CLASS.stay,
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    why: "shorter, the level would flap; longer, full fidelity would not come back",
};

const MEMORY_ON: Range<u32> = Range {
    default: PressureSettings::MEMORY.full_on_permille,
    least: 50,
    most: 875,
    why: "a part of `memory_max`, of which the classes below the first have seven eighths (0.875)",
};

const MEMORY_OFF: Range<u32> = Range {
    default: PressureSettings::MEMORY.full_off_permille,
    least: 10,
    most: 870,
    why: "a part of `memory_max`, below `memory_pressure_on`",
};

/// A class's thresholds. One that is not said follows the other: the off half of the on, or a quarter of the
/// age, as the defaults do.
pub(super) fn class(s: &mut Section<'_, '_, '_>) -> PressureSettings {
    let full_on_permille = s.share("pressure_on", &FULL_ON);
    let half = Range {
        default: full_on_permille / 2,
        ..FULL_OFF
    };
    let age_on = s.time("pressure_age_on", &AGE_ON);
    let quarter = Range {
        default: age_on / 4,
        ..AGE_OFF
    };
    let pressure = PressureSettings {
        full_on_permille,
        full_off_permille: s.share("pressure_off", &half),
        age_on,
        age_off: s.time("pressure_age_off", &quarter),
        stay: s.time("pressure_stay", &STAY),
    };
    apart(
        s,
        ["pressure_on", "pressure_off"],
        [pressure.full_on_permille, pressure.full_off_permille],
        units::show_share,
    );
    apart(
        s,
        ["pressure_age_on", "pressure_age_off"],
        [pressure.age_on, pressure.age_off],
        units::show_time,
    );
    pressure
}

/// The memory's.
pub(super) fn memory(s: &mut Section<'_, '_, '_>) -> PressureSettings {
    let full_on_permille = s.share("memory_pressure_on", &MEMORY_ON);
    let two_thirds = Range {
        default: full_on_permille * 2 / 3,
        ..MEMORY_OFF
    };
    let pressure = PressureSettings {
        full_on_permille,
        full_off_permille: s.share("memory_pressure_off", &two_thirds),
        ..PressureSettings::MEMORY
    };
    apart(
        s,
        ["memory_pressure_on", "memory_pressure_off"],
        [pressure.full_on_permille, pressure.full_off_permille],
        units::show_share,
    );
    pressure
}

/// What ends pressure lies below what begins it.
fn apart<T: Copy + Ord, S: Display>(
    s: &mut Section<'_, '_, '_>,
    [on_key, off_key]: [&'static str; 2],
    [on, off]: [T; 2],
    show: fn(T) -> S,
) {
    if off < on {
        return;
    }
    let (on, off) = (show(on), show(off));
    let what =
        format!("`{off_key}` is {off}, and `{on_key}` is {on}: pressure would never end, or flap");
    s.fault(
        off_key,
        what,
        format!("write less than {on}: half of it leaves room between the two"),
    );
}
