//! The power is cut, at every sync of a workload and at random points of many: a new start on what is
//! left has everything that was reported safe and is not settled, nothing that was kept as settled,
//! nothing that is wrong, and goes on.
//!
//! `TIDEGATE_CUTS` sets how many random cuts there are (200; the long run: 2,000). A failure prints
//! its seed.

use std::collections::{BTreeMap, BTreeSet};

use super::forgetful::{Chance, Cuts, Forgetful};
use super::*;

const CLASSES: u8 = 3;

/// One message by the number that it carries.
type Id = u64;

/// What may be there, and what must.
#[derive(Clone, Default)]
struct Expected {
    /// Every message that was ever appended.
    made: BTreeMap<Id, (u8, Position)>,
    /// Appended, not answered.
    pending: BTreeSet<Id>,
    /// Safe and not settled: must be there.
    safe: BTreeSet<Id>,
    /// Settled or gone since the last commit: may be there.
    loose: BTreeSet<Id>,
    ledger: Option<Vec<u8>>,
    ledger_before: Option<Vec<u8>>,
}

struct Workload {
    disk: Forgetful,
    settings: SpoolSettings,
    store: Store,
    expected: Expected,
    chance: Chance,
    next: [Option<Position>; CLASSES as usize],
    next_segment: u32,
    checked: usize,
    seed: u64,
}

fn power_settings() -> SpoolSettings {
    let mut settings = settings(Path::new("nowhere"));
    settings.size_bytes_max = 9 * MIB / 2;
    settings.classes.push(SpoolClass {
        name: "low".into(),
        evictable: true,
        bytes_max: Some(300 * 1024),
    });
    settings
}

/// A payload that no other message has.
fn payload(id: Id, length: usize) -> Vec<u8> {
    let mut chance = Chance::new(id);
    let mut payload: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| chance.next().to_le_bytes())
        .collect();
    payload.truncate(length);
    payload
}

fn length(id: Id) -> usize {
    match id % 97 {
        0 => 70_000,
        _ => (id * 7919 % 900) as usize,
    }
}

fn block_of(class: u8, first: Position, ids: std::ops::Range<Id>) -> Block {
    let opened = now(10).tick;
    let mut records = Vec::new();
    let count = (ids.end - ids.start) as u32;
    for id in ids {
        let mut message = sample("plant/1", &payload(id, length(id)));
        message.received = opened;
        message.sequence = id;
        record::write(&mut records, &message, opened);
    }
    Block {
        class: ClassId(class),
        first,
        count,
        opened,
        records,
    }
}

/// Everything that a store gives of its classes, by what the messages carry; each is checked.
fn contents(store: &mut Store, until: Position) -> BTreeMap<Id, (u8, Position)> {
    let mut there = BTreeMap::new();
    for class in 0..CLASSES {
        let mut from = Position::FIRST;
        while from < until {
            store.read(ClassId(class), from, until, 200_000, now(20));
            let Some(SpoolReport::Records {
                looked_at,
                messages,
                ..
            }) = store.take_reports().pop()
            else {
                panic!("a read is answered");
            };
            for message in messages {
                let id = message.sequence;
                assert_eq!(message.body.payload(), payload(id, length(id)));
                let twice = there.insert(id, (class, message.spooled.unwrap()));
                assert_eq!(twice, None);
            }
            assert!(looked_at.end > from);
            from = looked_at.end;
        }
    }
    there
}

