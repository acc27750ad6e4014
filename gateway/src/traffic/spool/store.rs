//! The spool's files as a whole: which segments there are, what is settled in them, what is open,
//! how the disk is. Synchronous and without a clock: the writer calls it with the time, and takes the
//! [`SpoolReport`]s away.
//!
//! A segment's head is the truth about it on disk; in memory the same stands here, a commit ahead.
//! Whatever redb or the disk do, no call panics, and nothing is reported safe before it was synced.

mod append;
mod kept;
mod look;
mod mend;
mod names;
mod read;
mod scan;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{Access, Disk};
use super::head::Head;
use super::moment::{Boots, Moment};
use super::segment::{Fault, SegmentFile};
use super::{Block, Position, SpoolReport, SpoolSettings, class_of_log, dead_log};
use crate::traffic::message::ClassId;
use names::Name;
use trouble::Trouble;

/// Files that are open at once: one to append to for each class that is written, some to read. Each
/// has a cache of at most 1.5 MiB.
const OPEN_MAX: usize = 6;

/// The time with which the store is asked.
pub type Now = Moment;

/// The spool.
pub struct Store {
    disk: Box<dyn Disk>,
    settings: SpoolSettings,
    segments: BTreeMap<u32, Segment>,
    /// The one that was used last stands last.
    open: Vec<(u32, SegmentFile)>,
    /// Files that were set aside, the oldest first, and their bytes.
    aside: Vec<(String, u64)>,
    ballast_bytes: u64,
    /// A file was made, renamed or removed, and that may not be durable.
    folder_unsynced: bool,
    /// Of a class, the last segment of which a block was not written.
    refused: BTreeMap<ClassId, u32>,
    /// Classes of which [`SpoolReport::Scanned`] has not been said.
    unscanned_classes: Vec<ClassId>,
    boots: Boots,
    trouble: Option<Trouble>,
    /// Nothing is changed: no gateway runs, and an operator asks.
    only_looks: bool,
    figures: Figures,
    reports: Vec<SpoolReport>,
}

/// One segment in memory.
struct Segment {
    class: ClassId,
    /// As its file is called; of a class that may not be configured any more.
    class_name: Arc<str>,
    bytes: u64,
    /// Its head has been read, or was made here.
    known: bool,
    /// There is a file.
    made: bool,
    head: Head,
    /// Blocks for the next commit; they stand in the head already.
    pending: Vec<Block>,
    /// The head differs from the one on disk.
    changed: bool,
}

/// Counts since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Syncs of segments.
    pub syncs: u64,
    /// Bytes written to segments.
    pub written_bytes: u64,
    /// Commits.
    pub commits: u64,
    /// What they took together, in microseconds.
    pub commit_micros: u64,
    /// Files that were set aside as damaged.
    pub aside: u64,
    /// Segments that there are.
    pub segments: u64,
    /// What all files of the spool take.
    pub file_bytes: u64,
    /// The most that they may take.
    pub size_bytes_max: u64,
    /// What is free on the file system; 0 when it cannot be asked.
    pub free_bytes: u64,
}

impl Store {
    /// Looks which files there are; reads none of them.
    ///
    /// # Errors
    /// The folder can neither be made nor read.
    pub fn open(disk: Box<dyn Disk>, settings: SpoolSettings) -> io::Result<Self> {
        disk.make_folder()?;
        let mut store = Self::new(disk, settings);
        store.list(true)?;
        Ok(store)
    }

