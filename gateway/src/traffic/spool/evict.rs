//! Who gives way when the disk's share is full. Pure: in come sizes, out goes the one next step.
//!
//! The lowest class that may be evicted goes first, and of it the oldest segment; never a class that is
//! more urgent than the one that writes, never a guaranteed one. Below the first class nobody
//! gets the first one's reserve. The logs of dead letters stand behind all classes: they give way before
//! anything that has yet to be sent.

use super::{SpoolClass, class_of_log};
use crate::traffic::message::ClassId;

/// Kept free beside what blocks need: two commits' worth of what redb writes anew each time (its
/// tree, a head of many pieces), in several files.
pub(super) const HEADROOM_BYTES: u64 = 1024 * 1024;

/// The first class's part of the whole that the others leave free.
const RESERVE_PART: u64 = 8;

/// The part of the whole that all dead letters together may take: an upstream that refuses everything
/// must leave the disk to outages. Of the default it is 128 MiB, many hundred thousand readings.
const DEAD_PART: u64 = 8;

/// One segment, as far as room is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    pub(super) segment: u32,
    pub(super) class: ClassId,
    pub(super) bytes: u64,
    /// Blocks of it wait for their commit: it cannot go now.
    pub(super) busy: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) class: ClassId,
    /// Where the block goes: the last of its class to give way.
    pub(super) segment: u32,
    pub(super) bytes: u64,
}

/// The bounds, and what beside the segments is held against them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) size_bytes_max: u64,
    pub(super) classes: &'a [SpoolClass],
    /// Files that were set aside, and the ballast.
    pub(super) other_bytes: u64,
    /// What may still be taken of the file system's free space.
    pub(super) spare_bytes: u64,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room.
    Free,
    /// This segment gives way, then ask again.
    Evict(u32),
    /// There is none, and nothing may give way.
    Full,
}

/// Whether there is room for `wanted` beside the `holdings`, which are in the order of their numbers.
pub(super) fn room(holdings: &[Holding], wanted: Wanted, bounds: Bounds<'_>) -> Room {
    let held = |of: &dyn Fn(ClassId) -> bool| -> u64 {
        let those = holdings.iter().filter(|holding| of(holding.class));
        those.map(|holding| holding.bytes).sum()
    };
    let class = |id: ClassId| bounds.classes.get(id.index());
    let is_dead = |id: ClassId| class(id).is_none();
    let share = match is_dead(wanted.class) {
        true => Some(bounds.size_bytes_max / DEAD_PART),
        false => class(wanted.class).and_then(|class| class.bytes_max),
    };
    let share = share.unwrap_or(u64::MAX);
    if wanted.bytes > share {
        // It would take the place of all others in vain.
        return Room::Full;
    }
    if is_dead(wanted.class) && held(&is_dead) + wanted.bytes > share {
        return victim(holdings, wanted, bounds.classes, is_dead);
    }
    if held(&|id| id == wanted.class) + wanted.bytes > share {
        return victim(holdings, wanted, bounds.classes, |id| id == wanted.class);
    }
    let reserve = match wanted.class {
        ClassId::FIRST => 0,
        _ => {
            (bounds.size_bytes_max / RESERVE_PART).saturating_sub(held(&|id| id == ClassId::FIRST))
        }
    };
    let taken = held(&|_| true) + bounds.other_bytes + wanted.bytes + HEADROOM_BYTES + reserve;
    if taken <= bounds.size_bytes_max && wanted.bytes + HEADROOM_BYTES <= bounds.spare_bytes {
        return Room::Free;
    }
    // A dead letter gives way before any class, and takes the place of those below its own.
    let (own, _) = class_of_log(wanted.class, bounds.classes.len());
    victim(holdings, wanted, bounds.classes, |id| {
        id > own || id >= wanted.class
    })
}

