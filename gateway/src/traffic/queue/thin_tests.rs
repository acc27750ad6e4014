//! Does one value of a key go out in a period and no more, does the last one always, and is everything
//! that gives way counted?

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::traffic::message::sample;

const PERIOD: Duration = Duration::from_secs(10);

fn at(tenths: u64) -> Tick {
    Tick::START.after(Duration::from_millis(tenths * 100))
}

fn value(key: u8, sequence: u64, tenths: u64) -> Message {
    let mut message = sample(&key.to_string(), &sequence.to_be_bytes());
    (message.sequence, message.received) = (sequence, at(tenths));
    message
}

/// What goes out, by key: sequence, when, and for how many values.
type Out = BTreeMap<String, Vec<(u64, u64, u32)>>;

fn pass(every: &mut Every, message: Message, tenths: u64, out: &mut Out) -> Option<Message> {
    match every.pass(message, at(tenths)) {
        Passage::Open(message) => {
            let sent = (message.sequence, tenths, message.stands_for);
            let topic = message.body.topic().to_owned();
            out.entry(topic).or_default().push(sent);
            None
        }
        Passage::Parked => None,
        Passage::Superseded(older) => Some(*older),
    }
}

fn turn(every: &mut Every, tenths: u64, out: &mut Out) {
    for message in every.due(at(tenths)) {
        assert!(pass(every, message, tenths, out).is_none());
    }
}

#[test]
fn does_a_quiet_key_go_at_once_and_its_newest_value_at_the_end_of_the_period() {
    let (mut every, mut out) = (Every::new(PERIOD, u64::MAX), Out::new());
    let mut superseded = 0;
    for tenths in 0..=250 {
        turn(&mut every, tenths, &mut out);
        if tenths % 30 == 0 && tenths <= 120 {
            let older = pass(&mut every, value(1, tenths, tenths), tenths, &mut out);
            superseded += older.map_or(0, |_| 1);
        }
    }
    assert_eq!(out["1"], [(0, 0, 1), (90, 100, 3), (120, 200, 1)]);
    assert_eq!((superseded, every.waiting()), (2, 0));
    assert_eq!(every.deadline(), Tick::NEVER);
    turn(&mut every, 400, &mut out);
    assert!(pass(&mut every, value(1, 400, 400), 400, &mut out).is_none());
    assert_eq!(out["1"].last(), Some(&(400, 400, 1)), "quiet again");
}

#[test]
fn does_what_was_sent_and_comes_back_not_take_the_place_of_what_is_newer() {
    let (mut every, mut out) = (Every::new(PERIOD, u64::MAX), Out::new());
    assert!(pass(&mut every, value(1, 1, 0), 0, &mut out).is_none());
    assert!(pass(&mut every, value(1, 2, 1), 1, &mut out).is_none());
    let older = pass(&mut every, value(1, 1, 0), 2, &mut out).unwrap();
    assert_eq!(older.sequence, 1);
    turn(&mut every, 100, &mut out);
    assert_eq!(out["1"], [(1, 0, 1), (2, 100, 2)]);
}

#[test]
fn are_more_keys_than_are_known_let_through_early_and_counted() {
    let (mut every, mut out) = (Every::new(PERIOD, u64::MAX), Out::new());
    assert!(pass(&mut every, value(1, 1, 0), 0, &mut out).is_none());
    assert!(pass(&mut every, value(1, 2, 0), 0, &mut out).is_none());
    for number in 0..KEYS_MAX as u64 {
        let mut message = value(0, number, 1);
        message.key = Some(format!("key {number}").into());
        assert!(matches!(every.pass(message, at(1)), Passage::Open(_)));
    }
    assert_eq!((every.forgotten(), every.waiting()), (1, 1));
    assert_eq!(every.deadline(), Tick::ZERO);
    turn(&mut every, 2, &mut out);
    assert_eq!(out["1"], [(1, 0, 1), (2, 2, 1)]);
    let again = every.periods.running.len().max(every.periods.ends.len());
    assert!(again <= KEYS_MAX, "{again}");
}

#[test]
fn are_fewer_keys_known_where_there_is_little_memory() {
    let bytes_max = 64 * 1024;
    let (mut every, mut curve) = (Every::new(PERIOD, bytes_max), Curve::new(PERIOD, bytes_max));
    for number in 0..KEYS_MAX as u64 {
        let mut message = value(0, number, 1);
        message.key = Some(format!("key {number}").into());
        assert!(curve.takes(&mut message));
        assert!(matches!(every.pass(message, at(1)), Passage::Open(_)));
    }
    for (periods, entry) in [
        (&every.periods, size_of::<(Fingerprint, Box<Message>)>()),
        (&curve.periods, 0),
    ] {
        let ends = periods.ends.capacity() * size_of::<(Tick, Fingerprint)>();
        let running = periods.running.len() * size_of::<(Fingerprint, Tick)>();
        let bytes = ends + running + periods.running.len() * entry;
        assert!(bytes as u64 <= bytes_max, "{bytes}");
        assert!(periods.running.len() > 300, "{}", periods.running.len());
        assert!(periods.forgotten() > 0);
    }
}

