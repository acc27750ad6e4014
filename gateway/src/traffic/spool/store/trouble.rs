//! A disk that fails: told once with what to do, left alone, and tried with a small write until it is
//! well. A *ballast* of 2 MiB is given up when the disk is full, so that what is settled can still be
//! kept; the disk counts as well again when there is room for it.

use std::io;
use std::sync::Arc;

use super::names::{BALLAST, PROBE};
use super::{Now, Store};
use crate::traffic::settle::Outcome;
use crate::traffic::spool::disk::Access;
use crate::traffic::spool::segment::Fault;
use crate::traffic::spool::{DiskHealth, SpoolReport};

/// What is kept to be given up.
const BALLAST_BYTES: u64 = 2 * 1024 * 1024;
/// What a new segment takes before its first block: redb's pages, two of each.
pub(super) const NEW_SEGMENT_BYTES: u64 = 64 * 1024;

/// The disk fails.
pub(super) struct Trouble {
    /// It is full, and nothing else: what is settled may be kept.
    full: bool,
}

impl Store {
    /// Whether the disk fails.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.trouble.is_some()
    }

    /// The disk does not do what it should: closes everything, takes back what waited, tells.
    pub(super) fn fail(&mut self, error: &io::Error) {
        let open: Vec<u32> = self.open.iter().map(|(number, _)| *number).collect();
        open.into_iter().for_each(|number| self.close(number));
        self.take_back_pending();
        let full = is_full(error);
        if full && self.disk.remove(BALLAST).is_ok() {
            self.ballast_bytes = 0;
        }
        if self.trouble.replace(Trouble { full }).is_some() {
            return;
        }
        let text = format!(
            "the spool in {} cannot be written to: {error}; {}. Until then messages go live, and guaranteed ones are acknowledged only once the uplink has them",
            self.disk.place(),
            remedy(error)
        );
        tracing::error!("The disk fails: {text}");
        let health = DiskHealth::Failing(Arc::from(text));
        self.reports.push(SpoolReport::Health(health));
    }

    /// A read failed: only what concerns the disk as a whole is told.
    pub(super) fn fail_reading(&mut self, fault: &Fault) {
        match fault {
            Fault::Disk(error) => self.fail(error),
            Fault::Damaged(why) => {
                tracing::error!("A damaged segment of the spool could not be mended: {why}");
            }
        }
    }

    /// Tries whether a failing disk is well again; to be called every second or so.
    pub fn recover(&mut self, now: Now) {
        let Some(trouble) = &self.trouble else {
            return;
        };
        let full = trouble.full;
        if self.probe().is_err() {
            if full {
                // What is settled is kept, in the room that the ballast left.
                self.commit(now);
            }
            return;
        }
        self.trouble = None;
        if let Err(error) = self.take_stock() {
            self.trouble = Some(Trouble { full });
            tracing::debug!("The spool's folder cannot be read: {error}");
            return;
        }
        tracing::info!("The disk takes the spool again, in {}", self.disk.place());
        self.reports.push(SpoolReport::Health(DiskHealth::Well));
    }

    fn probe(&mut self) -> io::Result<()> {
        self.disk.make_folder()?;
        self.lay_ballast()?;
        let file = self.disk.open(PROBE, Access::Make)?;
        file.write(0, &[0xA5; 4096])?;
        file.sync_data()?;
        file.close()?;
        self.disk.remove(PROBE)?;
        self.disk.sync_folder()
    }

    /// Makes the ballast where it is not there.
    pub(super) fn lay_ballast(&mut self) -> io::Result<()> {
        if self.ballast_bytes >= BALLAST_BYTES && self.disk.allocated_bytes(BALLAST).is_ok() {
            return Ok(());
        }
        let made = self.write_ballast();
        if made.is_err() {
            // Half a ballast would only take the room.
            let _ = self.disk.remove(BALLAST);
            self.ballast_bytes = 0;
        }
        made
    }

    fn write_ballast(&mut self) -> io::Result<()> {
        let file = self.disk.open(BALLAST, Access::Make)?;
        let piece = [0xA5; 64 * 1024];
        for at in (0..BALLAST_BYTES).step_by(piece.len()) {
            file.write(at, &piece)?;
        }
        file.sync_data()?;
        file.close()?;
        self.ballast_bytes = BALLAST_BYTES;
        Ok(())
    }

    /// Compares the folder with what is known of it.
    fn take_stock(&mut self) -> io::Result<()> {
        self.list(false)?;
        let names = self.disk.list()?;
        let vanished = self.segments.iter().filter(|(number, segment)| {
            let name = self.name(**number).map(|name| name.to_string());
            segment.made && !name.is_ok_and(|name| names.contains(&name))
        });
        let vanished: Vec<u32> = vanished.map(|(number, _)| *number).collect();
        for number in vanished {
            let Some(segment) = self.segments.remove(&number) else {
                continue;
            };
            let records = segment.head.unsettled.count();
            tracing::error!(
                "Segment {number} of the spool in {} is gone, and {records} messages with it; somebody removed it, or another file system is mounted there",
                self.disk.place()
            );
            let ranges = segment.head.unsettled.iter().collect();
            self.gone(segment.class, ranges, Outcome::Damaged);
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on its file system, or lower `size_max` of [spool]"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system is read-only, often after an I/O error: look into the kernel log, check the file system, mount it anew"
        }
        io::ErrorKind::NotFound => "the folder is gone: mount its file system, or make it again",
        io::ErrorKind::PermissionDenied => "give the folder to the gateway's user",
        _ => "look into the kernel log, and replace the medium if it is failing",
    }
}
