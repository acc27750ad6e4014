//! The queues: what gives way, in which order, and that nothing goes without an end.

use std::time::Duration;

use proptest::prelude::*;

use super::super::WhenFull;
use super::super::class::SPARE_MESSAGES_MAX;
use super::*;
use crate::traffic::message::sample;

fn class(name: &str, delivery: Delivery, queue_bytes_max: u64) -> ClassSettings {
    ClassSettings {
        client_bytes_max: u64::MAX,
        ..ClassSettings::new(name, delivery, queue_bytes_max)
    }
}

fn message(class: u8, topic: &str, sequence: u64, client: u32) -> Message {
    let mut message = sample(topic, &[b'x'; 100]);
    message.class = ClassId(class);
    message.sequence = sequence;
    message.receipt.door = DoorId {
        index: client,
        generation: 0,
    };
    message
}

fn bytes() -> u64 {
    message(0, "t", 0, 0).memory_bytes()
}

fn three(memory_bytes_max: u64, queue_bytes_max: u64) -> Queues {
    let classes = [
        class("critical", Delivery::Guaranteed, memory_bytes_max),
        class("normal", Delivery::Buffered, queue_bytes_max),
        class("low", Delivery::Latest, queue_bytes_max),
    ];
    Queues::new(&classes, memory_bytes_max, PressureSettings::MEMORY)
}

fn sequences(ends: &Ends, outcome: Outcome) -> Vec<u64> {
    let of = ends.iter().filter(|(_, end)| *end == outcome);
    of.map(|(message, _)| message.sequence).collect()
}

fn admit(queues: &mut Queues, message: Message, ends: &mut Ends) -> bool {
    matches!(
        queues.admit(message, u64::MAX, Tick::ZERO, ends),
        Admission::Admitted
    )
}

fn pop_all(queues: &mut Queues, class: u8) -> Vec<u64> {
    let mut ends = Ends::default();
    std::iter::from_fn(|| queues.pop(ClassId(class), Tick::ZERO, &mut ends))
        .map(|message| message.sequence)
        .collect()
}

#[test]
fn does_a_full_buffered_class_shed_its_oldest() {
    let mut queues = three(1 << 20, 3 * bytes());
    let mut ends = Ends::default();
    for sequence in 1..=5 {
        assert!(admit(&mut queues, message(1, "t", sequence, 0), &mut ends));
    }
    assert_eq!(sequences(&ends, Outcome::Shed), [1, 2]);
    assert_eq!(pop_all(&mut queues, 1), [3, 4, 5]);
}

#[test]
fn does_a_guaranteed_class_without_room_hand_the_message_back() {
    let mut queues = three(4 * bytes(), bytes());
    let mut ends = Ends::default();
    let admitted = (1..=6).filter(|n| admit(&mut queues, message(0, "t", *n, 0), &mut ends));
    assert_eq!(admitted.count(), 4);
    assert!(ends.is_empty(), "{ends:?}");
}

#[test]
fn does_the_lowest_class_give_way_for_an_alarm_when_memory_is_full() {
    let mut queues = three(8 * bytes(), 8 * bytes());
    let mut ends = Ends::default();
    for sequence in 1..=3 {
        assert!(admit(&mut queues, message(1, "t", sequence, 0), &mut ends));
        assert!(admit(
            &mut queues,
            message(2, &sequence.to_string(), 10 + sequence, 0),
            &mut ends
        ));
    }
    for sequence in 21..=26 {
        assert!(admit(&mut queues, message(0, "t", sequence, 0), &mut ends));
    }
    assert_eq!(sequences(&ends, Outcome::Shed), [11, 12, 13, 1]);
}

#[test]
fn does_a_calm_latest_class_merge_nothing() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    for sequence in 1..=4 {
        assert!(admit(&mut queues, message(2, "t", sequence, 0), &mut ends));
    }
    assert!(ends.is_empty());
    assert_eq!(pop_all(&mut queues, 2), [1, 2, 3, 4]);
}

