//! A disk whose power may be cut at any operation. What was not synced may then be there or not, each
//! write for itself and torn at any sector; files that were made, renamed or removed likewise, unless
//! the folder was synced since. It keeps what would be left of it at each cut, to be looked at later.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::traffic::spool::disk::{Access, Disk};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    Never,
    /// At each sync of a file or the folder, before it takes effect.
    EverySync,
    /// At one operation in so many.
    OneIn(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Forgetful(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    files: HashMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    kept_names: BTreeMap<String, u64>,
    renamings: Vec<Naming>,
    cuts: Cuts,
    chance: Chance,
    /// What was left at each cut, and how.
    left: Vec<(String, Forgetful)>,
    operations: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    kept: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug)]
enum Naming {
    Made(String, u64),
    Removed(String),
    Renamed(String, String),
}

/// How much of what was not synced is left.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    All,
    /// The first ones, the last of them torn.
    First(usize),
    /// Some, some of them torn.
    Some,
}

impl Left {
    fn draw(chance: &mut Chance, count: usize) -> Self {
        match chance.below(5) {
            0 => Self::Nothing,
            1 => Self::All,
            2 => Self::First(chance.below(count + 1)),
            _ => Self::Some,
        }
    }

    /// Whether the change at this place is left, and whether it is torn.
    fn is_left(self, at: usize, chance: &mut Chance) -> (bool, bool) {
        match self {
            Self::Nothing => (false, false),
            Self::All => (true, false),
            Self::First(count) => (at < count, at + 1 == count),
            Self::Some => (chance.one_in(2), chance.one_in(2)),
        }
    }
}

impl Content {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Length(length) => bytes.resize(*length as usize, 0),
            Change::Write(at, data) => {
                let at = *at as usize;
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[at..at + data.len()].copy_from_slice(data);
            }
        }
    }

    fn tear(bytes: &mut Vec<u8>, at: usize, data: &[u8], chance: &mut Chance) {
        let mut done = 0;
        while done < data.len() {
            let end = (done + SECTOR_BYTES - (at + done) % SECTOR_BYTES).min(data.len());
            if chance.one_in(2) {
                let part = data[done..end].to_vec();
                Self::apply(bytes, &Change::Write((at + done) as u64, part));
            }
            done = end;
        }
    }

    fn change(&mut self, change: Change) {
        Self::apply(&mut self.now, &change);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            Self::apply(&mut self.kept, &change);
        }
    }

    fn left(&self, left: Left, chance: &mut Chance) -> Self {
        let mut kept = self.kept.clone();
        for (at, change) in self.changes.iter().enumerate() {
            match (left.is_left(at, chance), change) {
                ((true, true), Change::Write(at, data)) => {
                    Self::tear(&mut kept, *at as usize, data, chance);
                }
                ((true, _), change) => Self::apply(&mut kept, change),
                ((false, _), _) => {}
            }
        }
        Self {
            now: kept.clone(),
            kept,
            changes: Vec::new(),
        }
    }
}

impl State {
    /// Something is about to happen to the disk.
    fn before(&mut self, is_sync: bool) {
        self.operations += 1;
        let cut = match self.cuts {
            Cuts::Never => false,
            Cuts::EverySync => is_sync,
            Cuts::OneIn(count) => self.chance.one_in(count),
        };
        if cut {
            let left = self.cut();
            self.left.push(left);
        }
    }

    fn cut(&mut self) -> (String, Forgetful) {
        let mut chance = Chance::new(self.chance.next());
        let of_names = Left::draw(&mut chance, self.renamings.len());
        let mut names = self.kept_names.clone();
        for (at, naming) in self.renamings.iter().enumerate() {
            if of_names.is_left(at, &mut chance).0 {
                naming.apply(&mut names);
            }
        }
        let mut how = format!("operation {}: of names {of_names:?}", self.operations);
        let mut files = HashMap::new();
        for (name, file) in &names {
            let content = &self.files[file];
            let left = Left::draw(&mut chance, content.changes.len());
            if !content.changes.is_empty() {
                how += &format!(", of {name} {left:?} of {}", content.changes.len());
            }
            files.insert(*file, content.left(left, &mut chance));
        }
        let state = State {
            files,
            next_file: self.next_file,
            kept_names: names.clone(),
            names,
            renamings: Vec::new(),
            cuts: Cuts::Never,
            chance,
            left: Vec::new(),
            operations: 0,
        };
        (how, Forgetful(Arc::new(Mutex::new(state))))
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.renamings.push(naming);
    }

    fn file(&self, name: &str) -> io::Result<u64> {
        let file = self.names.get(name).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Made(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Removed(name) => {
                names.remove(name);
            }
            Self::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Forgetful {
    pub(super) fn new(seed: u64, cuts: Cuts) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: HashMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            renamings: Vec::new(),
            cuts,
            chance: Chance::new(seed),
            left: Vec::new(),
            operations: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What was left at each cut since the last call.
    pub(super) fn take_left(&self) -> Vec<(String, Self)> {
        std::mem::take(&mut self.state().left)
    }

    /// How many hold on to it: its files, and their owners.
    pub(super) fn users(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The power is cut now.
    pub(super) fn cut(&self) -> (String, Self) {
        self.state().cut()
    }

    /// Flips a bit of a file, on the medium.
    pub(super) fn flip(&self, name: &str, byte: usize) {
        let mut state = self.state();
        let file = state.names[name];
        let content = state.files.get_mut(&file).unwrap();
        content.now[byte] ^= 4;
        content.kept[byte] ^= 4;
    }
}

impl Disk for Forgetful {
    fn make_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.state();
        if access == Access::Make {
            state.before(false);
        }
        let file = match (state.file(name), access) {
            (Ok(file), Access::Make) => {
                let content = state.files.get_mut(&file).unwrap();
                content.change(Change::Length(0));
                file
            }
            (Err(_), Access::Make) => {
                let file = state.next_file;
                state.next_file += 1;
                state.files.insert(file, Content::default());
                state.rename(Naming::Made(name.to_owned(), file));
                file
            }
            (file, _) => file?,
        };
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            file,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.before(false);
        state.rename(Naming::Removed(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(from)?;
        state.before(false);
        state.rename(Naming::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.before(true);
        state.kept_names = state.names.clone();
        state.renamings.clear();
        Ok(())
    }

    fn allocated_bytes(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        let content = &state.files[&state.file(name)?];
        let zero = [0; PAGE_BYTES];
        let pages = content.now.chunks(PAGE_BYTES);
        let held = pages.filter(|page| **page != zero[..page.len()]).count();
        Ok((held * PAGE_BYTES) as u64)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn place(&self) -> String {
        "a model".into()
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Forgetful,
    file: u64,
}

impl OpenFile {
    fn change(&self, change: Change) {
        let mut state = self.disk.state();
        state.before(false);
        state.files.get_mut(&self.file).unwrap().change(change);
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[&self.file].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let at = offset as usize;
        let there = state.files[&self.file].now.get(at..at + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.before(true);
        state.files.get_mut(&self.file).unwrap().sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}
