//! An operator's questions: the answers are right, and asking changes nothing.

use super::*;
use crate::traffic::classify::Filter;
use crate::traffic::spool::inspect::{Answer, Page, Question, Verified, Wanted};

fn look(settings: &SpoolSettings) -> Store {
    let disk = Box::new(Files::new(settings.dir.clone()));
    Store::look(disk, settings.clone(), now(20)).unwrap()
}

fn page(store: &mut Store, wanted: &Wanted) -> Page {
    match store.answer(&Question::Messages(wanted.clone()), now(20)) {
        Answer::Messages(page) => page,
        other => panic!("{other:?}"),
    }
}

fn pages(store: &mut Store, mut wanted: Wanted) -> Vec<(Position, bool)> {
    let mut seen = Vec::new();
    loop {
        let page = page(store, &wanted);
        assert!(page.messages.len() <= wanted.count_max);
        seen.extend(
            page.messages
                .iter()
                .map(|seen| (seen.position, seen.settled)),
        );
        wanted.after = page.next;
        if page.next.is_none() {
            return seen;
        }
    }
}

fn verify(store: &mut Store, number: u32) -> Verified {
    match store.answer(&Question::Verify(number), now(20)) {
        Answer::Verified(Some(verified)) => verified,
        other => panic!("{other:?}"),
    }
}

fn bytes_of_all(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = names(dir).into_iter();
    names
        .map(|name| (name.clone(), std::fs::read(dir.join(name)).unwrap()))
        .collect()
}

#[test]
fn does_looking_change_nothing_also_after_a_kill_and_with_damage() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    for part in 0..5 {
        store.append(block(0, at(1, part * 10), 10, 300), now(11));
        store.append(block(1, at(2, part * 10), 10, 300), now(11));
        store.commit(now(11));
    }
    store.settle(&[at(1, 0), at(1, 1)]);
    store.commit(now(12));
    std::mem::forget(store);
    for (name, rubbish) in [
        ("normal.00000003.redb", "rubbish"),
        ("probe", "x"),
        ("ledger.json.new", "{"),
    ] {
        std::fs::write(dir.path().join(name), rubbish).unwrap();
    }
    let before = bytes_of_all(dir.path());
    let mut looking = look(&settings);
    let all = Wanted {
        count_max: 7,
        settled: true,
        ..Wanted::default()
    };
    let seen = pages(&mut looking, all.clone());
    assert_eq!(seen.len(), 100);
    assert_eq!(seen.iter().filter(|(_, settled)| *settled).count(), 2);
    let left = pages(
        &mut looking,
        Wanted {
            class: Some("critical".into()),
            settled: false,
            ..all.clone()
        },
    );
    let expected: Vec<_> = (2..50).map(|index| (at(1, index), false)).collect();
    assert_eq!(left, expected);
    let Answer::Segments(segments) = looking.answer(&Question::Segments, now(20)) else {
        panic!()
    };
    let counts: Vec<_> = segments
        .iter()
        .map(|segment| {
            segment
                .content
                .as_ref()
                .map(|content| (content.records, content.unsettled))
        })
        .collect();
    assert_eq!(counts, [Some((50, 48)), Some((50, 50)), None]);
    assert_eq!(
        verify(&mut looking, 1),
        Verified {
            blocks: 5,
            records: 50,
            ..Verified::default()
        }
    );
    assert!(verify(&mut looking, 3).unusable.is_some());
    drop(looking);
    assert_eq!(bytes_of_all(dir.path()), before);
}

#[test]
fn do_filters_choose_by_topic_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    store.append(block(0, at(1, 0), 10, 30), now(11));
    store.commit(now(11));
    let all = Wanted {
        count_max: 100,
        ..Wanted::default()
    };
    let topics = |filter: &str| vec![Filter::parse(filter).unwrap()];
    let received = now(10).stamp.wall;
    let count = |store: &mut Store, wanted: Wanted| page(store, &wanted).messages.len();
    assert_eq!(
        count(
            &mut store,
            Wanted {
                topics: topics("plant/+"),
                ..all.clone()
            }
        ),
        10
    );
    assert_eq!(
        count(
            &mut store,
            Wanted {
                topics: topics("site/#"),
                ..all.clone()
            }
        ),
        0
    );
    assert_eq!(
        count(
            &mut store,
            Wanted {
                from: Some(received),
                ..all.clone()
            }
        ),
        10
    );
    assert_eq!(
        count(
            &mut store,
            Wanted {
                until: Some(received),
                ..all.clone()
            }
        ),
        0
    );
    let first = &page(&mut store, &all).messages[0];
    assert_eq!(first.received, received);
}

#[test]
fn does_a_check_find_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    store.append(block(0, at(1, 0), 10, 300), now(11));
    store.append(block(0, at(1, 10), 10, 300), now(11));
    store.commit(now(11));
    drop(store);
    let path = dir.path().join("critical.00000001.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes
        .windows(300)
        .position(|window| window == [13; 300])
        .unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut looking = look(&settings);
    let verified = verify(&mut looking, 1);
    assert_eq!(
        verified,
        Verified {
            blocks: 1,
            records: 10,
            damaged_blocks: 1,
            missing: 10,
            unusable: None
        }
    );
    let page = page(
        &mut looking,
        &Wanted {
            count_max: 100,
            ..Wanted::default()
        },
    );
    assert_eq!((page.messages.len(), page.damaged), (10, 10));
}
