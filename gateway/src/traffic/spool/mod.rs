//! The disk beside the path. The relay decides what is written, read back and settled; the *writer*, a
//! thread of its own, owns the files and says what became of it. In come [`SpoolCommand`]s, out go
//! [`SpoolReport`]s, over bounded channels: the relay never waits for the disk.
//!
//! Each class has a log of *segments*, small redb files that are appended to in *blocks*, and a second one
//! for its dead letters ([`dead_log`]). A record has
//! a [`Position`]: the number of its segment, unique in the spool and growing, and its place there.

pub mod append;
pub mod disk;
mod evict;
pub mod files;
mod frame;
#[cfg(test)]
mod golden;
mod head;
pub mod inspect;
pub mod moment;
pub mod position;
pub mod record;
pub mod replay;
pub mod request;
mod segment;
pub mod store;
pub mod writer;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub use position::{Position, Ranges};

use super::message::{ClassId, Message, Tick};
use super::settle::Outcome;
use store::Figures;

/// Bytes of records in one block at most, its frame apart; with the frame, and with what redb adds, it
/// fills a page of 64 KiB. One larger record stands alone in its block.
pub const BLOCK_BYTES_MAX: usize = 65_000;

/// What a segment's file takes at most, but for one large record.
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the blocks of one segment take of its file at most, as [`file_bytes`] counts it. Measured, the file
/// takes up to 5 % more: redb's tree, and the pages that a commit replaces.
pub const SEGMENT_BLOCK_BYTES_MAX: u64 = 15 * 1024 * 1024;

/// The same for a segment of dead letters: there are few, and they give way a segment at a time.
pub const DEAD_SEGMENT_BLOCK_BYTES_MAX: u64 = 1024 * 1024;

/// What a block takes of its segment's file: redb gives a large value pages of its own, a power of two
/// of them.
#[must_use]
pub fn file_bytes(records_bytes: usize) -> u64 {
    /// The block's frame, and what redb writes beside a value.
    const AROUND_BYTES: usize = 128;
    const PAGE_BYTES: usize = 4096;
    let bytes = records_bytes + AROUND_BYTES;
    let whole = match bytes < PAGE_BYTES / 2 {
        true => bytes,
        false => bytes.next_power_of_two().max(PAGE_BYTES),
    };
    whole as u64
}

/// The log of a class's dead letters: the logs of dead letters stand behind those of all `classes`.
#[must_use]
pub const fn dead_log(class: ClassId, classes: usize) -> ClassId {
    ClassId(class.0.saturating_add(classes as u8))
}

/// Whose log this is, and whether it is that of the class's dead letters.
#[must_use]
pub const fn class_of_log(log: ClassId, classes: usize) -> (ClassId, bool) {
    match log.index() >= classes {
        true => (ClassId(log.0.saturating_sub(classes as u8)), true),
        false => (log, false),
    }
}

/// The spool's settings.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// The folder of its files.
    pub dir: PathBuf,
    /// All files together, in bytes.
    pub size_bytes_max: u64,
    /// What stays free on the file system, in bytes.
    pub disk_free_bytes_min: u64,
    /// What the relay makes of it.
    pub policy: SpoolPolicy,
    /// The classes as far as the disk is concerned, the first one most urgent.
    pub classes: Vec<SpoolClass>,
    /// The class of what stands in the spool under a name that is not configured any more.
    pub default_class: ClassId,
}

/// What the relay makes of the spool.
#[derive(Clone, Debug)]
pub struct SpoolPolicy {
    /// How long a guaranteed message waits for others to share its commit.
    pub commit_interval: Duration,
    /// A guaranteed message that is unacknowledged for longer is late, and is written.
    pub spool_after: Duration,
    /// The backlog's least share of what the uplink takes, in 1/1000, while live traffic wants all.
    pub backlog_share_permille: u32,
    /// The least share of the other classes' live traffic beside a backlog of the first class, in 1/1000.
    pub live_share_min_permille: u32,
    /// Bytes of backlog that are sent a second at most; `None`: no limit of its own.
    pub replay_rate_bytes_max: Option<u64>,
}

impl Default for SpoolPolicy {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            spool_after: Duration::from_secs(2),
            backlog_share_permille: 300,
            live_share_min_permille: 200,
            replay_rate_bytes_max: None,
        }
    }
}

