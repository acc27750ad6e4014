//! Questions that an operator asks the spool, and the answers. The writer answers them between commits;
//! while no gateway runs, a [`Store`](super::store::Store) that only looks does, and changes nothing.

use std::sync::Arc;

use super::Position;
use super::store::Figures;
use crate::traffic::classify::Filter;
use crate::traffic::message::{Message, WallTime};

/// A question.
#[derive(Clone, Debug)]
pub enum Question {
    /// Which segments there are.
    Segments,
    /// Which messages there are, a page at a time.
    Messages(Wanted),
    /// Which files were set aside as damaged.
    Aside,
    /// Whether everything in a segment stands whole.
    Verify(u32),
    /// Counts for metrics.
    Figures,
}

/// Which messages are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of the class of this name; `None`: of all.
    pub class: Option<Arc<str>>,
    /// Of the dead letters, instead of what has yet to be sent.
    pub dead: bool,
    /// With a topic that one of these matches; none: all.
    pub topics: Vec<Filter>,
    /// Received at or after.
    pub from: Option<WallTime>,
    /// Received before.
    pub until: Option<WallTime>,
    /// Those that are settled too, as long as their segment is there.
    pub settled: bool,
    /// Behind this one: [`Page::next`] of the page before.
    pub after: Option<Position>,
    /// Messages of a page at most; a page may also end before, and be empty.
    pub count_max: usize,
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Segments`], in the order of their numbers.
    Segments(Vec<SegmentSeen>),
    /// To [`Question::Aside`]: their names and what they take in bytes, the oldest first.
    Aside(Vec<(String, u64)>),
    /// To [`Question::Messages`].
    Messages(Page),
    /// To [`Question::Verify`]; `None`: there is no such segment.
    Verified(Option<Verified>),
    /// To [`Question::Figures`].
    Figures(Figures),
    /// The disk does not give an answer; the text says why.
    Failed(String),
}

/// A segment as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSeen {
    /// Its number.
    pub number: u32,
    /// The class that its file is named after.
    pub class: Arc<str>,
    /// It holds the class's dead letters.
    pub dead: bool,
    /// What its file takes.
    pub file_bytes: u64,
    /// What it says of itself; `None`: it has not been read yet, or is damaged.
    pub content: Option<Content>,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Messages that were ever written to it.
    pub records: u64,
    /// Those that are not settled.
    pub unsettled: u64,
    /// About when its oldest block was begun.
    pub oldest: WallTime,
    /// About when its newest block was begun.
    pub newest: WallTime,
}

/// Some of the messages that were asked for, in the order of their positions.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Seen>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Position>,
    /// Messages that could not be read, in what this page looked at.
    pub damaged: u64,
}

/// A message on disk.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it stands.
    pub position: Position,
    /// The class that its file is named after.
    pub class: Arc<str>,
    /// When it was received.
    pub received: WallTime,
    /// It ended, and is only still there.
    pub settled: bool,
    /// The message.
    pub message: Message,
}

/// What a check of a segment's checksums found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The database itself cannot be used; the text says why.
    pub unusable: Option<String>,
    /// Blocks that stand whole.
    pub blocks: u64,
    /// Messages in them.
    pub records: u64,
    /// Blocks that do not.
    pub damaged_blocks: u64,
    /// Unsettled messages that should be there and are in no whole block.
    pub missing: u64,
}
