//! What a `latest` class sends less of than it could: values that wait for their period's end (`every`),
//! superseded values that go to the disk (`thin`), and what is said of the others (`summary`). The
//! periods and figures are the queue's rooms; here they meet the path.

use std::time::Duration;

use super::super::message::{ClassId, Message, Tick, WallTime};
use super::super::queue::ClassSettings;
use super::super::queue::bounded::{Admission, Queues};
use super::super::queue::pressure::Level;
use super::super::queue::summary::{Summaries, is_summary};
use super::super::queue::thin::{Curve, Every, Passage};
use super::super::settle::Outcome;
use super::Relay;

/// Of what a class may have in memory, and of what all classes together may, the part that waits for
/// periods to end: nothing gives way there for what is more urgent. Beyond, the one that has waited
/// longest is shed, so that new keys find room.
const PARKED_DIVISOR: u64 = 2;
/// Likewise the part that is on its way to the disk. Beyond, what is superseded is not kept.
const KEPT_DIVISOR: u64 = 4;
/// What all that is known of keys here (periods, figures) may take, as a part of the memory and beside it.
const KEYS_DIVISOR: u64 = 8;
/// How often it is said that a summary finds no number.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// What is thinned, class by class.
#[derive(Debug)]
pub struct Thinning {
    classes: Vec<Option<Box<ClassThinning>>>,
    /// The most that may wait in one class for its period's end, and on its way to the disk, in bytes.
    parked_bytes_max: u64,
    kept_bytes_max: u64,
    /// When the last turn was, on both clocks.
    turned: (Tick, WallTime),
}

#[derive(Debug)]
struct ClassThinning {
    every: Option<Every>,
    curve: Option<Curve>,
    /// Whether the disk takes what is kept.
    open: bool,
    summaries: Option<Summaries>,
    /// Values without a number that were told of, and when.
    told: (u64, Tick),
}

impl Thinning {
    /// Nothing is thinned yet.
    #[must_use]
    pub fn new(classes: &[ClassSettings], memory_bytes_max: u64) -> Self {
        let count = |asked: fn(&ClassSettings) -> bool| {
            let count = classes.iter().filter(|class| asked(class)).count();
            count as u64
        };
        let every = count(|class| class.every.is_some());
        let thin = count(|class| class.thin.is_some());
        let tables = every + thin + count(|class| class.summary.is_some());
        let keys_bytes_max = memory_bytes_max / KEYS_DIVISOR / tables.max(1);
        let class = |class: &ClassSettings| {
            let summaries = class.summary.clone();
            let thinning = ClassThinning {
                every: class.every.map(|period| Every::new(period, keys_bytes_max)),
                curve: class.thin.map(|period| Curve::new(period, keys_bytes_max)),
                open: false,
                summaries: summaries.map(|summary| Summaries::new(summary, keys_bytes_max)),
                told: (0, Tick::ZERO),
            };
            let any = class.every.is_some() || class.thin.is_some() || class.summary.is_some();
            any.then(|| Box::new(thinning))
        };
        Self {
            classes: classes.iter().map(class).collect(),
            parked_bytes_max: memory_bytes_max / PARKED_DIVISOR / every.max(1),
            kept_bytes_max: memory_bytes_max / KEPT_DIVISOR / thin.max(1),
            turned: (Tick::ZERO, WallTime::from_micros(0)),
        }
    }

    /// Messages of a class that wait here.
    #[must_use]
    pub fn waiting(&self, class: ClassId) -> usize {
        let class = self.of(class);
        let parked = class.and_then(|class| class.every.as_ref());
        let kept = class.and_then(|class| class.curve.as_ref());
        parked.map_or(0, Every::waiting) + kept.map_or(0, Curve::waiting)
    }

    /// Values of a class that wait for the end of their period.
    #[must_use]
    pub fn parked(&self, class: ClassId) -> u64 {
        let every = self.of(class).and_then(|class| class.every.as_ref());
        every.map_or(0, |every| every.waiting() as u64)
    }

