//! More comes than the uplink takes: what gives way, is the newest of each key there in the end, and does
//! the level keep still?

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::super::WhenFull;
use super::*;
use crate::traffic::message::sample;

const LOW: ClassId = ClassId(2);
const STAY: Duration = PressureSettings::CLASS.stay;

fn class(name: &str, delivery: Delivery, queue_bytes_max: u64) -> ClassSettings {
    ClassSettings {
        client_bytes_max: u64::MAX,
        ..ClassSettings::new(name, delivery, queue_bytes_max)
    }
}

fn message(class: u8, topic: &str, sequence: u64, now: Tick) -> Message {
    let mut message = sample(topic, &[b'x'; 100]);
    message.class = ClassId(class);
    message.sequence = sequence;
    message.received = now;
    message
}

fn bytes() -> u64 {
    message(0, "t", 0, Tick::ZERO).memory_bytes()
}

fn queues(classes: &[ClassSettings], memory_bytes_max: u64) -> Queues {
    Queues::new(classes, memory_bytes_max, PressureSettings::MEMORY)
}

fn three(memory_bytes_max: u64) -> Queues {
    let classes = [
        class("critical", Delivery::Guaranteed, memory_bytes_max),
        class("normal", Delivery::Buffered, memory_bytes_max),
        class("low", Delivery::Latest, memory_bytes_max),
    ];
    queues(&classes, memory_bytes_max)
}

/// A `latest` class and its uplink, millisecond by millisecond.
struct Stream {
    queues: Queues,
    now: Tick,
    sequence: u64,
    keys: u64,
    /// What comes and what goes in a millisecond.
    comes: u64,
    goes: u64,
    newest: HashMap<String, u64>,
    delivered: HashMap<String, u64>,
    /// When the level changed, and to what.
    changes: Vec<(Tick, Level)>,
    superseded: u64,
    stood_for: u64,
}

impl Stream {
    fn new(keys: u64, comes: u64, goes: u64) -> Self {
        Self {
            queues: three(64 << 20),
            now: Tick::START,
            sequence: 0,
            keys,
            comes,
            goes,
            newest: HashMap::new(),
            delivered: HashMap::new(),
            changes: Vec::new(),
            superseded: 0,
            stood_for: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.millisecond();
        }
    }

    fn millisecond(&mut self) {
        let mut ends = Ends::default();
        self.now = self.now.after(Duration::from_millis(1));
        for _ in 0..self.comes {
            self.sequence += 1;
            let topic = format!("t/{}", self.sequence % self.keys);
            self.newest.insert(topic.clone(), self.sequence);
            let message = message(LOW.0, &topic, self.sequence, self.now);
            let admission = self.queues.admit(message, u64::MAX, self.now, &mut ends);
            assert!(matches!(admission, Admission::Admitted));
        }
        if self.now.micros().is_multiple_of(100_000) {
            self.queues.observe(self.now, &mut ends);
            let level = self.queues.class(LOW).level();
            let before = self.changes.last().map_or(Level::Calm, |(_, level)| *level);
            if level != before {
                self.changes.push((self.now, level));
            }
        }
        for _ in 0..self.goes {
            let Some(message) = self.queues.pop(LOW, self.now, &mut ends) else {
                break;
            };
            self.queues.release(&message);
            self.stood_for += u64::from(message.stands_for);
            let topic = message.body.topic().to_owned();
            let before = self.delivered.insert(topic, message.sequence);
            assert!(before < Some(message.sequence), "a value went back");
        }
        self.queues.mark(self.now);
        for (_, outcome) in ends {
            assert_eq!(outcome, Outcome::Superseded);
            self.superseded += 1;
        }
    }
}

#[test]
fn does_the_level_change_once_in_a_steady_overload_and_is_it_calm_within_the_stay_after_it() {
    let mut stream = Stream::new(200, 10, 1);
    stream.run(Duration::from_secs(40));
    let levels: Vec<_> = stream.changes.iter().map(|(_, level)| *level).collect();
    assert_eq!(levels, [Level::Coalescing]);
    let (comes, end) = (stream.comes, stream.now);
    stream.comes = 0;
    stream.run(STAY + Duration::from_millis(100));
    assert_eq!(stream.delivered, stream.newest, "a final value is missing");
    assert_eq!(stream.stood_for, 40_000 * comes);
    let back = stream.changes[1];
    assert_eq!(back.1, Level::Calm);
    assert!(back.0.since(end) <= STAY + Duration::from_millis(100));
}