#[test]
fn does_the_one_that_waited_longest_give_way() {
    let (mut every, mut out) = (Every::new(PERIOD, u64::MAX), Out::new());
    for key in [3, 1, 2] {
        let tenths = u64::from(key);
        for sequence in [0, 10] {
            let message = value(key, sequence + tenths, 0);
            assert!(pass(&mut every, message, tenths, &mut out).is_none());
        }
    }
    let bytes = every.parked_bytes();
    assert_eq!(every.take_oldest().unwrap().sequence, 13);
    assert_eq!(every.parked_bytes(), bytes / 3 * 2);
    assert_eq!(every.take_all().len(), 2);
    assert_eq!((every.parked_bytes(), every.waiting()), (0, 0));
}

/// Values that are superseded one by the next, each as `supersede` leaves it; gives what was kept, and
/// for how many values the newest stands.
fn curve(curve: &mut Curve, key: u8, tenths: &[u64], at_once: bool) -> (Vec<(u64, u32)>, u32) {
    let mut kept = Vec::new();
    let mut newest = 1;
    let mut reduced = 0;
    for (value_tenths, number) in tenths.iter().zip(1..) {
        let mut message = value(key, u64::from(number), *value_tenths);
        // Merged at once, a value counts those before it, kept or not.
        message.stands_for = if at_once { number } else { newest };
        newest += 1;
        if curve.takes(&mut message) {
            kept.push((*value_tenths, message.stands_for));
            if at_once {
                reduced += message.stands_for;
            } else {
                newest -= message.stands_for;
            }
        }
        if !at_once {
            curve.looked();
        }
    }
    curve.looked();
    (kept, newest - reduced)
}

#[test]
fn does_the_disk_get_one_value_of_a_key_for_each_period() {
    let tenths: Vec<u64> = (0..350).collect();
    let expected = [(0, 1), (100, 100), (200, 100), (300, 100)];
    for at_once in [false, true] {
        let (kept, newest) = curve(&mut Curve::new(PERIOD, u64::MAX), 1, &tenths, at_once);
        assert_eq!(kept, expected);
        assert_eq!(newest, 50);
    }
}

#[test]
fn is_what_the_disk_does_not_take_given_back_and_what_is_safe_let_go() {
    let mut curve = Curve::new(PERIOD, u64::MAX);
    for sequence in 1..=3 {
        curve.keep(value(1, sequence, 0));
    }
    let mut left = 2;
    curve.write(|message| {
        left -= 1;
        message.spooled = Some(crate::traffic::spool::Position::new(1, left));
        left > 0
    });
    // The second was refused, though it bears a mark by now: the test's writer is no good one.
    assert!(!curve.is_written());
    curve.change(|message| message.spooled = message.spooled.filter(|_| message.sequence == 1));
    assert_eq!(curve.take_unwritten().len(), 2);
    assert!(curve.is_written());
    assert!(curve.take_safe(|_| false).is_none());
    assert_eq!(curve.take_safe(|_| true).unwrap().sequence, 1);
    assert_eq!((curve.kept_bytes(), curve.waiting()), (0, 0));
}

proptest! {
    /// Whatever comes when: of a key at most one value in each period goes out, the last one does, none
    /// waits longer than a period, and all that came went out or gave way to one that did.
    #[test]
    fn is_nothing_lost_uncounted_and_does_the_last_value_go_out(
        waits in prop::collection::vec((0..40_u64, 0..4_u8), 1..200)
    ) {
        let (mut every, mut out) = (Every::new(PERIOD, u64::MAX), Out::new());
        let (mut now, mut last, mut came) = (0, BTreeMap::new(), BTreeMap::<String, u32>::new());
        for (sequence, (wait, key)) in (1..).zip(waits) {
            for _ in 0..wait {
                now += 1;
                turn(&mut every, now, &mut out);
            }
            last.insert(key.to_string(), (sequence, now));
            *came.entry(key.to_string()).or_default() += 1;
            let older = pass(&mut every, value(key, sequence, now), now, &mut out);
            prop_assert!(older.is_none_or(|older| older.sequence < sequence));
        }
        for _ in 0..=100 {
            now += 1;
            turn(&mut every, now, &mut out);
        }
        prop_assert_eq!(every.waiting(), 0);
        prop_assert_eq!(every.parked_bytes(), 0);
        for (key, sent) in out {
            prop_assert!(sent.windows(2).all(|two| two[0].1 + 100 <= two[1].1), "{:?}", sent);
            let (sequence, at, _) = *sent.last().unwrap();
            prop_assert_eq!(sequence, last[&key].0);
            prop_assert!(at <= last[&key].1 + 100);
            prop_assert_eq!(sent.iter().map(|sent| sent.2).sum::<u32>(), came[&key]);
        }
    }

    #[test]
    fn does_the_curve_count_each_value_once(
        waits in prop::collection::vec(0..30_u64, 1..100), at_once in any::<bool>()
    ) {
        let mut tenths = waits;
        for index in 1..tenths.len() {
            tenths[index] += tenths[index - 1];
        }
        let (kept, newest) = curve(&mut Curve::new(PERIOD, u64::MAX), 7, &tenths, at_once);
        prop_assert!(kept.windows(2).all(|two| two[0].0 + 100 <= two[1].0));
        let stands: u32 = kept.iter().map(|(_, stands_for)| stands_for).sum();
        prop_assert_eq!(stands + newest, u32::try_from(tenths.len()).unwrap() + 1);
    }
}
