//! What the spool needs of a disk, as a trait: the real one is the door in `files`, and a model that
//! forgets what was not synced can stand in. Around each file that redb gets stands a [`Metered`],
//! which counts what is written and knows whether it was reading that failed; what is only looked
//! at gets an [`Overlay`], so that looking changes nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;

/// One folder of files. Names are plain file names. Nothing is durable before it was synced: the
/// content of a file by its own sync, files that were made, renamed or removed by
/// [`Disk::sync_folder`].
pub trait Disk: Send {
    /// Makes the folder where it is not there; never the folders above it.
    ///
    /// # Errors
    /// It cannot be made.
    fn make_folder(&self) -> io::Result<()>;

    /// The names of all files, in any order. What is no text is given with replacement characters.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing, or for reading alone; its writes are durable after
    /// [`StorageBackend::sync_data`].
    ///
    /// # Errors
    /// It cannot be opened, or is not there and is not to be made.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageBackend>>;

    /// Removes a file.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name; a file that had it is gone.
    ///
    /// # Errors
    /// It cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes what was made, renamed or removed durable.
    ///
    /// # Errors
    /// It may not be durable.
    fn sync_folder(&self) -> io::Result<()>;

    /// What a file takes on the disk, in bytes; holes do not count.
    ///
    /// # Errors
    /// It is not there.
    fn allocated_bytes(&self, name: &str) -> io::Result<u64>;

    /// What is free on the file system for us, in bytes.
    ///
    /// # Errors
    /// The folder is not there.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Where it is, for the operator.
    fn place(&self) -> String;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Made, empty: a file of that name loses its content.
    Make,
    /// For reading and writing.
    Write,
    /// For reading alone.
    Read,
}

/// Counts of one file, or of all.
#[derive(Debug, Default)]
pub(super) struct Meter {
    syncs: AtomicU64,
    written_bytes: AtomicU64,
    /// A read failed.
    unreadable: AtomicBool,
    /// Nothing is written any more: the file is given up.
    given_up: AtomicBool,
    /// It was not closed in order: redb found its way back at opening, to the last commit or, where that is not
    /// whole, the one before.
    repaired: AtomicBool,
}

impl Meter {
    /// Whether a read of the file failed.
    pub(super) fn unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Whether the file was not closed in order.
    pub(super) fn repaired(&self) -> bool {
        self.repaired.load(Ordering::Relaxed)
    }

    /// The file was not closed in order.
    pub(super) fn set_repaired(&self) {
        self.repaired.store(true, Ordering::Relaxed);
    }

    /// From now on what redb would write at closing goes nowhere.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Syncs and bytes written since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        let syncs = self.syncs.swap(0, Ordering::Relaxed);
        (syncs, self.written_bytes.swap(0, Ordering::Relaxed))
    }
}

/// A file whose use is counted.
#[derive(Debug)]
pub(super) struct Metered {
    file: Box<dyn StorageBackend>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn new(file: Box<dyn StorageBackend>, meter: Arc<Meter>) -> Self {
        Self { file, meter }
    }

    fn unless_given_up(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.meter.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("the file is given up"));
        }
        act()
    }
}

impl StorageBackend for Metered {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.file.read(offset, out);
        if read.is_err() {
            self.meter.unreadable.store(true, Ordering::Relaxed);
        }
        read
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.unless_given_up(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.meter.syncs.fetch_add(1, Ordering::Relaxed);
        self.unless_given_up(|| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        self.meter.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unless_given_up(|| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Bytes of a piece of an overlay: redb's page.
const PIECE_BYTES: u64 = 4096;

/// A file as it would be with what was written: the writes stay in memory. redb writes little to a
/// file that is only read, and to mend one after a crash.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Box<dyn StorageBackend>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Up to where the file's own content counts.
    own: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = file.len()?;
        let written = Mutex::new(Written {
            len,
            own: len,
            pieces: BTreeMap::new(),
        });
        Ok(Self { file, written })
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, own: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = own.saturating_sub(offset).min(out.len() as u64);
        let (there, beyond) = out.split_at_mut(there as usize);
        beyond.fill(0);
        if there.is_empty() {
            return Ok(());
        }
        self.file.read(offset, there)
    }
}

/// Runs over the pieces that a range touches: piece, place in the piece, place in the range, length.
fn touched(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PIECE_BYTES) as usize;
        let part = (PIECE_BYTES as usize - within).min(len - done);
        let touched = (at / PIECE_BYTES, within, done, part);
        done += part;
        Some(touched)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.own(written.own, offset, out)?;
        for (piece, within, at, len) in touched(offset, out.len()) {
            if let Some(bytes) = written.pieces.get(&piece)
                && let Some(from) = bytes.get(within..within + len)
                && let Some(to) = out.get_mut(at..at + len)
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        if len < written.own {
            written.own = len;
        }
        // What lies beyond the end is gone, also when the file grows again.
        written.pieces.split_off(&len.div_ceil(PIECE_BYTES));
        if let Some(last) = written.pieces.get_mut(&(len / PIECE_BYTES)) {
            let kept = (len % PIECE_BYTES) as usize;
            last.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let own = written.own;
        for (piece, within, at, len) in touched(offset, data.len()) {
            if let Entry::Vacant(vacant) = written.pieces.entry(piece) {
                let mut bytes = vec![0; PIECE_BYTES as usize];
                self.own(own, piece * PIECE_BYTES, &mut bytes)?;
                vacant.insert(bytes);
            }
            if let Some(bytes) = written.pieces.get_mut(&piece)
                && let Some(to) = bytes.get_mut(within..within + len)
                && let Some(from) = data.get(at..at + len)
            {
                to.copy_from_slice(from);
            }
        }
        written.len = written.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
