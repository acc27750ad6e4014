//! What a device promises, held against a plain model over random histories: samples, links that
//! come and go, acknowledgements that do not come.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::far_end::{self, FarEnd, THRESHOLD, settings};
use proptest::prelude::*;
use tidegate_device::{
    ALARMS_MAX, Body, Channel, Counts, Device, Kind, Message, Session, Step, Tick, Value,
};

/// What may happen to a device.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time passes, and what is due is sampled, each with a value of this row.
    Sample { millis: u64, alarm: bool },
    /// The main loop runs; the far end answers so many of the messages that it got.
    Turn { answers: usize },
    /// The link breaks.
    Break,
    /// The link can come back; whether the far end kept the session.
    Mend { session: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..3_000u64, any::<bool>()).prop_map(|(millis, alarm)| Event::Sample { millis, alarm }),
        4 => (0..12usize).prop_map(|answers| Event::Turn { answers }),
        1 => Just(Event::Break),
        2 => any::<bool>().prop_map(|session| Event::Mend { session }),
    ]
}

/// Where every sequence number has to be.
fn assert_accounted(device: &Device) {
    let counts = device.counts();
    for kind in Kind::ALL {
        let of = |m: &&Message| m.kind() == kind;
        let waiting = device.waiting().filter(of).count() as u64;
        let in_flight = device.in_flight().filter(of).count() as u64;
        let Counts {
            made,
            dropped,
            superseded,
            sent,
            unconfirmed,
            acknowledged,
            refused,
            ..
        } = *counts.of(kind);
        assert_eq!(made, dropped + superseded + waiting + sent, "{kind:?}");
        assert_eq!(
            sent,
            acknowledged + refused + in_flight + unconfirmed,
            "{kind:?}"
        );
    }
}

fn waiting_alarms(device: &Device) -> u64 {
    let waiting = device.waiting();
    waiting.filter(|m| m.kind() == Kind::Alarm).count() as u64
}

/// Runs a history; gives the device and what the far end saw, after all of it could be delivered.
fn run(events: &[Event], readings_confirmed: bool) -> (Device, FarEnd) {
    let channels = [Channel {
        period: Duration::from_millis(700),
        threshold: Some(THRESHOLD),
    }; 3];
    let mut device = Device::new(&settings(&channels, readings_confirmed));
    let mut far_end = FarEnd::default();
    let mut now = Tick::ZERO;
    for &event in events {
        match event {
            Event::Sample { millis, alarm } => {
                now = now.after(Duration::from_millis(millis));
                let (before, waited) = (device.counts().alarm, waiting_alarms(&device));
                far_end::sample(&mut device, now, |_| {
                    Value(if alarm { 90_000 } else { 20_000 })
                });
                let after = device.counts().alarm;
                // Nothing leaves meanwhile: just what finds no room is dropped.
                let room = ALARMS_MAX as u64 - waited;
                let beyond = (after.made - before.made).saturating_sub(room);
                assert_eq!(after.dropped - before.dropped, beyond, "{waited} waited");
            }
            Event::Turn { answers } => far_end.turn(&mut device, now, answers),
            Event::Break => far_end.break_link(&mut device, now),
            Event::Mend { session } => far_end.mend(session),
        }
        assert_accounted(&device);
    }
    far_end.mend(true);
    for _ in 0..1_000 {
        now = now.after(Duration::from_secs(1));
        far_end.turn(&mut device, now, usize::MAX);
    }
    assert_accounted(&device);
    (device, far_end)
}

proptest! {
    #[test]
    fn is_every_sequence_number_accounted_for(
        events in prop::collection::vec(event(), 0..200),
        confirmed in any::<bool>(),
    ) {
        let (device, far_end) = run(&events, confirmed);
        prop_assert!(device.is_idle(), "all could be delivered");
        let counts = device.counts();
        prop_assert_eq!(far_end.distinct(Kind::Alarm), counts.alarm.made - counts.alarm.dropped);
        prop_assert_eq!(far_end.distinct(Kind::Alarm), counts.alarm.acknowledged);
        prop_assert_eq!(far_end.distinct(Kind::Reading), counts.reading.made - counts.reading.superseded);
    }

    #[test]
    fn does_the_latest_reading_win_and_none_overtake(
        events in prop::collection::vec(event(), 0..200),
        confirmed in any::<bool>(),
    ) {
        let (device, far_end) = run(&events, confirmed);
        let mut last: BTreeMap<(Kind, u8), u32> = BTreeMap::new();
        for message in far_end.first_arrivals() {
            let channel = if message.kind() == Kind::Alarm { 0 } else { message.channel };
            let before = last.insert((message.kind(), channel), message.seq);
            prop_assert!(before.is_none_or(|before| before < message.seq), "{message:?} after {before:?}");
        }
        let made = device.counts().reading.made;
        for channel in 0..3u8 {
            // All channels share one period: each made a third.
            let arrived = last.get(&(Kind::Reading, channel)).copied().unwrap_or(0);
            prop_assert_eq!(u64::from(arrived), made / 3, "channel {} ends with its newest", channel);
        }
    }

    #[test]
    fn is_no_alarm_dropped_while_fewer_wait_than_the_queue_holds(alarms in 0..80usize) {
        let channels = [Channel { period: Duration::from_secs(1), threshold: Some(THRESHOLD) }];
        let mut device = Device::new(&settings(&channels, false));
        for index in 0..alarms {
            let now = Tick::from_micros(index as u64 * 1_000_000);
            let value = if index % 2 == 0 { 90_000 } else { 20_000 };
            far_end::sample(&mut device, now, |_| Value(value));
            let made = index + 1;
            let dropped = made.saturating_sub(ALARMS_MAX) as u64;
            prop_assert_eq!(device.counts().alarm.made, made as u64);
            prop_assert_eq!(device.counts().alarm.dropped, dropped);
        }
        let waiting = device.waiting().filter(|m| m.kind() == Kind::Alarm).count();
        prop_assert_eq!(waiting, alarms.min(ALARMS_MAX));
    }
}

