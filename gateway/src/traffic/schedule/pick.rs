//! Which message goes next: the first class, strictly; the others by their shares. What is live and
//! what is backlog each keep a least share: a backlog beside live traffic, and the others' live
//! traffic beside a backlog of the first class.

use super::super::message::{ClassId, Tick};
use super::super::snapshot::{QueueSnapshot, Source};
use super::bucket::Bucket;
use super::share::Shares;

/// What goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Of which class.
    pub class: ClassId,
    /// Live or from the spool.
    pub source: Source,
    /// It is backlog that goes beside its class's live messages.
    pub beside: bool,
}

/// The state of all shares.
#[derive(Debug)]
pub struct Schedule {
    /// The classes' own turns.
    own: Shares,
    /// What goes beside them.
    beside: Shares,
    /// The classes' own turns against what goes beside them.
    sides: Shares,
    /// A backlog of the first class against the own turns of the rest.
    first: Shares,
    /// Bytes of backlog a second.
    replay: Option<Bucket>,
    /// The classes whose backlog is stopped.
    paused: Vec<bool>,
}

/// The least shares, in 1/1000.
#[derive(Clone, Copy, Debug)]
pub struct LeastShares {
    /// Of the backlog.
    pub backlog: u32,
    /// Of live traffic beside a backlog of the first class.
    pub live: u32,
}

const OWN: usize = 0;
const BESIDE: usize = 1;
const WHOLE: u32 = 1000;

impl Schedule {
    /// For classes with these weights; `replay_rate_max` bounds the backlog's bytes a second.
    #[must_use]
    pub fn new(weights: &[u32], least: LeastShares, replay_rate_max: Option<u64>) -> Self {
        let sides = |second: u32| Shares::new([WHOLE.saturating_sub(second), second]);
        Self {
            own: Shares::new(weights.iter().copied()),
            beside: Shares::new(weights.iter().copied()),
            sides: sides(least.backlog),
            first: sides(least.live),
            replay: replay_rate_max.map(|rate| Bucket::new(rate, Tick::ZERO)),
            paused: vec![false; weights.len()],
        }
    }

    /// The next message among these classes; `admits` says whether the connection takes one of a class.
    pub fn pick(
        &mut self,
        classes: &[QueueSnapshot],
        now: Tick,
        mut admits: impl FnMut(ClassId) -> bool,
    ) -> Option<Pick> {
        let first = classes.first()?;
        if first.own == Some(Source::Live) && admits(ClassId::FIRST) {
            return Some(Pick::own(ClassId::FIRST, Source::Live));
        }
        let replays = self.replays(now);
        let backlog = replays
            && !self.is_paused(ClassId::FIRST)
            && (first.own == Some(Source::Backlog) || first.beside);
        let own = self.pick_own(classes, replays);
        if backlog && admits(ClassId::FIRST) {
            let own = own.filter(|pick| admits(pick.class));
            return match (own, first.own) {
                (Some(own), _) if self.first.pick(|_| true) == Some(1) => Some(own),
                (_, Some(Source::Backlog)) => Some(Pick::own(ClassId::FIRST, Source::Backlog)),
                _ => Some(Pick::beside(ClassId::FIRST)),
            };
        }
        let beside = self.pick_beside(classes).filter(|_| replays);
        let ready = [own.is_some(), beside.is_some()];
        let side = self.sides.pick(|side| ready[side.min(BESIDE)])?;
        let pick = if side == OWN { own } else { beside };
        pick.filter(|pick| admits(pick.class))
    }

    /// The next in its own turn, below the first class.
    fn pick_own(&self, classes: &[QueueSnapshot], replays: bool) -> Option<Pick> {
        let replays = |index: usize| replays && self.paused.get(index) == Some(&false);
        let may_go = |index, source: &Source| *source == Source::Live || replays(index);
        let own = |index: usize| {
            let own = classes.get(index)?.own;
            own.filter(|source| may_go(index, source))
        };
        let index = self.own.pick(|index| index > 0 && own(index).is_some())?;
        Some(Pick::own(ClassId(u8::try_from(index).ok()?), own(index)?))
    }

    /// The next of those that go beside, below the first class.
    fn pick_beside(&self, classes: &[QueueSnapshot]) -> Option<Pick> {
        let beside = |index: usize| {
            let stopped = self.paused.get(index) != Some(&false);
            !stopped && classes.get(index).is_some_and(|class| class.beside)
        };
        let index = self.beside.pick(|index| index > 0 && beside(index))?;
        Some(Pick::beside(ClassId(u8::try_from(index).ok()?)))
    }

