//! Does a summary say what the superseded values said, and is counted what it leaves out?

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::traffic::message::sample;

fn summaries(of: &[Figure]) -> Summaries {
    let settings = SummarySettings {
        value: Pointer::parse("/a~1b/0").unwrap(),
        of: of.to_vec(),
        topic: "s/{topic}".to_owned(),
    };
    Summaries::new(settings, u64::MAX)
}

fn value(topic: &str, number: impl std::fmt::Display, seconds: u64) -> Message {
    let mut message = sample(topic, format!("{{\"a/b\":[{number}]}}").as_bytes());
    message.received = Tick::START.after(Duration::from_secs(seconds));
    message
}

fn wall(at: Tick) -> WallTime {
    WallTime::from_micros(
        u64::try_from(at.since(Tick::START).as_micros()).unwrap() + 1_700_000_000_000_000,
    )
}

fn all() -> Vec<Figure> {
    Figure::ALL.map(|(_, figure)| figure).to_vec()
}

#[test]
fn does_a_summary_say_what_was_asked_for_and_the_time() {
    for (of, says) in [
        (
            all(),
            r#"{"count":3,"from":1700000001000,"max":6.5,"mean":2.0,"min":-1.5,"to":1700000009000}"#,
        ),
        (
            vec![Figure::Max],
            r#"{"from":1700000001000,"max":6.5,"to":1700000009000}"#,
        ),
    ] {
        let mut summaries = summaries(&of);
        for (number, seconds) in [(1.0, 1), (6.5, 9), (-1.5, 5)] {
            summaries.note(&value("t", number, seconds));
        }
        summaries.note(&value("other", 100.0, 2));
        let mut newest = value("t", 50, 10);
        newest.expires = Tick::from_micros(77);
        let figures = summaries.take(&newest).unwrap();
        let message = summaries.message(&newest, figures, (42, Tick::START), wall);
        assert_eq!(str::from_utf8(message.body.payload()).unwrap(), says);
        assert_eq!(message.body.topic(), "s/t");
        assert_eq!((message.sequence, message.expires), (42, newest.expires));
        assert!(is_summary(&message) && !is_summary(&newest));
        assert!(summaries.take(&newest).is_none(), "it says so twice");
    }
}

#[test]
fn is_what_has_no_number_counted_and_left_out() {
    let mut summaries = summaries(&all());
    for payload in [
        &b"{}"[..],
        b"",
        b"\xff",
        b"{\"a/b\":[\"7\"]}",
        b"{\"a/b\":[null]}",
    ] {
        summaries.note(&sample("t", payload));
    }
    summaries.note(&value("t", &*"9".repeat(17 * 1024), 1));
    assert_eq!(summaries.unreadable(), 6);
    assert!(summaries.take(&value("t", 1, 1)).is_none());
    summaries.note(&value("t", 3, 1));
    summaries.note(&value("t", 3, 1));
    summaries.forget(&value("t", 1, 1));
    assert_eq!(summaries.forgotten(), 2);
}

#[test]
fn are_more_keys_than_there_is_room_for_counted() {
    let mut summaries = summaries(&all());
    for number in 0..KEYS_MAX + 5 {
        summaries.note(&value(&number.to_string(), 1, 1));
    }
    assert_eq!(summaries.by_key.len(), KEYS_MAX);
    assert_eq!(summaries.forgotten(), 5);
}

#[test]
fn are_fewer_keys_summed_up_where_there_is_little_memory() {
    let bytes_max = 64 * 1024;
    let mut summaries = Summaries::new(summaries(&all()).settings, bytes_max);
    for number in 0..KEYS_MAX {
        summaries.note(&value(&number.to_string(), 1, 1));
    }
    let keys = summaries.by_key.len();
    assert!(
        keys > 300 && keys * size_of::<Figures>() < 64 * 1024,
        "{keys}"
    );
    assert_eq!(summaries.forgotten(), (KEYS_MAX - keys) as u64);
}

#[test]
fn is_the_mean_of_the_largest_numbers_a_number() {
    let mut figures = Figures::of(f64::MAX, Tick::ZERO);
    for _ in 0..9 {
        figures.add(f64::MAX, Tick::ZERO);
        figures.add(-f64::MAX, Tick::ZERO);
    }
    assert!(figures.mean.is_finite() && figures.count == 19);
}

proptest! {
    /// Every superseded value is in exactly one summary of its key, or counted.
    #[test]
    fn is_every_superseded_value_in_one_summary_or_counted(
        steps in prop::collection::vec((0..3_u8, prop::option::of(-100..100_i32), any::<bool>()), 1..200)
    ) {
        let mut summaries = summaries(&all());
        let (mut noted, mut told) = (0, 0);
        let mut pending = [(0_u64, 0_i64); 3];
        for (key, number, leaves) in &steps {
            let message = match number {
                Some(number) => value(&key.to_string(), number, 1),
                None => sample(&key.to_string(), b"none"),
            };
            let sum = &mut pending[usize::from(*key)];
            if *leaves {
                let figures = summaries.take(&message);
                prop_assert_eq!(figures.map_or(0, |figures| figures.count), sum.0);
                if let Some(figures) = figures {
                    prop_assert!((figures.mean - sum.1 as f64 / sum.0 as f64).abs() < 1e-9);
                    told += figures.count;
                }
                *sum = (0, 0);
            } else {
                noted += 1;
                summaries.note(&message);
                if let Some(number) = number {
                    *sum = (sum.0 + 1, sum.1 + i64::from(*number));
                }
            }
        }
        let waits: u64 = pending.iter().map(|(count, _)| count).sum();
        prop_assert_eq!(noted, told + summaries.unreadable() + waits);
    }
}
