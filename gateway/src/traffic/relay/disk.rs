//! What the relay knows of the disk: of each class what is on its way there and what stands there, what
//! the writer is to do next, and how the disk is. It holds no live message; those are the queues'.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::super::message::{ClassId, Message, Tick};
use super::super::queue::{ClassSettings, Delivery};
use super::super::settle::Outcome;
use super::super::snapshot::{QueueSnapshot, Source};
use super::super::spool::append::{Appending, BUFFERED_COMMIT};
use super::super::spool::replay::{Backlog, Next};
use super::super::spool::store::Figures;
use super::super::spool::{DiskHealth, Position, SpoolCommand, SpoolPolicy, dead_log};
use super::super::status::SpoolStatus;
use super::dead::DeadLetters;
use super::spooling::AWAY_AFTER;

/// Bytes of records that the writer has not answered: more would take memory beside the budget, and a
/// slow disk would not get faster.
const UNSAFE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A disk that needs longer for a commit is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Positions in one command to settle.
const SETTLE_MAX: usize = 4096;

/// What the relay knows of the disk.
#[derive(Debug)]
pub struct Spooling {
    pub(super) policy: SpoolPolicy,
    /// The classes' logs, then those of their dead letters.
    pub(super) classes: Vec<ClassSpool>,
    /// The dead letters of each class.
    pub(super) dead: Vec<DeadLetters>,
    /// When dead letters are tried again.
    pub(super) again_at: Option<Tick>,
    pub(super) next_segment: u32,
    /// How it is; `None` until the writer has said so.
    pub(super) health: Option<DiskHealth>,
    pub(super) commands: VecDeque<SpoolCommand>,
    /// The writer's counts.
    pub(super) figures: Figures,
    /// Since when the writer owes an answer.
    pub(super) unanswered_since: Option<Tick>,
    /// Since when no connection is up.
    pub(super) away_since: Option<Tick>,
    /// Nothing is read back any more.
    pub(super) draining: bool,
    /// Everything is written now, for the end is near.
    pub(super) stopping: bool,
    /// When the ledger was last kept.
    pub(super) kept: Tick,
    /// Messages that were read back and delivered.
    pub(super) replayed: u64,
}

#[derive(Debug)]
pub(super) struct ClassSpool {
    pub(super) appending: Appending,
    pub(super) backlog: Backlog,
    /// A segment of an earlier start has lost its head.
    pub(super) headless: bool,
}

impl Spooling {
    /// Nothing is known of the disk, and nothing written, until the writer says that it is well.
    #[must_use]
    pub fn new(policy: &SpoolPolicy, next_segment: u32, classes: &[ClassSettings]) -> Self {
        let spool = |(class, settings): (ClassId, &ClassSettings)| ClassSpool {
            appending: Appending::new(
                class,
                match settings.delivery {
                    Delivery::Guaranteed => policy.commit_interval,
                    Delivery::Buffered | Delivery::Latest => BUFFERED_COMMIT,
                },
            ),
            backlog: Backlog::new(class, settings.order),
            headless: false,
        };
        let dead = |(class, settings): (ClassId, &ClassSettings)| {
            let log = dead_log(class, classes.len());
            ClassSpool {
                appending: Appending::of_dead_letters(log, policy.commit_interval),
                backlog: Backlog::new(log, settings.order),
                headless: false,
            }
        };
        let ids = || (0..=u8::MAX).map(ClassId).zip(classes);
        Self {
            policy: policy.clone(),
            classes: ids().map(spool).chain(ids().map(dead)).collect(),
            dead: classes.iter().map(|_| DeadLetters::default()).collect(),
            again_at: None,
            next_segment,
            health: None,
            commands: VecDeque::new(),
            figures: Figures::default(),
            unanswered_since: None,
            away_since: None,
            draining: false,
            stopping: false,
            kept: Tick::ZERO,
            replayed: 0,
        }
    }