fn victim(
    holdings: &[Holding],
    wanted: Wanted,
    classes: &[SpoolClass],
    among: impl Fn(ClassId) -> bool,
) -> Room {
    let may_go = |holding: &&Holding| {
        let class = classes.get(holding.class.index());
        !holding.busy && among(holding.class) && class.is_none_or(|class| class.evictable)
    };
    let last_of_its_class = |holding: &Holding| holding.segment == wanted.segment;
    let victim = holdings.iter().filter(may_go).min_by_key(|holding| {
        let lowest_first = u8::MAX - holding.class.0;
        (lowest_first, last_of_its_class(holding), holding.segment)
    });
    victim.map_or(Room::Full, |holding| Room::Evict(holding.segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn classes() -> Vec<SpoolClass> {
        let class = |name: &str, evictable, bytes_max| SpoolClass {
            name: name.into(),
            evictable,
            bytes_max,
        };
        vec![
            class("critical", false, None),
            class("normal", true, None),
            class("low", true, Some(20 * MIB)),
        ]
    }

    fn holding(segment: u32, class: u8, mib: u64) -> Holding {
        Holding {
            segment,
            class: ClassId(class),
            bytes: mib * MIB,
            busy: false,
        }
    }

    fn ask(holdings: &[Holding], class: u8, segment: u32, mib: u64) -> Room {
        let wanted = Wanted {
            class: ClassId(class),
            segment,
            bytes: mib * MIB,
        };
        let bounds = Bounds {
            size_bytes_max: 80 * MIB,
            classes: &classes(),
            other_bytes: 0,
            spare_bytes: u64::MAX,
        };
        room(holdings, wanted, bounds)
    }

    #[test]
    fn does_the_lowest_class_give_way_first_and_of_it_the_oldest() {
        let full = [
            holding(1, 1, 16),
            holding(2, 2, 4),
            holding(3, 1, 16),
            holding(4, 2, 4),
            holding(5, 0, 36),
        ];
        assert_eq!(ask(&full, 0, 5, 8), Room::Evict(2));
        assert_eq!(ask(&full[2..], 0, 5, 30), Room::Evict(4));
        assert_eq!(ask(&full, 1, 3, 8), Room::Evict(2));
        // The lowest class takes nothing from the one above.
        assert_eq!(ask(&full, 2, 4, 8), Room::Evict(2));
        let only_normal = [holding(1, 1, 40), holding(5, 0, 36)];
        assert_eq!(ask(&only_normal, 2, 6, 4), Room::Full);
        assert_eq!(ask(&only_normal, 1, 1, 4), Room::Evict(1));
    }

    #[test]
    fn does_a_guaranteed_class_never_give_way() {
        let full = [holding(1, 0, 70), holding(2, 0, 9)];
        assert_eq!(ask(&full, 0, 2, 1), Room::Full);
        assert_eq!(ask(&full, 1, 3, 1), Room::Full);
        assert_eq!(ask(&full[..1], 0, 2, 1), Room::Free);
    }

    #[test]
    fn is_the_first_classs_reserve_left_alone() {
        let normal = [holding(1, 1, 68)];
        assert_eq!(ask(&normal, 1, 2, 1), Room::Free);
        assert_eq!(ask(&normal, 1, 2, 2), Room::Evict(1));
        assert_eq!(ask(&normal, 0, 2, 11), Room::Free);
    }

    #[test]
    fn does_a_class_at_its_own_bound_give_way_to_itself() {
        let low = [holding(1, 2, 12), holding(2, 2, 8), holding(3, 1, 8)];
        assert_eq!(ask(&low, 2, 2, 1), Room::Evict(1));
        // The one that is appended to goes last, and only if it is the only one.
        assert_eq!(ask(&low, 2, 1, 1), Room::Evict(2));
        assert_eq!(ask(&[holding(2, 2, 20)], 2, 2, 1), Room::Evict(2));
        let busy = Holding {
            busy: true,
            ..holding(2, 2, 20)
        };
        assert_eq!(ask(&[busy], 2, 2, 1), Room::Full);
    }

    #[test]
    fn do_dead_letters_give_way_first_and_stay_within_their_share() {
        // Class 3 is the log of the dead letters of the first class, 5 that of the last.
        let full = [
            holding(1, 3, 2),
            holding(2, 2, 20),
            holding(3, 1, 47),
            holding(4, 5, 1),
        ];
        assert_eq!(ask(&full, 0, 9, 12), Room::Evict(4));
        assert_eq!(ask(&full[..3], 0, 9, 12), Room::Evict(1));
        assert_eq!(ask(&full, 2, 2, 1), Room::Evict(2), "its own bound");
        // They take the place of what is below their class, and of nothing else.
        let live = [holding(2, 2, 20), holding(3, 1, 49)];
        assert_eq!(ask(&live, 3, 9, 2), Room::Evict(2));
        assert_eq!(ask(&live, 5, 9, 2), Room::Full);
        let dead = [holding(1, 3, 5), holding(2, 5, 2), holding(3, 3, 2)];
        assert_eq!(ask(&dead, 3, 3, 1), Room::Free);
        assert_eq!(ask(&dead, 3, 3, 2), Room::Evict(2));
        assert_eq!(ask(&dead[..1], 3, 3, 6), Room::Evict(1));
    }

    #[test]
    fn does_what_is_larger_than_its_share_take_nobodys_place() {
        let dead = [holding(1, 3, 5), holding(2, 2, 16)];
        assert_eq!(ask(&dead, 3, 9, 10), Room::Evict(1));
        assert_eq!(ask(&dead, 3, 9, 11), Room::Full);
        assert_eq!(ask(&dead, 2, 9, 20), Room::Evict(2));
        assert_eq!(ask(&dead, 2, 9, 21), Room::Full);
    }

    #[test]
    fn does_a_file_system_without_space_count_as_a_full_share() {
        let bounds = Bounds {
            size_bytes_max: 80 * MIB,
            classes: &classes(),
            other_bytes: 0,
            spare_bytes: MIB,
        };
        let wanted = Wanted {
            class: ClassId(1),
            segment: 2,
            bytes: 1,
        };
        assert_eq!(room(&[holding(1, 1, 1)], wanted, bounds), Room::Evict(1));
        assert_eq!(room(&[], wanted, bounds), Room::Full);
    }
}
