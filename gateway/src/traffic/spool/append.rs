//! What of one class is on its way to the disk: the block that is being filled, the blocks that the
//! writer has and has not answered, and the senders that wait for a commit. It gives positions and makes
//! commands; the relay passes them on.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::super::message::{ClassId, Message, Receipt, Tick};
use super::{
    BLOCK_BYTES_MAX, Block, DEAD_SEGMENT_BLOCK_BYTES_MAX, Position, SEGMENT_BLOCK_BYTES_MAX,
    file_bytes, record,
};

/// The longest time that a buffered class's block is filled, unless it is full before.
pub const BUFFERED_COMMIT: Duration = Duration::from_secs(5);
/// What a record takes beside the parts of its message, at most.
const RECORD_OVERHEAD_BYTES: usize = 80;

/// One class's way to the disk.
#[derive(Debug)]
pub struct Appending {
    class: ClassId,
    /// How long a block is filled.
    commit_interval: Duration,
    open: Option<Open>,
    /// Where the next record goes; `None`: a new segment is begun.
    next: Option<Position>,
    /// What blocks take of that segment's file, in bytes, and when it is full.
    segment_bytes: u64,
    segment_bytes_max: u64,
    /// Blocks that the writer has not answered, and their bytes.
    sent: VecDeque<(Range<Position>, usize)>,
    sent_bytes: usize,
    /// Senders that wait for a commit, in order of position. What ends before is answered then, and its
    /// receipt is gone.
    waiting: VecDeque<(Position, Option<Receipt>)>,
    /// Positions given to messages that have not ended, on disk or on the way.
    stored: u64,
    /// Nothing is written until then: there was no room.
    full_until: Tick,
}

#[derive(Debug)]
struct Open {
    block: Block,
    /// Of these, ended before the block was full.
    settled: Vec<Position>,
}

/// What was taken back of positions that are not on disk after all.
pub type TakenBack = HashMap<Position, Receipt>;

impl Appending {
    /// Nothing is on its way; blocks are filled for so long.
    #[must_use]
    pub fn new(class: ClassId, commit_interval: Duration) -> Self {
        Self {
            class,
            commit_interval,
            open: None,
            next: None,
            segment_bytes: 0,
            segment_bytes_max: SEGMENT_BLOCK_BYTES_MAX,
            sent: VecDeque::new(),
            sent_bytes: 0,
            waiting: VecDeque::new(),
            stored: 0,
            full_until: Tick::ZERO,
        }
    }

    /// The same for a log of dead letters.
    #[must_use]
    pub fn of_dead_letters(log: ClassId, commit_interval: Duration) -> Self {
        Self {
            segment_bytes_max: DEAD_SEGMENT_BLOCK_BYTES_MAX,
            ..Self::new(log, commit_interval)
        }
    }

    /// Whether this message closes the open block before it is written: it does not fit.
    #[must_use]
    pub fn overflows(&self, message: &Message) -> bool {
        let bytes = record_bytes_at_most(message);
        self.open
            .as_ref()
            .is_some_and(|open| open.block.records.len() + bytes > BLOCK_BYTES_MAX)
    }

    /// Writes a message into the open block. Its sender is answered from here on.
    /// `next_segment` is the number for a new segment, counted up if one is begun.
    pub fn write(&mut self, message: &mut Message, now: Tick, next_segment: &mut u32) {
        let open = self.open.take().unwrap_or_else(|| {
            let first = self.place(next_segment);
            Open::new(self.class, first, now)
        });
        let open = self.open.insert(open);
        let position = open.block.first.plus(open.block.count);
        record::write(&mut open.block.records, message, open.block.opened);
        open.block.count += 1;
        self.stored += 1;
        message.spooled = Some(position);
        if message.receipt.token.is_some() {
            self.waiting.push_back((position, Some(message.receipt)));
            message.receipt.token = None;
        }
    }

    fn place(&mut self, next_segment: &mut u32) -> Position {
        let roll = self.segment_bytes >= self.segment_bytes_max || self.stored == 0;
        match self.next {
            Some(next) if !roll => next,
            _ => {
                let segment = *next_segment;
                *next_segment = next_segment.saturating_add(1);
                self.segment_bytes = 0;
                Position::new(segment, 0)
            }
        }
    }

    /// When the open block's time has come; [`Tick::NEVER`] without one.
    #[must_use]
    pub fn due(&self) -> Tick {
        let open = self.open.as_ref();
        open.map_or(Tick::NEVER, |open| {
            open.block.opened.after(self.commit_interval)
        })
    }

