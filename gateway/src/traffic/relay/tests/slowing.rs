//! Who is slowed, and until when.

use super::*;
use crate::traffic::lanes::{Lane, Notice, REST_LANE_BYTES_MAX, Turns};
use crate::traffic::message::DoorId;

/// The class `normal` is small, and its devices are read at half their rate under pressure.
const NORMAL: u8 = 2;

fn world() -> World {
    World::with_classes(
        |_| {},
        |class| {
            if &*class.name == "normal" {
                class.queue_bytes_max = 64 * 1024;
                class.throttle_permille = 500;
            }
        },
    )
}

fn slowed(world: &mut World) -> Vec<(DoorId, u32)> {
    let all = world.relay.take_notices();
    let told = all.into_iter().flat_map(|(door, notices)| {
        notices.into_iter().filter_map(move |notice| match notice {
            Notice::Slowed { permille } => Some((door, permille)),
            _ => None,
        })
    });
    told.collect()
}

#[test]
fn are_devices_of_a_class_under_pressure_slowed_until_it_is_calm() {
    let mut world = world();
    world.up(Link::Bulk);
    let device = world.sender;
    let alarms = world.relay.open("alarms".into(), false);
    let site = world.relay.open("site".into(), true);
    for (sender, class) in [(site, NORMAL), (alarms, 0)] {
        world.sender = sender;
        world.arrive(class, "x", None);
    }
    world.sender = device;
    let large = "x".repeat(8 * 1024);
    for _ in 0..7 {
        world.arrive(NORMAL, &large, None);
    }
    // An alarm in between does not make it another device.
    world.arrive(0, "alarm", None);
    world.wait(Duration::from_millis(100));
    let mut sent = world.turn();
    assert_eq!(slowed(&mut world), [(device, 500)]);
    for _ in 0..200 {
        for published in std::mem::take(&mut sent) {
            world.answer(&published, 0);
        }
        world.wait(Duration::from_millis(100));
        sent = world.turn();
    }
    assert_eq!(slowed(&mut world), [(device, 1000)]);
}

#[test]
fn does_the_brake_keep_who_floods_a_buffered_class_and_nobody_else() {
    let mut world = World::with_classes(|_| {}, |_| {});
    world.up(Link::Bulk);
    let harmless = world.relay.open("harmless".into(), false);
    let large = "x".repeat(16 * 1024);
    // More than a thirty-second of 4 MiB.
    for _ in 0..12 {
        world.arrive(NORMAL, &large, None);
    }
    let batch = |world: &World, door| Batch {
        door,
        at: world.now,
        messages: Vec::new(),
        unreadable: 0,
        forgotten: 0,
        room: None,
    };
    let (mad, mild) = (batch(&world, world.sender), batch(&world, harmless));
    assert!(!world.relay.takes_rest(&mad, world.now));
    assert!(world.relay.takes_rest(&mild, world.now));
    world.wait(BRAKE_MAX);
    assert!(world.relay.takes_rest(&mad, world.now), "not for ever");
}

#[test]
fn does_a_class_of_which_much_is_held_keep_back_the_others() {
    let mut world = World::with_classes(|_| {}, |_| {});
    let large = "x".repeat(64 * 1024);
    // A megabyte has room, and more than another is held.
    for token in 0..34 {
        world.arrive(SURE, &large, Some(token));
    }
    let batch = |class| {
        let mut message = sample("t", b"x");
        message.class = ClassId(class);
        Batch {
            door: message.receipt.door,
            at: world.now,
            messages: vec![message],
            unreadable: 0,
            forgotten: 0,
            room: None,
        }
    };
    assert!(!world.relay.takes_rest(&batch(SURE), world.now));
    assert!(world.relay.takes_rest(&batch(NORMAL), world.now));
}

#[test]
fn does_a_sender_of_much_of_the_first_class_wait_for_its_next_turn() {
    let mut world = world();
    world.up(Link::Bulk);
    let (lane, mut lane_end) = Lane::new(4, REST_LANE_BYTES_MAX);
    let turns = Turns::default();
    let mut bring = |world: &mut World, bytes: usize| {
        let mut message = sample("t", &vec![b'x'; bytes]);
        message.class = ClassId::FIRST;
        message.receipt = Receipt {
            door: world.sender,
            token: None,
        };
        let batch = Batch {
            door: world.sender,
            at: world.now,
            messages: vec![message],
            unreadable: 0,
            forgotten: 0,
            room: None,
        };
        lane.try_reserve(1).unwrap().put(batch, turns.try_take());
        world.relay.arrive(lane_end.try_recv().unwrap(), world.now);
        turns.try_take().is_some()
    };
    assert!(bring(&mut world, 10_000), "a little");
    assert!(!bring(&mut world, 10_000), "much");
    world.wait(Duration::from_millis(200));
    let sent = world.turn();
    assert!(turns.try_take().is_none());
    for published in sent {
        world.answer(&published, 0);
    }
    world.turn();
    assert!(turns.try_take().is_some(), "less is left");
}
