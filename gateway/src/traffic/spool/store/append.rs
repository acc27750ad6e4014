//! What is written: blocks and what is settled, made room for, then kept in one commit for each segment
//! that they touch.

use std::sync::Arc;

use super::mend::Mend;
use super::trouble;
use super::{Now, Segment, Store};
use crate::traffic::message::{ClassId, WallTime};
use crate::traffic::settle::Outcome;
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::evict::{self, Bounds, Holding, Room, Wanted};
use crate::traffic::spool::frame::{Frame, Kind};
use crate::traffic::spool::segment::Fault;
use crate::traffic::spool::{Block, Position, SpoolReport, Unwritten, class_of_log, file_bytes};

impl Store {
    /// Takes a block for the next commit, making room for it. Reports at once what cannot be taken.
    pub fn append(&mut self, block: Block, now: Now) {
        if self.trouble.is_some() {
            return self.unwritten(&block, Unwritten::Failing);
        }
        let refused = self.refused.get(&block.class);
        if refused.is_some_and(|segment| block.first.segment() <= *segment) {
            return self.unwritten(&block, Unwritten::Full);
        }
        if !self.make_room(&block, now) {
            let why = match self.trouble {
                Some(_) => Unwritten::Failing,
                None => Unwritten::Full,
            };
            return self.unwritten(&block, why);
        }
        let (class, _) = class_of_log(block.class, self.settings.classes.len());
        let class = self.settings.classes.get(class.index());
        let Some(class_name) = class.map(|class| Arc::clone(&class.name)) else {
            return self.unwritten(&block, Unwritten::Failing);
        };
        let number = block.first.segment();
        let segment = self.segments.entry(number).or_insert_with(|| Segment {
            known: true,
            ..Segment::new(block.class, class_name)
        });
        segment.bytes += file_bytes(block.records.len());
        segment.head.written.insert(block.positions());
        segment.head.unsettled.insert(block.positions());
        segment.pending.push(block);
    }

    /// These ended; kept with the next commit.
    pub fn settle(&mut self, positions: &[Position]) {
        for position in positions {
            if let Some(segment) = self.segments.get_mut(&position.segment())
                && segment.head.unsettled.remove_one(*position)
            {
                segment.changed = true;
            }
        }
    }

    /// Keeps everything that was taken, the classes that are not evictable first.
    pub fn commit(&mut self, now: Now) {
        self.boots.learn(now.stamp);
        let touched = self.segments.iter().filter(|(_, segment)| {
            !segment.pending.is_empty() || segment.changed || segment.is_drained()
        });
        let mut touched: Vec<_> = touched
            .map(|(number, segment)| {
                let class = self.settings.classes.get(segment.class.index());
                let evictable = class.is_none_or(|class| class.evictable);
                (evictable, segment.class, *number)
            })
            .collect();
        touched.sort_unstable();
        for (_, _, number) in touched {
            if let Err(fault) = self.commit_segment(number, now) {
                self.fail(&fault.into_io());
                break;
            }
        }
        if self.trouble.is_none() && self.folder_unsynced {
            self.sync_folder();
        }
    }

    fn sync_folder(&mut self) {
        match self.disk.sync_folder() {
            Ok(()) => self.folder_unsynced = false,
            Err(error) => self.fail(&error),
        }
    }

    fn commit_segment(&mut self, number: u32, now: Now) -> Result<(), Fault> {
        let Some(segment) = self.segments.get(&number) else {
            return Ok(());
        };
        if segment.is_drained() {
            self.safe(number);
            return self.unlink(number);
        }
        match self.write(number, now) {
            Err(Fault::Damaged(why)) => {
                self.mend(number, Mend::Damaged(&why), now)?;
                self.write(number, now)?;
            }
            written => written?,
        }
        self.safe(number);
        Ok(())
    }

