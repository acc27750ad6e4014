//! Where a record stands in the spool, and sets of such places.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;

/// A record's place: the number of its segment in the upper 32 bits, its place in that in the lower.
/// Segments are numbered from 1, so that positions of one class grow in the order of writing, over
/// restarts too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(NonZeroU64);

impl Position {
    /// Before every record.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The place `index` in segment `segment`; segment 0, which there is not, counts as 1.
    #[must_use]
    pub fn new(segment: u32, index: u32) -> Self {
        let number = u64::from(segment.max(1)) << 32 | u64::from(index);
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// The segment's number.
    #[must_use]
    pub const fn segment(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    /// Its turn among all places of its class: a number that grows with them.
    #[must_use]
    pub const fn turn(self) -> u64 {
        self.0.get()
    }

    /// The place in the segment.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0.get() as u32
    }

    /// The place so many behind this one. Segments hold far fewer than 2^32 records.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.saturating_add(count as u64))
    }

    /// How many places lie between `earlier` and this one; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.index())
    }
}

/// A set of positions, kept as ranges. No range spans two segments, so that counts are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// End by start; neither empty, nor overlapping, nor touching within a segment.
    by_start: BTreeMap<Position, Position>,
    count: u64,
}

impl Ranges {
    /// How many positions are in the set.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// In how many pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.by_start.len()
    }

    /// The lowest range.
    #[must_use]
    pub fn first(&self) -> Option<Range<Position>> {
        let (start, end) = self.by_start.first_key_value()?;
        Some(*start..*end)
    }

    /// The highest range.
    #[must_use]
    pub fn last(&self) -> Option<Range<Position>> {
        let (start, end) = self.by_start.last_key_value()?;
        Some(*start..*end)
    }

    /// What of the set lies in a range.
    #[must_use]
    pub fn within(&self, range: Range<Position>) -> Self {
        let mut within = Self::default();
        if range.is_empty() {
            return within;
        }
        let below = self.by_start.range(..range.start).next_back();
        let inside = self.by_start.range(range.clone());
        for (start, end) in below.into_iter().chain(inside) {
            within.insert((*start).max(range.start)..(*end).min(range.end));
        }
        within
    }

    /// Whether a position is in the set.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        let below = self.by_start.range(..=position).next_back();
        below.is_some_and(|(_, end)| position < *end)
    }

    /// All ranges, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Range<Position>> {
        self.by_start.iter().map(|(start, end)| *start..*end)
    }

    /// Adds positions of one segment; gives how many were new.
    pub fn insert(&mut self, range: Range<Position>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let before = self.count;
        let (mut start, mut end) = (range.start, range.end);
        self.remove(range);
        let added = end.since(start);
        let below = self.by_start.range(..start).next_back();
        if let Some((&lower, &upper)) = below
            && upper == start
            && lower.segment() == start.segment()
        {
            self.by_start.remove(&lower);
            start = lower;
        }
        if let Some(upper) = self.by_start.remove(&end) {
            end = upper;
        }
        self.by_start.insert(start, end);
        self.count += added;
        self.count - before
    }

    /// Takes positions out, of several segments perhaps; gives how many were there.
    pub fn remove(&mut self, range: Range<Position>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let mut removed = 0;
        let below = self.by_start.range(..range.start).next_back();
        if let Some((&start, &end)) = below
            && end > range.start
        {
            self.by_start.insert(start, range.start);
            removed += end.min(range.end).since(range.start);
            if end > range.end {
                self.by_start.insert(range.end, end);
            }
        }
        while let Some((&start, &end)) = self.by_start.range(range.clone()).next() {
            self.by_start.remove(&start);
            removed += end.min(range.end).since(start);
            if end > range.end {
                self.by_start.insert(range.end, end);
            }
        }
        self.count -= removed;
        removed
    }

    /// Adds one position; says whether it was new.
    pub fn insert_one(&mut self, position: Position) -> bool {
        self.insert(position..position.plus(1)) == 1
    }

    /// Takes one position out; says whether it was there.
    pub fn remove_one(&mut self, position: Position) -> bool {
        self.remove(position..position.plus(1)) == 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn at(index: u32) -> Position {
        Position::new(1 + index / 40, index % 40)
    }

    proptest! {
        /// Whatever is put in and taken out, the set holds what a plain one does.
        #[test]
        fn do_ranges_hold_what_a_plain_set_holds(
            steps in prop::collection::vec((any::<bool>(), 0_u32..120, 0_u32..40), 1..80),
        ) {
            let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
            for (adds, start, length) in steps {
                // Within one segment.
                let end = (start + length).min((start / 40 + 1) * 40);
                let range = at(start)..at(start).plus(end - start);
                let positions = (start..end).map(at);
                if adds {
                    let new = positions.filter(|position| plain.insert(*position)).count();
                    prop_assert_eq!(ranges.insert(range), new as u64);
                } else {
                    let gone = positions.filter(|position| plain.remove(position)).count();
                    prop_assert_eq!(ranges.remove(range), gone as u64);
                }
                prop_assert_eq!(ranges.count(), plain.len() as u64);
                for index in 0..120 {
                    prop_assert_eq!(ranges.contains(at(index)), plain.contains(&at(index)));
                }
            }
            let listed: BTreeSet<_> = ranges
                .iter()
                .flat_map(|range| {
                    (range.start.index()..range.start.index() + range.end.since(range.start) as u32)
                        .map(move |index| Position::new(range.start.segment(), index))
                })
                .collect();
            prop_assert_eq!(listed, plain);
        }
    }

    #[test]
    fn do_ranges_leave_out_whole_segments() {
        let mut ranges = Ranges::default();
        ranges.insert(Position::new(1, 0)..Position::new(1, 9));
        ranges.insert(Position::new(2, 5)..Position::new(2, 7));
        ranges.insert(Position::new(4, 0)..Position::new(4, 3));
        assert_eq!(ranges.remove(Position::new(1, 4)..Position::new(4, 1)), 8);
        assert_eq!(ranges.count(), 6);
        assert_eq!(
            ranges.first(),
            Some(Position::new(1, 0)..Position::new(1, 4))
        );
    }
}
