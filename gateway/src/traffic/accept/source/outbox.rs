//! Messages on their way into the two lanes, in batches. In come classified messages, out go
//! batches of what arrived together. It never waits and never drops a message that its sender
//! would not bring again.

use std::collections::VecDeque;

use crate::traffic::lanes::BATCH_BYTES_MAX;
use crate::traffic::message::{ClassId, Message};

/// Messages for one lane, in the order of receipt.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Each with its bytes.
    batches: VecDeque<(Vec<Message>, u64)>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, message: Message) {
        let bytes = message.memory_bytes();
        self.bytes += bytes;
        match self.batches.back_mut() {
            Some((last, last_bytes)) if *last_bytes + bytes <= BATCH_BYTES_MAX => {
                *last_bytes += bytes;
                last.push(message);
            }
            _ => self.batches.push_back((vec![message], bytes)),
        }
    }

    /// Bytes of the oldest batch.
    pub(super) fn next_bytes(&self) -> u64 {
        self.batches.front().map_or(0, |(_, bytes)| *bytes)
    }

    /// The oldest batch.
    pub(super) fn pop(&mut self) -> Option<Vec<Message>> {
        let (batch, bytes) = self.batches.pop_front()?;
        self.bytes -= bytes;
        Some(batch)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn forget(&mut self) {
        let all = std::mem::take(self).batches.into_iter();
        all.flat_map(|(messages, _)| messages)
            .filter(|message| message.receipt.token.is_none())
            .for_each(|message| self.push(message));
    }
}

/// What one connection has for the lanes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The first class.
    pub(super) urgent: Queue,
    /// All others.
    pub(super) rest: Queue,
}

impl Outbox {
    /// Puts a message behind the others of its lane.
    pub(super) fn push(&mut self, message: Message) {
        if message.class == ClassId::FIRST {
            self.urgent.push(message);
        } else {
            self.rest.push(message);
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.urgent.bytes + self.rest.bytes
    }

    /// The link broke: the broker brings again what it wants acknowledged. QoS 0 stays, since
    /// nobody brings that.
    pub(super) fn forget(&mut self) {
        self.urgent.forget();
        self.rest.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::sample;

    fn message(class: ClassId, token: Option<u32>, payload: usize) -> Message {
        let mut message = sample("t", &vec![0; payload]);
        message.class = class;
        message.receipt.token = token;
        message
    }

    fn tokens(queue: &mut Queue) -> Vec<Vec<Option<u32>>> {
        std::iter::from_fn(|| queue.pop())
            .map(|batch| batch.iter().map(|m| m.receipt.token).collect())
            .collect()
    }

    #[test]
    fn do_batches_close_at_their_bound_and_keep_the_order() {
        let mut outbox = Outbox::default();
        for (token, payload) in [(1, 10_000), (2, 40_000), (3, 10_000), (4, 200_000), (5, 1)] {
            outbox.push(message(ClassId(1), Some(token), payload));
        }
        outbox.push(message(ClassId::FIRST, Some(6), 1));
        assert!(outbox.bytes() > 260_000);
        let rest = [
            vec![Some(1), Some(2)],
            vec![Some(3)],
            vec![Some(4)],
            vec![Some(5)],
        ];
        assert_eq!(tokens(&mut outbox.rest), rest);
        assert_eq!(tokens(&mut outbox.urgent), [[Some(6)]]);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn does_a_broken_link_cost_a_message_that_nobody_brings_again() {
        let mut outbox = Outbox::default();
        outbox.push(message(ClassId(1), Some(1), 10));
        outbox.push(message(ClassId(1), None, 10));
        outbox.forget();
        assert_eq!(tokens(&mut outbox.rest), [[None]]);
        assert_eq!(outbox.bytes(), 0);
    }
}
