//! One class's backlog: what stands on disk and nowhere else, the little of it that was read back, and
//! when the next read is due. The relay asks and the writer answers; a disk that does not answer keeps
//! nobody waiting for long.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::super::message::{ClassId, Message, Tick};
use super::{Order, Position, Ranges, SpoolCommand};

/// Bytes of [`Message::memory_bytes`] that are read ahead of a class: with a round trip to the writer of
/// a few milliseconds more than any uplink takes meanwhile. It stands beside `memory_max`, like what of it
/// is in flight: at most a window for each connection.
pub const READ_AHEAD_BYTES: u64 = 512 * 1024;
/// How long live messages of a class that keeps its order wait for a read of what is older.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after a read that brought nothing the next one comes.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Pieces of the set of what is on disk alone. Each is some 50 bytes of memory: beyond, nothing more is
/// given up in memory for being on disk.
const PIECES_MAX: usize = 64 * 1024;

/// The backlog of one class.
#[derive(Debug)]
pub struct Backlog {
    class: ClassId,
    order: Order,
    /// On disk, and not in memory.
    stands: Ranges,
    /// Likewise, and not read until it is woken.
    rests: Ranges,
    /// Read back, in order; in memory.
    read: VecDeque<Message>,
    read_bytes: u64,
    /// When the read was asked for that is not answered.
    asked: Option<Tick>,
    /// When the next read may be asked for.
    ask_at: Tick,
    /// The last read brought nothing: the disk fails.
    barren: bool,
    /// Everything that earlier starts left is known.
    scanned: bool,
    /// When it was first looked at.
    started: Option<Tick>,
}

/// Which of a class goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// What is live.
    Live,
    /// What was read back.
    Backlog,
    /// Neither: what is older has yet to be read.
    Wait,
}

impl Backlog {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(class: ClassId, order: Order) -> Self {
        Self {
            class,
            order,
            stands: Ranges::default(),
            rests: Ranges::default(),
            read: VecDeque::new(),
            read_bytes: 0,
            asked: None,
            ask_at: Tick::ZERO,
            barren: false,
            scanned: false,
            started: None,
        }
    }

    /// Messages on disk alone.
    #[must_use]
    pub const fn on_disk(&self) -> u64 {
        self.stands.count() + self.rests.count()
    }