    /// Periods of a class that ended early, for want of room.
    #[must_use]
    pub fn forgotten_periods(&self, class: ClassId) -> u64 {
        self.of(class).map_or(0, |class| {
            class.every.as_ref().map_or(0, Every::forgotten)
                + class.curve.as_ref().map_or(0, Curve::forgotten)
        })
    }

    /// Superseded values of a class that no summary tells of: those without a number, and those that were
    /// forgotten.
    #[must_use]
    pub fn unsummarised(&self, class: ClassId) -> (u64, u64) {
        let summaries = self.of(class).and_then(|class| class.summaries.as_ref());
        summaries.map_or((0, 0), |of| (of.unreadable(), of.forgotten()))
    }

    /// When a value's period ends next.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        let classes = self.classes.iter().flatten();
        let ends = classes.filter_map(|class| Some(class.every.as_ref()?.deadline()));
        ends.min().unwrap_or(Tick::NEVER)
    }

    /// Whether nothing waits here that is not handed to the disk.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.classes.iter().flatten().all(|class| {
            class
                .every
                .as_ref()
                .is_none_or(|every| every.waiting() == 0)
                && class.curve.as_ref().is_none_or(Curve::is_written)
        })
    }

    /// Everything that waits here, at the end.
    pub fn take_all(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        for class in self.classes.iter_mut().flatten() {
            all.extend(class.every.iter_mut().flat_map(Every::take_all));
            all.extend(class.curve.iter_mut().flat_map(Curve::take_all));
        }
        all
    }

    /// What of a class is on its way to the disk, to have its marks taken off.
    pub fn change(&mut self, class: ClassId, change: impl FnMut(&mut Message)) {
        if let Some(curve) = self.of_mut(class).and_then(|class| class.curve.as_mut()) {
            curve.change(change);
        }
    }

    fn of(&self, class: ClassId) -> Option<&ClassThinning> {
        self.classes.get(class.index())?.as_deref()
    }

    fn of_mut(&mut self, class: ClassId) -> Option<&mut ClassThinning> {
        self.classes.get_mut(class.index())?.as_deref_mut()
    }

    fn wall(&self, at: Tick) -> WallTime {
        let (turned, wall) = self.turned;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let later = wall.micros().saturating_add(micros(at.since(turned)));
        WallTime::from_micros(later.saturating_sub(micros(turned.since(at))))
    }
}

impl Relay {
    /// The next message of a class's queue that may go out now.
    pub(super) fn pop_live(&mut self, class: ClassId, now: Tick) -> Option<Message> {
        let message = self.queues.pop(class, now, &mut self.ends)?;
        if self.thinning.of(class).is_none() || is_summary(&message) {
            return Some(message);
        }
        let message = self.pass(message, now)?;
        if let Some(summary) = self.summarise(&message) {
            self.queue_summary(summary, now);
        }
        Some(message)
    }

    /// A value goes out, or waits for the end of its key's period.
    fn pass(&mut self, message: Message, now: Tick) -> Option<Message> {
        let class = message.class;
        let thinning = self.thinning.of_mut(class)?;
        let Some(every) = thinning.every.as_mut().filter(|_| !self.spool.draining) else {
            return Some(message);
        };
        match every.pass(message, now) {
            Passage::Open(message) => return Some(*message),
            Passage::Parked => {}
            Passage::Superseded(older) => {
                thinning.note(&older);
                self.queues.release(&older);
                self.end(*older, Outcome::Superseded);
            }
        }
        self.shed_parked(class);
        None
    }

    fn shed_parked(&mut self, class: ClassId) {
        let own = self.queues.largest(class) / PARKED_DIVISOR;
        let bytes_max = own.min(self.thinning.parked_bytes_max);
        let thinning = self.thinning.of_mut(class);
        let Some(every) = thinning.and_then(|thinning| thinning.every.as_mut()) else {
            return;
        };
        while every.parked_bytes() > bytes_max
            && let Some(message) = every.take_oldest()
        {
            self.queues.release(&message);
            self.ends.push_back((message, Outcome::Shed));
        }
    }

