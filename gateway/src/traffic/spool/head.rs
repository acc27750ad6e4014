//! What a segment says of itself, kept in the same file and the same commit as its blocks: which
//! places were written, which are settled, when, and what its boots knew of the wall clock. Written
//! as the gaps and lengths of ranges: a few bytes, however many records there are.

use std::ops::Range;

use bincode::config::{Configuration, Limit};
use bincode::{Decode, Encode};

use super::frame::{Frame, Kind};
use super::moment::{BootId, Stamp};
use super::{Position, Ranges};
use crate::traffic::message::WallTime;

/// Bytes that a head may claim while it is read: ranges that alternate over a full segment of the
/// smallest records take less than this.
const HEAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Boots of a segment that are remembered. Its blocks are of one, and it is seldom settled over
/// more.
const STAMPS_MAX: usize = 8;

const CONFIG: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<HEAD_BYTES_MAX>,
> = bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();

/// A segment's places and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Goes up with each commit.
    pub(super) generation: u64,
    /// Every place that was ever written.
    pub(super) written: Ranges,
    /// Those of them that are not settled.
    pub(super) unsettled: Ranges,
    /// The latest stamps of the boots in which it was written to.
    pub(super) stamps: Vec<Stamp>,
    /// When its first block was opened.
    pub(super) oldest: WallTime,
    /// When its last block was opened.
    pub(super) newest: WallTime,
}

/// Version 1 of what is kept. Ranges are pairs of the gap to the one before and the length.
#[derive(Encode, Decode)]
struct Body {
    written: Vec<(u32, u32)>,
    settled: Vec<(u32, u32)>,
    stamps: Vec<([u8; 16], u64, u64)>,
    oldest: u64,
    newest: u64,
}

impl Head {
    /// Says when it is written, forgetting the oldest boot if it knows too many.
    pub(super) fn stamp(&mut self, now: Stamp) {
        self.stamps.retain(|stamp| stamp.boot != now.boot);
        if self.stamps.len() >= STAMPS_MAX {
            // The first one stays: its blocks are of that boot.
            self.stamps.remove(1);
        }
        self.stamps.push(now);
    }

    /// The head in a frame.
    pub(super) fn to_bytes(&self, class: &str, segment: u32, now: Stamp) -> Vec<u8> {
        let stamps = self.stamps.iter();
        let body = Body {
            written: gaps(self.written.iter()),
            settled: gaps(self.settled().iter()),
            stamps: stamps
                .map(|stamp| (stamp.boot.0, stamp.boottime_micros, stamp.wall.micros()))
                .collect(),
            oldest: self.oldest.micros(),
            newest: self.newest.micros(),
        };
        // Encoding to memory cannot fail.
        let body = bincode::encode_to_vec(body, CONFIG).unwrap_or_default();
        let frame = Frame {
            kind: Kind::Head,
            class,
            segment,
            number: self.generation,
            count: 0,
            stamp: now,
            body: &body,
        };
        frame.to_bytes()
    }

    /// The head in a frame of segment `segment`.
    pub(super) fn from_frame(frame: &Frame<'_>, segment: u32) -> Option<Self> {
        if frame.kind != Kind::Head || frame.segment != segment {
            return None;
        }
        let (body, _): (Body, usize) = bincode::decode_from_slice(frame.body, CONFIG).ok()?;
        let written = ranges(&body.written, segment)?;
        let mut unsettled = written.clone();
        for range in ranges(&body.settled, segment)?.iter() {
            unsettled.remove(range);
        }
        let stamps = body.stamps.into_iter().take(STAMPS_MAX);
        Some(Self {
            generation: frame.number,
            written,
            unsettled,
            stamps: stamps
                .map(|(boot, boottime_micros, wall)| Stamp {
                    boot: BootId(boot),
                    boottime_micros,
                    wall: WallTime::from_micros(wall),
                })
                .collect(),
            oldest: WallTime::from_micros(body.oldest),
            newest: WallTime::from_micros(body.newest),
        })
    }

    fn settled(&self) -> Ranges {
        let mut settled = self.written.clone();
        for range in self.unsettled.iter() {
            settled.remove(range);
        }
        settled
    }
}

fn gaps(ranges: impl Iterator<Item = Range<Position>>) -> Vec<(u32, u32)> {
    let mut end = 0;
    ranges
        .map(|range| {
            let gap = range.start.index() - end;
            end = range.end.index();
            (gap, end - range.start.index())
        })
        .collect()
}

fn ranges(gaps: &[(u32, u32)], segment: u32) -> Option<Ranges> {
    let mut ranges = Ranges::default();
    let mut end = 0_u32;
    for (gap, length) in gaps {
        let start = end.checked_add(*gap)?;
        end = start.checked_add(*length)?;
        ranges.insert(Position::new(segment, start)..Position::new(segment, end));
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_head_give_back_itself_in_few_bytes() {
        let at = |index| Position::new(9, index);
        let mut head = Head {
            generation: 3,
            oldest: WallTime::from_micros(5),
            newest: WallTime::from_micros(6),
            ..Head::default()
        };
        head.written.insert(at(10)..at(100_000));
        head.unsettled.insert(at(50)..at(60));
        head.unsettled.insert(at(70_000)..at(100_000));
        let stamp = Stamp {
            boot: BootId([1; 16]),
            boottime_micros: 2,
            wall: WallTime::from_micros(3),
        };
        head.stamp(stamp);
        let bytes = head.to_bytes("low", 9, stamp);
        assert!(bytes.len() < 130, "{}", bytes.len());
        let (frame, _) = Frame::read(&bytes).unwrap();
        assert_eq!(Head::from_frame(&frame, 9), Some(head));
        assert_eq!(Head::from_frame(&frame, 8), None);
    }
}
