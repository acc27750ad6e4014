//! The store against a plain list: whatever is appended, settled, read, closed, killed, damaged in its
//! headers, refused or evicted for want of room, both hold the same.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        class: u8,
        count: u32,
        payload_bytes: usize,
        roll: bool,
    },
    /// Settles the unsettled ones from this place on, so many.
    Settle {
        skip: usize,
        count: usize,
    },
    Commit,
    Read {
        skip: usize,
        bytes_max: u64,
    },
    Close,
    Kill,
    /// Closes it, and flips a bit in the header of every file.
    Damage,
}

/// How much room there is.
#[derive(Clone, Copy, Debug)]
enum Room {
    Plenty,
    /// Little for both.
    Little,
    /// Little for each class.
    LittleEach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..2, 1_u32..80, 1_usize..600, any::<bool>()).prop_map(|(class, count, payload_bytes, roll)| Step::Append { class, count, payload_bytes, roll }),
        3 => (0_usize..100, 1_usize..120).prop_map(|(skip, count)| Step::Settle { skip, count }),
        3 => Just(Step::Commit),
        2 => (0_usize..100, 0_u64..40_000).prop_map(|(skip, bytes_max)| Step::Read { skip, bytes_max }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::Damage),
    ]
}

/// What should be there.
#[derive(Default)]
struct Plain {
    /// Committed and unsettled, by class.
    kept: [BTreeSet<Position>; 2],
    /// The same with what waits for a commit.
    live: [BTreeSet<Position>; 2],
    next: [Option<Position>; 2],
    next_segment: u32,
}

impl Plain {
    fn place(&mut self, class: u8, roll: bool) -> Position {
        match self.next[class as usize].filter(|_| !roll) {
            Some(next) => next,
            None => {
                self.next_segment += 1;
                at(self.next_segment, 0)
            }
        }
    }

    /// Takes in what the store says of its own accord.
    fn take(&mut self, reports: &[SpoolReport]) {
        for report in reports {
            match report {
                SpoolReport::Safe { .. } => {}
                SpoolReport::Gone {
                    class: ClassId(1),
                    positions,
                    outcome: Outcome::Evicted,
                } => {
                    for set in [&mut self.live[1], &mut self.kept[1]] {
                        set.retain(|position| !positions.contains(position));
                    }
                    let next = &mut self.next[1];
                    *next = next.filter(|next| next.segment() != positions.start.segment());
                }
                SpoolReport::Unwritten {
                    class,
                    positions,
                    why: Unwritten::Full,
                } => {
                    self.live[class.index()].retain(|position| !positions.contains(position));
                    self.next[class.index()] = None;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn check(store: &mut Store, plain: &Plain) {
    for class in 0..2 {
        let mut from = Position::FIRST;
        let until = at(plain.next_segment + 1, 0);
        let mut there = Vec::new();
        while from < until {
            let (looked_at, messages) = read(store, class, from..until);
            there.extend(positions(&messages));
            from = looked_at.end;
        }
        let expected: Vec<_> = plain.live[class as usize].iter().copied().collect();
        assert_eq!(there, expected);
    }
}

fn reopen(store: Store, settings: &SpoolSettings, plain: &mut Plain, killed: bool) -> Store {
    if killed {
        std::mem::forget(store);
        // What was settled and not committed comes back.
        plain.live = plain.kept.clone();
    } else {
        let mut store = store;
        store.commit(now(15));
        drop(store);
        plain.kept = plain.live.clone();
    }
    let mut store = open(settings);
    let reports = scan(&mut store);
    for class in 0..2 {
        let mut there = BTreeSet::new();
        for range in found(&reports, class) {
            let count = range.end.since(range.start) as u32;
            there.extend((0..count).map(|index| range.start.plus(index)));
        }
        assert_eq!(there, plain.live[class as usize]);
    }
    plain.next = [None, None];
    plain.next_segment = plain.next_segment.max(store.next_segment() - 1);
    store
}

fn flip_headers(dir: &Path) {
    for name in names(dir) {
        if name.ends_with(".redb") {
            // In place: the file stays as sparse as it was.
            let file = Files::new(dir.to_owned())
                .open(&name, Access::Write)
                .unwrap();
            let mut byte = [0];
            file.read(2, &mut byte).unwrap();
            file.write(2, &[byte[0] ^ 1]).unwrap();
        }
    }
}

fn run(steps: Vec<Step>, room: Room) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    match room {
        Room::Plenty => {}
        Room::Little => settings.size_bytes_max = 4 * MIB,
        Room::LittleEach => {
            for class in &mut settings.classes {
                class.bytes_max = Some(200 * 1024);
            }
        }
    }
    let mut store = open(&settings);
    scan(&mut store);
    let mut plain = Plain::default();
    for step in steps {
        match step {
            Step::Append {
                class,
                count,
                payload_bytes,
                roll,
            } => {
                let first = plain.place(class, roll);
                plain.next[class as usize] = Some(first.plus(count));
                let before = plain.live.clone();
                plain.live[class as usize].extend((0..count).map(|index| first.plus(index)));
                store.append(block(class, first, count, payload_bytes), now(11));
                let reports = store.take_reports();
                let is_safe = |report: &SpoolReport| matches!(report, SpoolReport::Safe { .. });
                if reports.iter().any(is_safe) {
                    // What waited was committed to make room.
                    plain.kept = before;
                }
                plain.take(&reports);
            }
            Step::Settle { skip, count } => {
                for live in &mut plain.live {
                    let settled: Vec<_> = live.iter().skip(skip).take(count).copied().collect();
                    store.settle(&settled);
                    live.retain(|position| !settled.contains(position));
                }
            }
            Step::Commit => {
                store.commit(now(12));
                plain.kept = plain.live.clone();
                check(&mut store, &plain);
            }
            Step::Read { skip, bytes_max } => {
                store.commit(now(12));
                plain.kept = plain.live.clone();
                let Some(from) = plain.live[0].iter().nth(skip).copied() else {
                    continue;
                };
                store.take_reports();
                store.read(
                    ClassId(0),
                    from,
                    at(plain.next_segment + 1, 0),
                    bytes_max,
                    now(20),
                );
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
                let expected: Vec<_> = plain.live[0].range(looked_at.clone()).copied().collect();
                assert_eq!(positions(messages), expected);
                assert!(!messages.is_empty());
                let bytes: u64 = messages.iter().map(Message::memory_bytes).sum();
                assert!(messages.len() == 1 || bytes <= bytes_max);
            }
            Step::Close => store = reopen(store, &settings, &mut plain, false),
            Step::Kill => store = reopen(store, &settings, &mut plain, true),
            Step::Damage => {
                store.commit(now(14));
                drop(store);
                plain.kept = plain.live.clone();
                flip_headers(dir.path());
                let empty = open(&SpoolSettings {
                    dir: dir.path().join("other"),
                    ..settings.clone()
                });
                store = reopen(empty, &settings, &mut plain, true);
            }
        }
        plain.take(&store.take_reports());
        assert!(store.figures().file_bytes <= settings.size_bytes_max);
    }
    store.commit(now(13));
    check(&mut store, &plain);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn does_the_spool_hold_what_a_plain_list_holds(
        steps in prop::collection::vec(step(), 1..60),
        room in prop::sample::select(vec![Room::Plenty, Room::Little, Room::LittleEach]),
    ) {
        run(steps, room);
    }
}