#[test]
fn does_the_level_change_no_faster_than_its_stay_when_pressure_comes_and_goes() {
    let mut stream = Stream::new(100, 10, 1);
    for _ in 0..60 {
        stream.goes = 1;
        stream.comes = 4;
        stream.run(Duration::from_secs(5));
        stream.comes = 0;
        stream.run(Duration::from_secs(5));
    }
    for pair in stream.changes.windows(2) {
        let [(from, level), (until, _)] = pair else {
            panic!()
        };
        let stays = *level == Level::Calm || until.since(*from) >= STAY;
        assert!(stays, "{:?}", stream.changes);
    }
    assert!(stream.changes.len() <= 120, "{:?}", stream.changes.len());
    assert_eq!(stream.delivered, stream.newest);
}

/// Values of one key that come together meet in the queue though the uplink has room for all of them:
/// that kept the class coalescing for ever.
#[test]
fn does_full_fidelity_come_back_though_devices_send_in_bursts() {
    let mut stream = Stream::new(50, 10, 1);
    stream.run(Duration::from_secs(10));
    assert_eq!(stream.queues.class(LOW).level(), Level::Coalescing);
    stream.comes = 0;
    let mut superseded = 0;
    for _ in 0..20 {
        // Five values of each key at once, and room for four times as many until the next.
        stream.comes = 250;
        stream.millisecond();
        stream.comes = 0;
        superseded = stream.superseded;
        stream.run(Duration::from_millis(999));
    }
    assert_eq!(stream.queues.class(LOW).level(), Level::Calm);
    stream.comes = 250;
    stream.millisecond();
    assert_eq!(stream.superseded, superseded, "merged while calm");
}

#[test]
fn do_latest_classes_coalesce_the_lowest_first_before_anything_is_shed_for_want_of_memory() {
    let memory = 100 * bytes();
    let classes = [
        class("critical", Delivery::Guaranteed, memory),
        class("values", Delivery::Latest, memory),
        class("rest", Delivery::Latest, memory),
    ]
    .map(|class| ClassSettings {
        // So that it is the memory's pressure that is looked at.
        pressure: PressureSettings {
            full_on_permille: 1000,
            ..PressureSettings::CLASS
        },
        ..class
    });
    let mut queues = queues(&classes, memory);
    let mut ends = Ends::default();
    let mut now = Tick::START;
    for sequence in 0..38 {
        for class in [1, 2] {
            let message = message(class, ["a", "b"][sequence as usize % 2], sequence, now);
            let _ = queues.admit(message, u64::MAX, now, &mut ends);
        }
    }
    let levels = |queues: &Queues| [1, 2].map(|index| queues.class(ClassId(index)).level());
    queues.observe(now, &mut ends);
    assert_eq!(levels(&queues), [Level::Calm, Level::Coalescing]);
    assert_eq!(queues.pressure().level(), Level::Coalescing);
    assert_eq!(queues.class(LOW).waiting(), 2);
    // It was enough.
    now = now.after(Duration::from_millis(100));
    queues.observe(now, &mut ends);
    for sequence in 38..100 {
        let message = message(1, "a", sequence, now);
        let _ = queues.admit(message, u64::MAX, now, &mut ends);
    }
    assert!(ends.iter().all(|(_, end)| *end == Outcome::Superseded));
    assert_eq!(levels(&queues), [Level::Coalescing, Level::Coalescing]);
    // And when there is nothing left to merge, the lowest sheds.
    for sequence in 100..300 {
        let message = message(0, "alarm", sequence, now);
        let _ = queues.admit(message, u64::MAX, now, &mut ends);
    }
    assert_eq!(queues.pressure().level(), Level::Shedding);
    assert_eq!(queues.class(LOW).level(), Level::Shedding);
    let shed = ends.iter().filter(|(_, end)| *end == Outcome::Shed);
    let shed: Vec<_> = shed.map(|(message, _)| message.class.0).collect();
    assert_eq!(shed, [2, 2, 1, 1]);
}

