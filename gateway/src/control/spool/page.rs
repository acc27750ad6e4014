//! The pages in which an inspection goes over the admin socket: questions and answers as JSON, made of
//! what the store says.

use serde::{Deserialize, Serialize};

use super::Asked;
use super::line::Line;
use super::when;
use crate::traffic::message::WallTime;
use crate::traffic::spool::Position;
use crate::traffic::spool::inspect::{Page, SegmentSeen, Verified};

/// Where a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    segment: u32,
    index: u32,
}

/// Which messages, from where on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Which are meant.
    pub asked: Asked,
    /// Where to go on; without it, at the beginning.
    pub next: Option<Cursor>,
    /// How many to give at most; 0: as many as go into one page.
    pub count_max: usize,
    /// Where it would change something: do not.
    pub dry_run: bool,
}

/// The segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Segments {
    /// The names of the classes, in their order.
    pub classes: Vec<String>,
    /// The segments, the oldest first.
    pub segments: Vec<Segment>,
    /// Whether the operator stopped the replay of every class; null: no gateway runs.
    pub paused: Option<bool>,
    /// The classes of which the operator stopped it.
    pub paused_classes: Vec<String>,
    /// Files that were set aside as damaged, the oldest first.
    pub aside: Vec<Aside>,
}

/// A file that was set aside: what could be carved out of it is in a segment again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aside {
    /// Its name in the spool's folder.
    pub file: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Segment {
    /// Its number.
    pub segment: u32,
    /// The class that its file is named after.
    pub class: String,
    /// It holds the class's dead letters.
    pub dead: bool,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// Messages in it that are not settled; null: its head has not been read yet, or cannot be.
    pub messages: Option<u64>,
    /// About when its first block was begun, RFC 3339.
    pub oldest: Option<String>,
    /// About when its last block was begun.
    pub newest: Option<String>,
}

/// Messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Messages {
    /// They, in the order in which they were written.
    pub messages: Vec<Line>,
    /// Messages that stand there and cannot be read, whether they are meant or not.
    pub unreadable: u64,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// What a check of one segment found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// The segment is gone: sent or evicted meanwhile.
    pub gone: bool,
    /// Blocks that are whole.
    pub blocks: u64,
    /// Messages in them.
    pub messages: u64,
    /// Blocks that are not.
    pub damaged_blocks: u64,
    /// Messages that are not settled and cannot be read.
    pub missing: u64,
    /// Why the file itself cannot be used, if it cannot.
    pub unusable: Option<String>,
}

/// What was purged, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Purged {
    /// Messages that were meant.
    pub meant: u64,
    /// Messages that were removed; the others are on their way to the upstream or have just ended.
    pub purged: u64,
    /// Messages that stand there and cannot be read: they stay.
    pub unreadable: u64,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// What was tried again, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Again {
    /// Dead letters that were meant.
    pub meant: u64,
    /// Those that are tried; the others are tried already, or are gone.
    pub again: u64,
    /// Those that stand there and cannot be read.
    pub unreadable: u64,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// What becomes of the replay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayWhat {
    /// That of this class; without it, of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// It stops, or goes on.
    pub paused: bool,
    /// Only say how it is.
    pub dry_run: bool,
}

/// How the replay was before that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replay {
    /// It was paused, or that of a class was.
    pub was_paused: bool,
    /// Messages that it has to send.
    pub backlog: u64,
    /// A connection to the upstream is up.
    pub uplink_up: bool,
}

/// Which segment is checked.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckWhat {
    /// Its number.
    pub segment: u32,
}

/// Why there is no page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// What is wrong and what to do.
    pub error: String,
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Self {
        Self::new(cursor.segment, cursor.index)
    }
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self {
            segment: position.segment(),
            index: position.index(),
        }
    }
}

impl From<&SegmentSeen> for Segment {
    fn from(seen: &SegmentSeen) -> Self {
        let content = seen.content.as_ref();
        let told = |wall: WallTime| (wall != WallTime::default()).then(|| when::show_seconds(wall));
        Self {
            segment: seen.number,
            class: seen.class.as_ref().to_owned(),
            dead: seen.dead,
            bytes: seen.file_bytes,
            messages: content.map(|content| content.unsettled),
            oldest: content.and_then(|content| told(content.oldest)),
            newest: content.and_then(|content| told(content.newest)),
        }
    }
}

impl Messages {
    /// A page of messages that the gateway with this id received.
    #[must_use]
    pub fn new(page: &Page, gateway: &str) -> Self {
        let lines = page.messages.iter().map(|seen| Line::new(gateway, seen));
        Self {
            messages: lines.collect(),
            unreadable: page.damaged,
            next: page.next.map(Cursor::from),
        }
    }
}

impl Purged {
    /// What is meant in a page of messages, of which so many were removed.
    #[must_use]
    pub fn new(page: &Page, purged: u64) -> Self {
        Self {
            meant: page.messages.len() as u64,
            purged,
            unreadable: page.damaged,
            next: page.next.map(Cursor::from),
        }
    }
}

impl From<(String, u64)> for Aside {
    fn from((file, bytes): (String, u64)) -> Self {
        Self { file, bytes }
    }
}

impl Again {
    /// What is meant in a page of dead letters, of which so many are tried again.
    #[must_use]
    pub fn new(page: &Page, again: u64) -> Self {
        Self {
            meant: page.messages.len() as u64,
            again,
            unreadable: page.damaged,
            next: page.next.map(Cursor::from),
        }
    }
}

impl Segment {
    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        let dead = if self.dead { ".dead" } else { "" };
        format!("{}.{:08x}{dead}.redb", self.class, self.segment)
    }
}

impl From<Option<Verified>> for Check {
    fn from(verified: Option<Verified>) -> Self {
        let gone = verified.is_none();
        let verified = verified.unwrap_or_default();
        Self {
            gone,
            blocks: verified.blocks,
            messages: verified.records,
            damaged_blocks: verified.damaged_blocks,
            missing: verified.missing,
            unusable: verified.unusable,
        }
    }
}

impl Check {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damaged_blocks == 0 && self.missing == 0 && self.unusable.is_none()
    }
}
