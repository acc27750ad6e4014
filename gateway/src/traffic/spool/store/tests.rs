//! The store on real files: what it gives back, what survives, what gives way.

#![allow(clippy::disallowed_methods, reason = "a test's own folder")]

mod damage;
mod failing;
mod flips;
mod forgetful;
mod look;
mod model;
mod power;

use std::ops::Range;
use std::path::Path;

use super::*;
use crate::traffic::message::{Message, Tick, WallTime, sample};
use crate::traffic::spool::files::Files;
use crate::traffic::spool::moment::{BootId, Stamp};
use crate::traffic::spool::{
    Outcome, SEGMENT_BLOCK_BYTES_MAX, SEGMENT_BYTES_MAX, SpoolClass, SpoolPolicy, Unwritten,
    file_bytes, record,
};

const MIB: u64 = 1024 * 1024;

fn settings(dir: &Path) -> SpoolSettings {
    let class = |name: &str, evictable| SpoolClass {
        name: name.into(),
        evictable,
        bytes_max: None,
    };
    SpoolSettings {
        dir: dir.to_owned(),
        size_bytes_max: 64 * MIB,
        disk_free_bytes_min: 0,
        policy: SpoolPolicy::default(),
        classes: vec![class("critical", false), class("normal", true)],
        default_class: ClassId(1),
    }
}

fn open(settings: &SpoolSettings) -> Store {
    Store::open(Box::new(Files::new(settings.dir.clone())), settings.clone()).unwrap()
}

fn now(seconds: u64) -> Now {
    let micros = seconds * 1_000_000;
    Now {
        tick: Tick::from_micros(Tick::START.micros() + micros),
        stamp: Stamp {
            boot: BootId([1; 16]),
            boottime_micros: micros,
            wall: WallTime::from_micros(1_770_000_000_000_000 + micros),
        },
    }
}

fn at(segment: u32, index: u32) -> Position {
    Position::new(segment, index)
}

/// A block whose messages say which they are: their sequence is their index.
fn block(class: u8, first: Position, count: u32, payload_bytes: usize) -> Block {
    let opened = now(10).tick;
    let mut records = Vec::new();
    for index in first.index()..first.index() + count {
        let payload = vec![index as u8; payload_bytes];
        let mut message = sample("plant/1", &payload);
        message.received = opened;
        message.sequence = u64::from(index);
        message.epoch = u64::from(first.segment());
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

fn read(store: &mut Store, class: u8, range: Range<Position>) -> (Range<Position>, Vec<Message>) {
    store.take_reports();
    store.read(ClassId(class), range.start, range.end, u64::MAX, now(20));
    let mut reports = store.take_reports();
    match reports.pop() {
        Some(SpoolReport::Records {
            looked_at,
            messages,
            ..
        }) => (looked_at, messages),
        other => panic!("{other:?}"),
    }
}

fn positions(messages: &[Message]) -> Vec<Position> {
    messages
        .iter()
        .map(|message| {
            let position = message.spooled.unwrap();
            assert_eq!(message.sequence, u64::from(position.index()));
            assert_eq!(message.epoch, u64::from(position.segment()));
            position
        })
        .collect()
}

fn scan(store: &mut Store) -> Vec<SpoolReport> {
    while store.scan(now(20)) {}
    store.take_reports()
}

fn found(reports: &[SpoolReport], class: u8) -> Vec<Range<Position>> {
    reports
        .iter()
        .filter_map(|report| match report {
            SpoolReport::Found { class: of, ranges } if of.0 == class => Some(ranges.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = Files::new(dir.to_owned()).list().unwrap();
    names.retain(|name| name != "ballast");
    names.sort();
    names
}

#[test]
fn does_what_was_written_come_back_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    assert_eq!(store.next_segment(), 1);
    store.append(block(0, at(1, 0), 100, 50), now(11));
    store.append(block(0, at(1, 100), 100, 50), now(11));
    store.commit(now(11));
    let reports = store.take_reports();
    assert!(
        matches!(&reports[..], [SpoolReport::Safe { class: ClassId(0), positions }] if *positions == (at(1, 0)..at(1, 200))),
        "{reports:?}"
    );
    let settled: Vec<_> = (0..150).map(|index| at(1, index)).collect();
    store.settle(&settled);
    let (looked_at, messages) = read(&mut store, 0, at(1, 0)..at(9, 0));
    assert!(looked_at.end > at(1, 199), "{looked_at:?}");
    let expected: Vec<_> = (150..200).map(|index| at(1, index)).collect();
    assert_eq!(positions(&messages), expected);
    assert_eq!(messages[0].received, now(10).tick);
    assert!(messages[0].replayed);
    store.settle(&expected);
    store.commit(now(12));
    assert_eq!(names(dir.path()), [""; 0]);
    let (looked_at, messages) = read(&mut store, 0, at(1, 0)..at(9, 0));
    assert_eq!((looked_at, messages.len()), (at(1, 0)..at(9, 0), 0));
}

#[test]
fn does_a_read_take_no_more_than_it_may_but_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&settings(dir.path()));
    store.append(block(0, at(1, 0), 10, 1000), now(11));
    store.commit(now(11));
    store.take_reports();
    let mut from = at(1, 0);
    for bytes_max in [0, 3000, 3000] {
        store.read(ClassId(0), from, at(2, 0), bytes_max, now(12));
        let reports = store.take_reports();
        let [
            SpoolReport::Records {
                looked_at,
                messages,
                ..
            },
        ] = &reports[..]
        else {
            panic!("{reports:?}");
        };
        let expected = if bytes_max == 0 { 1 } else { 2 };
        assert_eq!(messages.len(), expected);
        assert_eq!(*looked_at, from..from.plus(expected as u32));
        from = looked_at.end;
    }
}

#[test]
fn does_a_new_start_find_what_was_left_without_a_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    store.append(block(0, at(1, 5), 10, 50), now(11));
    store.append(block(1, at(2, 0), 3, 50), now(11));
    store.commit(now(11));
    store.settle(&[at(1, 5), at(1, 9)]);
    store.commit(now(12));
    // As if it had been killed: no file is closed.
    let mut second = open(&settings);
    std::mem::forget(store);
    assert_eq!(second.next_segment(), 3);
    let reports = scan(&mut second);
    assert_eq!(
        found(&reports, 0),
        [at(1, 6)..at(1, 9), at(1, 10)..at(1, 15)]
    );
    assert_eq!(found(&reports, 1), [at(2, 0)..at(2, 3)]);
    assert!(matches!(
        reports[1],
        SpoolReport::Scanned { class: ClassId(0) }
    ));
    assert!(matches!(
        reports[3],
        SpoolReport::Scanned { class: ClassId(1) }
    ));
    let (_, messages) = read(&mut second, 0, Position::FIRST..at(9, 0));
    assert_eq!(messages.len(), 8);
}

#[test]
fn do_files_of_a_class_that_is_gone_come_home_under_the_default_class() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let mut store = open(&settings);
    store.append(block(0, at(1, 0), 3, 50), now(11));
    store.commit(now(11));
    drop(store);
    settings.classes[0].name = "alarm".into();
    let mut store = open(&settings);
    assert_eq!(found(&scan(&mut store), 1), [at(1, 0)..at(1, 3)]);
    let (_, messages) = read(&mut store, 1, Position::FIRST..at(9, 0));
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.class == ClassId(1)));
    store.settle(&positions(&messages));
    store.commit(now(12));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn are_foreign_files_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["notes.txt", "low.1.redb"] {
        std::fs::write(dir.path().join(name), "mine").unwrap();
    }
    let mut store = open(&settings(dir.path()));
    scan(&mut store);
    store.append(block(1, at(store.next_segment(), 0), 3, 50), now(11));
    store.commit(now(11));
    drop(store);
    assert_eq!(
        names(dir.path()),
        ["low.1.redb", "normal.00000001.redb", "notes.txt"]
    );
    assert_eq!(
        std::fs::read(dir.path().join("notes.txt")).unwrap(),
        b"mine"
    );
}

