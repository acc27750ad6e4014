//! The answers to an operator's questions. Nothing is changed here: a damaged segment is mended when it
//! is read for replay, not because somebody looked.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::read::records;
use super::{Now, Segment, Store};
use crate::traffic::message::{Message, WallTime};
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::inspect::{
    Answer, Content, Page, Question, Seen, SegmentSeen, Verified, Wanted,
};
use crate::traffic::spool::segment::Fault;
use crate::traffic::spool::{Position, Ranges};

/// What one page may hold of bodies: it stands in memory, and others wait for the writer meanwhile.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Blocks that one page looks at when little in them is asked for: some 16 MiB, a tenth of a second.
const PAGE_BLOCKS_MAX: usize = 256;

impl Store {
    /// Answers an operator's question.
    pub fn answer(&mut self, question: &Question, now: Now) -> Answer {
        match question {
            Question::Segments => Answer::Segments(self.segments_seen()),
            Question::Aside => Answer::Aside(self.aside.clone()),
            Question::Messages(wanted) => match self.page(wanted, now) {
                Ok(page) => Answer::Messages(page),
                Err(fault) => Answer::Failed(fault.to_string()),
            },
            Question::Verify(number) => Answer::Verified(self.verify(*number, now)),
            Question::Figures => Answer::Figures(self.figures()),
        }
    }

    fn segments_seen(&self) -> Vec<SegmentSeen> {
        let seen = self.segments.iter().map(|(number, segment)| SegmentSeen {
            number: *number,
            class: Arc::clone(&segment.class_name),
            dead: self.is_dead(segment.class),
            file_bytes: segment.bytes,
            content: segment.known.then(|| Content {
                records: segment.head.written.count(),
                unsettled: segment.head.unsettled.count(),
                oldest: segment.head.oldest,
                newest: segment.head.newest,
            }),
        });
        seen.collect()
    }

    fn page(&mut self, wanted: &Wanted, now: Now) -> Result<Page, Fault> {
        let mut paging = Paging {
            wanted,
            now,
            page: Page::default(),
            bytes: 0,
            blocks: 0,
        };
        let from = wanted.after.unwrap_or(Position::FIRST);
        let of_class = |segment: &Segment| {
            let class = wanted.class.as_ref();
            let of_log = self.is_dead(segment.class) == wanted.dead;
            let of_class = class.is_none_or(|class| *class == segment.class_name);
            segment.known && segment.made && of_log && of_class
        };
        let segments = self.segments.range(from.segment()..);
        let segments = segments.filter(|(_, segment)| of_class(segment));
        let numbers: Vec<u32> = segments.map(|(number, _)| *number).collect();
        for number in numbers {
            if self.page_of(number, from, &mut paging)?.is_break() {
                break;
            }
        }
        Ok(paging.page)
    }

    fn page_of(
        &mut self,
        number: u32,
        from: Position,
        paging: &mut Paging<'_>,
    ) -> Result<ControlFlow<()>, Fault> {
        let Some(segment) = self.segments.get(&number) else {
            return Ok(ControlFlow::Continue(()));
        };
        let (class, name) = (segment.class, Arc::clone(&segment.class_name));
        let from = from.max(Position::new(number, 0));
        let end = Position::new(number.saturating_add(1), 0);
        let unsettled = segment.head.unsettled.within(from..end);
        let mut missing = unsettled.clone();
        let boots = self.boots.clone();
        let file = self.file(number, Access::Read);
        let read = file.and_then(|file| {
            file.blocks(from.index(), |key, bytes| {
                if paging.blocks >= PAGE_BLOCKS_MAX {
                    paging.page.next = Some(from.max(Position::new(number, key as u32)));
                    return ControlFlow::Break(());
                }
                paging.blocks += 1;
                for (position, message) in records(number, class, &boots, paging.now, key, bytes) {
                    missing.remove_one(position);
                    if position >= from {
                        paging.take(position, &name, !unsettled.contains(position), message)?;
                    }
                }
                ControlFlow::Continue(())
            })
        });
        match read {
            Err(Fault::Damaged(_)) => {}
            read => read?,
        }
        let looked_to = paging.page.next.unwrap_or(end);
        paging.page.damaged += missing.within(from..looked_to).count();
        Ok(match paging.page.next {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    }

    fn verify(&mut self, number: u32, now: Now) -> Option<Verified> {
        let segment = self.segments.get(&number)?;
        let mut missing: Ranges = segment.head.unsettled.clone();
        for block in &segment.pending {
            missing.remove(block.positions());
        }
        let class = segment.class;
        let mut verified = Verified::default();
        let boots = self.boots.clone();
        let checked = self.file(number, Access::Read).and_then(|file| {
            file.head(number)?;
            file.blocks(0, |key, bytes| {
                let mut records = records(number, class, &boots, now, key, bytes);
                let whole = records.is_whole();
                verified.blocks += u64::from(whole);
                verified.damaged_blocks += u64::from(!whole);
                for (position, _) in &mut records {
                    verified.records += 1;
                    missing.remove_one(position);
                }
                ControlFlow::Continue(())
            })
        });
        verified.unusable = checked.err().map(|fault| fault.to_string());
        verified.missing = missing.count();
        Some(verified)
    }
}

/// Fills one page.
struct Paging<'a> {
    wanted: &'a Wanted,
    now: Now,
    page: Page,
    bytes: u64,
    blocks: usize,
}

impl Paging<'_> {
    fn take(
        &mut self,
        position: Position,
        class: &Arc<str>,
        settled: bool,
        message: Message,
    ) -> ControlFlow<()> {
        let received = self.now.wall_of(message.received);
        if !self.is_wanted(&message, received, settled) {
            return ControlFlow::Continue(());
        }
        let full =
            self.page.messages.len() >= self.wanted.count_max || self.bytes >= PAGE_BYTES_MAX;
        if full && !self.page.messages.is_empty() {
            self.page.next = Some(position);
            return ControlFlow::Break(());
        }
        self.bytes += message.memory_bytes();
        self.page.messages.push(Seen {
            position,
            class: Arc::clone(class),
            received,
            settled,
            message,
        });
        ControlFlow::Continue(())
    }

    fn is_wanted(&self, message: &Message, received: WallTime, settled: bool) -> bool {
        let Wanted { from, until, .. } = self.wanted;
        let topics = &self.wanted.topics;
        let topic = message.body.topic();
        (self.wanted.settled || !settled)
            && from.is_none_or(|from| received >= from)
            && until.is_none_or(|until| received < until)
            && (topics.is_empty() || topics.iter().any(|filter| filter.mismatch(topic).is_none()))
    }
}