    /// Closes the open block, if there is one. Gives it, and what of it is settled already, if it is to be
    /// written: when all its messages ended meanwhile the disk is spared.
    pub fn close(&mut self) -> Option<(Block, Vec<Position>)> {
        let mut open = self.open.take()?;
        open.block.records.shrink_to_fit();
        let positions = open.block.positions();
        self.next = Some(positions.end);
        if open.settled.len() == open.block.count as usize {
            return None;
        }
        let bytes = open.block.records.len();
        self.segment_bytes += file_bytes(bytes);
        self.sent_bytes += bytes;
        self.sent.push_back((positions, bytes));
        Some((open.block, open.settled))
    }

    /// Drops the open block, if it stands in this segment, of which an earlier block was not written: it
    /// would stand before what was received earlier. Gives its positions.
    pub fn drop_open(&mut self, segment: u32) -> Option<Range<Position>> {
        let first = self.open.as_ref()?.block.first;
        (first.segment() == segment).then(|| self.take_open())?
    }

    /// Drops the open block, if there is one. Gives its positions.
    pub fn take_open(&mut self) -> Option<Range<Position>> {
        Some(self.open.take()?.block.positions())
    }

    /// A message that was written ended: gives the receipt of a sender that waited for it, and whether
    /// the writer must be told.
    pub fn settle(&mut self, position: Position) -> (Option<Receipt>, bool) {
        self.stored = self.stored.saturating_sub(1);
        let receipt = self.take_receipt(position);
        match &mut self.open {
            Some(open) if position >= open.block.first => {
                open.settled.push(position);
                (receipt, false)
            }
            _ => (receipt, true),
        }
    }

    /// The receipt of a sender that still waits for the commit of this position.
    pub fn take_receipt(&mut self, position: Position) -> Option<Receipt> {
        let found = self.waiting.binary_search_by_key(&position, |(at, _)| *at);
        let receipt = self.waiting.get_mut(found.ok()?)?.1.take();
        while let Some((_, None)) = self.waiting.front() {
            self.waiting.pop_front();
        }
        receipt
    }

    /// These are on disk: gives the senders that waited for it.
    pub fn safe(&mut self, positions: &Range<Position>) -> Vec<Receipt> {
        self.answered(positions);
        let waited = self
            .waiting
            .partition_point(|(position, _)| *position < positions.end);
        let waited = self.waiting.drain(..waited);
        waited.filter_map(|(_, receipt)| receipt).collect()
    }

    /// These are not on disk, or no more: gives back the receipts of those that waited for it. The next
    /// block begins a new segment.
    pub fn take_back(&mut self, positions: &Range<Position>) -> TakenBack {
        let segment = positions.start.segment();
        if self.next.is_some_and(|next| next.segment() == segment) {
            self.next = None;
        }
        let mut back = TakenBack::new();
        for (position, receipt) in &mut self.waiting {
            if positions.contains(position)
                && let Some(receipt) = receipt.take()
            {
                back.insert(*position, receipt);
            }
        }
        back
    }

    /// The writer has answered these, and all before them.
    pub fn answered(&mut self, positions: &Range<Position>) {
        while let Some((range, bytes)) = self.sent.front() {
            if range.start >= positions.end {
                break;
            }
            self.sent_bytes -= bytes;
            self.sent.pop_front();
        }
    }

    /// Counts positions that are settled or gone without a message in memory.
    pub fn forget(&mut self, count: u64) {
        self.stored = self.stored.saturating_sub(count);
    }

    /// Counts positions that an earlier start left.
    pub fn found(&mut self, count: u64) {
        self.stored += count;
    }

    /// The first position that is not known to be on disk; `None` when all are.
    #[must_use]
    pub fn unsafe_from(&self) -> Option<Position> {
        let sent = self.sent.front().map(|(range, _)| range.start);
        sent.or(self.open.as_ref().map(|open| open.block.first))
    }

    /// Whether something is on its way and not answered.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.open.is_some() || !self.sent.is_empty()
    }

    /// Whether the writer owes an answer.
    #[must_use]
    pub fn awaits(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Bytes on their way: in the open block, or not answered.
    #[must_use]
    pub fn unsafe_bytes(&self) -> usize {
        let open = self.open.as_ref();
        self.sent_bytes + open.map_or(0, |open| open.block.records.len())
    }

    /// Nothing is written until then.
    pub fn pause(&mut self, until: Tick) {
        self.full_until = until;
    }

    /// Whether there may be room. Not while blocks of a segment that was given up are unanswered: what
    /// they hold is written again, and must not stand behind what was received later.
    #[must_use]
    pub fn may_write(&self, now: Tick) -> bool {
        let goes_on = self.next.is_some() || self.open.is_some() || self.sent.is_empty();
        goes_on && now >= self.full_until
    }

    /// Until when there is no room.
    #[must_use]
    pub const fn full_until(&self) -> Tick {
        self.full_until
    }
}