#[test]
fn does_a_full_share_evict_the_oldest_and_hold_what_is_guaranteed() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.size_bytes_max = 12 * MIB;
    let mut store = open(&settings);
    // Segments of 1 MiB and more.
    let mut gone = Vec::new();
    for segment in 1..=20 {
        for part in 0..16 {
            store.append(block(1, at(segment, part * 60), 60, 1000), now(11));
        }
        store.commit(now(11));
        for report in store.take_reports() {
            match report {
                SpoolReport::Gone {
                    class: ClassId(1),
                    positions,
                    outcome: Outcome::Evicted,
                } => gone.push(positions),
                SpoolReport::Safe { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(store.figures().file_bytes <= 12 * MIB);
    }
    assert!(gone.len() >= 10, "{gone:?}");
    let evicted: Vec<_> = (1..=gone.len() as u32)
        .map(|segment| at(segment, 0)..at(segment, 960))
        .collect();
    assert_eq!(gone, evicted);
    // The first class takes all the rest's room, then nothing gives way.
    let mut full = false;
    for segment in 21..=40 {
        for part in 0..16 {
            store.append(block(0, at(segment, part * 60), 60, 1000), now(11));
        }
        store.commit(now(11));
        full |= store.take_reports().iter().any(|report| {
            matches!(
                report,
                SpoolReport::Unwritten {
                    class: ClassId(0),
                    why: Unwritten::Full,
                    ..
                }
            )
        });
        assert!(store.figures().file_bytes <= 12 * MIB);
    }
    assert!(full);
    assert!(
        names(dir.path())
            .iter()
            .all(|name| name.starts_with("critical"))
    );
    let (_, messages) = read(&mut store, 0, at(21, 0)..at(22, 0));
    assert_eq!(messages.len(), 960);
}

/// Redb gives values above half a page pages of their own, a power of two of them: a block of 33 KiB takes
/// 64. What is counted must foresee that, for blocks of every size.
#[test]
fn does_a_full_segment_stay_within_its_size() {
    for (count, payload_bytes) in [(60, 1000), (33, 1000), (9, 1000), (4, 500), (1, 65_000)] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&settings(dir.path()));
        let (mut index, mut counted) = (0, 0);
        while counted < SEGMENT_BLOCK_BYTES_MAX {
            // Commits of about 256 KiB.
            let mut commit = 0;
            while commit < 256 * 1024 && counted < SEGMENT_BLOCK_BYTES_MAX {
                let block = block(0, at(1, index), count, payload_bytes);
                index += count;
                commit += block.records.len();
                counted += file_bytes(block.records.len());
                store.append(block, now(11));
            }
            store.commit(now(11));
        }
        let bytes = store.segments[&1].bytes;
        assert!(
            bytes <= SEGMENT_BYTES_MAX,
            "{count} x {payload_bytes}: {bytes}"
        );
        assert!(
            bytes >= counted * 95 / 100,
            "{count} x {payload_bytes}: {bytes}"
        );
    }
}