    /// Messages of a class that were read back and wait.
    #[must_use]
    pub fn waiting(&self, class: ClassId) -> usize {
        self.classes[class.index()].backlog.waiting()
    }

    /// Messages of a class that are on disk and not in memory.
    #[must_use]
    pub fn on_disk(&self, class: ClassId) -> u64 {
        self.classes[class.index()].backlog.on_disk()
    }

    /// Whether the disk takes what is written.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self.health, Some(DiskHealth::Well))
    }

    /// Whether the end is near and nothing more is sent.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the disk takes what is written of a class, and answers in time.
    #[must_use]
    pub fn keeps_up(&self, class: ClassId, now: Tick) -> bool {
        let answers = self
            .unanswered_since
            .is_none_or(|since| now.since(since) < ANSWER_MAX);
        let appending = &self.classes[class.index()].appending;
        self.is_well() && answers && appending.may_write(now)
    }

    /// The writer answered at `now`.
    pub(super) fn answered(&mut self, now: Tick) {
        let waits = self.classes.iter().any(|class| class.appending.awaits());
        self.unanswered_since = waits.then_some(now);
    }

    /// What may go next of a class whose first live message is this one.
    #[must_use]
    pub fn snapshot(
        &self,
        class: ClassId,
        live: Option<&Message>,
        paused: bool,
        now: Tick,
    ) -> QueueSnapshot {
        let backlog = &self.classes[class.index()].backlog;
        let own = live.map(|_| Source::Live);
        let tries = self.dead[class.index()].waiting() > 0;
        let beside = !paused && (tries || self.goes_beside(class, live, now));
        if backlog.is_beside() {
            return QueueSnapshot { own, beside };
        }
        let failing = matches!(self.health, Some(DiskHealth::Failing(_)));
        let own = match backlog.next(live, now) {
            _ if paused => own,
            // Sending never waits for the disk.
            Next::Wait if failing => own,
            Next::Live => own,
            Next::Backlog => Some(Source::Backlog),
            Next::Wait => None,
        };
        QueueSnapshot { own, beside }
    }

    /// Whether some of a class's backlog may go beside what is live, the first of which is this one.
    #[must_use]
    pub fn goes_beside(&self, class: ClassId, live: Option<&Message>, now: Tick) -> bool {
        self.classes[class.index()].backlog.goes_beside(live, now)
    }

    /// The next message of a class that was read back.
    pub fn pop(&mut self, class: ClassId) -> Option<Message> {
        self.classes[class.index()].backlog.pop()
    }

    /// Messages that were read back, sent and not taken.
    pub fn put_back(&mut self, messages: Vec<Message>) {
        let mut by_class: HashMap<ClassId, Vec<Message>> = HashMap::new();
        for message in messages {
            if self.is_tried(&message) {
                let class = message.class.index();
                *self.dead[class].ready() = Some(message);
                continue;
            }
            by_class.entry(message.class).or_default().push(message);
        }
        for (class, messages) in by_class {
            self.classes[class.index()].backlog.put_back(messages);
        }
    }

    /// A message ended: what is on disk of it is settled, and its receipt is back.
    pub fn settle(&mut self, message: &mut Message, outcome: Outcome) {
        let Some(position) = message.spooled else {
            return;
        };
        if self.settle_tried(message, outcome) {
            return;
        }
        let appending = &mut self.classes[message.class.index()].appending;
        let (receipt, tell) = appending.settle(position);
        if let Some(receipt) = receipt {
            message.receipt = receipt;
        }
        if tell {
            self.settled(position);
        }
    }

    /// At the end: whether the message is on disk, where the next start finds it. If not, its receipt is
    /// back.
    pub fn keeps(&mut self, message: &mut Message) -> bool {
        let Some(position) = message.spooled else {
            return false;
        };
        let safe = self.is_safe(message);
        let class = &mut self.classes[message.class.index()];
        if safe {
            class.backlog.insert(position);
            return true;
        }
        if let Some(receipt) = class.appending.take_receipt(position) {
            message.receipt = receipt;
        }
        false
    }

    /// Whether a message stands on disk, committed and synced.
    pub(super) fn is_safe(&self, message: &Message) -> bool {
        let from = self.classes[message.class.index()].appending.unsafe_from();
        let safe = |at| from.is_none_or(|from| at < from);
        message.spooled.is_some_and(safe)
    }

    /// All messages that were read back, at the end.
    pub fn take_read(&mut self) -> Vec<Message> {
        let classes = self.classes.iter_mut();
        classes
            .flat_map(|class| std::iter::from_fn(|| class.backlog.pop()))
            .collect()
    }

    pub(super) fn write(&mut self, message: &mut Message, now: Tick) {
        let class = message.class;
        if self.classes[class.index()].appending.overflows(message) {
            self.close(class, now);
        }
        let appending = &mut self.classes[class.index()].appending;
        appending.write(message, now, &mut self.next_segment);
    }

    /// Closes a class's block; says whether something is to be written.
    pub(super) fn close(&mut self, class: ClassId, now: Tick) -> bool {
        let Some((block, settled)) = self.classes[class.index()].appending.close() else {
            return false;
        };
        self.commands.push_back(SpoolCommand::Append(block));
        self.unanswered_since.get_or_insert(now);
        settled.into_iter().for_each(|at| self.settled(at));
        true
    }

    pub(super) fn settled(&mut self, position: Position) {
        match self.commands.back_mut() {
            Some(SpoolCommand::Settle(positions)) if positions.len() < SETTLE_MAX => {
                positions.push(position);
            }
            _ => self
                .commands
                .push_back(SpoolCommand::Settle(vec![position])),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let classes = self.classes.iter();
        let bytes: usize = classes.map(|class| class.appending.unsafe_bytes()).sum();
        bytes < UNSAFE_BYTES_MAX
    }

    pub(super) fn may_write(&self, class: ClassId, now: Tick) -> bool {
        self.is_well() && self.classes[class.index()].appending.may_write(now) && self.has_room()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.classes.iter().any(|class| class.appending.is_busy())
    }

    /// What is known of the disk.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        let classes = self.classes.iter();
        let unwritten: usize = classes.map(|class| class.appending.unsafe_bytes()).sum();
        SpoolStatus {
            failing: match &self.health {
                Some(DiskHealth::Well) => None,
                Some(DiskHealth::Failing(why)) => Some(why.to_string()),
                None => Some("the spool is not open yet".to_owned()),
            },
            scanned: self.classes.iter().all(|class| class.backlog.is_scanned()),
            segments: self.figures.segments,
            file_bytes: self.figures.file_bytes,
            size_bytes_max: self.figures.size_bytes_max,
            free_bytes: Some(self.figures.free_bytes).filter(|bytes| *bytes > 0),
            aside: self.figures.aside,
            commits: self.figures.commits,
            commit_micros: self.figures.commit_micros,
            syncs: self.figures.syncs,
            bytes_written: self.figures.written_bytes,
            unwritten_bytes: unwritten as u64,
            replayed: self.replayed,
            ..SpoolStatus::default()
        }
    }

    /// When something is due though nothing happens.
    #[must_use]
    pub fn deadline(&self, now: Tick) -> Tick {
        let blocks = self.classes.iter().map(|class| class.appending.due());
        let reads = self.classes.iter().map(|class| class.backlog.deadline(now));
        let full = self
            .classes
            .iter()
            .map(|class| class.appending.full_until());
        let away = self.away_since.map(|since| since.after(AWAY_AFTER));
        let later = reads.chain(full).chain(away).chain([self.again_at()]);
        let later = later.filter(|at| *at > now);
        blocks.chain(later).min().unwrap_or(Tick::NEVER)
    }
}
