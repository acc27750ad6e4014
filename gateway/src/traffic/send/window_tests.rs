//! What is in flight: every acknowledgement finds its message, and the window follows the link.

use std::time::Duration;

use super::*;
use crate::traffic::message::sample;

const LIMITS: LinkLimits = LinkLimits::DEFAULT;

fn ms(millis: u64) -> Tick {
    Tick::from_micros(millis * 1000)
}

fn window(limits: LinkLimits, solo: bool) -> Window {
    let mut window = Window::new(2);
    window.restart(limits, solo);
    window
}

fn send(window: &mut Window, sequence: u64, class: u8, now: Tick) -> u16 {
    let mut message = sample("t", b"x");
    message.sequence = sequence;
    message.class = ClassId(class);
    let id = window.next_id();
    window.send(message, 100, now);
    id
}

#[test]
fn does_each_packet_id_find_its_own_message_in_any_order_and_over_the_wrap() {
    let mut window = window(LIMITS, false);
    for round in 0..1500_u64 {
        let ids: Vec<_> = (0..97)
            .map(|n| {
                (
                    send(&mut window, round * 97 + n, 1, ms(round)),
                    round * 97 + n,
                )
            })
            .collect();
        assert!(ids.iter().all(|(id, _)| *id != 0), "packet id 0");
        for (id, sequence) in ids.iter().rev() {
            let sent = window.acknowledge(*id, ms(round)).unwrap();
            assert_eq!(sent.message.sequence, *sequence);
            assert!(
                window.acknowledge(*id, ms(round)).is_none(),
                "credited twice"
            );
        }
        assert_eq!((window.count(), window.in_flight(ClassId(1))), (0, 0));
    }
}

#[test]
fn does_an_id_that_nobody_waits_for_find_nothing() {
    let mut window = window(LIMITS, false);
    let id = send(&mut window, 1, 1, ms(0));
    for wrong in [0, id + 1, id + 1000, u16::MAX] {
        assert!(window.acknowledge(wrong, ms(1)).is_none());
    }
    assert!(window.acknowledge(id, ms(1)).is_some());
}

#[test]
fn does_one_that_is_never_acknowledged_keep_the_others_from_their_ids() {
    let mut window = window(LIMITS, false);
    send(&mut window, 0, 1, ms(0));
    let mut sent = 0;
    while window.admits(ClassId(1)) {
        sent += 1;
        let id = send(&mut window, sent, 1, ms(0));
        assert_eq!(
            window.acknowledge(id, ms(1)).unwrap().message.sequence,
            sent
        );
        assert!(sent < 100_000, "ids would be given twice");
    }
    assert!(sent > 10_000);
}

#[test]
fn does_the_first_class_keep_a_reserve_of_the_receive_maximum() {
    let limits = LinkLimits {
        receive_max: 20,
        ..LIMITS
    };
    let mut window = window(limits, false);
    let mut bulk = 0;
    while window.admits(ClassId(1)) {
        bulk += 1;
        send(&mut window, bulk, 1, ms(0));
    }
    assert_eq!(bulk, 18);
    while window.admits(ClassId::FIRST) {
        bulk += 1;
        send(&mut window, bulk, 0, ms(0));
    }
    assert_eq!(bulk, 20, "the upstream's Receive Maximum is never exceeded");
}

#[test]
fn does_a_message_larger_than_the_window_still_pass_alone() {
    let mut window = window(LIMITS, false);
    assert!(window.admits(ClassId(1)));
    window.send(sample("t", b"x"), 1024 * 1024, ms(0));
    assert!(!window.admits(ClassId(1)));
}

#[test]
fn does_solo_send_one_at_a_time_until_the_first_acknowledgement() {
    let mut window = window(LIMITS, true);
    let id = send(&mut window, 1, 1, ms(0));
    assert!(!window.admits(ClassId(1)) && !window.admits(ClassId::FIRST));
    window.acknowledge(id, ms(1));
    send(&mut window, 2, 1, ms(1));
    assert!(window.admits(ClassId(1)));
}

/// A link of `bytes_per_ms` with a base time of `base_ms`, kept full for ten seconds: gives the
/// window at the end and the queueing that the last messages saw.
fn settle_on(bytes_per_ms: u64, base_ms: u64) -> (u64, Duration) {
    let mut window = window(LIMITS, false);
    let mut flying: VecDeque<(u64, u16)> = VecDeque::new();
    let (mut busy_until, mut sequence, mut last) = (0, 0, Duration::ZERO);
    for now in 0..10_000 {
        while flying.front().is_some_and(|(at, _)| *at <= now * 1000) {
            let (_, id) = flying.pop_front().unwrap();
            let sent = window.acknowledge(id, ms(now)).unwrap();
            last = ms(now)
                .since(sent.at)
                .saturating_sub(Duration::from_millis(base_ms));
        }
        while window.admits(ClassId(1)) {
            sequence += 1;
            let id = send(&mut window, sequence, 1, ms(now));
            // 100 bytes leave when those before them have left.
            busy_until = (now * 1000).max(busy_until) + 100 * 1000 / bytes_per_ms;
            flying.push_back((busy_until + base_ms * 1000, id));
        }
    }
    (window.size(), last)
}

#[test]
fn does_the_window_settle_where_the_queue_is_short_and_the_link_is_full() {
    // 256 kbit/s at 40 ms, 4 Mbit/s at 600 ms: the product of rate and time must fit, and the queue
    // beyond it must stay near the target.
    for (bytes_per_ms, base_ms) in [(32, 40), (500, 600)] {
        let (size, queueing) = settle_on(bytes_per_ms, base_ms);
        assert!(
            size >= bytes_per_ms * base_ms * 8 / 10,
            "{size} does not fill the link"
        );
        assert!(queueing <= 3 * TARGET_DELAY, "{queueing:?} of queueing");
    }
}

#[test]
fn is_what_was_in_flight_given_back_in_order_of_receipt() {
    let mut window = window(LIMITS, false);
    for sequence in [1, 2, 4] {
        send(&mut window, sequence, 1, ms(0));
    }
    let mut third = sample("t", b"x");
    third.sequence = 3;
    third.class = ClassId(1);
    window.send_unacknowledged(third, 10, ms(0));
    let order: Vec<_> = window
        .take_all()
        .iter()
        .map(|s| s.message.sequence)
        .collect();
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(window.count(), 0);
}

#[test]
fn are_qos_0_messages_settled_when_they_are_in_the_socket_and_not_before() {
    let mut window = window(LIMITS, false);
    let mut message = sample("t", b"x");
    message.class = ClassId(1);
    window.send_unacknowledged(message.clone(), 10, ms(0));
    window.send_unacknowledged(message, 10, ms(0));
    assert_eq!(window.written(9, ms(0)).len(), 0);
    assert_eq!(window.written(10, ms(0)).len(), 1);
    assert_eq!(window.written(20, ms(0)).len(), 1);
    assert_eq!(window.count(), 0);
}
