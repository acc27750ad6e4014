//! One segment's file: a redb database of two tables, `blocks` (index of the first record: frame) and
//! `head` (one frame). redb is kept at arm's length here: a panic of it is a damaged file, nothing
//! more, and every error says whether the file is to blame or the disk.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase, TableDefinition, TableError};

use super::disk::{Access, Disk, Meter, Metered, Overlay};
use super::frame::Frame;
use super::head::Head;

/// Bytes of records that are kept in one commit at most, but for one larger block.
pub(super) const COMMIT_BYTES_MAX: usize = 512 * 1024;

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
const HEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("head");

/// redb's cache for a file that is written to; its default is 1 GiB. Half of it holds what a commit
/// writes: what does not fit there is written twice (measured: 2.0 bytes for each byte, else 1.1), so that it is
/// more than twice [`COMMIT_BYTES_MAX`], with room for pages that are not full.
const CACHE_BYTES: usize = 3 * COMMIT_BYTES_MAX;
/// The same for a file that is only read.
const READ_CACHE_BYTES: usize = 512 * 1024;

/// What went wrong with a segment's file.
#[derive(Debug)]
pub(super) enum Fault {
    /// The disk: everything else will fail too, until it is well again.
    Disk(io::Error),
    /// The file: what can be read of it is carved out.
    Damaged(String),
}

impl Fault {
    /// For who can carve nothing out: the disk cannot be trusted now.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Disk(error) => error,
            Self::Damaged(why) => io::Error::other(why),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damaged(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// An open segment.
pub(super) struct SegmentFile {
    /// `None` only while it is dropped.
    database: Option<Database>,
    access: Access,
    meter: Arc<Meter>,
}

impl SegmentFile {
    /// Opens a segment's file; with [`Access::Read`] nothing of it is changed, not even mended.
    pub(super) fn open(disk: &dyn Disk, name: &str, access: Access) -> Result<Self, Fault> {
        let meter = Arc::new(Meter::default());
        let file = disk.open(name, access)?;
        let file = Metered::new(file, Arc::clone(&meter));
        let mut builder = Builder::new();
        builder.set_cache_size(match access {
            Access::Read => READ_CACHE_BYTES,
            Access::Make | Access::Write => CACHE_BYTES,
        });
        let repaired = Arc::clone(&meter);
        builder.set_repair_callback(move |_| repaired.set_repaired());
        let database = guarded(&meter, || {
            if access == Access::Read {
                let file = Overlay::new(Box::new(file))?;
                Ok(builder.create_with_backend(file)?)
            } else {
                Ok(builder.create_with_backend(file)?)
            }
        })?;
        Ok(Self {
            database: Some(database),
            access,
            meter,
        })
    }

    /// Whether it can be committed to.
    pub(super) fn is_writable(&self) -> bool {
        self.access != Access::Read
    }

    /// What it was used, since the last call.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Adds blocks and replaces the head, in one synced commit.
    pub(super) fn commit(&self, blocks: &[(u64, Vec<u8>)], head: &[u8]) -> Result<(), Fault> {
        self.guarded(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(BLOCKS)?;
                for (index, frame) in blocks {
                    table.insert(index, frame.as_slice())?;
                }
                transaction.open_table(HEAD)?.insert(0, head)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// The head; `None` when nothing was ever committed.
    pub(super) fn head(&self, segment: u32) -> Result<Option<Head>, Fault> {
        let damaged = || Fault::Damaged("the head of the segment is damaged".into());
        let bytes = self.guarded(|database| {
            let table = match database.begin_read()?.open_table(HEAD) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let value = table.get(0)?;
            Ok(Some(value.map(|value| value.value().to_vec())))
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let bytes = bytes.ok_or_else(damaged)?;
        let (frame, _) = Frame::read(&bytes).ok_or_else(damaged)?;
        Head::from_frame(&frame, segment)
            .map(Some)
            .ok_or_else(damaged)
    }

    /// Goes over the blocks, from the one that holds place `index` or the next one, until `look` breaks
    /// it off. `look` gets the key and the bytes, unchecked.
    pub(super) fn blocks(
        &self,
        index: u32,
        mut look: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        self.guarded(|database| {
            let table = match database.begin_read()?.open_table(BLOCKS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                table => table?,
            };
            let index = u64::from(index);
            let first = table.range(..=index)?.next_back().transpose()?;
            let first = first.map_or(index, |(key, _)| key.value());
            for entry in table.range(first..)? {
                let (key, value) = entry?;
                if look(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Closes it without another write: it is removed, or the disk fails.
    pub(super) fn give_up(self) {
        self.meter.give_up();
    }

    fn guarded<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Fault> {
        let Some(database) = &self.database else {
            return Err(Fault::Damaged("the file is closed".into()));
        };
        guarded(&self.meter, || act(database))
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        let database = self.database.take();
        if self.access == Access::Read {
            self.meter.give_up();
        }
        // Closing commits, and may panic like everything else.
        let _ = guarded(&self.meter, || {
            drop(database);
            Ok(())
        });
    }
}

/// Calls redb; a panic is damage, and so is what cannot be read, or makes no sense.
fn guarded<T>(meter: &Meter, act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    let error = match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(_) => {
            meter.give_up();
            return Err(Fault::Damaged("the database gave up on it".into()));
        }
    };
    let kind = |error: &io::Error| error.kind();
    match error {
        error if meter.unreadable() => Err(Fault::Damaged(format!("it cannot be read: {error}"))),
        redb::Error::Io(error)
            if !matches!(
                kind(&error),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Err(Fault::Disk(error))
        }
        redb::Error::PreviousIo => Err(Fault::Disk(io::Error::other(error.to_string()))),
        error => Err(Fault::Damaged(error.to_string())),
    }
}