impl Expected {
    /// Looks at what a cut left, as a new start would.
    fn check(&self, left: &Forgetful, settings: &SpoolSettings) {
        let mut store = Store::open(Box::new(left.clone()), settings.clone()).unwrap();
        let until = at(store.next_segment(), 0);
        let mut found = BTreeSet::new();
        for report in scan(&mut store) {
            match report {
                SpoolReport::Found { class, ranges } => {
                    for range in ranges {
                        let count = range.end.since(range.start) as u32;
                        found.extend((0..count).map(|place| (class.0, range.start.plus(place))));
                    }
                }
                SpoolReport::Scanned { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let there = contents(&mut store, until);
        let places: BTreeSet<_> = there.values().copied().collect();
        assert_eq!(places, found, "what is found can be read");
        for (id, place) in &there {
            assert_eq!(self.made.get(id), Some(place), "message {id}");
            let may =
                self.safe.contains(id) || self.loose.contains(id) || self.pending.contains(id);
            assert!(may, "message {id} at {place:?} was settled for good");
        }
        for id in &self.safe {
            assert!(
                there.contains_key(id),
                "message {id} at {:?} was safe and is lost",
                self.made[id]
            );
        }
        let ledger = store.kept_ledger();
        assert!(ledger == self.ledger || ledger == self.ledger_before);
        self.go_on(left, store, until, there);
    }

    /// What is left goes on: more is appended, and the next cut takes nothing of all that.
    fn go_on(
        &self,
        left: &Forgetful,
        mut store: Store,
        first: Position,
        mut there: BTreeMap<Id, (u8, Position)>,
    ) {
        let new = 1_000_000..1_000_005;
        let settled = there.iter().next().map(|(id, place)| (*id, place.1));
        store.append(block_of(0, first, new.clone()), now(21));
        store.settle(&Vec::from_iter(settled.map(|(_, place)| place)));
        store.commit(now(21));
        let mut gone = Vec::new();
        let mut safe = false;
        for report in store.take_reports() {
            match report {
                SpoolReport::Safe { .. } => safe = true,
                SpoolReport::Gone {
                    outcome: Outcome::Evicted,
                    positions,
                    ..
                } => gone.push(positions),
                SpoolReport::Unwritten {
                    why: Unwritten::Full,
                    ..
                } => {}
                other => panic!("{other:?}"),
            }
        }
        if safe {
            there.extend(new.zip((0..5).map(|place| (0, first.plus(place)))));
        }
        there.retain(|id, (_, place)| {
            settled.is_none_or(|(settled, _)| *id != settled)
                && !gone.iter().any(|range| range.contains(place))
        });
        let (_, left) = left.cut();
        drop(store);
        let mut store = Store::open(Box::new(left.clone()), power_settings()).unwrap();
        scan(&mut store);
        let until = first.max(at(store.next_segment(), 0)).plus(10);
        let again = contents(&mut store, until);
        assert_eq!(again, there, "after going on and another cut");
        drop(store);
        assert_eq!(left.users(), 1, "a file is held after the store");
    }
}

impl Workload {
    fn new(seed: u64, cuts: Cuts) -> Self {
        let disk = Forgetful::new(seed, cuts);
        let settings = power_settings();
        let store = Store::open(Box::new(disk.clone()), settings.clone()).unwrap();
        Self {
            disk,
            settings,
            store,
            expected: Expected::default(),
            chance: Chance::new(!seed),
            next: [None; CLASSES as usize],
            next_segment: 1,
            checked: 0,
            seed,
        }
    }

    fn run(mut self, steps: usize) -> usize {
        scan(&mut self.store);
        self.done();
        for _ in 0..steps {
            match self.chance.below(20) {
                0..8 => self.append(),
                8..11 => self.settle(),
                11..16 => self.commit(),
                16..18 => self.read(),
                18 => self.keep_ledger(),
                _ => self.restart(),
            }
        }
        self.commit();
        self.checked
    }

    /// After each call of the store: takes the reports in, and looks at what cuts during it left.
    fn done(&mut self) {
        let before = self.expected.clone();
        let reports = self.store.take_reports();
        for report in &reports {
            match report {
                SpoolReport::Safe { class, positions } => self.expected.safe(class.0, positions),
                SpoolReport::Gone {
                    outcome: Outcome::Evicted,
                    positions,
                    ..
                } => self.expected.gone(positions),
                SpoolReport::Unwritten {
                    class,
                    positions,
                    why: Unwritten::Full,
                } => {
                    self.next[class.index()] = None;
                    self.expected.unwritten(positions);
                }
                SpoolReport::Found { .. } | SpoolReport::Scanned { .. } => {}
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
        let mut during = before;
        for id in &self.expected.loose {
            if during.safe.remove(id) {
                during.loose.insert(*id);
            }
        }
        for (how, left) in self.disk.take_left() {
            self.checked += 1;
            let (seed, settings) = (self.seed, &self.settings);
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                during.check(&left, settings);
            }));
            assert!(checked.is_ok(), "seed {seed}, cut at {how}");
        }
        self.expected.ledger_before = self.expected.ledger.clone();
    }

    fn append(&mut self) {
        let class = self.chance.below(CLASSES.into()) as u8;
        let roll = self.chance.one_in(6);
        let next = self.next[usize::from(class)].filter(|_| !roll);
        let first = next.unwrap_or_else(|| {
            self.next_segment += 1;
            at(self.next_segment - 1, 0)
        });
        let id = self.expected.made.len() as Id;
        let ids = id..id + 1 + self.chance.below(40) as Id;
        let block = block_of(class, first, ids.clone());
        self.next[usize::from(class)] = Some(block.positions().end);
        for (place, id) in ids.enumerate() {
            let place = (class, first.plus(place as u32));
            self.expected.made.insert(id, place);
            self.expected.pending.insert(id);
        }
        self.store.append(block, now(11));
        self.done();
    }

    fn settle(&mut self) {
        let expected = &mut self.expected;
        let live: Vec<Id> = expected.safe.union(&expected.pending).copied().collect();
        let ids: Vec<Id> = match (self.chance.below(3), live.is_empty()) {
            (_, true) => return,
            // A run of what is oldest, whatever there is of a segment, and here and there.
            (0, _) => live.into_iter().take(self.chance.below(200)).collect(),
            (1, _) => {
                let (_, place) = expected.made[&live[self.chance.below(live.len())]];
                let same = |id: &Id| expected.made[id].1.segment() == place.segment();
                live.into_iter().filter(same).collect()
            }
            _ => {
                let part = 1 + self.chance.below(9);
                let chance = &mut self.chance;
                live.into_iter().filter(|_| chance.one_in(part)).collect()
            }
        };
        let places: Vec<_> = ids.iter().map(|id| expected.made[id].1).collect();
        for id in ids {
            // What is settled before its commit is answered all the same.
            expected.safe.remove(&id);
            expected.pending.remove(&id);
            expected.loose.insert(id);
        }
        self.store.settle(&places);
        self.done();
    }

    fn commit(&mut self) {
        self.store.commit(now(12));
        self.done();
        assert!(self.expected.pending.is_empty());
        self.expected.loose.clear();
        if let Some((how, left)) = self.chance.one_in(8).then(|| self.disk.cut()) {
            // Nothing is on its way now, so that nothing may come back.
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.expected.check(&left, &self.settings);
            }));
            assert!(checked.is_ok(), "seed {}, after a commit, {how}", self.seed);
        }
    }

    fn read(&mut self) {
        self.commit();
        let there = contents(&mut self.store, at(self.next_segment, 0));
        let there: BTreeSet<Id> = there.into_keys().collect();
        assert_eq!(there, self.expected.safe, "seed {}", self.seed);
        self.done();
    }

    fn keep_ledger(&mut self) {
        let content = payload(self.chance.next(), 3000);
        self.expected.ledger = Some(content.clone());
        // Either one may be there until it is done.
        self.store.keep_ledger(&content);
        self.done();
    }

    /// Closed and opened again; sometimes the medium has flipped a bit in a header meanwhile.
    fn restart(&mut self) {
        self.commit();
        self.store =
            Store::open(Box::new(Forgetful::new(0, Cuts::Never)), power_settings()).unwrap();
        self.done();
        let names = self.disk.list().unwrap();
        let names = names.iter().filter(|name| name.ends_with(".redb"));
        for name in names.collect::<Vec<_>>() {
            if self.chance.one_in(8) {
                self.disk.flip(name, 3);
            }
        }
        self.store = Store::open(Box::new(self.disk.clone()), self.settings.clone()).unwrap();
        self.next = [None; CLASSES as usize];
        self.next_segment = self.next_segment.max(self.store.next_segment());
        while self.store.scan(now(20)) {
            self.done();
        }
        self.done();
    }
}