/// One class on disk.
#[derive(Clone, Debug)]
pub struct SpoolClass {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it may be evicted; not so for guaranteed classes.
    pub evictable: bool,
    /// Its share of the disk, in bytes; `None`: the whole.
    pub bytes_max: Option<u64>,
}

/// Which goes first of a class that has a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The backlog, in the order of receipt.
    Strict,
    /// What is live; the backlog has a share of its own.
    LiveFirst,
}

/// Records of one class to be appended, made by the relay; the writer frames them.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The class.
    pub class: ClassId,
    /// The first record's position; the others follow it in the same segment.
    pub first: Position,
    /// How many there are.
    pub count: u32,
    /// The times in the records count from here.
    pub opened: Tick,
    /// The records, each as [`record`] writes it, one behind the other.
    pub records: Vec<u8>,
}

impl Block {
    /// The positions that it fills.
    #[must_use]
    pub fn positions(&self) -> Range<Position> {
        self.first..self.first.plus(self.count)
    }
}

/// What the relay tells the writer. Taken in order; everything that waits is committed together.
#[derive(Debug)]
pub enum SpoolCommand {
    /// Append this, and say [`SpoolReport::Safe`] or [`SpoolReport::Unwritten`].
    Append(Block),
    /// These ended: they are not read again, and are kept settled with the next commit or within a
    /// second.
    Settle(Vec<Position>),
    /// Keep what is settled now.
    KeepSettled,
    /// Keep this as the ledger's file, in the place of what stands there.
    Keep(Vec<u8>),
    /// Read records of a class, from the first unsettled one at or behind `from`, before `until`; at
    /// least one, else as many as fit `bytes_max`.
    Read {
        /// The class.
        class: ClassId,
        /// Where to begin.
        from: Position,
        /// Where to end; not read itself.
        until: Position,
        /// Bytes of [`Message::memory_bytes`] at most, but for the first one.
        bytes_max: u64,
    },
    /// Answer an operator's question.
    Ask {
        /// The question.
        question: inspect::Question,
        /// Who waits for the answer.
        answer: oneshot::Sender<inspect::Answer>,
    },
}

/// What the writer tells the relay.
#[derive(Debug)]
pub enum SpoolReport {
    /// An earlier start left these unsettled records of a class. Told segment by segment, oldest first.
    Found {
        /// The class.
        class: ClassId,
        /// Where they stand.
        ranges: Vec<Range<Position>>,
    },
    /// A segment of this class that an earlier start left has lost its head: how much stood in it and
    /// cannot be carved out, only the ledger may know. Told before [`SpoolReport::Scanned`].
    Headless {
        /// The class.
        class: ClassId,
    },
    /// Everything that earlier starts left of this class has been told.
    Scanned {
        /// The class.
        class: ClassId,
    },
    /// These are on disk, committed and synced.
    Safe {
        /// The class.
        class: ClassId,
        /// Where they stand.
        positions: Range<Position>,
    },
    /// These could not be written. Nor will any later block of that segment: the class would stand in
    /// another order than that of receipt.
    Unwritten {
        /// The class.
        class: ClassId,
        /// Where they would have stood.
        positions: Range<Position>,
        /// Why.
        why: Unwritten,
    },
    /// The answer to a [`SpoolCommand::Read`].
    Records {
        /// The class.
        class: ClassId,
        /// All positions that the read looked at. What stood there and is not in `messages` was
        /// settled, or is damaged.
        looked_at: Range<Position>,
        /// What stands there, in order, `spooled` and `replayed` set, with no receipt.
        messages: Vec<Message>,
    },
    /// What stood there and was not settled is gone.
    Gone {
        /// The class.
        class: ClassId,
        /// The positions.
        positions: Range<Position>,
        /// [`Outcome::Evicted`] or [`Outcome::Damaged`].
        outcome: Outcome,
    },
    /// How the disk is; told when it changes.
    Health(DiskHealth),
    /// Counts of the spool; told when they changed.
    Figures(Figures),
}

/// Why a block was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The class's share of the disk is full, and nothing may give way.
    Full,
    /// The disk fails; see [`SpoolReport::Health`].
    Failing,
}

/// How the disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskHealth {
    /// It takes what is written.
    Well,
    /// It does not; the text says what is wrong, where, and what to do.
    Failing(Arc<str>),
}
