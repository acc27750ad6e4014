//! Byte shares between the classes below the first: start-time fair queueing (Goyal, Vin and Cheng,
//! SIGCOMM 1996). Each class carries a virtual time that advances by `bytes / weight` when it sends;
//! the class that lies furthest behind sends next. Against deficit round robin it has no quantum
//! to tune, and a 1 MiB message needs no 64 rounds to become due.

/// Virtual time for one byte of a class of weight 1; large enough that integer division by the
/// greatest weight keeps four digits.
const VIRTUAL_PER_BYTE: u128 = 10_000_000;

/// The state of the shares.
#[derive(Debug)]
pub struct Shares {
    sharers: Vec<Share>,
    virtual_now: u128,
}

#[derive(Debug)]
struct Share {
    weight: u128,
    start: u128,
}

impl Shares {
    /// Shares for these weights, in their order. A weight of
    /// 0 counts as 1: nothing starves.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let sharers = weights
            .into_iter()
            .map(|weight| Share {
                weight: u128::from(weight.max(1)),
                start: 0,
            })
            .collect();
        Self {
            sharers,
            virtual_now: 0,
        }
    }

    /// Of those that are ready, the one that sends next.
    #[must_use]
    pub fn pick(&self, ready: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(u128, usize)> = None;
        for (index, share) in self.sharers.iter().enumerate() {
            if !ready(index) {
                continue;
            }
            let start = share.start.max(self.virtual_now);
            if best.is_none_or(|(least, _)| start < least) {
                best = Some((start, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Charges one for the bytes that it sent. One that had nothing to send starts again
    /// from now: idle time is not saved up.
    pub fn charge(&mut self, index: usize, bytes: u64) {
        let Some(share) = self.sharers.get_mut(index) else {
            return;
        };
        let start = share.start.max(self.virtual_now);
        self.virtual_now = start;
        share.start = start + u128::from(bytes.max(1)) * VIRTUAL_PER_BYTE / share.weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_waits_nothing_is_picked() {
        let shares = Shares::new([1, 3, 1]);
        assert_eq!(shares.pick(|_| false), None);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut shares = Shares::new([1, 1, 1]);
        for _ in 0..1000 {
            shares.charge(1, 100);
        }
        // Class 2 wakes up: it may not send 1000 in a row now.
        let mut in_a_row = 0;
        while shares.pick(|index| index > 0) == Some(2) {
            shares.charge(2, 100);
            in_a_row += 1;
        }
        assert!(in_a_row <= 2, "{in_a_row} in a row");
    }

    proptest! {
        /// Whatever the sizes, bytes sent while both always have something stand as the weights.
        #[test]
        fn bytes_stand_as_the_weights(
            weights in prop::array::uniform2(1_u32..20),
            sizes in prop::collection::vec((1_u64..2000, 1_u64..100_000), 2000),
        ) {
            let mut shares = Shares::new([1, weights[0], weights[1]]);
            let mut sent = [0_u64; 2];
            for (small, large) in sizes {
                let class = shares.pick(|index| index > 0).unwrap();
                let bytes = if class == 1 { small } else { large };
                shares.charge(class, bytes);
                sent[class - 1] += bytes;
            }
            // Fairness bound of SFQ: normalised service differs by at most one largest message each.
            let normal = [sent[0] / u64::from(weights[0]), sent[1] / u64::from(weights[1])];
            prop_assert!(normal[0].abs_diff(normal[1]) <= 2000 + 100_000 + 2);
        }
    }
}