    /// Opens the spool for [`Store::answer`] alone, while no gateway runs: nothing is changed, not even
    /// mended. Reads the heads of all segments.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn look(disk: Box<dyn Disk>, settings: SpoolSettings, now: Now) -> io::Result<Self> {
        let mut store = Self::new(disk, settings);
        store.only_looks = true;
        store.list(true)?;
        store.scan_to_look(now)?;
        Ok(store)
    }

    fn new(disk: Box<dyn Disk>, settings: SpoolSettings) -> Self {
        // Those of the dead letters last.
        let classes = 0..2 * settings.classes.len() as u8;
        Self {
            disk,
            settings,
            segments: BTreeMap::new(),
            open: Vec::new(),
            aside: Vec::new(),
            ballast_bytes: 0,
            folder_unsynced: false,
            refused: BTreeMap::new(),
            unscanned_classes: classes.map(ClassId).collect(),
            boots: Boots::default(),
            trouble: None,
            only_looks: false,
            figures: Figures::default(),
            reports: Vec::new(),
        }
    }

    /// The lowest number that no segment had, as far as files tell.
    #[must_use]
    pub fn next_segment(&self) -> u32 {
        let aside = self.aside.iter().filter_map(|(name, _)| Name::read(name));
        let aside = aside.map(|name| name.segment).max();
        let highest = self.segments.keys().next_back().copied().max(aside);
        highest.unwrap_or(0).saturating_add(1)
    }

    /// What there is to tell.
    pub fn take_reports(&mut self) -> Vec<SpoolReport> {
        std::mem::take(&mut self.reports)
    }

    /// Counts for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            segments: self.segments.len() as u64,
            aside: self.aside.len() as u64,
            file_bytes: self.file_bytes(),
            size_bytes_max: self.settings.size_bytes_max,
            free_bytes: self.disk.free_bytes().unwrap_or(0),
            ..self.figures
        }
    }

    /// Whether something is settled that is not on disk, or a file's end that is not.
    #[must_use]
    pub fn has_unkept(&self) -> bool {
        self.folder_unsynced || self.segments.values().any(|segment| segment.changed)
    }

    /// Whether a segment can be removed.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.segments.values().any(Segment::is_drained)
    }

    fn file_bytes(&self) -> u64 {
        let segments = self.segments.values().map(|segment| segment.bytes);
        segments.sum::<u64>() + self.other_bytes()
    }

    /// Files beside the segments.
    fn other_bytes(&self) -> u64 {
        let aside = self.aside.iter().map(|(_, bytes)| bytes);
        aside.sum::<u64>() + self.ballast_bytes
    }

    /// Commits so far.
    #[must_use]
    pub const fn commits(&self) -> u64 {
        self.figures.commits
    }

    /// What commits took.
    pub fn took(&mut self, micros: u64) {
        self.figures.commit_micros += micros;
    }

    /// The log of a file's name.
    fn class_of(&self, name: &Name) -> ClassId {
        let classes = &self.settings.classes;
        let place = classes.iter().position(|class| class.name == name.class);
        let class = place.map_or(self.settings.default_class, |place| ClassId(place as u8));
        match name.dead {
            true => dead_log(class, classes.len()),
            false => class,
        }
    }

    /// Whether a log is one of dead letters.
    fn is_dead(&self, log: ClassId) -> bool {
        class_of_log(log, self.settings.classes.len()).1
    }

    /// The open file of a segment.
    fn file(&mut self, number: u32, access: Access) -> Result<&SegmentFile, Fault> {
        let place = self.open.iter().position(|(open, _)| *open == number);
        let file = match place.map(|place| self.open.remove(place)) {
            Some((_, file)) if file.is_writable() || access == Access::Read => file,
            held => {
                // Two handles on one file would not know of each other.
                drop(held);
                let name = self.name(number)?.to_string();
                SegmentFile::open(&*self.disk, &name, access)?
            }
        };
        if self.open.len() >= OPEN_MAX {
            self.let_go(0);
        }
        self.open.push((number, file));
        match self.open.last() {
            Some((_, file)) => Ok(file),
            None => Err(Fault::Damaged("it is not open".into())),
        }
    }

    /// Closes the one at this place among the open ones.
    fn let_go(&mut self, place: usize) {
        let (_, file) = self.open.remove(place);
        let used = file.meter().take();
        drop(file);
        self.count(used);
    }

    /// A class goes on in a new segment: its earlier ones are closed, for their caches hold what was
    /// written last and nobody asks for.
    fn leave_full(&mut self, number: u32) {
        let class = self.class(number);
        for place in (0..self.open.len()).rev() {
            let open = self.open[place].0;
            if open != number && self.class(open) == class {
                self.let_go(place);
            }
        }
    }

    fn name(&self, number: u32) -> Result<Name, Fault> {
        let segment = self.segments.get(&number);
        let segment = segment.ok_or_else(|| Fault::Damaged("there is no such segment".into()))?;
        let dead = self.is_dead(segment.class);
        Ok(Name::segment(Arc::clone(&segment.class_name), number, dead))
    }

    fn count(&mut self, (syncs, written_bytes): (u64, u64)) {
        self.figures.syncs += syncs;
        self.figures.written_bytes += written_bytes;
    }

    /// Closes a file without another write.
    fn close(&mut self, number: u32) {
        if let Some(place) = self.open.iter().position(|(open, _)| *open == number) {
            let (_, file) = self.open.remove(place);
            self.count(file.meter().take());
            file.give_up();
        }
    }

    /// Removes a segment's file and forgets the segment. When the disk refuses, it stays, all settled, and
    /// goes when the disk is well.
    fn unlink(&mut self, number: u32) -> Result<(), Fault> {
        if self.only_looks {
            return Ok(());
        }
        self.close(number);
        let name = self.name(number)?.to_string();
        let made = self
            .segments
            .get(&number)
            .is_some_and(|segment| segment.made);
        if made {
            match self.disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.folder_unsynced = true,
            }
        }
        self.segments.remove(&number);
        Ok(())
    }

    /// Says that what stands in these ranges is gone.
    fn gone(&mut self, class: ClassId, ranges: Vec<Range<Position>>, outcome: super::Outcome) {
        for positions in ranges {
            self.reports.push(SpoolReport::Gone {
                class,
                positions,
                outcome,
            });
        }
    }
}

impl Segment {
    fn new(class: ClassId, class_name: Arc<str>) -> Self {
        Self {
            class,
            class_name,
            bytes: 0,
            known: false,
            made: false,
            head: Head::default(),
            pending: Vec::new(),
            changed: false,
        }
    }

    fn is_drained(&self) -> bool {
        self.known && self.head.unsettled.count() == 0
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What is open is closed in order: redb trims its files then.
        self.open.clear();
    }
}
