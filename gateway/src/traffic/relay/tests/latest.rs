//! `latest` classes: is the newest value of a key the last that goes out, whatever the upstream refuses and
//! whatever stands on disk?

use super::spool::Disk;
use super::*;
use crate::traffic::spool::{DiskHealth, Order, SpoolReport};

fn latest(class: &mut ClassSettings) {
    if &*class.name == "normal" {
        class.delivery = Delivery::Latest;
    }
}

/// A refused value waited aside, and went out again after newer ones.
#[test]
fn does_a_refused_value_never_follow_a_newer_one_of_its_key() {
    // Refused while the newer one is in flight; and before that comes.
    for newer_in_flight in [true, false] {
        for reason in [0x80, 0x97] {
            let mut world = World::with_classes(|_| {}, latest);
            world.up(Link::Bulk);
            world.arrive_on(NORMAL, "a", "old");
            world.arrive_on(NORMAL, "b", "other");
            let mut sent = world.turn();
            if newer_in_flight {
                world.arrive_on(NORMAL, "a", "new");
                sent.extend(world.turn());
            }
            for published in &sent {
                let refused = published.payload == "old";
                world.answer(published, if refused { reason } else { 0 });
            }
            if !newer_in_flight {
                world.arrive_on(NORMAL, "a", "new");
            }
            let mut again = Vec::new();
            for _ in 0..200 {
                let sent = world.turn();
                sent.iter().for_each(|published| world.answer(published, 0));
                again.extend(sent);
                world.wait(Duration::from_millis(50));
            }
            let payloads = payloads(&again);
            match (newer_in_flight, reason) {
                (true, _) => assert_eq!(payloads, [] as [&str; 0]),
                (false, 0x97) => assert_eq!(payloads, ["old", "new"]),
                (false, _) => assert_eq!(payloads, ["new"]),
            }
            assert!(world.relay.is_idle());
        }
    }
}

/// A gateway that was updated sent its devices' new values, and then the old ones that it had kept.
#[test]
fn does_an_old_value_on_disk_never_follow_a_newer_one_of_its_key() {
    for order in [Order::LiveFirst, Order::Strict] {
        let latest = |class: &mut ClassSettings| {
            class.order = order;
            latest(class);
        };
        let mut disk = Disk::default();
        let mut before = World::with_classes(|_| {}, latest);
        before.report(SpoolReport::Health(DiskHealth::Well));
        for key in ["a", "b"] {
            before.arrive_on(NORMAL, key, "old");
        }
        before.relay.stop();
        before.turn_with(&mut disk);
        assert_eq!(before.relay.finish(), 0);
        let found = disk.records.keys().copied();
        let found: Vec<_> = found.map(|at| at..at.plus(1)).collect();
        assert_eq!(found.len(), 2);

        let mut world = World::with_classes(|_| {}, latest);
        world.now = Tick::START;
        world.report(SpoolReport::Health(DiskHealth::Well));
        let class = ClassId(NORMAL);
        world.report(SpoolReport::Found {
            class,
            ranges: found,
        });
        world.arrive_on(NORMAL, "a", "new");
        world.report(SpoolReport::Scanned { class });
        world.up(Link::Bulk);
        let mut sent = world.turn_with(&mut disk);
        sent.extend(world.turn_with(&mut disk));
        let payloads = payloads(&sent);
        match order {
            Order::LiveFirst => {
                assert_eq!(payloads, ["new", "old"]);
                assert_eq!(world.ended(NORMAL, Outcome::Superseded), 1);
            }
            Order::Strict => assert_eq!(payloads, ["old", "old", "new"]),
        }
        for published in &sent {
            world.answer(published, 0);
        }
        world.turn_with(&mut disk);
        assert!(world.relay.is_idle() && disk.records.is_empty());
    }
}