#[test]
fn does_pressure_keep_the_newest_of_each_key_at_the_place_of_the_oldest() {
    let mut queues = three(1 << 20, 4 * bytes());
    let mut ends = Ends::default();
    for (sequence, topic) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "b"), (6, "a")] {
        assert!(admit(
            &mut queues,
            message(2, topic, sequence, 0),
            &mut ends
        ));
    }
    let mut superseded = sequences(&ends, Outcome::Superseded);
    superseded.sort_unstable();
    assert_eq!(superseded, [1, 2, 3]);
    let newest = queues.pop(ClassId(2), Tick::ZERO, &mut ends).unwrap();
    assert_eq!((newest.sequence, newest.stands_for), (6, 3));
    assert_eq!(pop_all(&mut queues, 2), [5, 4]);
}

#[test]
fn does_a_message_that_comes_back_from_a_broken_link_give_way_to_a_newer_value() {
    let mut queues = three(1 << 20, 2 * bytes());
    let mut ends = Ends::default();
    assert!(admit(&mut queues, message(2, "a", 1, 0), &mut ends));
    let sent = queues.pop(ClassId(2), Tick::ZERO, &mut ends).unwrap();
    assert!(admit(&mut queues, message(2, "b", 2, 0), &mut ends));
    assert!(admit(&mut queues, message(2, "b", 3, 0), &mut ends));
    assert!(admit(&mut queues, message(2, "a", 4, 0), &mut ends) || !ends.is_empty());
    queues.put_back(vec![sent], &mut ends);
    assert!(sequences(&ends, Outcome::Superseded).contains(&1));
    let order = pop_all(&mut queues, 2);
    assert_eq!(order.iter().filter(|sequence| **sequence == 4).count(), 1);
}

/// The upstream's quota was used up: refusals came one by one, and each message went to the front, so
/// that they were sent again in reverse.
#[test]
fn do_refused_messages_go_again_in_the_order_of_receipt() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    for sequence in 1..=6 {
        assert!(admit(&mut queues, message(1, "t", sequence, 0), &mut ends));
    }
    let mut taken: Vec<_> = (0..5)
        .filter_map(|_| queues.pop(ClassId(1), Tick::ZERO, &mut ends))
        .collect();
    queues.put_back(taken.drain(..2).collect(), &mut ends);
    for message in taken {
        queues.put_back(vec![message], &mut ends);
    }
    assert_eq!(pop_all(&mut queues, 1), [1, 2, 3, 4, 5, 6]);
}

/// Two values of a key were in flight and both came back: the older one, back first, counted as the
/// newer, and the stale value was the last that went out.
#[test]
fn does_the_newest_value_stay_when_two_come_back() {
    let mut queues = three(1 << 20, 3 * bytes());
    let mut ends = Ends::default();
    for sequence in 1..=2 {
        assert!(admit(&mut queues, message(2, "a", sequence, 0), &mut ends));
    }
    let taken: Vec<_> = (0..2)
        .filter_map(|_| queues.pop(ClassId(2), Tick::ZERO, &mut ends))
        .collect();
    for (sequence, topic) in [(3, "b"), (4, "b"), (5, "c")] {
        assert!(admit(
            &mut queues,
            message(2, topic, sequence, 0),
            &mut ends
        ));
    }
    for message in taken {
        queues.put_back(vec![message], &mut ends);
    }
    let order = pop_all(&mut queues, 2);
    assert!(order.contains(&2) && !order.contains(&1), "{order:?}");
}

#[test]
fn does_a_mad_client_give_up_its_own_oldest_and_leave_the_others_alone() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    assert!(admit(&mut queues, message(1, "good", 1, 7), &mut ends));
    for sequence in 2..=20_000 {
        let flood = message(1, "mad", sequence, 3);
        let admission = queues.admit(flood, 3 * bytes(), Tick::ZERO, &mut ends);
        assert!(matches!(admission, Admission::Admitted));
    }
    assert!(
        queues.class(ClassId(1)).waiting.len() < 2 * SPARE_MESSAGES_MAX,
        "gaps pile up"
    );
    assert_eq!(pop_all(&mut queues, 1), [1, 19_998, 19_999, 20_000]);
}

