//! What is read back: blocks, checked and taken apart, without what is settled.

use std::ops::{ControlFlow, Range};

use super::mend::Mend;
use super::{Now, Store};
use crate::traffic::message::{ClassId, Message, Tick};
use crate::traffic::settle::Outcome;
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::frame::{Frame, Kind};
use crate::traffic::spool::moment::Boots;
use crate::traffic::spool::segment::Fault;
use crate::traffic::spool::{Position, Ranges, SpoolReport, record};

/// What a read of one segment brought.
struct Reading {
    messages: Vec<Message>,
    looked_to: Position,
}

impl Store {
    /// Answers a [`SpoolCommand::Read`](crate::traffic::spool::SpoolCommand::Read), always. An empty `looked_at`: the disk
    /// fails, ask again later.
    pub fn read(
        &mut self,
        class: ClassId,
        from: Position,
        until: Position,
        bytes_max: u64,
        now: Now,
    ) {
        let (messages, to) = self.read_class(class, from..until, bytes_max, now);
        self.reports.push(SpoolReport::Records {
            class,
            looked_at: from..to,
            messages,
        });
    }

    fn read_class(
        &mut self,
        class: ClassId,
        range: Range<Position>,
        bytes_max: u64,
        now: Now,
    ) -> (Vec<Message>, Position) {
        if range.is_empty() {
            return (Vec::new(), range.start);
        }
        let numbers = range.start.segment()..=range.end.segment();
        let of_class = self.segments.range(numbers);
        let of_class = of_class.filter(|(_, segment)| segment.class == class);
        let numbers: Vec<u32> = of_class.map(|(number, _)| *number).collect();
        for number in numbers {
            let within = range.start.max(Position::new(number, 0))
                ..range.end.min(Position::new(number.saturating_add(1), 0));
            match self.read_mending(number, within.clone(), bytes_max, now) {
                Ok(reading) if reading.messages.is_empty() => {}
                Ok(reading) => return (reading.messages, reading.looked_to),
                Err(error) => {
                    self.fail_reading(&error);
                    return (Vec::new(), within.start.min(range.end));
                }
            }
        }
        (Vec::new(), range.end)
    }

    /// Reads, and mends the segment once where it is damaged.
    fn read_mending(
        &mut self,
        number: u32,
        within: Range<Position>,
        bytes_max: u64,
        now: Now,
    ) -> Result<Reading, Fault> {
        if self
            .segments
            .get(&number)
            .is_some_and(|segment| !segment.known)
        {
            self.scan_segment(number, now)?;
        }
        match self.read_segment(number, within.clone(), bytes_max, now) {
            Err(Fault::Damaged(why)) => {
                self.mend(number, Mend::Damaged(&why), now)?;
                match self.read_segment(number, within.clone(), bytes_max, now) {
                    Err(Fault::Damaged(_)) => Ok(self.give_up(number, within)),
                    read => read,
                }
            }
            read => read,
        }
    }

    /// What was mended and cannot be read all the same must not stand in the way of the rest.
    fn give_up(&mut self, number: u32, within: Range<Position>) -> Reading {
        self.close(number);
        let segment = self.segments.get(&number);
        let wanted = segment.map(|segment| segment.head.unsettled.within(within.clone()));
        self.miss(number, &wanted.unwrap_or_default(), within.end, &[]);
        Reading {
            messages: Vec::new(),
            looked_to: within.end,
        }
    }

