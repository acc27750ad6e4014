//! The door to the spool's folder: the real [`Disk`]. Files are the gateway's alone (mode 0600).

#![allow(clippy::disallowed_methods, reason = "the door to the spool's files")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use redb::StorageBackend;

use super::disk::{Access, Disk};

/// Bytes of a block as `stat` counts them, whatever the file system's own size (POSIX, `st_blocks` as
/// Linux gives it).
const STAT_BLOCK_BYTES: u64 = 512;

/// The files of one folder.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The folder, which [`Disk::make_folder`] makes.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Disk for Files {
    fn make_folder(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => {
                made?;
                // The folder's own name has to last too.
                match self.folder.parent() {
                    Some(parent) => File::open(parent)?.sync_all(),
                    None => Ok(()),
                }
            }
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new()
            .read(true)
            .write(access != Access::Read)
            .create(access == Access::Make)
            .truncate(access == Access::Make)
            .mode(0o600)
            .open(self.folder.join(name))?;
        Ok(Box::new(OpenFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn allocated_bytes(&self, name: &str) -> io::Result<u64> {
        let blocks = fs::metadata(self.folder.join(name))?.blocks();
        Ok(blocks * STAT_BLOCK_BYTES)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = rustix::fs::statvfs(&self.folder)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn place(&self) -> String {
        self.folder.display().to_string()
    }
}

/// One file. It has no lock of its own: the state folder's lock keeps a second gateway out.
#[derive(Debug)]
struct OpenFile(File);

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
