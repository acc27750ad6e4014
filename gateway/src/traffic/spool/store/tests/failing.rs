//! A disk that fails: told once, nothing false is said, and when it is well again all goes on.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::*;
use crate::traffic::spool::DiskHealth;

/// What writes fail with.
type Failure = Arc<Mutex<Option<ErrorKind>>>;

/// A folder whose writes can be made to fail.
struct Failing {
    files: Files,
    failure: Failure,
}

#[derive(Debug)]
struct FailingFile(Box<dyn StorageBackend>, Failure);

fn check(failure: &Failure) -> io::Result<()> {
    match *failure.lock().unwrap() {
        Some(kind) => Err(kind.into()),
        None => Ok(()),
    }
}

impl Disk for Failing {
    fn make_folder(&self) -> io::Result<()> {
        self.files.make_folder()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        if access == Access::Make || (access == Access::Write && self.read_only()) {
            check(&self.failure)?;
        }
        let file = self.files.open(name, access)?;
        Ok(Box::new(FailingFile(file, Arc::clone(&self.failure))))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if self.read_only() {
            check(&self.failure)?;
        }
        self.files.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check(&self.failure)?;
        self.files.rename(from, to)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.files.sync_folder()
    }
    fn allocated_bytes(&self, name: &str) -> io::Result<u64> {
        self.files.allocated_bytes(name)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.files.free_bytes()
    }
    fn place(&self) -> String {
        self.files.place()
    }
}

impl Failing {
    fn read_only(&self) -> bool {
        *self.failure.lock().unwrap() == Some(ErrorKind::ReadOnlyFilesystem)
    }
}

impl StorageBackend for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        check(&self.1)?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        check(&self.1)?;
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        check(&self.1)?;
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

fn failing(settings: &SpoolSettings) -> (Store, Failure) {
    let failure = Failure::default();
    let disk = Failing {
        files: Files::new(settings.dir.clone()),
        failure: Arc::clone(&failure),
    };
    let mut store = Store::open(Box::new(disk), settings.clone()).unwrap();
    scan(&mut store);
    (store, failure)
}

/// What was said, in short.
fn said(store: &mut Store) -> Vec<String> {
    let reports = store.take_reports().into_iter();
    let said = reports.map(|report| match report {
        SpoolReport::Safe { positions, .. } => format!("safe {positions:?}"),
        SpoolReport::Unwritten { positions, why, .. } => format!("{why:?} {positions:?}"),
        SpoolReport::Gone {
            positions, outcome, ..
        } => format!("{outcome:?} {positions:?}"),
        SpoolReport::Health(DiskHealth::Well) => "well".into(),
        SpoolReport::Health(DiskHealth::Failing(_)) => "failing".into(),
        other => format!("{other:?}"),
    });
    said.collect()
}

#[test]
fn does_a_failing_disk_say_so_once_and_go_on_when_it_is_well() {
    for kind in [
        ErrorKind::StorageFull,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::Other,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let (mut store, failure) = failing(&settings);
        store.append(block(0, at(1, 0), 10, 50), now(11));
        store.commit(now(11));
        assert_eq!(said(&mut store), ["safe 1:0..1:10"]);
        *failure.lock().unwrap() = Some(kind);
        store.append(block(0, at(1, 10), 5, 50), now(12));
        store.append(block(1, at(2, 0), 5, 50), now(12));
        store.commit(now(12));
        let mut answers = said(&mut store);
        answers.sort();
        assert_eq!(
            answers,
            ["Failing 1:10..1:15", "Failing 2:0..2:5", "failing"]
        );
        // While it fails nothing is promised, and what is there can be read.
        store.append(block(0, at(3, 0), 5, 50), now(13));
        store.recover(now(13));
        assert_eq!(said(&mut store), ["Failing 3:0..3:5"]);
        let (_, messages) = read(&mut store, 0, Position::FIRST..at(9, 0));
        assert_eq!(messages.len(), 10, "{kind:?}");
        store.settle(&[at(1, 0)]);
        store.recover(now(14));
        assert_eq!(said(&mut store), [""; 0]);
        *failure.lock().unwrap() = None;
        store.recover(now(15));
        assert_eq!(said(&mut store), ["well"]);
        scan(&mut store);
        store.append(block(0, at(4, 0), 5, 50), now(16));
        store.commit(now(16));
        assert_eq!(said(&mut store), ["safe 4:0..4:5"]);
        drop(store);
        let mut store = open(&settings);
        assert_eq!(
            found(&scan(&mut store), 0),
            [at(1, 1)..at(1, 10), at(4, 0)..at(4, 5)]
        );
    }
}

#[test]
fn is_nothing_safe_in_a_folder_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&dir.path().join("spool"));
    let mut store = open(&settings);
    scan(&mut store);
    store.append(block(0, at(1, 0), 10, 50), now(11));
    store.commit(now(11));
    said(&mut store);
    std::fs::remove_dir_all(&settings.dir).unwrap();
    // The open file still takes what is written.
    store.append(block(0, at(1, 10), 10, 50), now(12));
    store.commit(now(12));
    let mut answers = said(&mut store);
    answers.sort();
    assert_eq!(answers, ["Failing 1:10..1:20", "failing"]);
    store.recover(now(13));
    assert_eq!(said(&mut store), ["Damaged 1:0..1:10", "well"]);
    store.append(block(0, at(2, 0), 10, 50), now(14));
    store.commit(now(14));
    assert_eq!(said(&mut store), ["safe 2:0..2:10"]);
    assert_eq!(names(&settings.dir), ["critical.00000002.redb"]);
}
