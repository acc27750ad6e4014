//! A set of sequence numbers, one bit each: what was sent, acknowledged or arrived of one stream.

/// The largest number kept: 16 MiB for one stream. A week of the fastest stream that a scenario
/// allows ends well below it, and a stray message from somebody else cannot ask for more.
pub const SEQ_MAX: u32 = 1 << 27;

/// The set.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    words: Vec<u64>,
    count: u64,
    highest: u32,
}

impl Marks {
    /// Adds `seq`; whether it was new. Numbers above [`SEQ_MAX`] are never kept.
    pub fn insert(&mut self, seq: u32) -> bool {
        if seq > SEQ_MAX {
            return false;
        }
        let (word, bit) = place(seq);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let Some(word) = self.words.get_mut(word) else {
            return false;
        };
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        self.highest = self.highest.max(seq);
        new
    }

    /// Whether `seq` is in it.
    #[must_use]
    pub fn contains(&self, seq: u32) -> bool {
        let (word, bit) = place(seq);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many are in it.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest; 0 when it is empty.
    #[must_use]
    pub const fn highest(&self) -> u32 {
        self.highest
    }

    /// The largest of each remainder by `divisor`, where there is one above 0: the last message of
    /// each topic, when a stream goes round so many.
    pub fn last_of_each(&self, divisor: u32) -> impl Iterator<Item = u32> + '_ {
        let lowest = self
            .highest
            .saturating_sub(divisor.saturating_sub(1))
            .max(1);
        (lowest..=self.highest).filter_map(move |newest| {
            let step = usize::try_from(divisor.max(1)).unwrap_or(usize::MAX);
            let mut older = (1..=newest).rev().step_by(step);
            older.find(|&seq| self.contains(seq))
        })
    }

    /// How many are in here and not in `other`.
    #[must_use]
    pub fn count_missing_in(&self, other: &Self) -> u64 {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        let missing = self.words.iter().zip(theirs);
        missing
            .map(|(mine, theirs)| u64::from((mine & !theirs).count_ones()))
            .sum()
    }
}

const fn place(seq: u32) -> (usize, u64) {
    ((seq / 64) as usize, 1 << (seq % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_missing_numbers_counted() {
        let (mut sent, mut arrived) = (Marks::default(), Marks::default());
        for seq in 1..=200 {
            assert!(sent.insert(seq));
            if seq % 50 != 0 {
                arrived.insert(seq);
            }
        }
        assert!(!sent.insert(7), "known already");
        assert_eq!(sent.count_missing_in(&arrived), 4);
        assert_eq!(arrived.count_missing_in(&sent), 0);
        assert_eq!((sent.count(), sent.highest()), (200, 200));
        assert!(arrived.contains(199) && !arrived.contains(200));
    }

    #[test]
    fn is_the_last_of_each_topic_found_behind_gaps() {
        let mut marks = Marks::default();
        for seq in [1, 2, 3, 4, 5, 7, 9] {
            marks.insert(seq);
        }
        let last: Vec<_> = marks.last_of_each(3).collect();
        assert_eq!(last, [7, 5, 9], "8 was never there, 5 is of its topic");
        assert_eq!(marks.last_of_each(1).collect::<Vec<_>>(), [9]);
        assert_eq!(Marks::default().last_of_each(3).count(), 0);
    }

    #[test]
    fn is_a_number_beyond_all_bounds_not_kept() {
        let mut marks = Marks::default();
        assert!(!marks.insert(u32::MAX));
        assert_eq!(marks.count(), 0);
    }
}
