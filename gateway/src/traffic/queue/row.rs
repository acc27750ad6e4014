//! What waits, in a row that takes memory for what stands in it and little more. A `VecDeque` doubles,
//! and keeps what it had at its longest: up to half of what a budget of messages allows, counted
//! nowhere. This one is made of pieces of equal size, that come and go with what is in them.

use std::collections::VecDeque;

/// Places in one piece: long enough that an allocation is shared by many messages, short enough that
/// the two pieces at the ends, which may be nearly empty, take little.
const PIECE: usize = 64;

/// A double-ended queue. All its pieces but the first and the last are full.
#[derive(Debug)]
pub struct Row<T> {
    pieces: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Row<T> {
    /// How many stand in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first.
    #[must_use]
    #[inline]
    pub fn front(&self) -> Option<&T> {
        self.pieces.front()?.front()
    }

    /// The one at a place.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        let (piece, index) = self.place(index)?;
        self.pieces.get(piece)?.get(index)
    }

    /// The one at a place, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (piece, index) = self.place(index)?;
        self.pieces.get_mut(piece)?.get_mut(index)
    }

    /// One more behind the last.
    #[inline]
    pub fn push_back(&mut self, value: T) {
        self.len += 1;
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push_back(value),
            _ => self.pieces.push_back(piece_of(value)),
        }
    }

    /// One more before the first.
    pub fn push_front(&mut self, value: T) {
        self.len += 1;
        match self.pieces.front_mut() {
            Some(piece) if piece.len() < PIECE => piece.push_front(value),
            _ => self.pieces.push_front(piece_of(value)),
        }
    }

    /// Takes the first. A row that is emptied keeps one piece for what comes next.
    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        let piece = self.pieces.front_mut()?;
        let value = piece.pop_front()?;
        self.len -= 1;
        if piece.is_empty() && self.len > 0 {
            self.pieces.pop_front();
        }
        Some(value)
    }

    /// The last.
    #[must_use]
    pub fn back(&self) -> Option<&T> {
        self.pieces.back()?.back()
    }

    /// Takes the last.
    pub fn pop_back(&mut self) -> Option<T> {
        let piece = self.pieces.back_mut()?;
        let value = piece.pop_back()?;
        self.len -= 1;
        if piece.is_empty() && self.len > 0 {
            self.pieces.pop_back();
        }
        Some(value)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    /// All, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pieces.iter_mut().flatten()
    }

    /// Keeps those that are meant, in order. The old row goes piece by piece while the new one grows.
    pub fn retain(&mut self, meant: impl Fn(&T) -> bool) {
        for value in std::mem::take(self) {
            if meant(&value) {
                self.push_back(value);
            }
        }
    }

    #[inline]
    fn place(&self, index: usize) -> Option<(usize, usize)> {
        let first = self.pieces.front()?.len();
        Some(match index.checked_sub(first) {
            None => (0, index),
            Some(behind) => (1 + behind / PIECE, behind % PIECE),
        })
    }
}

impl<T> Extend<T> for Row<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push_back(value));
    }
}

impl<T> IntoIterator for Row<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<std::collections::vec_deque::IntoIter<VecDeque<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter().flatten()
    }
}

fn piece_of<T>(value: T) -> VecDeque<T> {
    let mut piece = VecDeque::with_capacity(PIECE);
    piece.push_back(value);
    piece
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Back(usize),
        Front(usize),
        Pop(usize),
        PopBack(usize),
        Retain(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let count = || 1..3 * PIECE;
        prop_oneof![
            4 => count().prop_map(Step::Back),
            2 => count().prop_map(Step::Front),
            3 => count().prop_map(Step::Pop),
            2 => count().prop_map(Step::PopBack),
            1 => (1..4_u32).prop_map(Step::Retain),
        ]
    }

    proptest! {
        #[test]
        fn does_a_row_do_what_a_deque_does(steps in prop::collection::vec(step(), 1..40)) {
            let (mut row, mut deque, mut next) = (Row::default(), VecDeque::new(), 0_u32);
            for step in steps {
                match step {
                    Step::Back(count) => for _ in 0..count {
                        next += 1;
                        row.push_back(next);
                        deque.push_back(next);
                    },
                    Step::Front(count) => for _ in 0..count {
                        next += 1;
                        row.push_front(next);
                        deque.push_front(next);
                    },
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(row.pop_front(), deque.pop_front());
                    },
                    Step::PopBack(count) => for _ in 0..count {
                        prop_assert_eq!(row.pop_back(), deque.pop_back());
                    },
                    Step::Retain(part) => {
                        row.retain(|value| value % part == 0);
                        deque.retain(|value| value % part == 0);
                    }
                }
                prop_assert_eq!((row.len(), row.is_empty()), (deque.len(), deque.is_empty()));
                prop_assert_eq!((row.front(), row.back()), (deque.front(), deque.back()));
                prop_assert!(row.iter().eq(&deque));
                prop_assert!(row.iter_mut().map(|value| &*value).eq(&deque));
                for index in 0..=deque.len() {
                    prop_assert_eq!(row.get(index), deque.get(index));
                    prop_assert_eq!(row.get_mut(index), deque.get_mut(index));
                }
            }
        }
    }

    /// The places that a row has memory for, beside those that are taken.
    #[test]
    fn does_a_row_take_memory_for_what_is_in_it_and_little_more() {
        let mut row = Row::default();
        let spare = |row: &Row<u64>| {
            let pieces = row.pieces.iter().map(VecDeque::capacity);
            pieces.sum::<usize>() - row.len()
        };
        for value in 0..100_000 {
            row.push_back(value);
            assert!(spare(&row) < 2 * PIECE);
        }
        while row.pop_front().is_some() {
            assert!(spare(&row) <= 2 * PIECE);
        }
        row.push_back(1);
        assert_eq!(row.pieces.len(), 1);
    }
}
