//! Damaged files: what is whole is recovered, the rest is told, the others are untouched.

use std::fs;

use super::*;

/// A segment of 20 blocks of 10 messages, closed.
fn written(settings: &SpoolSettings) -> std::path::PathBuf {
    let mut store = open(settings);
    for part in 0..20 {
        store.append(block(0, at(1, part * 10), 10, 300), now(11));
        store.commit(now(11));
    }
    store.settle(&[at(1, 0), at(1, 1)]);
    store.commit(now(12));
    settings.dir.join("critical.00000001.redb")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn place_of(path: &Path, needle: &[u8]) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
}

#[test]
fn does_a_flipped_bit_in_a_block_cost_that_block_alone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let path = written(&settings);
    // The payload of message 57.
    flip(&path, place_of(&path, &[57; 300]));
    let mut store = open(&settings);
    assert_eq!(found(&scan(&mut store), 0), [at(1, 2)..at(1, 200)]);
    store.read(ClassId(0), Position::FIRST, at(2, 0), u64::MAX, now(20));
    let reports = store.take_reports();
    let [
        SpoolReport::Gone {
            positions: lost,
            outcome: Outcome::Damaged,
            ..
        },
        SpoolReport::Records { messages, .. },
    ] = &reports[..]
    else {
        panic!("{reports:?}");
    };
    assert_eq!(*lost, at(1, 50)..at(1, 60));
    let expected: Vec<_> = (2..50).chain(60..200).map(|index| at(1, index)).collect();
    assert_eq!(positions(messages), expected);
    store.settle(&expected);
    store.commit(now(21));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn is_a_file_without_a_header_carved_out() {
    for known in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let path = written(&settings);
        let mut store = open(&settings);
        if known {
            scan(&mut store);
        }
        flip(&path, 2);
        flip(&path, place_of(&path, &[57; 300]));
        if !known {
            let reports = scan(&mut store);
            // What the head says stood there is found, and what of it is lost is told.
            assert_eq!(
                found(&reports, 0),
                [
                    at(1, 50)..at(1, 60),
                    at(1, 2)..at(1, 50),
                    at(1, 60)..at(1, 200)
                ]
            );
            let lost = at(1, 50)..at(1, 60);
            assert!(reports.iter().any(|report| matches!(
                report,
                SpoolReport::Gone { positions, outcome: Outcome::Damaged, .. } if *positions == lost
            )));
        }
        let (_, messages) = read(&mut store, 0, Position::FIRST..at(2, 0));
        let expected: Vec<_> = (2..50).chain(60..200).map(|index| at(1, index)).collect();
        assert_eq!(positions(&messages), expected);
        assert_eq!(
            names(dir.path()),
            ["critical.00000001.redb", "critical.00000001.redb.damaged"]
        );
        drop(store);
        let mut store = open(&settings);
        assert_eq!(store.next_segment(), 2);
        assert_eq!(found(&scan(&mut store), 0).len(), 2);
    }
}

#[test]
fn do_dead_letters_stand_in_a_log_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let mut store = open(&settings);
    scan(&mut store);
    // The log of class 1's, behind both classes.
    store.append(block(3, at(1, 0), 10, 300), now(11));
    store.append(block(1, at(2, 0), 10, 300), now(11));
    store.commit(now(11));
    store.settle(&[at(1, 0)]);
    store.commit(now(12));
    drop(store);
    let path = dir.path().join("normal.00000001.dead.redb");
    assert_eq!(
        names(dir.path()),
        ["normal.00000001.dead.redb", "normal.00000002.redb"]
    );
    flip(&path, 2);
    let mut store = open(&settings);
    assert_eq!(store.next_segment(), 3);
    let reports = scan(&mut store);
    assert_eq!(found(&reports, 3), [at(1, 1)..at(1, 10)]);
    assert_eq!(found(&reports, 1), [at(2, 0)..at(2, 10)]);
    let (_, messages) = read(&mut store, 3, Position::FIRST..at(9, 0));
    assert_eq!(messages.len(), 9);
    assert!(messages.iter().all(|message| message.class == ClassId(3)));
    assert_eq!(store.figures().aside, 1);
    assert!(names(dir.path()).contains(&"normal.00000001.dead.redb.damaged".to_owned()));
}

/// Nothing acknowledges what was lost with a head; that there was something is told.
#[test]
fn is_a_segment_without_a_head_told() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let path = written(&settings);
    let mut bytes = fs::read(&path).unwrap();
    // Every head that was ever written, old ones too.
    let heads = bytes.windows(6).enumerate();
    let heads = heads.filter(|(_, bytes)| *bytes == b"TGsp\x01\x02");
    let heads: Vec<_> = heads.map(|(at, _)| at).collect();
    heads.iter().for_each(|at| bytes[at + 40] ^= 1);
    fs::write(&path, &bytes).unwrap();
    let mut store = open(&settings);
    let reports = scan(&mut store);
    let told = |class| {
        let headless = |report: &&SpoolReport| matches!(report, SpoolReport::Headless { class: own } if *own == ClassId(class));
        reports.iter().filter(headless).count()
    };
    assert_eq!((told(0), told(1)), (1, 0), "{reports:?}");
    assert_eq!(found(&reports, 0), [at(1, 0)..at(1, 200)], "all of it");
}

#[test]
fn does_a_file_that_was_never_finished_go_without_a_word() {
    for content in [vec![], vec![0; 5000]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("normal.00000007.redb");
        fs::write(&path, content).unwrap();
        let mut store = open(&settings(dir.path()));
        assert_eq!(store.next_segment(), 8);
        assert_eq!(found(&scan(&mut store), 1), []);
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn does_rubbish_under_our_name_keep_nobody_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=5 {
        let path = dir.path().join(format!("normal.{number:08x}.redb"));
        fs::write(path, vec![number; 9000]).unwrap();
    }
    let mut store = open(&settings(dir.path()));
    assert_eq!(found(&scan(&mut store), 1), []);
    store.commit(now(20));
    // The newest three are kept.
    let kept: Vec<_> = (3..=5)
        .map(|number| format!("normal.{number:08x}.redb.damaged"))
        .collect();
    assert_eq!(names(dir.path()), kept);
    assert_eq!(store.next_segment(), 6);
}

#[test]
fn is_every_flipped_bit_survived() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let path = written(&settings);
    let whole = fs::read(&path).unwrap();
    // The headers, and a sample of the rest.
    let places = (0..512)
        .step_by(7)
        .chain((512..whole.len()).step_by(whole.len() / 150));
    for place in places {
        fs::remove_dir_all(dir.path()).unwrap();
        fs::create_dir(dir.path()).unwrap();
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, bytes).unwrap();
        let mut store = open(&settings);
        let known = scan(&mut store);
        let (_, messages) = read(&mut store, 0, Position::FIRST..at(2, 0));
        // Never a wrong one, and never more lost than a block; a head that is lost brings back what was
        // settled.
        for message in &messages {
            let position = message.spooled.unwrap();
            assert_eq!(message.body.payload(), &[position.index() as u8; 300]);
        }
        assert!(
            messages.len() >= 188,
            "byte {place}: {} {known:?}",
            messages.len()
        );
        let settled: Vec<_> = (0..200).map(|index| at(1, index)).collect();
        store.settle(&settled);
        store.commit(now(21));
        assert!(!store.is_failing());
        assert!(
            names(dir.path())
                .iter()
                .all(|name| name.ends_with(".damaged")),
            "byte {place}"
        );
    }
}