#[test]
fn do_alarms_go_before_readings_that_waited_longer() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }; 4];
    let mut device = Device::new(&settings(&channels, true));
    far_end::sample(&mut device, Tick::ZERO, |_| Value(20_000));
    let now = Tick::from_micros(1_000_000);
    far_end::sample(&mut device, now, |channel| {
        Value(if channel == 3 { 90_000 } else { 20_000 })
    });
    let mut far_end = FarEnd::default();
    far_end.mend(true);
    far_end.turn(&mut device, now, 0);
    let first = far_end.arrivals[0].message;
    assert!(matches!(first.body, Body::Alarm { .. }), "{first:?}");
}

#[test]
fn do_readings_leave_room_in_the_window_for_an_alarm() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }; 8];
    let mut device = Device::new(&settings(&channels, true));
    let mut far_end = FarEnd::default();
    far_end.mend(true);
    far_end::sample(&mut device, Tick::ZERO, |_| Value(20_000));
    far_end.turn(&mut device, Tick::ZERO, 0);
    let in_flight = device.in_flight().count();
    let later = Tick::from_micros(1_000_000);
    far_end::sample(&mut device, later, |channel| {
        Value(if channel == 0 { 90_000 } else { 20_000 })
    });
    far_end.turn(&mut device, later, 0);
    assert_eq!(device.in_flight().count(), in_flight + 1, "the alarm alone");
    assert_eq!(far_end.arrivals.last().unwrap().message.kind(), Kind::Alarm);
}

#[test]
fn does_a_far_end_that_never_answers_cost_the_connection_not_the_alarm() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }];
    let mut device = Device::new(&settings(&channels, false));
    far_end::sample(&mut device, Tick::ZERO, |_| Value(90_000));
    let mut far_end = FarEnd::default();
    far_end.mend(true);
    let mut now = Tick::ZERO;
    for _ in 0..600 {
        far_end.turn(&mut device, now, 0);
        now = now.after(Duration::from_secs(1));
    }
    assert!(
        far_end.connections > 2,
        "{} connections",
        far_end.connections
    );
    far_end.turn(&mut device, now, usize::MAX);
    let alarms = far_end
        .arrivals
        .iter()
        .filter(|a| a.message.kind() == Kind::Alarm);
    assert!(alarms.clone().skip(1).all(|alarm| alarm.again && alarm.dup));
    assert_eq!(device.counts().alarm.acknowledged, 1);
    assert_eq!(device.counts().alarm.resent + 1, alarms.count() as u64);
}

#[test]
fn is_a_window_of_one_obeyed_and_an_unknown_acknowledgement_ignored() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }; 3];
    let mut device = Device::new(&settings(&channels, true));
    far_end::sample(&mut device, Tick::ZERO, |_| Value(90_000));
    assert_eq!(device.poll(Tick::ZERO), Step::Connect);
    let session = Session {
        present: false,
        receive_max: 1,
    };
    device.connected(Tick::ZERO, session);
    let Step::Publish(first) = device.poll(Tick::ZERO) else {
        panic!("an alarm goes out");
    };
    assert!(
        matches!(device.poll(Tick::ZERO), Step::Wait(_)),
        "one at a time"
    );
    let id = first.packet_id.unwrap().get();
    assert_eq!(device.acknowledged(id + 1), None);
    assert_eq!(device.acknowledged(id), Some(first.message));
    assert_eq!(
        device.acknowledged(id),
        None,
        "an acknowledgement counts once"
    );
    assert!(matches!(device.poll(Tick::ZERO), Step::Publish(_)));
}

#[test]
fn does_nothing_new_overtake_resends_that_a_smaller_window_holds_back() {
    let channels = [Channel {
        period: Duration::from_secs(1),
        threshold: Some(THRESHOLD),
    }; 3];
    let mut device = Device::new(&settings(&channels, false));
    let mut far_end = FarEnd::default();
    far_end.mend(true);
    far_end::sample(&mut device, Tick::ZERO, |_| Value(90_000));
    far_end.turn(&mut device, Tick::ZERO, 0);
    let first = device.in_flight().next().copied();
    device.disconnected(Tick::ZERO);

    let later = Tick::from_micros(10_000_000);
    far_end::sample(&mut device, later, |_| Value(20_000));
    assert_eq!(device.poll(later), Step::Connect);
    let session = Session {
        present: true,
        receive_max: 1,
    };
    device.connected(later, session);
    let Step::Publish(resent) = device.poll(later) else {
        panic!("what was not acknowledged goes first");
    };
    assert!(resent.again && resent.dup && Some(resent.message) == first);
    let next = device.poll(later);
    assert!(matches!(next, Step::Wait(_)), "{next:?}");
}