    /// One commit of one segment.
    fn write(&mut self, number: u32, now: Now) -> Result<(), Fault> {
        let name = self.name(number)?.to_string();
        let Some(segment) = self.segments.get_mut(&number) else {
            return Ok(());
        };
        let blocks = segment.pending.iter();
        let blocks: Vec<_> = blocks
            .map(|block| (u64::from(block.first.index()), frame(segment, block, now)))
            .collect();
        let head = &mut segment.head;
        head.generation += 1;
        head.stamp(now.stamp);
        for block in &segment.pending {
            let opened = now.stamp_at(block.opened).wall;
            if head.oldest == WallTime::default() {
                head.oldest = opened;
            }
            head.newest = head.newest.max(opened);
        }
        let head = head.to_bytes(&segment.class_name, number, now.stamp);
        if !segment.made {
            self.make(number, &name)?;
        }
        let file = self.file(number, Access::Write)?;
        let committed = file.commit(&blocks, &head);
        let used = file.meter().take();
        self.count(used);
        self.figures.commits += 1;
        committed?;
        // A file whose name is gone would be lost with the next restart.
        let bytes = self.disk.allocated_bytes(&name)?;
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes = bytes;
            segment.changed = false;
        }
        Ok(())
    }

    fn make(&mut self, number: u32, name: &str) -> Result<(), Fault> {
        self.lay_ballast()?;
        self.close(number);
        self.leave_full(number);
        if self.disk.allocated_bytes(name).is_ok() {
            // Nobody knows of it: it came back with a file system that was away.
            self.set_aside(name)?;
        }
        // redb makes itself at home with several syncs; the name lasts before anything counts on it.
        self.file(number, Access::Make)?;
        self.disk.sync_folder()?;
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.made = true;
        }
        Ok(())
    }

    /// Says that what waited for the commit is safe.
    fn safe(&mut self, number: u32) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        for block in segment.pending.drain(..) {
            let positions = block.positions();
            match self.reports.last_mut() {
                Some(SpoolReport::Safe {
                    class,
                    positions: before,
                }) if *class == block.class && before.end == positions.start => {
                    before.end = positions.end;
                }
                _ => self.reports.push(SpoolReport::Safe {
                    class: block.class,
                    positions,
                }),
            }
        }
    }

    /// What follows in that segment is not taken either: it would stand there in another order than that
    /// of receipt.
    pub(super) fn unwritten(&mut self, block: &Block, why: Unwritten) {
        let refused = self.refused.entry(block.class).or_default();
        *refused = block.first.segment().max(*refused);
        self.reports.push(SpoolReport::Unwritten {
            class: block.class,
            positions: block.positions(),
            why,
        });
    }

    fn make_room(&mut self, block: &Block, now: Now) -> bool {
        let wanted = Wanted {
            class: block.class,
            segment: block.first.segment(),
            bytes: self.needed_bytes(block),
        };
        let mut committed = false;
        loop {
            match self.room(wanted) {
                Room::Free => return true,
                _ if self.trouble.is_some() => return false,
                _ if self.drop_aside() => {}
                Room::Evict(segment) => {
                    if let Err(fault) = self.evict(segment, now) {
                        self.fail(&fault.into_io());
                        return false;
                    }
                }
                // What waits for its commit cannot give way before that.
                Room::Full if !committed && self.has_pending() => {
                    self.commit(now);
                    committed = true;
                }
                Room::Full => return false,
            }
        }
    }

    fn needed_bytes(&self, block: &Block) -> u64 {
        let begins = match self.segments.contains_key(&block.first.segment()) {
            true => 0,
            false => trouble::NEW_SEGMENT_BYTES,
        };
        begins + file_bytes(block.records.len())
    }

    fn has_pending(&self) -> bool {
        let mut segments = self.segments.values();
        segments.any(|segment| !segment.pending.is_empty())
    }

    fn room(&self, wanted: Wanted) -> Room {
        let holdings: Vec<_> = self
            .segments
            .iter()
            .map(|(number, segment)| Holding {
                segment: *number,
                class: segment.class,
                bytes: segment.bytes,
                busy: !segment.pending.is_empty(),
            })
            .collect();
        // Blocks that wait for their commit will take of what is free.
        let pending: u64 = self
            .segments
            .values()
            .flat_map(|segment| &segment.pending)
            .map(|block| file_bytes(block.records.len()))
            .sum();
        let floor = self.settings.disk_free_bytes_min + pending;
        let free = self.disk.free_bytes().unwrap_or(u64::MAX);
        let bounds = Bounds {
            size_bytes_max: self.settings.size_bytes_max,
            classes: &self.settings.classes,
            other_bytes: self.other_bytes(),
            spare_bytes: free.saturating_sub(floor),
        };
        evict::room(&holdings, wanted, bounds)
    }

    fn evict(&mut self, number: u32, now: Now) -> Result<(), Fault> {
        if self
            .segments
            .get(&number)
            .is_some_and(|segment| !segment.known)
        {
            self.scan_segment(number, now)?;
        }
        let Some(segment) = self.segments.get(&number) else {
            return Ok(());
        };
        let class = segment.class;
        let records = segment.head.unsettled.count();
        let ends = (segment.head.written.first(), segment.head.written.last());
        self.unlink(number)?;
        tracing::debug!("Segment {number} gave way with {records} messages");
        if let (Some(first), Some(last)) = ends {
            self.gone(class, vec![first.start..last.end], Outcome::Evicted);
        }
        Ok(())
    }

    /// Takes back what waited for a commit that failed.
    pub(super) fn take_back_pending(&mut self) {
        let mut back = Vec::new();
        for segment in self.segments.values_mut() {
            for block in segment.pending.drain(..) {
                segment.head.written.remove(block.positions());
                segment.head.unsettled.remove(block.positions());
                back.push(block);
            }
        }
        for block in &back {
            self.unwritten(block, Unwritten::Failing);
        }
        self.segments
            .retain(|_, segment| segment.made || !segment.is_drained());
    }

    /// The class of a segment, for reports.
    pub(super) fn class(&self, number: u32) -> ClassId {
        let segment = self.segments.get(&number);
        segment.map_or(self.settings.default_class, |segment| segment.class)
    }
}

pub(super) fn frame(segment: &Segment, block: &Block, now: Now) -> Vec<u8> {
    let frame = Frame {
        kind: Kind::Block,
        class: &segment.class_name,
        segment: block.first.segment(),
        number: u64::from(block.first.index()),
        count: block.count,
        stamp: now.stamp_at(block.opened),
        body: &block.records,
    };
    frame.to_bytes()
}
