//! What it costs to classify a message, in nanoseconds, by how many rules and topics there are.
//!
//! `cargo bench -p tidegate --bench classify`
//!
//! Each line is the best of several rounds, since other work on the machine only ever adds. The
//! payload is 100 bytes. "in runs" repeats each topic eight times, as a device that sends a burst.
//! The topics lie behind one another in the order of sending, as in a socket's buffer: a cache miss
//! on them would be the bench's own.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tidegate::traffic::classify::{Classifier, RuleSettings, Rules};
use tidegate::traffic::message::ClassId;
use tidegate::traffic::queue::{ClassSettings, Delivery};

const ROUNDS: usize = 7;
const MESSAGES: usize = 1_000_000;
const TOPICS_BYTES_MAX: u64 = 64 << 20;
const PAYLOAD: &[u8] = br#"{"device":"pump-17","seq":123456,"rms":3.25,"temp":21.5,"state":"ok","site":"north","unit":"mm/s"}"#;

fn main() {
    let one = topics(1);
    let hundred_thousand = shuffled(topics(100_000));
    let runs: Vec<String> = hundred_thousand
        .iter()
        .flat_map(|topic| std::iter::repeat_n(topic.clone(), 8))
        .collect();
    let alternating = topics(2);

    println!("ns per message   rules   topics");
    report("1", "1", &rules(1), &one);
    report("1,000", "1", &rules(1000), &one);
    report("1", "2, in turn", &rules(1), &alternating);
    report("1,000", "2, in turn", &rules(1000), &alternating);
    report(
        "1,000",
        "1,000, at random",
        &rules(1000),
        &shuffled(topics(1000)),
    );
    report("1", "100,000, at random", &rules(1), &hundred_thousand);
    report(
        "1,000",
        "100,000, at random",
        &rules(1000),
        &hundred_thousand,
    );
    report("1,000", "100,000, in runs", &rules(1000), &runs);

    let when = |text: &str| {
        let mut rules = rules(1);
        rules[0].when = Some(text.to_owned());
        rules
    };
    report("1, on the topic", "1", &when("topic.endsWith('x')"), &one);
    report("1, on the payload", "1", &when("payload.rms > 7.1"), &one);
    let mut keyed = rules(1);
    keyed[0].key = Some("/device".to_owned());
    report("1, with a key", "1", &keyed, &one);
    unremembered(&hundred_thousand);
}

fn report(rules: &str, topics: &str, settings: &[RuleSettings], list: &[String]) {
    let ns = best(settings, list, TOPICS_BYTES_MAX);
    println!("{ns:14.1}   {rules}   {topics}");
}

fn unremembered(list: &[String]) {
    let ns = best(&rules(1000), list, 0);
    println!("{ns:14.1}   1,000   100,000, none remembered");
}

/// The best round's nanoseconds per message, with every topic seen once before.
fn best(settings: &[RuleSettings], list: &[String], topics_bytes_max: u64) -> f64 {
    let rules = Rules::compile(settings, &classes(), ClassId(0), topics_bytes_max);
    let mut door = Classifier::new(Arc::new(rules.expect("the bench's rules compile")));
    let buffer = list.concat();
    let mut end = 0;
    let places: Vec<_> = list
        .iter()
        .map(|topic| {
            let start = end;
            end += topic.len();
            start..end
        })
        .collect();
    for topic in list {
        black_box(door.classify(topic, PAYLOAD));
    }
    let round = |door: &mut Classifier| {
        let start = Instant::now();
        for place in places.iter().cycle().take(MESSAGES) {
            black_box(door.classify(black_box(&buffer[place.clone()]), PAYLOAD));
        }
        start.elapsed().as_nanos() as f64 / MESSAGES as f64
    };
    (0..ROUNDS)
        .map(|_| round(&mut door))
        .fold(f64::MAX, f64::min)
}

fn topics(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("plant/line{}/device{n}/vibration", n % 1000))
        .collect()
}

/// Fisher and Yates, with a fixed seed.
fn shuffled(mut topics: Vec<String>) -> Vec<String> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..topics.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        topics.swap(at, (seed % (at as u64 + 1)) as usize);
    }
    topics
}

fn rules(count: usize) -> Vec<RuleSettings> {
    (0..count)
        .map(|n| RuleSettings {
            name: format!("rule {}", n + 1).into(),
            filters: vec![match n % 3 {
                0 => format!("plant/line{n}/+/vibration"),
                1 => format!("plant/line{n}/#"),
                _ => format!("plant/+/device{n}/+"),
            }],
            when: None,
            class: ClassId(0),
            key: None,
            ttl: None,
        })
        .collect()
}

fn classes() -> Vec<ClassSettings> {
    vec![ClassSettings::new("normal", Delivery::Buffered, 8 << 20)]
}