    /// Messages that were read back and wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.read.len()
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.on_disk() == 0
    }

    /// Whether the class's order lets its backlog and its live messages go side by side.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.order == Order::LiveFirst
    }

    /// Whether some of it may go beside what is live, of which `live` is the first: not before what came
    /// back from a broken connection and is older than all of it.
    #[must_use]
    pub fn goes_beside(&self, live: Option<&Message>, now: Tick) -> bool {
        let older = live.is_some_and(|live| self.is_behind(live.spooled));
        self.is_beside() && self.waiting() > 0 && !older && !self.waits_for_older(now)
    }

    /// Which goes next of a class that keeps its order; `live` is its first live message. A class stands on
    /// disk in the order in which it waited, so that places tell what is older; what is not written is
    /// newer than all that is.
    #[must_use]
    pub fn next(&self, live: Option<&Message>, now: Tick) -> Next {
        match (self.read.front(), live) {
            (_, Some(live)) if self.is_behind(live.spooled) => Next::Live,
            (Some(_), _) if self.waits_for_older(now) => Next::Wait,
            (Some(_), _) => Next::Backlog,
            (None, _) if self.is_late(now) => Next::Live,
            (None, _) if self.stands.count() > 0 || !self.scanned => Next::Wait,
            (None, _) => Next::Live,
        }
    }

    /// Whether everything of it stands behind this place.
    fn is_behind(&self, place: Option<Position>) -> bool {
        let stands = self.stands.first().map(|range| range.start.turn());
        let read = self.read.front().map(|message| message.turn);
        let first = stands.into_iter().chain(read).min();
        place.is_some_and(|place| first.is_some_and(|first| place.turn() < first))
    }

    /// Whether something that was given up in memory only now is older than what was read back, and has yet
    /// to be read.
    #[must_use]
    pub fn waits_for_older(&self, now: Tick) -> bool {
        self.lacks_older() && !self.is_late(now)
    }

    fn lacks_older(&self) -> bool {
        let first = self.stands.first().map(|range| range.start.turn());
        let read = self.read.front().map(|message| message.turn);
        first.is_some_and(|first| read.is_some_and(|read| first < read))
    }

    /// Whether the disk has kept the class waiting for too long.
    fn is_late(&self, now: Tick) -> bool {
        let since = if self.scanned {
            self.asked
        } else {
            self.started
        };
        self.barren || since.is_some_and(|since| now.since(since) >= PATIENCE)
    }

    /// Until when a class that keeps its order waits at most; [`Tick::NEVER`] if it does not.
    #[must_use]
    pub fn deadline(&self, now: Tick) -> Tick {
        let asked = self.asked.map(|asked| asked.after(PATIENCE));
        let scan = self.started.filter(|_| !self.scanned);
        let scan = scan.map(|started| started.after(PATIENCE));
        let again = (self.stands.count() > 0).then_some(self.ask_at);
        let times = [asked, scan, again].into_iter().flatten();
        times.filter(|at| *at > now).min().unwrap_or(Tick::NEVER)
    }

    /// Whether one more may be given up in memory for being on disk.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.stands.pieces() + self.rests.pieces() < PIECES_MAX
    }

    /// All that stands on disk alone.
    #[must_use]
    pub fn places(&self) -> Ranges {
        self.stands.clone()
    }

    /// Whether this stands on disk alone.
    #[must_use]
    pub fn has(&self, position: Position) -> bool {
        self.stands.contains(position)
    }

    /// A message stands on disk alone from now on.
    pub fn insert(&mut self, position: Position) {
        self.stands.insert_one(position);
    }

    /// A message stands on disk alone, and keeps nobody waiting: it is not read until it is woken.
    pub fn rest(&mut self, position: Position) {
        self.rests.insert_one(position);
    }

    /// Whether anything rests.
    #[must_use]
    pub const fn has_resting(&self) -> bool {
        self.rests.count() > 0
    }

    /// What rested is read like the rest.
    pub fn wake(&mut self) {
        for range in std::mem::take(&mut self.rests).iter() {
            self.stands.insert(range);
        }
    }

    /// What an earlier start left; gives how many.
    pub fn found(&mut self, ranges: Vec<Range<Position>>) -> u64 {
        ranges
            .into_iter()
            .map(|range| self.stands.insert(range))
            .sum()
    }

    /// Everything that earlier starts left is known.
    pub fn scanned(&mut self) {
        self.scanned = true;
    }

    /// Whether everything that earlier starts left is known.
    #[must_use]
    pub const fn is_scanned(&self) -> bool {
        self.scanned
    }

    /// Positions that are not on disk any more; gives how many of them stood there alone.
    pub fn gone(&mut self, range: Range<Position>) -> u64 {
        self.stands.remove(range.clone()) + self.rests.remove(range)
    }

    /// Takes one out that stands on disk alone; says whether it did.
    pub fn remove(&mut self, position: Position) -> bool {
        self.stands.remove_one(position) || self.rests.remove_one(position)
    }

    /// From the first look on, live messages of a class that keeps its order wait for what earlier starts
    /// left, but not for ever.
    pub fn start(&mut self, now: Tick) {
        self.started.get_or_insert(now);
    }

    /// The read that is due, if one is.
    pub fn ask(&mut self, now: Tick) -> Option<SpoolCommand> {
        let enough = self.read_bytes >= READ_AHEAD_BYTES / 2 && !self.lacks_older();
        if self.asked.is_some() || now < self.ask_at || enough {
            return None;
        }
        let first = self.stands.first()?;
        let last = self.stands.last()?;
        self.asked = Some(now);
        Some(SpoolCommand::Read {
            class: self.class,
            from: first.start,
            until: last.end,
            bytes_max: READ_AHEAD_BYTES.saturating_sub(self.read_bytes),
        })
    }

    /// A read of one record, unless one is under way or has just failed.
    pub fn ask_one(&mut self, at: Position, now: Tick) -> Option<SpoolCommand> {
        if self.asked.is_some() || now < self.ask_at {
            return None;
        }
        self.asked = Some(now);
        Some(SpoolCommand::Read {
            class: self.class,
            from: at,
            until: at.plus(1),
            bytes_max: 0,
        })
    }

    /// The answer to a read: gives the messages that stood on disk alone, and how many of what was
    /// looked at are missing.
    pub fn answered(
        &mut self,
        looked_at: Range<Position>,
        mut messages: Vec<Message>,
        now: Tick,
    ) -> (Vec<Message>, u64) {
        self.asked = None;
        self.barren = looked_at.is_empty();
        if looked_at.is_empty() {
            self.ask_at = now.after(READ_AGAIN);
            return (Vec::new(), 0);
        }
        messages.retain(|message| {
            message
                .spooled
                .is_some_and(|position| self.stands.remove_one(position))
        });
        (messages, self.stands.remove(looked_at))
    }

    /// A message was read back. What was given up in memory late may be older than what was read before.
    pub fn push(&mut self, mut message: Message) {
        self.read_bytes += message.memory_bytes();
        message.turn = message.spooled.map_or(0, Position::turn);
        let older = |read: &Message| read.turn <= message.turn;
        let at = self.read.partition_point(older);
        self.read.insert(at, message);
    }

    /// The next message that was read back.
    pub fn pop(&mut self) -> Option<Message> {
        let message = self.read.pop_front()?;
        self.read_bytes -= message.memory_bytes();
        Some(message)
    }

    /// Takes out what was read back and is meant.
    pub fn take(&mut self, meant: impl Fn(&Message) -> bool) -> Vec<Message> {
        let read = std::mem::take(&mut self.read);
        let (taken, kept): (Vec<_>, Vec<_>) = read.into_iter().partition(meant);
        let bytes: u64 = taken.iter().map(Message::memory_bytes).sum();
        self.read_bytes -= bytes;
        self.read = kept.into();
        taken
    }

    /// Messages that were sent and not taken: they go again, each at its turn, though its place on disk may
    /// be gone or another one meanwhile.
    pub fn put_back(&mut self, messages: Vec<Message>) {
        for message in messages.into_iter().rev() {
            self.read_bytes += message.memory_bytes();
            self.read.push_front(message);
        }
        let read = self.read.make_contiguous();
        read.sort_by_key(|message| message.turn);
    }

    /// All that was read back, to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.read.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::sample;

    fn at(index: u32) -> Position {
        Position::new(3, index)
    }

    fn record(index: u32) -> Message {
        let mut message = sample("t", b"x");
        message.spooled = Some(at(index));
        message.sequence = u64::from(index);
        message
    }

    fn backlog(order: Order, records: u32) -> Backlog {
        let mut backlog = Backlog::new(ClassId(1), order);
        assert_eq!(backlog.found(vec![at(0)..at(records)]), u64::from(records));
        backlog.scanned();
        backlog
    }

    #[test]
    fn does_a_class_that_keeps_its_order_wait_for_what_is_older_but_not_for_ever() {
        let now = Tick::START;
        let mut backlog = backlog(Order::Strict, 5);
        let live = sample("t", b"new");
        assert_eq!(backlog.next(Some(&live), now), Next::Wait);
        assert!(backlog.ask(now).is_some());
        assert!(backlog.ask(now).is_none(), "one read at a time");
        assert_eq!(backlog.next(Some(&live), now.after(PATIENCE)), Next::Live);
        let (read, missing) = backlog.answered(at(0)..at(3), vec![record(0), record(2)], now);
        assert_eq!((read.len(), missing), (2, 1));
        for message in read {
            backlog.push(message);
        }
        assert_eq!(backlog.on_disk(), 2);
        assert_eq!(backlog.next(Some(&live), now), Next::Backlog);
    }

    #[test]
    fn does_what_was_in_flight_before_go_before_what_was_given_up_in_memory() {
        let now = Tick::START;
        let mut backlog = backlog(Order::Strict, 3);
        let (read, _) = backlog.answered(at(0)..at(3), vec![record(1)], now);
        backlog.push(read.into_iter().next().unwrap());
        assert_eq!(backlog.next(Some(&record(0)), now), Next::Live);
        assert_eq!(backlog.next(Some(&record(2)), now), Next::Backlog);
    }

    #[test]
    fn does_backlog_beside_live_messages_wait_for_older_ones_that_came_back() {
        let now = Tick::START;
        let mut backlog = backlog(Order::LiveFirst, 0);
        backlog.push(record(1));
        assert!(!backlog.goes_beside(Some(&record(0)), now));
        assert!(backlog.goes_beside(Some(&record(2)), now));
        assert!(backlog.goes_beside(Some(&sample("t", b"not on disk")), now));
        assert!(backlog.goes_beside(None, now));
    }

    #[test]
    fn does_what_is_given_up_late_and_is_older_go_first() {
        let now = Tick::START;
        let mut backlog = Backlog::new(ClassId(1), Order::Strict);
        backlog.scanned();
        backlog.push(record(5));
        assert_eq!(backlog.next(None, now), Next::Backlog);
        backlog.insert(at(2));
        assert_eq!(backlog.next(None, now), Next::Wait);
        assert!(backlog.ask(now).is_some());
        let (read, _) = backlog.answered(at(2)..at(3), vec![record(2)], now);
        read.into_iter().for_each(|message| backlog.push(message));
        let order = std::iter::from_fn(|| backlog.pop());
        let order: Vec<_> = order.map(|message| message.sequence).collect();
        assert_eq!(order, [2, 5]);
    }

    #[test]
    fn does_what_got_another_place_go_before_newer_live_messages() {
        let now = Tick::START;
        let mut backlog = backlog(Order::Strict, 0);
        backlog.push(record(1));
        for moved in backlog.iter_mut() {
            moved.spooled = Some(at(9));
        }
        assert_eq!(backlog.next(Some(&record(8)), now), Next::Backlog);
        assert_eq!(backlog.next(Some(&record(0)), now), Next::Live);
    }

    #[test]
    fn does_what_has_no_place_any_more_keep_its_order() {
        let mut backlog = backlog(Order::Strict, 9);
        for index in [1, 2, 3, 4, 5] {
            backlog.push(record(index));
        }
        let sent: Vec<_> = (1..=3).filter_map(|_| backlog.pop()).collect();
        for gone in backlog.iter_mut() {
            gone.spooled = None;
        }
        backlog.put_back(sent);
        let order = std::iter::from_fn(|| backlog.pop());
        let order: Vec<_> = order.map(|message| message.sequence).collect();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn does_what_comes_back_stand_in_order() {
        let mut backlog = backlog(Order::LiveFirst, 9);
        for index in [2, 4, 5] {
            backlog.push(record(index));
        }
        let sent: Vec<_> = (1..=2).filter_map(|_| backlog.pop()).collect();
        backlog.put_back(sent);
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop())
            .map(|message| message.sequence)
            .collect();
        assert_eq!(order, [2, 4, 5]);
        assert_eq!(backlog.read_bytes, 0);
    }

    #[test]
    fn is_a_read_that_brought_nothing_asked_for_again_later() {
        let now = Tick::START;
        let mut backlog = backlog(Order::Strict, 9);
        assert!(backlog.ask(now).is_some());
        let (read, missing) = backlog.answered(at(0)..at(0), Vec::new(), now);
        assert_eq!((read.len(), missing, backlog.on_disk()), (0, 0, 9));
        assert!(backlog.ask(now).is_none());
        assert_eq!(
            backlog.next(Some(&sample("t", b"new")), now),
            Next::Live,
            "sending never waits for the disk"
        );
        assert!(backlog.ask(now.after(READ_AGAIN)).is_some());
    }
}
