//! Single bits flip, anywhere in a spool that was closed or that crashed: it always opens, nothing
//! that it gives is wrong, and what stands whole in the files is given.
//!
//! `TIDEGATE_FLIPS` sets how many (150; the long run: 500). A failure prints which one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::forgetful::Chance;
use super::*;
use crate::traffic::spool::frame::{Frame, Kind};

const PAYLOAD_BYTES: usize = 300;
const COUNT: u32 = 10;

/// A folder's files.
type Image = BTreeMap<String, Vec<u8>>;

fn image(dir: &Path) -> Image {
    let read = |name: String| {
        let content = fs::read(dir.join(&name)).unwrap();
        (name, content)
    };
    names(dir).into_iter().map(read).collect()
}

fn lay(image: &Image, dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in image {
        fs::write(dir.join(name), content).unwrap();
    }
}

/// What stands unsettled in a spool of three segments, and its files: as crashes leave them, one that
/// comes when the last of it was settled, one when it was appended; and as closing does.
fn spools() -> [(BTreeSet<Position>, Image); 3] {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    for round in 0..25 {
        for (class, segment) in [(0, 1), (1, 2), (1, 3)] {
            let first = at(segment, round * COUNT);
            store.append(block(class, first, COUNT, PAYLOAD_BYTES), now(11));
        }
        store.commit(now(11));
    }
    let all = (1..=3).flat_map(|segment| (0..25 * COUNT).map(move |index| at(segment, index)));
    let (settled, unsettled): (Vec<_>, Vec<_>) = all
        .partition(|place| place.index() < 20 || (place.segment() == 2 && place.index() % 7 == 0));
    store.settle(&settled);
    store.commit(now(12));
    let mut unsettled: BTreeSet<_> = unsettled.into_iter().collect();
    let settled_last = (unsettled.clone(), image(dir.path()));
    for (class, segment) in [(0, 1), (1, 2), (1, 3)] {
        let first = at(segment, 25 * COUNT);
        store.append(block(class, first, COUNT, PAYLOAD_BYTES), now(11));
        unsettled.extend((0..COUNT).map(|place| first.plus(place)));
    }
    store.commit(now(11));
    let appended_last = (unsettled.clone(), image(dir.path()));
    drop(store);
    [settled_last, appended_last, (unsettled, image(dir.path()))]
}

/// The places of blocks that stand whole in a file.
fn whole(image: &Image) -> BTreeSet<Position> {
    let mut whole = BTreeSet::new();
    for frame in image.values().flat_map(|bytes| Frame::carve(bytes)) {
        if frame.kind == Kind::Block {
            let first = at(frame.segment, frame.number as u32);
            whole.extend((0..frame.count).map(|place| first.plus(place)));
        }
    }
    whole
}

/// What came of one flip.
#[derive(Debug, Default)]
struct Came {
    /// Unsettled, and given.
    given: BTreeSet<Position>,
    /// Settled, and given all the same.
    again: usize,
    /// Told as damaged.
    told: u64,
}

fn come(dir: &Path, unsettled: &BTreeSet<Position>) -> Came {
    let mut store = open(&settings(dir));
    let mut came = Came::default();
    let mut found = 0;
    let take = |report: &SpoolReport, came: &mut Came, found: &mut u64| match report {
        SpoolReport::Gone {
            positions,
            outcome: Outcome::Damaged,
            ..
        } => came.told += positions.end.since(positions.start),
        SpoolReport::Found { ranges, .. } => {
            *found += ranges
                .iter()
                .map(|range| range.end.since(range.start))
                .sum::<u64>();
        }
        SpoolReport::Scanned { .. } => {}
        other => panic!("{other:?}"),
    };
    let reports = scan(&mut store);
    reports
        .iter()
        .for_each(|report| take(report, &mut came, &mut found));
    let mut settled = Vec::new();
    for class in 0..2 {
        store.read(ClassId(class), Position::FIRST, at(9, 0), u64::MAX, now(20));
        // Segment by segment.
        for _ in 0..3 {
            let mut end = at(9, 0);
            for report in store.take_reports() {
                let SpoolReport::Records {
                    messages,
                    looked_at,
                    ..
                } = report
                else {
                    take(&report, &mut came, &mut found);
                    continue;
                };
                end = looked_at.end;
                for place in positions(&messages) {
                    let payload = [place.index() as u8; PAYLOAD_BYTES];
                    let message = messages.iter().find(|m| m.spooled == Some(place)).unwrap();
                    assert_eq!(message.body.payload(), payload);
                    settled.push(place);
                    if unsettled.contains(&place) {
                        assert!(came.given.insert(place));
                    } else {
                        came.again += 1;
                    }
                }
            }
            if end == at(9, 0) {
                break;
            }
            store.read(ClassId(class), end, at(9, 0), u64::MAX, now(20));
        }
    }
    // Every message that was told of was given, or was told as lost.
    assert_eq!(found, settled.len() as u64 + came.told);
    // It goes on: drains, and takes more.
    store.settle(&settled);
    let first = at(store.next_segment(), 0);
    store.append(block(0, first, 5, PAYLOAD_BYTES), now(21));
    store.commit(now(21));
    assert!(!store.is_failing());
    drop(store);
    let mut store = open(&settings(dir));
    assert_eq!(found_in(&scan(&mut store)), [first..first.plus(5)]);
    came
}

fn found_in(reports: &[SpoolReport]) -> Vec<Range<Position>> {
    let mut ranges = found(reports, 0);
    ranges.extend(found(reports, 1));
    ranges
}

fn flips_wanted() -> usize {
    let flips = std::env::var("TIDEGATE_FLIPS").ok();
    flips.map_or(150, |flips| flips.parse().unwrap())
}

#[test]
fn does_no_flipped_bit_bring_a_wrong_message_or_keep_the_spool_from_starting() {
    let spools = spools();
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance::new(7);
    let (mut given, mut could, mut of, mut told, mut again) = (0, 0, 0, 0, 0);
    let mut worst = 0;
    for flip in 0..flips_wanted() {
        let (unsettled, image) = &spools[flip % 3];
        let mut image = image.clone();
        let names: Vec<_> = image.keys().cloned().collect();
        let bytes = image.get_mut(&names[chance.below(names.len())]).unwrap();
        // One in four hits the file's header, all the others any byte.
        let end = if chance.one_in(4) { 512 } else { bytes.len() };
        let byte = chance.below(end);
        bytes[byte] ^= 1 << chance.below(8);
        lay(&image, dir.path());
        let came = catch_unwind(AssertUnwindSafe(|| come(dir.path(), unsettled)));
        let came = came.unwrap_or_else(|_| panic!("flip {flip}, of byte {byte}"));
        let whole = whole(&image);
        let carvable = unsettled.intersection(&whole).count();
        let lost = unsettled.len() - came.given.len();
        let what = format!("flip {flip}, of byte {byte}: {carvable} stood whole, {came:?}");
        assert_eq!(came.given.len(), carvable, "{what}");
        // A flip is in one block, or in what redb or the head say of them.
        assert!(lost <= COUNT as usize, "{what}");
        // Only a head that is hit itself forgets what was settled.
        assert!(came.again <= 53, "{what}");
        worst = worst.max(lost);
        given += came.given.len();
        could += carvable;
        of += unsettled.len();
        told += came.told;
        again += came.again;
    }
    println!(
        "{given} of {of} given, {could} stood whole; {told} told as lost; {again} settled ones again; {worst} lost at worst"
    );
}
