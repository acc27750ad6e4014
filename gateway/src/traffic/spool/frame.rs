//! What stands around everything that is kept: magic, version, whose it is, when it was written, and a
//! checksum over all of it, so that damage is noticed, and what is whole can be carved out of a
//! damaged file without its index. In come parts, out go bytes, and back.
//!
//! ```text
//!  0 magic "TGsp"   4 version 1   5 kind   6 length of the class's name   7 zero
//!  8 segment u32   12 CRC-32C of all but these four bytes   16 number u64   24 count u32
//! 28 length of the body u32   32 boot id   48 boot time u64   56 wall time u64   64 name, body
//! ```
//!
//! Numbers are little-endian, times in microseconds.

use super::moment::{BootId, Stamp};
use crate::traffic::message::WallTime;

const MAGIC: [u8; 4] = *b"TGsp";
const VERSION: u8 = 1;
const CHECKSUM: std::ops::Range<usize> = 12..16;
const FIXED_BYTES: usize = 64;

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records; the number is the first one's index in the segment.
    Block = 1,
    /// A segment's head; the number is its generation: the highest is the latest.
    Head = 2,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) class: &'a str,
    pub(super) segment: u32,
    pub(super) number: u64,
    /// How many records.
    pub(super) count: u32,
    pub(super) stamp: Stamp,
    pub(super) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame's bytes. Names of classes have at most 32 (the configuration sees to it).
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let name = self.class.as_bytes();
        let mut out = Vec::with_capacity(FIXED_BYTES + name.len() + self.body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8, name.len() as u8, 0]);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.stamp.boot.0);
        out.extend_from_slice(&self.stamp.boottime_micros.to_le_bytes());
        out.extend_from_slice(&self.stamp.wall.micros().to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(self.body);
        let sum = checksum(&out).to_le_bytes();
        if let Some(place) = out.get_mut(CHECKSUM) {
            place.copy_from_slice(&sum);
        }
        out
    }

    /// The frame at the front of `bytes`, and how many bytes it takes; `None` when none stands
    /// there whole.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let fixed = bytes.get(..FIXED_BYTES)?;
        let kind = match *fixed.get(..8)? {
            [b'T', b'G', b's', b'p', VERSION, 1, _, 0] => Kind::Block,
            [b'T', b'G', b's', b'p', VERSION, 2, _, 0] => Kind::Head,
            _ => return None,
        };
        let name_bytes = usize::from(*fixed.get(6)?);
        let body_bytes = usize::try_from(u32_at(fixed, 28)?).ok()?;
        let whole_bytes = (FIXED_BYTES + name_bytes).checked_add(body_bytes)?;
        let whole = bytes.get(..whole_bytes)?;
        if checksum(whole) != u32_at(fixed, CHECKSUM.start)? {
            return None;
        }
        let (name, body) = whole.get(FIXED_BYTES..)?.split_at_checked(name_bytes)?;
        let frame = Self {
            kind,
            class: str::from_utf8(name).ok()?,
            segment: u32_at(fixed, 8)?,
            number: u64_at(fixed, 16)?,
            count: u32_at(fixed, 24)?,
            stamp: Stamp {
                boot: BootId(fixed.get(32..48)?.try_into().ok()?),
                boottime_micros: u64_at(fixed, 48)?,
                wall: WallTime::from_micros(u64_at(fixed, 56)?),
            },
            body,
        };
        Some((frame, whole_bytes))
    }

    /// All frames that stand whole somewhere in `bytes`, wherever they begin.
    pub(super) fn carve(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let rest = bytes.get(at..)?;
                at += rest.windows(MAGIC.len()).position(|four| four == MAGIC)?;
                if let Some((frame, taken)) = Self::read(bytes.get(at..)?) {
                    at += taken;
                    return Some(frame);
                }
                at += 1;
            }
        })
    }
}

fn checksum(frame: &[u8]) -> u32 {
    let before = crc32c::crc32c(frame.get(..CHECKSUM.start).unwrap_or_default());
    crc32c::crc32c_append(before, frame.get(CHECKSUM.end..).unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Frame<'_> {
        Frame {
            kind: Kind::Block,
            class: "critical",
            segment: 0x0102_0304,
            number: 5,
            count: 6,
            stamp: Stamp {
                boot: BootId([7; 16]),
                boottime_micros: 8,
                wall: WallTime::from_micros(9),
            },
            body,
        }
    }

    #[test]
    fn is_every_flipped_bit_noticed() {
        let bytes = frame(b"records").to_bytes();
        assert_eq!(Frame::read(&bytes), Some((frame(b"records"), bytes.len())));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Frame::read(&bytes[..length]), None);
        }
    }

    #[test]
    fn are_whole_frames_found_between_damage() {
        let mut bytes = b"TGspTGsp\x01\x01".to_vec();
        bytes.extend(frame(b"first").to_bytes());
        let mut torn = frame(b"torn").to_bytes();
        torn.truncate(70);
        bytes.extend(torn);
        bytes.extend(frame(b"second").to_bytes());
        bytes.extend(b"TGs");
        let bodies: Vec<_> = Frame::carve(&bytes).map(|frame| frame.body).collect();
        assert_eq!(bodies, [&b"first"[..], b"second"]);
    }
}