/// The others' messages would be read back from disk behind what is live, for nothing: its share is not
/// made smaller by that.
#[test]
fn does_a_mad_client_push_nobody_else_out_of_memory_to_disk() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let normal = ClassSettings {
            when_full,
            ..class("normal", Delivery::Buffered, 1 << 20)
        };
        let first = class("critical", Delivery::Guaranteed, 1 << 20);
        let mut queues = Queues::new(&[first, normal], 1 << 20, PressureSettings::MEMORY);
        let mut ends = Ends::default();
        for (sequence, client) in [(1, 7), (2, 3), (3, 7), (4, 3)] {
            assert!(admit(
                &mut queues,
                message(1, "t", sequence, client),
                &mut ends
            ));
        }
        for index in 0..4 {
            let place = Position::new(1, index);
            let class = queues.class_mut(ClassId(1));
            class.write_first(|message| message.spooled = Some(place));
        }
        let flood = message(1, "t", 5, 3);
        let admission = queues.admit(flood, 2 * bytes(), Tick::ZERO, &mut ends);
        assert!(matches!(admission, Admission::Admitted));
        assert_eq!(queues.take_unloaded(), [(ClassId(1), Position::new(1, 1))]);
        assert!(ends.is_empty(), "{ends:?}");
        assert_eq!(pop_all(&mut queues, 1), [1, 3, 4, 5]);
    }
}

#[test]
fn does_an_expired_message_end_as_such_and_send_none_in_its_place() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    let mut old = message(1, "t", 1, 0);
    old.expires = Tick::from_micros(10);
    assert!(admit(&mut queues, old, &mut ends));
    assert!(admit(&mut queues, message(1, "t", 2, 0), &mut ends));
    let now = Tick::from_micros(10);
    assert!(queues.pop(ClassId(1), now, &mut ends).is_none());
    assert_eq!(sequences(&ends, Outcome::Expired), [1]);
    let next = queues.pop(ClassId(1), now, &mut ends).unwrap();
    assert_eq!(next.sequence, 2);
}

#[test]
fn is_what_its_share_kept_back_let_in_when_the_disk_has_the_rest() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    let share = bytes();
    for sequence in [1, 2] {
        let message = message(0, "t", sequence, 0);
        match sequence {
            1 => assert!(admit(&mut queues, message, &mut ends)),
            _ => queues.hold(message, share),
        }
    }
    let place = Position::new(1, 0);
    let class = queues.class_mut(ClassId(0));
    class.write_first(|message| message.spooled = Some(place));
    for (unsafe_from, held) in [(Some(place), 1), (None, 0)] {
        queues.class_mut(ClassId(0)).set_unsafe_from(unsafe_from);
        queues.readmit(Tick::ZERO, |_, _| share, |_| {}, &mut ends);
        assert_eq!(queues.class(ClassId(0)).held(), held);
    }
}

/// A sender that holds much must not cost each turn of all others.
#[test]
fn is_no_more_looked_at_of_what_is_held_than_the_first_of_each_sender() {
    let mut queues = three(1 << 20, 1 << 20);
    let mut ends = Ends::default();
    let share = bytes();
    for client in [0, 1] {
        let own = message(0, &format!("t/{client}"), 0, client);
        assert!(admit(&mut queues, own, &mut ends));
    }
    for sequence in 1..=10_000 {
        let client = u32::from(sequence > 9_990);
        let message = message(0, &format!("t/{client}"), sequence, client);
        queues.hold(message, share);
    }
    let looks = std::cell::Cell::new(0);
    let share_max = |door: DoorId, _: &ClassSettings| {
        looks.set(looks.get() + 1);
        if door.index == 0 { share } else { u64::MAX }
    };
    let mut admitted = 0;
    queues.readmit(Tick::ZERO, share_max, |_| admitted += 1, &mut ends);
    assert_eq!((admitted, looks.get()), (10, 11));
    assert_eq!(queues.class(ClassId(0)).held(), 9_990);
}

