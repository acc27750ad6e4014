//! Which messages of one link are still to be acknowledged. In come packet identifiers in the order
//! of receipt and the relay's answers; out come the identifiers that may be acknowledged now. It
//! does no input or output, and forgets everything when the link breaks: the broker sends it again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::traffic::message::Tick;

/// How long answered messages stand behind one which still waits. MQTT asks for acknowledgements in
/// the order of receipt (3.1.1 and 5, 4.6), and mosquitto 2.0.11 mixes a topic's messages up when they
/// come otherwise, so while the uplink answers within this time they leave in order. An alarm that
/// waits longer must not stop the broker's window, though: behind it the broker's queue would overflow
/// and lose the next alarm. Then those which are answered go ahead, which brokers accept.
pub(super) const OUT_OF_ORDER_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Entry {
    token: u32,
    packet_id: u16,
    answered: bool,
    /// When it went to the relay.
    at: Tick,
}

/// The unacknowledged messages of one connection, oldest first. Tokens go on counting from link to
/// link, so that a late answer to a message of a broken link finds nothing.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    next_token: u32,
    order: VecDeque<Entry>,
    answered: usize,
    ready: VecDeque<u16>,
}

impl Receipts {
    /// A message goes to the relay. Gives the token under which it will be answered.
    pub(super) fn ask(&mut self, packet_id: u16, now: Tick) -> u32 {
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        self.order.push_back(Entry {
            token,
            packet_id,
            answered: false,
            at: now,
        });
        token
    }

    /// A message that the relay never sees: acknowledged in its turn.
    pub(super) fn settle(&mut self, packet_id: u16, now: Tick) {
        let token = self.ask(packet_id, now);
        self.answer(token);
    }

    /// Whether this link waits for the answer under this token.
    pub(super) fn is_open(&self, token: u32) -> bool {
        let place = self.place(token).and_then(|place| self.order.get(place));
        place.is_some_and(|entry| !entry.answered)
    }

    fn place(&self, token: u32) -> Option<usize> {
        let first = self.order.front()?.token;
        let place = self
            .order
            .binary_search_by_key(&token.wrapping_sub(first), |entry| {
                entry.token.wrapping_sub(first)
            });
        place.ok()
    }

    /// The relay answered. A token of an earlier link is none of ours any more.
    pub(super) fn answer(&mut self, token: u32) {
        let place = self.place(token);
        let Some(entry) = place.and_then(|place| self.order.get_mut(place)) else {
            return;
        };
        if !entry.answered {
            entry.answered = true;
            self.answered += 1;
        }
    }

    /// Lets go what may be acknowledged by now.
    pub(super) fn release(&mut self, now: Tick) {
        while let Some(entry) = self.order.pop_front_if(|entry| entry.answered) {
            self.answered -= 1;
            self.ready.push_back(entry.packet_id);
        }
        if self.overdue_at() <= now {
            let answered = self.order.iter().filter(|entry| entry.answered);
            self.ready.extend(answered.map(|entry| entry.packet_id));
            self.order.retain(|entry| !entry.answered);
            self.answered = 0;
        }
    }

    /// When answered messages go ahead of the one that they stand behind.
    pub(super) fn overdue_at(&self) -> Tick {
        let first = self.order.front().filter(|_| self.answered > 0);
        first.map_or(Tick::NEVER, |entry| entry.at.after(OUT_OF_ORDER_AFTER))
    }

    /// The next packet identifier to acknowledge, until [`Receipts::acknowledged`] is said.
    pub(super) fn ready(&self) -> Option<u16> {
        self.ready.front().copied()
    }

    /// The one that [`Receipts::ready`] gave is on its way.
    pub(super) fn acknowledged(&mut self) {
        self.ready.pop_front();
    }

    /// Messages that are not acknowledged: what the relay has not answered, and what waits for the
    /// link.
    pub(super) fn open_count(&self) -> usize {
        self.order.len() + self.ready.len()
    }

    /// The link broke: what was not acknowledged on it will come again.
    pub(super) fn forget(&mut self) {
        self.order.clear();
        self.ready.clear();
        self.answered = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(receipts: &mut Receipts, now: Tick) -> Vec<u16> {
        receipts.release(now);
        std::iter::from_fn(|| {
            let id = receipts.ready()?;
            receipts.acknowledged();
            Some(id)
        })
        .collect()
    }

    #[test]
    fn do_acknowledgements_leave_in_the_order_of_receipt() {
        let mut receipts = Receipts::default();
        let tokens: Vec<_> = (1..=4).map(|id| receipts.ask(id, Tick::ZERO)).collect();
        for token in [tokens[2], tokens[1], tokens[3]] {
            receipts.answer(token);
            assert!(ready(&mut receipts, Tick::ZERO).is_empty());
        }
        receipts.answer(tokens[0]);
        assert_eq!(ready(&mut receipts, Tick::ZERO), [1, 2, 3, 4]);
    }

    /// A flood's copies are dropped at once; an alarm among them waits for a slow uplink. Held to
    /// strict order it would stop the broker's window, and the broker would lose the next alarm.
    #[test]
    fn does_one_that_waits_stop_the_window() {
        let mut receipts = Receipts::default();
        let alarm = receipts.ask(1, Tick::ZERO);
        for id in 2..=20 {
            receipts.settle(id, Tick::ZERO);
        }
        assert!(ready(&mut receipts, Tick::ZERO).is_empty());
        let late = receipts.overdue_at();
        assert_eq!(late, Tick::ZERO.after(OUT_OF_ORDER_AFTER));
        assert!(ready(&mut receipts, late).into_iter().eq(2..=20));
        receipts.settle(21, late);
        assert_eq!(ready(&mut receipts, late), [21]);
        receipts.answer(alarm);
        assert_eq!(ready(&mut receipts, late), [1]);
        assert_eq!(receipts.overdue_at(), Tick::NEVER);
    }

    #[test]
    fn does_a_late_answer_acknowledge_a_message_of_the_next_link() {
        let mut receipts = Receipts {
            next_token: u32::MAX,
            ..Receipts::default()
        };
        let old: Vec<_> = (1..=3).map(|id| receipts.ask(id, Tick::ZERO)).collect();
        receipts.forget();
        let new = receipts.ask(1, Tick::ZERO);
        for token in old {
            assert!(!receipts.is_open(token));
            receipts.answer(token);
        }
        assert!(ready(&mut receipts, Tick::ZERO).is_empty());
        assert!(receipts.is_open(new));
        receipts.answer(new);
        receipts.answer(new);
        assert_eq!(ready(&mut receipts, Tick::ZERO), [1]);
        assert_eq!(receipts.open_count(), 0);
    }
}
