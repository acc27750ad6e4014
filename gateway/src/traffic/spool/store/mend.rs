//! A segment that redb cannot use any more: it is set aside, what stands whole in it is carved out of the
//! raw file into a new one of the same name and positions, and what is not recovered is told. A crash
//! that cuts a commit short is mended the same way, since nothing tells it from a last commit that was
//! whole and is damaged now: redb drops either without a word.

use std::collections::BTreeMap;
use std::io;

use redb::StorageBackend;

use super::names::{Name, What};
use super::{Now, Store};
use crate::traffic::settle::Outcome;
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::frame::{Frame, Kind};
use crate::traffic::spool::head::Head;
use crate::traffic::spool::segment::{Fault, SegmentFile};
use crate::traffic::spool::{Position, Ranges, SpoolReport};

/// Damaged files that are kept for whoever wants to look.
const ASIDE_MAX: usize = 3;
/// What is read of a damaged file at once; where that fails, page by page.
const CHUNK_BYTES: usize = 64 * 1024;
const PAGE_BYTES: usize = 4096;
/// How redb says that it has made a file; written last.
const REDB_MAGIC_BYTES: usize = 9;

/// Why a segment is mended.
#[derive(Clone, Copy)]
pub(super) enum Mend<'a> {
    /// The file is damaged, in this way; it is kept aside.
    Damaged(&'a str),
    /// redb went back behind the last commit: it was cut short, or is damaged.
    CutShort,
}

/// What was carved out of a file.
struct Carved {
    blocks: BTreeMap<u64, Vec<u8>>,
    written: Ranges,
    head: Option<Head>,
}