impl Open {
    fn new(class: ClassId, first: Position, opened: Tick) -> Self {
        Self {
            block: Block {
                class,
                first,
                count: 0,
                opened,
                records: Vec::new(),
            },
            settled: Vec::new(),
        }
    }
}

fn record_bytes_at_most(message: &Message) -> usize {
    let key = message.key.as_ref().map_or(0, |key| key.len());
    message.body.size_bytes() + key + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::{DoorId, sample};

    const MS: Duration = Duration::from_millis(100);

    fn appending() -> Appending {
        Appending::new(ClassId(1), MS)
    }

    #[test]
    fn does_what_comes_later_wait_until_all_of_a_segment_given_up_is_answered() {
        let mut appending = appending();
        let mut next_segment = 1;
        let mut block = || {
            let mut message = sample("t", b"x");
            appending.write(&mut message, Tick::ZERO, &mut next_segment);
            match appending.close() {
                Some((block, _)) => block.positions(),
                other => panic!("{other:?}"),
            }
        };
        let (first, second) = (block(), block());
        for (refused, writes) in [(first, false), (second, true)] {
            appending.answered(&refused);
            let _ = appending.take_back(&refused);
            assert_eq!(appending.may_write(Tick::ZERO), writes, "{refused:?}");
        }
    }

    fn write(appending: &mut Appending, token: Option<u32>, next: &mut u32) -> Position {
        let mut message = sample("t", b"payload");
        message.receipt.token = token;
        appending.write(&mut message, Tick::START, next);
        assert_eq!(message.receipt.token, None, "the disk answers from now on");
        message.spooled.unwrap()
    }

    #[test]
    fn is_a_sender_answered_once_by_commit_or_end() {
        let (mut appending, mut next) = (appending(), 1);
        let positions = [1, 2, 3].map(|token| write(&mut appending, Some(token), &mut next));
        let Some((block, settled)) = appending.close() else {
            panic!("there is a block");
        };
        assert!(settled.is_empty());
        let (receipt, tell) = appending.settle(positions[1]);
        assert_eq!((receipt.unwrap().token, tell), (Some(2), true));
        let answered = appending.safe(&block.positions());
        let tokens: Vec<_> = answered.iter().map(|receipt| receipt.token).collect();
        assert_eq!(tokens, [Some(1), Some(3)]);
        assert_eq!(appending.settle(positions[0]), (None, true));
        assert_eq!(appending.unsafe_bytes(), 0);
        assert_eq!(appending.unsafe_from(), None);
    }

    #[test]
    fn is_the_disk_spared_what_ended_meanwhile() {
        let (mut appending, mut next) = (appending(), 1);
        let first = write(&mut appending, Some(1), &mut next);
        let second = write(&mut appending, None, &mut next);
        assert!(!appending.settle(first).1 && !appending.settle(second).1);
        assert_eq!(appending.close(), None);
        assert!(!appending.is_busy());
    }

    #[test]
    fn does_what_was_not_written_come_back_and_begin_a_new_segment() {
        let (mut appending, mut next) = (appending(), 5);
        let first = write(&mut appending, Some(9), &mut next);
        let Some((block, _)) = appending.close() else {
            panic!("there is a block");
        };
        appending.answered(&block.positions());
        let back = appending.take_back(&block.positions());
        assert_eq!(back[&first].token, Some(9));
        assert_eq!(
            back[&first].door,
            DoorId {
                index: 0,
                generation: 0
            }
        );
        appending.forget(1);
        let second = write(&mut appending, None, &mut next);
        assert_eq!((first.segment(), second.segment()), (5, 6));
    }

    #[test]
    fn is_a_segment_closed_before_its_file_gets_too_large() {
        let (mut appending, mut next) = (appending(), 1);
        let payload = vec![0; 60_000];
        let mut segments = Vec::new();
        for _ in 0..2 * SEGMENT_BLOCK_BYTES_MAX / file_bytes(60_000) {
            let mut message = sample("t", &payload);
            assert!(!appending.overflows(&message));
            appending.write(&mut message, Tick::START, &mut next);
            segments.push(message.spooled.unwrap().segment());
            assert!(appending.overflows(&message));
            appending.close();
        }
        segments.dedup();
        assert_eq!(segments, [1, 2]);
    }
}