    fn read_segment(
        &mut self,
        number: u32,
        within: Range<Position>,
        bytes_max: u64,
        now: Now,
    ) -> Result<Reading, Fault> {
        let nothing = Reading {
            messages: Vec::new(),
            looked_to: within.end,
        };
        let Some(segment) = self.segments.get(&number) else {
            return Ok(nothing);
        };
        let wanted: Ranges = segment.head.unsettled.within(within.clone());
        let (Some(first), true) = (wanted.first(), segment.made) else {
            return Ok(nothing);
        };
        let mut taking = Taking {
            class: segment.class,
            segment: number,
            boots: self.boots.clone(),
            now,
            wanted: &wanted,
            bytes_left: bytes_max,
            messages: Vec::new(),
            full_at: None,
        };
        let file = self.file(number, Access::Read)?;
        file.blocks(first.start.index(), |key, bytes| {
            if u64::from(within.end.index()) <= key && within.end.segment() == number {
                return ControlFlow::Break(());
            }
            taking.block(key, bytes)
        })?;
        let looked_to = taking.full_at.unwrap_or(within.end);
        let messages = taking.messages;
        self.miss(number, &wanted, looked_to, &messages);
        Ok(Reading {
            messages,
            looked_to,
        })
    }

    /// What should have been read before `looked_to`, and was not, is damaged.
    fn miss(&mut self, number: u32, wanted: &Ranges, looked_to: Position, messages: &[Message]) {
        let mut missing = wanted.within(Position::new(number, 0)..looked_to);
        for message in messages {
            if let Some(position) = message.spooled {
                missing.remove_one(position);
            }
        }
        let count = missing.count();
        if count == 0 {
            return;
        }
        let class = self.class(number);
        if let Some(segment) = self.segments.get_mut(&number) {
            for range in missing.iter() {
                segment.head.unsettled.remove(range);
            }
            segment.changed = true;
        }
        tracing::error!(
            "{count} messages in segment {number} of the spool in {} are damaged and lost; the medium may be failing, check it",
            self.disk.place()
        );
        self.gone(class, missing.iter().collect(), Outcome::Damaged);
    }
}

/// Takes blocks apart.
struct Taking<'a> {
    class: ClassId,
    segment: u32,
    boots: Boots,
    now: Now,
    wanted: &'a Ranges,
    bytes_left: u64,
    messages: Vec<Message>,
    /// The first that did not fit.
    full_at: Option<Position>,
}

impl Taking<'_> {
    fn block(&mut self, key: u64, bytes: &[u8]) -> ControlFlow<()> {
        let records = records(self.segment, self.class, &self.boots, self.now, key, bytes);
        for (at, message) in records {
            if self.wanted.contains(at) {
                self.take(message, at)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, message: Message, at: Position) -> ControlFlow<()> {
        let bytes = message.memory_bytes();
        if bytes > self.bytes_left && !self.messages.is_empty() {
            self.full_at = Some(at);
            return ControlFlow::Break(());
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.messages.push(message);
        ControlFlow::Continue(())
    }
}

/// The records of one block, as far as they can be read; of a damaged one, none.
pub(super) fn records<'a>(
    segment: u32,
    class: ClassId,
    boots: &Boots,
    now: Now,
    key: u64,
    bytes: &'a [u8],
) -> Records<'a> {
    let here = |frame: &Frame<'_>| {
        frame.kind == Kind::Block && frame.segment == segment && frame.number == key
    };
    let frame = Frame::read(bytes).map(|(frame, _)| frame).filter(here);
    let first = u32::try_from(key).unwrap_or(u32::MAX);
    Records {
        class,
        next: Position::new(segment, first),
        opened: frame.map_or(Tick::ZERO, |frame| boots.tick(frame.stamp, now)),
        left: frame.map_or(0, |frame| frame.count),
        rest: frame.map_or(&[], |frame| frame.body),
        whole: frame.is_some(),
    }
}

/// Takes one block apart.
pub(super) struct Records<'a> {
    class: ClassId,
    next: Position,
    opened: Tick,
    left: u32,
    rest: &'a [u8],
    whole: bool,
}

impl Records<'_> {
    /// Whether the block's checksum is right.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }
}

impl Iterator for Records<'_> {
    type Item = (Position, Message);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        let (message, taken) = record::read(self.rest, self.class, at, self.opened).ok()?;
        self.rest = self.rest.get(taken..)?;
        self.next = at.plus(1);
        Some((at, message))
    }
}