/// 10,000 topics a second that were never seen before.
#[test]
fn does_memory_stay_bounded_when_no_key_comes_twice() {
    let memory = 1 << 20;
    let mut queues = three(memory);
    let mut ends = Ends::default();
    let mut now = Tick::START;
    for sequence in 0..30_000 {
        now = now.after(Duration::from_micros(100));
        let topic = format!("device/{sequence}/value");
        let message = message(LOW.0, &topic, sequence, now);
        let _ = queues.admit(message, u64::MAX, now, &mut ends);
        if sequence % 1000 == 0 {
            queues.observe(now, &mut ends);
        }
        assert!(queues.bytes() + queues.index_bytes() <= memory);
    }
    let queue = queues.class(LOW);
    assert!(queue.coalesces() && queue.index_bytes() > queue.bytes() / 10);
    assert_eq!(ends.len() + queue.waiting(), 30_000);
    assert!(ends.iter().all(|(_, end)| *end == Outcome::Shed));
}

/// As long as the disk is not looked through, all keys are noted.
#[test]
fn is_what_is_remembered_of_keys_pressure_by_itself() {
    let memory = 1 << 20;
    let classes = [
        class("critical", Delivery::Guaranteed, memory),
        class("values", Delivery::Latest, memory),
        class("low", Delivery::Latest, memory),
    ];
    let mut queues = queues(&classes, memory);
    for class in [1, 2] {
        let seen = queues.class_mut(ClassId(class)).seen();
        for sequence in 0..50_000 {
            let message = message(class, &format!("t/{sequence}"), sequence, Tick::START);
            let key = seen.print(&message).unwrap();
            seen.note(key);
        }
        assert!(seen.forgotten() > 0);
    }
    assert!(queues.index_bytes() <= memory / 16);
    assert!(queues.index_bytes() > memory / 20);
    let mut ends = Ends::default();
    queues.observe(Tick::START, &mut ends);
    assert_eq!(queues.pressure().level(), Level::Calm);
}

#[test]
fn does_a_class_that_drops_the_newest_refuse_what_comes_and_keep_what_waits() {
    for delivery in [Delivery::Buffered, Delivery::Latest] {
        let low = ClassSettings {
            when_full: WhenFull::DropNewest,
            ..class("low", delivery, 3 * bytes())
        };
        // Half a message for the index of keys.
        let memory = 6 * bytes() + bytes() / 2;
        let mut queues = queues(
            &[class("critical", Delivery::Guaranteed, memory), low],
            memory,
        );
        let mut ends = Ends::default();
        for (sequence, topic) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            let message = message(1, topic, sequence, Tick::ZERO);
            let admission = queues.admit(message, u64::MAX, Tick::ZERO, &mut ends);
            assert_eq!(matches!(admission, Admission::Full(_)), sequence == 4);
        }
        assert_eq!(queues.class(ClassId(1)).level(), Level::Shedding);
        // A newer value of a key that waits takes its place all the same.
        let newer = message(1, "a", 5, Tick::ZERO);
        let admission = queues.admit(newer, u64::MAX, Tick::ZERO, &mut ends);
        assert_eq!(
            matches!(admission, Admission::Admitted),
            delivery == Delivery::Latest
        );
        // For an alarm its newest gives way.
        for sequence in 11..=14 {
            let alarm = message(0, "alarm", sequence, Tick::ZERO);
            let admission = queues.admit(alarm, u64::MAX, Tick::ZERO, &mut ends);
            assert!(matches!(admission, Admission::Admitted));
        }
        let shed = ends.iter().filter(|(_, end)| *end == Outcome::Shed);
        let mut shed: Vec<_> = shed.map(|(message, _)| message.sequence).collect();
        shed.sort_unstable();
        assert_eq!(shed, [3]);
    }
}