impl Store {
    /// Mends a segment. Afterwards it can be used again, or it is gone.
    pub(super) fn mend(&mut self, number: u32, why: Mend<'_>, now: Now) -> Result<(), Fault> {
        self.close(number);
        let name = self.name(number)?;
        let raw = match self.disk.open(&name.to_string(), Access::Read) {
            Ok(file) => raw(&*file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let carved = carve(&raw, number);
        let begun = raw.iter().take(REDB_MAGIC_BYTES).any(|byte| *byte != 0);
        let was_made = begun || carved.head.is_some() || !carved.blocks.is_empty();
        let known = self
            .segments
            .get(&number)
            .is_some_and(|segment| segment.known);
        if !was_made && !known {
            // It was being made when the gateway ended: it never held anything.
            return self.unlink(number);
        }
        let head = self.mended_head(number, &carved, now);
        let mending = name.with(What::Mending).to_string();
        let kept = head.unsettled.count() > 0;
        if kept {
            self.write_mended(number, &mending, &head, &carved, now)?;
            // The mended one has to last before the damaged one gives up its name: after a power cut
            // nobody carves what is set aside.
            self.disk.sync_folder()?;
        }
        match why {
            Mend::Damaged(_) if !raw.is_empty() => self.set_aside(&name.to_string())?,
            _ if !kept => return self.unlink(number),
            _ => {}
        }
        if kept {
            self.disk.rename(&mending, &name.to_string())?;
        }
        self.disk.sync_folder()?;
        self.tell_mended(number, why, known, &carved, &head);
        self.take_in_mended(number, &name, head, kept)
    }

    /// Whether the file has more than the commit that redb went back to.
    pub(super) fn is_behind(&self, number: u32, head: Option<&Head>) -> Result<bool, Fault> {
        let name = self.name(number)?.to_string();
        let carved = carve(&raw(&*self.disk.open(&name, Access::Read)?)?, number);
        let latest = carved.head.map_or(0, |head| head.generation);
        let (generation, mut more) = (head.map_or(0, |head| head.generation), carved.written);
        let known = head.into_iter().flat_map(|head| head.written.iter());
        known.for_each(|range| {
            more.remove(range);
        });
        Ok(latest > generation || more.count() > 0)
    }

    /// The head for what was carved: what is known here, else what the file says.
    fn mended_head(&self, number: u32, carved: &Carved, now: Now) -> Head {
        let segment = self.segments.get(&number);
        let known = segment.filter(|segment| segment.known);
        let known = known.map(|segment| &segment.head).or(carved.head.as_ref());
        let Some(known) = known else {
            return Head {
                unsettled: carved.written.clone(),
                written: carved.written.clone(),
                stamps: vec![now.stamp],
                ..Head::default()
            };
        };
        let mut head = known.clone();
        let in_memory = segment.is_some_and(|segment| segment.known);
        if in_memory {
            for range in known.written.iter() {
                let lost = missing(&(range.clone()), &carved.written);
                lost.iter().for_each(|range| {
                    head.written.remove(range.clone());
                    head.unsettled.remove(range);
                });
            }
        } else {
            // Blocks behind the last whole head are not settled, as far as anybody knows.
            let mut settled = known.written.clone();
            known.unsettled.iter().for_each(|range| {
                settled.remove(range);
            });
            head.written = carved.written.clone();
            head.unsettled = carved.written.clone();
            settled.iter().for_each(|range| {
                head.unsettled.remove(range);
            });
        }
        head
    }

    fn write_mended(
        &mut self,
        number: u32,
        mending: &str,
        head: &Head,
        carved: &Carved,
        now: Now,
    ) -> Result<(), Fault> {
        let class_name = self.name(number)?.class;
        let blocks: Vec<_> = carved
            .blocks
            .iter()
            .filter(|(_, bytes)| {
                Frame::read(bytes).is_some_and(|(frame, _)| {
                    let first = Position::new(number, frame.number as u32);
                    let range = first..first.plus(frame.count);
                    head.unsettled.within(range).count() > 0
                })
            })
            .map(|(key, bytes)| (*key, bytes.clone()))
            .collect();
        let head = head.to_bytes(&class_name, number, now.stamp);
        let file = SegmentFile::open(&*self.disk, mending, Access::Make)?;
        file.commit(&blocks, &head)?;
        let used = file.meter().take();
        self.count(used);
        drop(file);
        // Its name lasts before the damaged one's goes.
        Ok(self.disk.sync_folder()?)
    }

    fn take_in_mended(
        &mut self,
        number: u32,
        name: &Name,
        head: Head,
        kept: bool,
    ) -> Result<(), Fault> {
        let bytes = match kept {
            true => self.disk.allocated_bytes(&name.to_string())?,
            false => 0,
        };
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.head = head;
            segment.bytes = bytes;
            segment.made = kept;
            segment.known = true;
            // What waits for its commit was never in the file.
            for block in &segment.pending {
                segment.head.written.insert(block.positions());
                segment.head.unsettled.insert(block.positions());
            }
            for stamp in &segment.head.stamps {
                self.boots.learn(*stamp);
            }
        }
        Ok(())
    }

    fn tell_mended(
        &mut self,
        number: u32,
        why: Mend<'_>,
        known: bool,
        carved: &Carved,
        head: &Head,
    ) {
        let Some(segment) = self.segments.get(&number) else {
            return;
        };
        let before = match known {
            true => Some(&segment.head),
            false => carved.head.as_ref(),
        };
        let mut lost = before
            .map(|head| head.unsettled.clone())
            .unwrap_or_default();
        for range in head.unsettled.iter() {
            lost.remove(range);
        }
        for block in &segment.pending {
            lost.remove(block.positions());
        }
        let class = segment.class;
        let recovered = head.unsettled.count();
        let Mend::Damaged(why) = why else {
            tracing::warn!(
                "The last commit to segment {number} of the spool in {} is not whole: the gateway or the machine ended meanwhile, or the medium is damaged; the segment has {recovered} messages",
                self.disk.place(),
            );
            return;
        };
        tracing::error!(
            "Segment {number} of the spool in {} is damaged ({why}) and was set aside: {recovered} messages were recovered, {} are lost{}; check the medium (kernel log, SMART), and remove the .damaged files when you have seen them",
            self.disk.place(),
            lost.count(),
            if before.is_some() { "" } else { " or more" },
        );
        if !known && lost.count() > 0 {
            // It was there: first found, then gone.
            let ranges = lost.iter().collect();
            self.reports.push(SpoolReport::Found { class, ranges });
        }
        if before.is_none() {
            self.reports.push(SpoolReport::Headless { class });
        }
        self.gone(class, lost.iter().collect(), Outcome::Damaged);
    }

    /// Gives a file the name of one that is set aside; the oldest such files go.
    pub(super) fn set_aside(&mut self, name: &str) -> Result<(), Fault> {
        let Some(read) = Name::read(name) else {
            return Ok(());
        };
        let aside = read.with(What::Aside).to_string();
        self.disk.rename(name, &aside)?;
        let bytes = self.disk.allocated_bytes(&aside)?;
        self.aside.retain(|(name, _)| *name != aside);
        self.aside.push((aside, bytes));
        while self.aside.len() > ASIDE_MAX && self.drop_aside() {}
        Ok(())
    }

    /// Removes the oldest file that was set aside; gives whether there was one.
    pub(super) fn drop_aside(&mut self) -> bool {
        if self.aside.is_empty() {
            return false;
        }
        let (name, _) = self.aside.remove(0);
        if let Err(error) = self.disk.remove(&name) {
            tracing::warn!("{name} in the spool's folder cannot be removed: {error}");
        }
        self.folder_unsynced = true;
        true
    }
}

fn missing(range: &std::ops::Range<Position>, written: &Ranges) -> Ranges {
    let mut missing = Ranges::default();
    missing.insert(range.clone());
    for there in written.within(range.clone()).iter() {
        missing.remove(there);
    }
    missing
}

/// The whole file; what cannot be read is zero.
fn raw(file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let mut at = 0;
    for chunk in bytes.chunks_mut(CHUNK_BYTES) {
        if file.read(at, chunk).is_err() {
            for (page, part) in chunk.chunks_mut(PAGE_BYTES).enumerate() {
                if file.read(at + (page * PAGE_BYTES) as u64, part).is_err() {
                    part.fill(0);
                }
            }
        }
        at += chunk.len() as u64;
    }
    Ok(bytes)
}

fn carve(raw: &[u8], number: u32) -> Carved {
    let mut carved = Carved {
        blocks: BTreeMap::new(),
        written: Ranges::default(),
        head: None,
    };
    for frame in Frame::carve(raw).filter(|frame| frame.segment == number) {
        match frame.kind {
            Kind::Block => carved.block(&frame, number),
            Kind::Head => {
                let latest = carved.head.as_ref().map_or(0, |head| head.generation);
                if let Some(head) = Head::from_frame(&frame, number)
                    && head.generation >= latest
                {
                    carved.head = Some(head);
                }
            }
        }
    }
    carved
}

impl Carved {
    fn block(&mut self, frame: &Frame<'_>, number: u32) {
        let Ok(index) = u32::try_from(frame.number) else {
            return;
        };
        let first = Position::new(number, index);
        self.written.insert(first..first.plus(frame.count));
        self.blocks
            .entry(frame.number)
            .or_insert_with(|| frame.to_bytes());
    }
}