    /// Charges what was picked for its bytes.
    pub fn charge(&mut self, pick: Pick, bytes: u64) {
        if pick.source == Source::Backlog
            && let Some(bucket) = &mut self.replay
        {
            bucket.take(bytes);
        }
        match (pick.class, pick.source) {
            (ClassId::FIRST, Source::Live) => {}
            (ClassId::FIRST, Source::Backlog) => self.first.charge(0, bytes),
            (class, _) if pick.beside => {
                self.beside.charge(class.index(), bytes);
                self.sides.charge(BESIDE, bytes);
            }
            (class, _) => {
                self.own.charge(class.index(), bytes);
                self.sides.charge(OWN, bytes);
                self.first.charge(1, bytes);
            }
        }
    }

    /// Stops the backlog of a class, or lets it go on; gives whether it was stopped before.
    pub fn pause(&mut self, class: ClassId, paused: bool) -> bool {
        let own = self.paused.get_mut(class.index());
        own.is_some_and(|own| std::mem::replace(own, paused))
    }

    /// Whether the backlog of a class is stopped.
    #[must_use]
    pub fn is_paused(&self, class: ClassId) -> bool {
        self.paused.get(class.index()) == Some(&true)
    }

    /// When the backlog may go on, if its rate is all that keeps it.
    #[must_use]
    pub fn replays_at(&self) -> Tick {
        self.replay.as_ref().map_or(Tick::ZERO, Bucket::opens_at)
    }

    fn replays(&mut self, now: Tick) -> bool {
        self.replay.as_mut().is_none_or(|bucket| bucket.open(now))
    }
}

impl Pick {
    const fn own(class: ClassId, source: Source) -> Self {
        Self {
            class,
            source,
            beside: false,
        }
    }

    const fn beside(class: ClassId) -> Self {
        Self {
            class,
            source: Source::Backlog,
            beside: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: LeastShares = LeastShares {
        backlog: 300,
        live: 200,
    };
    const LIVE: QueueSnapshot = QueueSnapshot {
        own: Some(Source::Live),
        beside: false,
    };
    const BOTH: QueueSnapshot = QueueSnapshot {
        own: Some(Source::Live),
        beside: true,
    };
    const OLD: QueueSnapshot = QueueSnapshot {
        own: Some(Source::Backlog),
        beside: false,
    };
    const NONE: QueueSnapshot = QueueSnapshot {
        own: None,
        beside: false,
    };

    /// Bytes of what was picked, of so many messages of 100 bytes.
    fn picked(
        schedule: &mut Schedule,
        classes: &[QueueSnapshot],
        of: impl Fn(Pick) -> bool,
    ) -> u64 {
        let mut bytes = 0;
        for _ in 0..1000 {
            let Some(pick) = schedule.pick(classes, Tick::START, |_| true) else {
                break;
            };
            schedule.charge(pick, 100);
            bytes += if of(pick) { 100 } else { 0 };
        }
        bytes
    }

    #[test]
    fn does_the_first_class_go_first_whatever_else_waits() {
        let mut schedule = Schedule::new(&[1, 3, 1], LEAST, None);
        let first = |pick: Pick| pick.class == ClassId::FIRST;
        assert_eq!(picked(&mut schedule, &[LIVE, BOTH, BOTH], first), 100_000);
    }

    #[test]
    fn does_a_backlog_have_its_share_beside_live_traffic_and_no_more() {
        let mut schedule = Schedule::new(&[1, 3, 1], LEAST, None);
        let beside = picked(&mut schedule, &[NONE, BOTH, LIVE], |pick| pick.beside);
        assert!((29_000..=31_000).contains(&beside), "{beside}");
    }

    #[test]
    fn does_a_backlog_of_the_first_class_leave_live_traffic_its_share() {
        let mut schedule = Schedule::new(&[1, 3, 1], LEAST, None);
        let live = |pick: Pick| pick.class != ClassId::FIRST;
        let live = picked(&mut schedule, &[OLD, BOTH, NONE], live);
        assert!((19_000..=21_000).contains(&live), "{live}");
        let alone = picked(&mut schedule, &[OLD, NONE, NONE], |_| true);
        assert_eq!(alone, 100_000);
    }

    #[test]
    fn is_a_paused_backlog_left_and_live_traffic_not() {
        let mut schedule = Schedule::new(&[1, 3, 1], LEAST, None);
        (0..3).for_each(|class| assert!(!schedule.pause(ClassId(class), true)));
        assert_eq!(picked(&mut schedule, &[OLD, OLD, NONE], |_| true), 0);
        assert_eq!(
            picked(&mut schedule, &[OLD, BOTH, LIVE], |pick| pick.beside),
            0
        );
    }

    #[test]
    fn is_the_backlog_no_faster_than_its_rate() {
        let mut schedule = Schedule::new(&[1, 3, 1], LEAST, Some(10_000));
        let bytes = picked(&mut schedule, &[OLD, NONE, NONE], |_| true);
        assert!(bytes <= 10_000 / 10 + 100, "{bytes}");
        assert!(schedule.replays_at() > Tick::START);
    }
}