    /// Values whose periods have ended come back to their queues.
    pub(super) fn end_periods(&mut self, now: Tick, wall: WallTime) {
        self.thinning.turned = (now, wall);
        let draining = self.spool.draining;
        for (class, thinning) in (0..=u8::MAX).zip(&mut self.thinning.classes) {
            let Some(thinning) = thinning else { continue };
            self.back
                .extend(thinning.every.iter_mut().flat_map(|every| match draining {
                    true => every.take_all(),
                    false => every.due(now),
                }));
            // Under pressure a value that came in a period may give way long after it.
            let calm = self.queues.class(ClassId(class)).level() == Level::Calm;
            if let Some(curve) = thinning.curve.as_mut().filter(|_| calm) {
                curve.tidy(now);
            }
        }
    }

    /// A message has ended: gives it back, unless it was superseded and is to go to the disk.
    pub(super) fn thin_out(&mut self, mut message: Message, outcome: Outcome) -> Option<Message> {
        let (class, kept_bytes_max) = (message.class, self.thinning.kept_bytes_max);
        let Some(thinning) = self.thinning.of_mut(class) else {
            return Some(message);
        };
        match outcome {
            Outcome::Superseded => {}
            Outcome::Shed | Outcome::Expired if message.stands_for > 1 && !message.replayed => {
                thinning.forget(&message);
                return Some(message);
            }
            _ => return Some(message),
        }
        let own = self.queues.largest(class) / KEPT_DIVISOR;
        let bytes_max = own.min(kept_bytes_max);
        let pressed = self.queues.class(class).level() != Level::Calm;
        let takes = |curve: &&mut Curve| curve.kept_bytes() <= bytes_max;
        let open = thinning.open && pressed && !is_summary(&message);
        let curve = thinning.curve.as_mut().filter(|_| open).filter(takes);
        if !curve.is_some_and(|curve| curve.takes(&mut message)) {
            thinning.note(&message);
            return Some(message);
        }
        self.keep(message);
        None
    }

    /// Keeps a superseded value, and what is known of those that it stands for, for the disk.
    fn keep(&mut self, message: Message) {
        if let Some(newer) = self.queues.class_mut(message.class).standing_for(&message) {
            newer.stands_for = newer.stands_for.saturating_sub(message.stands_for).max(1);
        }
        let summary = self.summarise(&message);
        for message in [Some(message), summary].into_iter().flatten() {
            self.setbacks.forget(message.id());
            let thinning = self.thinning.of_mut(message.class);
            if let Some(curve) = thinning.and_then(|thinning| thinning.curve.as_mut()) {
                self.queues.occupy(curve.keep(message));
            }
        }
    }

    /// What was superseded together has been looked at.
    pub(super) fn looked_at_superseded(&mut self) {
        let curves = self.thinning.classes.iter_mut().flatten();
        for curve in curves.filter_map(|thinning| thinning.curve.as_mut()) {
            curve.looked();
        }
    }

    /// The summary of what this value stands for, if there is one.
    fn summarise(&mut self, message: &Message) -> Option<Message> {
        let thinning = self.thinning.of_mut(message.class)?;
        let figures = thinning.summaries.as_mut()?.take(message)?;
        self.sequence += 1;
        self.ledger.make(message.class);
        let place = (self.sequence, self.thinning.turned.0);
        let summaries = self.thinning.of(message.class)?.summaries.as_ref()?;
        let wall = |at| self.thinning.wall(at);
        let mut summary = summaries.message(message, figures, place, wall);
        summary.epoch = self.epoch;
        Some(summary)
    }

    /// A summary waits in its turn; nothing gives way for it.
    fn queue_summary(&mut self, summary: Message, now: Tick) {
        let class = summary.class;
        let fits = self.queues.fits(class, summary.memory_bytes());
        let ends = &mut self.ends;
        let admit = |queues: &mut Queues| queues.admit(summary, u64::MAX, now, ends);
        if !fits || matches!(admit(&mut self.queues), Admission::Full(_)) {
            self.ledger.end(class, Outcome::Shed);
        }
    }