proptest! {
    /// Whatever gives way when: what was held gets in in the order of receipt, of each sender and topic.
    #[test]
    fn does_what_was_held_get_in_in_order(
        comes in prop::collection::vec((0..3_u32, 0..3_u8), 1..60),
        rounds in prop::collection::vec((0..8_u64, 0..8_u64, 0..8_u64, 0..40_usize), 1..8),
        gone in prop::option::of((0..3_u32, 0..60_u64)),
    ) {
        let mut queues = three(1 << 20, 1 << 20);
        let (mut ends, mut out) = (Ends::default(), Vec::new());
        for (sequence, (client, topic)) in (1..).zip(&comes) {
            let mut message = message(0, &topic.to_string(), sequence, *client);
            message.received = Tick::from_micros(sequence);
            queues.hold(message, u64::MAX);
        }
        if let Some((index, until)) = gone {
            let sender = DoorId { index, generation: 0 };
            for message in queues.withdraw(sender, Tick::from_micros(until)) {
                assert!(message.receipt.door == sender && message.sequence <= until);
                out.push(message.sequence);
            }
        }
        let withdrawn = out.len();
        for (a, b, c, pops) in rounds.into_iter().chain([(100, 100, 100, 100)]) {
            let share = |door: DoorId, _: &ClassSettings| [a, b, c][door.index as usize] * bytes();
            queues.readmit(Tick::ZERO, share, |_| {}, &mut ends);
            for _ in 0..pops {
                let Some(message) = queues.pop(ClassId(0), Tick::ZERO, &mut ends) else {
                    break;
                };
                queues.release(&message);
                out.push(message.sequence);
            }
        }
        prop_assert_eq!(queues.class(ClassId(0)).held_bytes(), 0);
        let mut all = out.clone();
        all.sort_unstable();
        prop_assert!(all.into_iter().eq(1..=comes.len() as u64));
        let of = |sequence: u64| comes[sequence as usize - 1];
        for (index, earlier) in out.iter().enumerate().skip(withdrawn) {
            for later in &out[index..] {
                let (a, b) = (of(*earlier), of(*later));
                prop_assert!(a.0 != b.0 && a.1 != b.1 || earlier <= later);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit {
        class: u8,
        topic: u8,
        client: u32,
        share: u64,
    },
    Pop {
        class: u8,
    },
    PutBack,
    Settle,
    Observe,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u8, 0..6_u8, 0..4_u32, 1..40_u64)
            .prop_map(|(class, topic, client, share)| Step::Admit { class, topic, client, share }),
        4 => (0..3_u8).prop_map(|class| Step::Pop { class }),
        1 => Just(Step::PutBack),
        3 => Just(Step::Settle),
        1 => Just(Step::Observe),
    ]
}

proptest! {
    /// Against a plain account: every message that was admitted is waiting, taken, or ended, exactly
    /// once; bytes are what is there; an admitted guaranteed message never gives way.
    #[test]
    fn does_everything_end_once_and_is_every_byte_given_back(steps in prop::collection::vec(step(), 1..400)) {
        let mut queues = three(30 * bytes(), 12 * bytes());
        let (mut ends, mut taken, mut inside) = (Ends::default(), Vec::new(), std::collections::BTreeSet::new());
        let (mut sequence, mut now) = (0, Tick::ZERO);
        for step in steps {
            now = now.after(Duration::from_millis(300));
            match step {
                Step::Admit { class, topic, client, share } => {
                    sequence += 1;
                    let message = message(class, &topic.to_string(), sequence, client);
                    let admission = queues.admit(message, share * bytes(), now, &mut ends);
                    if matches!(admission, Admission::Admitted) {
                        inside.insert(sequence);
                    }
                }
                Step::Pop { class } => taken.extend(queues.pop(ClassId(class), now, &mut ends)),
                Step::PutBack => {
                    queues.put_back(std::mem::take(&mut taken), &mut ends);
                }
                Step::Settle => {
                    for message in taken.drain(..) {
                        queues.release(&message);
                        prop_assert!(inside.remove(&message.sequence));
                    }
                }
                Step::Observe => queues.observe(now, &mut ends),
            }
            for (message, _) in std::mem::take(&mut ends) {
                prop_assert!(message.class != ClassId::FIRST, "an admitted alarm gave way");
                prop_assert!(inside.remove(&message.sequence), "ended twice");
            }
            let waiting: usize = queues.iter().map(ClassQueue::waiting).sum();
            prop_assert_eq!(waiting + taken.len(), inside.len());
            prop_assert_eq!(queues.bytes(), inside.len() as u64 * bytes());
            prop_assert!(queues.bytes() <= 30 * bytes());
        }
    }
}
