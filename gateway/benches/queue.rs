//! What the queue costs a message: a place found for it (admit), an older value replaced (coalesce), and
//! the next one chosen and taken (pick).
//!
//! `cargo bench -p tidegate --bench queue`
//!
//! Readings of 100 bytes, their keys at random. "admit" is a calm `latest` class; "coalesce" the
//! same one under pressure, with one value of each key waiting, so that each message supersedes one. What
//! differs between 10 and 100,000 keys is the cache: the index, the message that waits and its
//! body lie each in another place. Messages are made, and what was superseded is counted, outside of
//! what is measured; that it is given back to the allocator is inside.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::traffic::message::{Body, ClassId, DoorId, Message, Receipt, Tick};
use tidegate::traffic::queue::bounded::{Admission, Ends, Queues};
use tidegate::traffic::queue::pressure::PressureSettings;
use tidegate::traffic::queue::{ClassSettings, Delivery};
use tidegate::traffic::schedule::pick::{LeastShares, Schedule};
use tidegate::traffic::snapshot::{QueueSnapshot, Source};

const LOW: ClassId = ClassId(2);
const KEYS: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Messages of one measured run.
const RUN: u64 = 20_000;
const MEMORY_BYTES: u64 = 1 << 30;

fn queues() -> Queues {
    let class = |name, delivery| ClassSettings {
        client_bytes_max: MEMORY_BYTES,
        ..ClassSettings::new(name, delivery, MEMORY_BYTES)
    };
    let classes = [
        class("critical", Delivery::Guaranteed),
        class("normal", Delivery::Buffered),
        class("low", Delivery::Latest),
    ];
    Queues::new(&classes, MEMORY_BYTES, PressureSettings::MEMORY)
}

fn message(class: ClassId, key: u64, now: Tick) -> Message {
    let topic = format!("plant/line{}/device{key}/vibration", key % 1000);
    let body = Body::new(&topic, b"", &[b'x'; 100]);
    let door = DoorId {
        index: (key % 50) as u32,
        generation: 0,
    };
    Message::new(body, class, now, Receipt { door, token: None })
}

/// xorshift64 (Marsaglia 2003), with a fixed seed.
struct Keys(u64, u64);

impl Keys {
    fn below(count: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15, count)
    }

    fn messages(&mut self, now: Tick) -> Vec<Message> {
        (0..RUN)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                message(LOW, self.0 % self.1, now)
            })
            .collect()
    }
}

fn admit_all(queues: &mut Queues, messages: Vec<Message>, now: Tick, ends: &mut Ends) -> Duration {
    let start = Instant::now();
    for message in messages {
        let admission = queues.admit(black_box(message), u64::MAX, now, ends);
        assert!(matches!(admission, Admission::Admitted));
        *ends = Ends::default();
    }
    start.elapsed()
}

/// The time of `count` messages, from whole runs.
fn scaled(count: u64, mut run: impl FnMut() -> Duration) -> Duration {
    let runs = count.div_ceil(RUN);
    let took: Duration = (0..runs).map(|_| run()).sum();
    took.mul_f64(count as f64 / (runs * RUN) as f64)
}

fn admit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    group.throughput(Throughput::Elements(1));
    for keys in KEYS {
        let mut dice = Keys::below(keys);
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            let (now, mut ends) = (Tick::START, Ends::default());
            let mut queues = queues();
            bencher.iter_custom(|count| {
                scaled(count, || {
                    let took = admit_all(&mut queues, dice.messages(now), now, &mut ends);
                    while let Some(message) = queues.pop(LOW, now, &mut ends) {
                        queues.release(&message);
                    }
                    took
                })
            });
        });
    }
}

fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(1));
    for keys in KEYS {
        let mut dice = Keys::below(keys);
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            let (mut queues, mut ends) = (queues(), Ends::default());
            for key in 0..keys {
                let first = message(LOW, key, Tick::START);
                let _ = queues.admit(first, u64::MAX, Tick::START, &mut ends);
            }
            let now = Tick::START.after(PressureSettings::CLASS.age_on);
            queues.observe(now, &mut ends);
            assert!(queues.class(LOW).coalesces());
            bencher.iter_custom(|count| {
                scaled(count, || {
                    admit_all(&mut queues, dice.messages(now), now, &mut ends)
                })
            });
            assert_eq!(queues.class(LOW).waiting() as u64, keys);
        });
    }
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    group.throughput(Throughput::Elements(1));
    let now = Tick::START;
    let mut schedule = Schedule::new(
        &[1, 3, 1],
        LeastShares {
            backlog: 300,
            live: 300,
        },
        None,
    );
    group.bench_function("of three classes", |bencher| {
        let (mut queues, mut ends) = (queues(), Ends::default());
        bencher.iter_custom(|count| {
            scaled(count, || {
                for key in 0..RUN {
                    let class = ClassId((key % 3) as u8);
                    let _ = queues.admit(message(class, key, now), u64::MAX, now, &mut ends);
                }
                let start = Instant::now();
                while let Some(picked) = schedule.pick(&snapshots(&queues), now, |_| true) {
                    let Some(message) = queues.pop(picked.class, now, &mut ends) else {
                        break;
                    };
                    schedule.charge(picked, 150);
                    queues.release(black_box(&message));
                }
                start.elapsed()
            })
        });
    });
}

fn snapshots(queues: &Queues) -> [QueueSnapshot; 3] {
    let snapshot = |class| QueueSnapshot {
        own: queues.class(class).front_message().map(|_| Source::Live),
        beside: false,
    };
    [ClassId(0), ClassId(1), LOW].map(snapshot)
}

criterion_group!(queue, admit, coalesce, pick);
criterion_main!(queue);
