//! The ledger's file: replaced as a whole, so that it is always the old one or the new one.

use std::io;

use super::Store;
use super::names::{LEDGER, LEDGER_NEW};
use crate::traffic::spool::disk::Access;

/// A ledger of 16 classes takes 8 KiB; what is larger is none.
const LEDGER_BYTES_MAX: u64 = 256 * 1024;

impl Store {
    /// Keeps the ledger. A disk that fails keeps the one that it has.
    pub fn keep_ledger(&mut self, content: &[u8]) {
        if self.is_failing() {
            return;
        }
        if let Err(error) = self.write_ledger(content) {
            let _ = self.disk.remove(LEDGER_NEW);
            self.fail(&error);
        }
    }

    fn write_ledger(&mut self, content: &[u8]) -> io::Result<()> {
        let file = self.disk.open(LEDGER_NEW, Access::Make)?;
        file.write(0, content)?;
        file.sync_data()?;
        file.close()?;
        self.disk.rename(LEDGER_NEW, LEDGER)?;
        self.disk.sync_folder()?;
        self.count((2, content.len() as u64));
        Ok(())
    }

    /// The ledger that was kept last, if there is one.
    #[must_use]
    pub fn kept_ledger(&self) -> Option<Vec<u8>> {
        let file = self.disk.open(LEDGER, Access::Read).ok()?;
        let length = file.len().ok().filter(|bytes| *bytes <= LEDGER_BYTES_MAX)?;
        let mut content = vec![0; usize::try_from(length).ok()?];
        file.read(0, &mut content).ok()?;
        Some(content)
    }
}