/// A message that came to stand where a written one had been shed was taken for written.
#[test]
fn is_what_comes_after_a_dropped_newest_written_to_disk() {
    let low = ClassSettings {
        when_full: WhenFull::DropNewest,
        ..class("low", Delivery::Buffered, 4 * bytes())
    };
    let memory = 4 * bytes();
    let mut queues = queues(
        &[class("critical", Delivery::Guaranteed, memory), low],
        memory,
    );
    let mut ends = Ends::default();
    for sequence in 1..=2 {
        let _ = queues.admit(
            message(1, "t", sequence, Tick::ZERO),
            u64::MAX,
            Tick::ZERO,
            &mut ends,
        );
    }
    let queue = queues.class_mut(ClassId(1));
    queue.set_unsafe_from(Some(Position::FIRST));
    for _ in 0..2 {
        queue.write_first(|message| message.spooled = Some(Position::FIRST));
    }
    for sequence in 11..=13 {
        let _ = queues.admit(
            message(0, "t", sequence, Tick::ZERO),
            u64::MAX,
            Tick::ZERO,
            &mut ends,
        );
    }
    let ended: Vec<_> = ends.iter().map(|(message, _)| message.sequence).collect();
    assert_eq!(ended, [2]);
    while let Some(alarm) = queues.pop(ClassId::FIRST, Tick::ZERO, &mut ends) {
        queues.release(&alarm);
    }
    let _ = queues.admit(
        message(1, "t", 3, Tick::ZERO),
        u64::MAX,
        Tick::ZERO,
        &mut ends,
    );
    let unwritten = queues.class_mut(ClassId(1)).first_unwritten();
    assert_eq!(unwritten.map(|message| message.sequence), Some(3));
}

#[derive(Clone, Debug)]
enum Step {
    Admit {
        key: u8,
        count: u8,
    },
    Send,
    Acknowledge,
    /// The connection ends; so many of what was in flight had arrived.
    Break {
        arrived: u8,
    },
    Refuse,
    Observe,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_u8, 1..6_u8).prop_map(|(key, count)| Step::Admit { key, count }),
        6 => Just(Step::Send),
        3 => Just(Step::Acknowledge),
        2 => (0..8_u8).prop_map(|arrived| Step::Break { arrived }),
        1 => Just(Step::Refuse),
        3 => Just(Step::Observe),
    ]
}

/// The far end, which takes what comes on one connection in order.
#[derive(Default)]
struct Far {
    last: BTreeMap<String, u64>,
    seen: std::collections::HashSet<u64>,
}

impl Far {
    fn take(&mut self, message: &Message) {
        let topic = message.body.topic().to_owned();
        let last = self.last.entry(topic).or_default();
        let again = !self.seen.insert(message.sequence);
        assert!(again || message.sequence > *last, "overtaken");
        *last = message.sequence;
    }
}

proptest! {
    /// Per key the last value that comes is the last that arrives, whatever is in flight when a
    /// connection ends and whatever the level does.
    #[test]
    fn is_the_last_value_of_each_key_the_last_that_arrives(steps in prop::collection::vec(step(), 1..300)) {
        let mut queues = three(1 << 20);
        let mut far = Far::default();
        let mut in_flight: VecDeque<Message> = VecDeque::new();
        let mut newest = BTreeMap::new();
        let (mut ends, mut now, mut sequence) = (Ends::default(), Tick::START, 0);
        for step in steps {
            now = now.after(Duration::from_millis(700));
            match step {
                Step::Admit { key, count } => for _ in 0..count {
                    sequence += 1;
                    let topic = format!("t/{key}");
                    let _ = queues.admit(message(LOW.0, &topic, sequence, now), u64::MAX, now, &mut ends);
                    newest.insert(topic, sequence);
                },
                Step::Send => in_flight.extend(queues.pop(LOW, now, &mut ends)),
                Step::Acknowledge => if let Some(message) = in_flight.pop_front() {
                    far.take(&message);
                    queues.release(&message);
                },
                Step::Break { arrived } => {
                    in_flight.iter().take(arrived.into()).for_each(|message| far.take(message));
                    queues.put_back(in_flight.drain(..).collect(), &mut ends);
                }
                // With 0x97: the newest in flight, behind which nothing of its key can be.
                Step::Refuse => queues.put_back(in_flight.pop_back().into_iter().collect(), &mut ends),
                Step::Observe => queues.observe(now, &mut ends),
            }
            queues.mark(now);
        }
        for message in in_flight {
            far.take(&message);
        }
        while let Some(message) = queues.pop(LOW, now, &mut ends) {
            far.take(&message);
        }
        prop_assert_eq!(far.last, newest);
        prop_assert!(ends.iter().all(|(_, end)| *end == Outcome::Superseded));
    }
}
