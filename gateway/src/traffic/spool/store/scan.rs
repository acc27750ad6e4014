//! What earlier starts left: which files there are, and, segment by segment, what in them is not
//! settled. Only heads are read, and nothing is written to a file that is well.

use std::io;
use std::sync::Arc;

use super::mend::Mend;
use super::names::{BALLAST, LEDGER, LEDGER_NEW, Name, PROBE, What};
use super::{Now, Segment, Store};
use crate::traffic::message::ClassId;
use crate::traffic::spool::SpoolReport;
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::segment::{Fault, SegmentFile};

impl Store {
    /// Learns of one more segment, the most urgent class first and the oldest of it. Gives whether there
    /// may be more.
    pub fn scan(&mut self, now: Now) -> bool {
        if self.trouble.is_some() {
            return false;
        }
        let Some(class) = self.unscanned_classes.first().copied() else {
            return false;
        };
        match self.next_unknown(class) {
            Some(number) => {
                if let Err(fault) = self.scan_segment(number, now) {
                    self.fail(&fault.into_io());
                    return false;
                }
            }
            None => {
                self.unscanned_classes.remove(0);
                self.reports.push(SpoolReport::Scanned { class });
            }
        }
        !self.unscanned_classes.is_empty()
    }

    /// Reads every head once.
    pub(super) fn scan_to_look(&mut self, now: Now) -> io::Result<()> {
        let numbers: Vec<u32> = self.segments.keys().copied().collect();
        for number in numbers {
            if let Err(Fault::Disk(error)) = self.scan_segment(number, now) {
                return Err(error);
            }
        }
        self.reports.clear();
        Ok(())
    }

    /// Whether some of what earlier starts left has yet to be told.
    #[must_use]
    pub fn is_scanning(&self) -> bool {
        self.trouble.is_none() && !self.unscanned_classes.is_empty()
    }

    fn next_unknown(&self, class: ClassId) -> Option<u32> {
        let mut segments = self.segments.iter();
        let unknown = segments.find(|(_, segment)| segment.class == class && !segment.known);
        unknown.map(|(number, _)| *number)
    }

    pub(super) fn scan_segment(&mut self, number: u32, now: Now) -> Result<(), Fault> {
        let name = self.name(number)?.to_string();
        let file = SegmentFile::open(&*self.disk, &name, Access::Read);
        let head = file.and_then(|file| Ok((file.head(number)?, file.meter().repaired())));
        let (head, repaired) = match head {
            Ok((head, repaired)) => (Ok(head), repaired),
            Err(fault) => (Err(fault), false),
        };
        match head {
            Ok(head)
                if repaired && !self.only_looks && self.is_behind(number, head.as_ref())? =>
            {
                self.mend(number, Mend::CutShort, now)?;
            }
            Ok(Some(head)) => {
                for stamp in &head.stamps {
                    self.boots.learn(*stamp);
                }
                if let Some(segment) = self.segments.get_mut(&number) {
                    segment.head = head;
                    segment.known = true;
                }
            }
            // It was being made when the gateway ended.
            Ok(None) => self.unlink(number)?,
            Err(Fault::Damaged(_)) if self.only_looks => {}
            Err(Fault::Damaged(why)) => self.mend(number, Mend::Damaged(&why), now)?,
            Err(Fault::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Its folder is gone, or somebody removed it; what was in it was never told.
                self.segments.remove(&number);
                self.disk.list()?;
            }
            Err(error) => return Err(error),
        }
        self.found(number);
        Ok(())
    }

    fn found(&mut self, number: u32) {
        let Some(segment) = self.segments.get(&number) else {
            return;
        };
        let ranges: Vec<_> = segment.head.unsettled.iter().collect();
        // A drained one goes with the next commit.
        if !ranges.is_empty() {
            let class = segment.class;
            self.reports.push(SpoolReport::Found { class, ranges });
        }
    }

    /// Takes in the names of all files. What is not ours is left alone, and told the first time.
    pub(super) fn list(&mut self, first: bool) -> io::Result<()> {
        let names = self.disk.list()?;
        self.aside.clear();
        self.ballast_bytes = 0;
        let mut foreign = Vec::new();
        let mut segments = Vec::new();
        for name in names {
            match (name.as_str(), Name::read(&name)) {
                (BALLAST, _) => self.ballast_bytes = self.disk.allocated_bytes(BALLAST)?,
                (LEDGER, _) => {}
                (PROBE | LEDGER_NEW, _) if self.only_looks => {}
                (LEDGER_NEW, _) => self.disk.remove(LEDGER_NEW)?,
                (PROBE, _) => self.disk.remove(PROBE)?,
                (_, Some(read)) if read.what == What::Aside => {
                    let bytes = self.disk.allocated_bytes(&name)?;
                    self.aside.push((name, bytes));
                }
                (_, Some(read)) => segments.push(read),
                _ => foreign.push(name),
            }
        }
        self.aside
            .sort_by_key(|(name, _)| Name::read(name).map(|name| name.segment));
        // A segment stands before its mending one: the name is longer.
        segments.sort_by_key(|name| (name.segment, name.what == What::Mending));
        for name in segments {
            self.list_segment(name)?;
        }
        if first && !foreign.is_empty() {
            foreign.sort();
            foreign.truncate(5);
            tracing::warn!(
                "The spool's folder {} has files that are none of the spool's and are left alone, among them {}; move them elsewhere, they take room that the spool does not count",
                self.disk.place(),
                foreign.join(", ")
            );
        }
        Ok(())
    }

    fn list_segment(&mut self, mut name: Name) -> io::Result<()> {
        let known = self.segments.contains_key(&name.segment);
        if name.what == What::Mending && self.only_looks {
            return Ok(());
        }
        if name.what == What::Mending {
            let mending = name.to_string();
            if known {
                return self.disk.remove(&mending);
            }
            // The damaged one was set aside, and the mended one is whole.
            name = name.with(What::Segment);
            self.disk.rename(&mending, &name.to_string())?;
            self.folder_unsynced = true;
        }
        let bytes = self.disk.allocated_bytes(&name.to_string())?;
        let class = self.class_of(&name);
        let segment = self
            .segments
            .entry(name.segment)
            .or_insert_with(|| Segment {
                made: true,
                ..Segment::new(class, Arc::clone(&name.class))
            });
        segment.bytes = bytes;
        if !segment.known && !self.unscanned_classes.contains(&class) {
            self.unscanned_classes.push(class);
        }
        Ok(())
    }
}