    /// What waits at a stop leaves the path: what is known of the values that it stands for goes with it.
    pub(super) fn summarise_waiting(&mut self) {
        let (now, wall) = self.thinning.turned;
        self.end_periods(now, wall);
        self.put_back();
        self.settle();
        for class in self.class_ids() {
            let Some(thinning) = self.thinning.of(class) else {
                continue;
            };
            if thinning.summaries.is_none() {
                continue;
            }
            let stand = |message: &&Message| message.stands_for > 1;
            let standing = self.queues.class(class).messages().filter(stand);
            let standing: Vec<_> = standing.cloned().collect();
            for message in standing {
                if let Some(summary) = self.summarise(&message) {
                    self.queue_summary(summary, now);
                }
            }
        }
    }

    /// Hands what is kept of a class to the disk, and gives up what is safe there.
    pub(super) fn write_kept(&mut self, class: ClassId, now: Tick) {
        let spool = &mut self.spool;
        let Some(thinning) = self.thinning.of_mut(class) else {
            return;
        };
        let Some(curve) = &mut thinning.curve else {
            return;
        };
        thinning.open = spool.may_write(class, now) && !spool.draining;
        curve.write(|message| {
            let may = spool.may_write(class, now);
            if may {
                spool.write(message, now);
            }
            may
        });
        let from = spool.classes[class.index()].appending.unsafe_from();
        let is_safe = |message: &Message| {
            let at = message.spooled;
            at.is_some_and(|at| from.is_none_or(|from| at < from))
        };
        while spool.classes[class.index()].backlog.has_room()
            && let Some(message) = curve.take_safe(is_safe)
        {
            self.queues.release(&message);
            if let Some(position) = message.spooled {
                spool.classes[class.index()].backlog.insert(position);
            }
        }
    }

    /// The disk does not take what is kept of a class: it is superseded after all. What was summed up goes
    /// without the disk.
    pub(super) fn give_up_kept(&mut self, class: ClassId) {
        let Some(thinning) = self.thinning.of_mut(class) else {
            return;
        };
        thinning.open = false;
        let Some(curve) = &mut thinning.curve else {
            return;
        };
        for message in curve.take_unwritten() {
            if is_summary(&message) {
                self.back.push(message);
                continue;
            }
            self.queues.release(&message);
            let newer = self.queues.class_mut(class).standing_for(&message);
            let stood_for = newer.is_some();
            if let Some(newer) = newer {
                newer.stands_for = newer.stands_for.saturating_add(message.stands_for);
            }
            if let Some(thinning) = self.thinning.of_mut(class) {
                thinning.note(&message);
                if !stood_for {
                    // What is newer has gone: no value will say that it stands for this one.
                    thinning.forget(&message);
                }
            }
            self.end(message, Outcome::Superseded);
        }
        self.put_back();
    }

    /// Says that a summary finds no number, once in a while.
    pub(super) fn tell_unreadable(&mut self, now: Tick) {
        let classes = self.classes.iter().zip(&mut self.thinning.classes);
        for (class, thinning) in classes {
            let Some(ClassThinning {
                summaries: Some(summaries),
                told: (told, at),
                ..
            }) = thinning.as_deref_mut()
            else {
                continue;
            };
            let news = summaries.unreadable() - *told;
            if news > 0 && (*told == 0 || now.since(*at) >= TELL_EVERY) {
                tracing::warn!(
                    "class {}: superseded values have no number at {}, and its summaries leave them out: {news} more",
                    class.name,
                    summaries.value(),
                );
                (*told, *at) = (summaries.unreadable(), now);
            }
        }
    }
}

impl ClassThinning {
    fn note(&mut self, message: &Message) {
        if let Some(summaries) = &mut self.summaries
            && !is_summary(message)
        {
            summaries.note(message);
        }
    }

    fn forget(&mut self, message: &Message) {
        if let Some(summaries) = &mut self.summaries {
            summaries.forget(message);
        }
    }
}
