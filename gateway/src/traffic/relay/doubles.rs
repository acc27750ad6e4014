//! Messages that are in flight on both connections: the second chance of the first class. Each is
//! settled once, by whichever acknowledgement comes first.

use std::collections::HashMap;

use super::super::message::{ClassId, MessageId};
use super::super::send::Link;

/// The doubled messages, by identity. Bounded by the windows.
#[derive(Debug, Default)]
pub struct Doubles {
    by_id: HashMap<MessageId, Double>,
}

#[derive(Debug)]
struct Double {
    class: ClassId,
    original: Link,
    copies: u8,
    settled: bool,
}

/// What a copy that left its window means for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The other copy is still in flight; the message went over this connection first.
    FirstOf(Link),
    /// It was the last copy of an unsettled message.
    Last,
    /// The message was settled by the other copy.
    Settled,
}

impl Doubles {
    /// A message that is in flight on `original` also goes over the other connection.
    pub fn doubled(&mut self, id: MessageId, class: ClassId, original: Link) {
        let double = Double {
            class,
            original,
            copies: 2,
            settled: false,
        };
        self.by_id.insert(id, double);
    }

    /// A copy was acknowledged; the message is settled by the first.
    pub fn acknowledged(&mut self, id: MessageId) -> Standing {
        let standing = self.remove_copy(id);
        if let Some(double) = self.by_id.get_mut(&id) {
            double.settled = true;
        }
        standing
    }

    /// A copy's connection ended.
    pub fn dropped(&mut self, id: MessageId) -> Standing {
        self.remove_copy(id)
    }

    /// Only one copy is left: the message is like any other again.
    pub fn forget(&mut self, id: MessageId) {
        self.by_id.remove(&id);
    }

    /// Copies of a class in the windows beyond one for each unsettled message.
    #[must_use]
    pub fn surplus(&self, class: ClassId) -> usize {
        let of_class = self.by_id.values().filter(|double| double.class == class);
        of_class
            .map(|double| usize::from(double.copies) - usize::from(!double.settled))
            .sum()
    }

    /// Whether the message was settled by its other copy.
    #[must_use]
    pub fn is_settled(&self, id: MessageId) -> bool {
        self.by_id.get(&id).is_some_and(|double| double.settled)
    }

    fn remove_copy(&mut self, id: MessageId) -> Standing {
        let Some(double) = self.by_id.get_mut(&id) else {
            return Standing::Last;
        };
        double.copies -= 1;
        let (left, settled, original) = (double.copies, double.settled, double.original);
        if left == 0 {
            self.by_id.remove(&id);
        }
        match (settled, left) {
            (true, _) => Standing::Settled,
            (false, 0) => Standing::Last,
            (false, _) => Standing::FirstOf(original),
        }
    }
}