impl Expected {
    fn ids(&self, of: &BTreeSet<Id>, positions: &Range<Position>) -> Vec<Id> {
        let those = of.iter().filter(|id| positions.contains(&self.made[id].1));
        those.copied().collect()
    }

    fn safe(&mut self, class: u8, positions: &Range<Position>) {
        for id in self.ids(&self.pending, positions) {
            assert_eq!(self.made[&id].0, class);
            self.pending.remove(&id);
            self.safe.insert(id);
        }
    }

    fn gone(&mut self, positions: &Range<Position>) {
        for id in self.ids(&self.safe, positions) {
            self.safe.remove(&id);
            self.loose.insert(id);
        }
    }

    fn unwritten(&mut self, positions: &Range<Position>) {
        for id in self.ids(&self.pending, positions) {
            self.pending.remove(&id);
        }
    }
}

fn cuts_wanted() -> usize {
    let cuts = std::env::var("TIDEGATE_CUTS").ok();
    cuts.map_or(200, |cuts| cuts.parse().unwrap())
}

#[test]
fn does_a_power_cut_at_any_sync_take_nothing_that_was_safe() {
    let checked = Workload::new(1, Cuts::EverySync).run(150);
    assert!(checked > 100, "{checked}");
    println!("{checked} syncs, each with a cut");
}

#[test]
fn does_a_power_cut_at_any_moment_take_nothing_that_was_safe() {
    let (wanted, mut checked, mut seed) = (cuts_wanted(), 0, 1);
    while checked < wanted {
        seed += 1;
        checked += Workload::new(seed, Cuts::OneIn(25)).run(60);
    }
    println!("{checked} cuts in {} workloads", seed - 1);
}
