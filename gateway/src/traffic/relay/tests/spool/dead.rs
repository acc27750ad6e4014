//! Dead letters: when they are safe, who is told, when they are tried again, and what becomes of them then.

use super::*;
use crate::traffic::lanes::Refusal;
use crate::traffic::settle::ledger::Ledger;

/// Where the dead letters of class `sure` stand: behind the three classes.
const DEAD: ClassId = ClassId(3 + SURE);
/// A commit is due.
const COMMIT: Duration = Duration::from_millis(100);

fn refused(token: u32) -> (u32, Answer) {
    (token, Answer::Refused(Refusal::Upstream))
}

impl World {
    /// A message that the upstream refuses for good, and that is safe.
    fn dead_letter(&mut self, disk: &mut Disk, payload: &str) -> Position {
        self.arrive(SURE, payload, None);
        let sent = self.turn_with(disk);
        self.answer(&sent[0], 0x99);
        self.turn_with(disk);
        self.wait(COMMIT);
        self.turn_with(disk);
        disk.dead().pop().unwrap()
    }

    fn made_here(&self) -> u64 {
        self.relay.ledger().accounts()[usize::from(SURE)].made_here
    }

    fn lost(&self) -> u64 {
        self.relay.status().classes[usize::from(SURE)].dead_letters_lost
    }
}

impl Disk {
    fn dead(&self) -> Vec<Position> {
        let records = self.blocks.iter().filter(|block| block.class == DEAD);
        let places = records.flat_map(|block| (0..block.count).map(|n| block.first.plus(n)));
        let there = places.filter(|at| self.records.contains_key(at));
        there.collect()
    }
}

#[test]
fn is_a_dead_letter_safe_before_its_sender_is_told_and_home_when_the_upstream_takes_it() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.arrive(SURE, "bad", Some(1));
    let sent = world.turn_with(&mut disk);
    world.answer(&sent[0], 0x99);
    world.turn_with(&mut disk);
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 1);
    assert_eq!(world.answers(), [], "not before the commit");
    world.wait(COMMIT);
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), [refused(1)]);
    let places = disk.dead();
    assert_eq!((places.len(), world.counts(SURE)), (1, (0, 0)));
    assert_eq!(world.relay.queues().bytes(), 0);
    // By hand, and refused once more.
    assert_eq!(world.relay.try_again(ClassId(SURE), &places), 1);
    let again = world.turn_with(&mut disk);
    assert_eq!(payloads(&again), ["bad"]);
    let id = String::from_utf8_lossy(&again[0].properties).into_owned();
    assert!(id.contains("box:7:1"), "{id}");
    assert_eq!((world.made_here(), world.counts(SURE)), (1, (1, 0)));
    assert_eq!(world.relay.try_again(ClassId(SURE), &places), 0, "it is");
    world.answer(&again[0], 0x87);
    assert!(world.turn_with(&mut disk).is_empty(), "nobody asked");
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 2);
    assert_eq!((disk.dead(), disk.blocks.len()), (places, 1), "not twice");
    // By itself, and taken.
    world.wait(Duration::from_secs(3600));
    let again = world.turn_with(&mut disk);
    assert_eq!(payloads(&again), ["bad"]);
    world.answer(&again[0], 0);
    world.turn_with(&mut disk);
    assert!(disk.records.is_empty() && world.relay.is_idle());
    assert_eq!(world.ended(SURE, Outcome::Delivered), 1);
    assert_eq!((world.made_here(), world.lost()), (2, 0));
    assert_eq!(world.relay.queues().bytes(), 0);
    world.wait(Duration::from_secs(3600));
    assert!(world.turn_with(&mut disk).is_empty());
}

/// A power cut finds it where it was or where it is.
#[test]
fn does_a_late_message_keep_its_place_until_it_is_safe_as_a_dead_letter() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.arrive(SURE, "bad", Some(1));
    let sent = world.turn_with(&mut disk);
    world.wait(LATE);
    world.turn_with(&mut disk);
    world.wait(COMMIT);
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), accepted([1]), "it is safe");
    world.answer(&sent[0], 0x99);
    world.wait(COMMIT);
    world.turn();
    world.wait(COMMIT);
    world.turn();
    let Some(SpoolCommand::Append(block)) = world.relay.take_spool_command() else {
        panic!("it is written");
    };
    assert!(block.class == DEAD && world.relay.take_spool_command().is_none());
    for report in disk.obey(SpoolCommand::Append(block)) {
        world.report(report);
    }
    assert_eq!(disk.records.len(), 2);
    world.turn_with(&mut disk);
    assert_eq!((disk.records.len(), disk.dead().len()), (1, 1));
    assert_eq!(world.answers(), []);
}

#[test]
fn is_a_dead_letter_that_the_disk_does_not_take_lost_and_its_sender_told() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    for (token, lost) in [(1, 1), (2, 2)] {
        world.arrive(SURE, "bad", Some(token));
        let sent = world.turn_with(&mut disk);
        world.answer(&sent[0], 0x99);
        world.turn();
        // The second time it fails already.
        world.report(SpoolReport::Health(DiskHealth::Failing("full".into())));
        assert_eq!(
            (world.answers(), world.lost()),
            (vec![refused(token)], lost)
        );
    }
    world.report(SpoolReport::Health(DiskHealth::Well));
    world.arrive(SURE, "bad", Some(3));
    let sent = world.turn_with(&mut disk);
    world.answer(&sent[0], 0x99);
    world.wait(COMMIT);
    world.turn();
    let Some(SpoolCommand::Append(block)) = world.relay.take_spool_command() else {
        panic!("it is written");
    };
    world.report(SpoolReport::Unwritten {
        class: block.class,
        positions: block.positions(),
        why: Unwritten::Full,
    });
    assert_eq!((world.answers(), world.lost()), (vec![refused(3)], 3));
    assert!(disk.blocks.is_empty() && world.relay.is_idle());
}

#[test]
fn do_dead_letters_go_one_by_one_and_keep_nobody_waiting() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    for number in 0..3 {
        world.dead_letter(&mut disk, &format!("bad {number}"));
    }
    let places = disk.dead();
    world.relay.try_again(ClassId(SURE), &places);
    world.relay.pause_replay(Some(ClassId(SURE)), true);
    assert!(world.turn_with(&mut disk).is_empty(), "the class is paused");
    world.relay.pause_replay(Some(ClassId(SURE)), false);
    world.arrive(SURE, "good", None);
    let sent = world.turn_with(&mut disk);
    assert_eq!(payloads(&sent), ["good", "bad 0"]);
    world.arrive(SURE, "better", None);
    let live = world.turn_with(&mut disk);
    assert_eq!(payloads(&live), ["better"]);
    // One that is there when the connection ends is out of the way at once: it waits for the next round.
    world.answer(&sent[0], 0);
    world.answer(&live[0], 0);
    world.down(Link::Bulk, true);
    world.up(Link::Bulk);
    let mut home = Vec::new();
    for _ in 0..9 {
        for sent in world.turn_with(&mut disk) {
            world.answer(&sent, if sent.payload == "bad 1" { 0x99 } else { 0 });
            home.push(sent.payload);
        }
    }
    assert_eq!(home, ["bad 1", "bad 2"]);
    assert_eq!(disk.dead(), places[..2]);
    assert!(world.relay.is_idle());
}

#[test]
fn is_a_dead_letter_that_is_purged_or_gone_tried_no_more() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    let purged = world.dead_letter(&mut disk, "purged");
    let gone = world.dead_letter(&mut disk, "gone");
    let tried = world.dead_letter(&mut disk, "tried");
    assert_eq!(world.relay.purge(DEAD, &[purged]), 1);
    assert_eq!(world.ended(SURE, Outcome::Purged), 0, "it had ended");
    assert_eq!(world.relay.try_again(ClassId(SURE), &[purged, tried]), 1);
    let sent = world.turn_with(&mut disk);
    assert_eq!(payloads(&sent), ["tried"]);
    for position in [gone, tried] {
        disk.records.remove(&position);
        world.report(SpoolReport::Gone {
            class: DEAD,
            positions: position..position.plus(1),
            outcome: Outcome::Evicted,
        });
    }
    assert_eq!(world.lost(), 1, "the other one is in memory");
    world.answer(&sent[0], 0x99);
    world.wait(COMMIT);
    world.turn_with(&mut disk);
    assert_eq!(disk.dead().len(), 1, "and is kept once more");
}

#[test]
fn does_a_stop_leave_a_dead_letter_where_it_is() {
    for in_flight in [true, false] {
        let (mut world, mut disk) = World::with_disk(Order::Strict);
        world.up(Link::Bulk);
        let place = world.dead_letter(&mut disk, "bad");
        world.relay.try_again(ClassId(SURE), &[place]);
        if in_flight {
            assert_eq!(world.turn_with(&mut disk).len(), 1);
        } else {
            world.relay.turn(world.now, WALL);
            let command = world.relay.take_spool_command().unwrap();
            let reports = disk.obey(command);
            reports.into_iter().for_each(|report| world.report(report));
            assert_eq!(world.counts(SURE), (1, 0));
        }
        world.relay.drain();
        world.relay.stop();
        world.turn_with(&mut disk);
        assert!(world.relay.is_written());
        assert_eq!(world.relay.finish(), 0);
        world.turn_with(&mut disk);
        assert_eq!(disk.dead(), [place]);
        assert_eq!(world.ended(SURE, Outcome::DeadLetter), 2);
        assert_eq!(world.counts(SURE), (0, 0));
    }
}

#[test]
fn is_what_stood_in_a_segment_without_a_head_counted_as_damaged() {
    let (mut world, _) = World::with_disk(Order::Strict);
    let mut kept = Ledger::new(["sure".into()]);
    (0..5).for_each(|_| kept.receive(ClassId(0)));
    world.relay.restore(kept.accounts());
    let class = ClassId(SURE);
    let there = Position::new(1, 0)..Position::new(1, 2);
    world.report(SpoolReport::Headless { class });
    world.report(SpoolReport::Found {
        class,
        ranges: vec![there],
    });
    world.report(SpoolReport::Scanned { class });
    let account = &world.relay.ledger().accounts()[usize::from(SURE)];
    assert_eq!((account.found, account.ended(Outcome::Damaged)), (0, 3));
    assert_eq!(world.counts(SURE), (0, 2));
}
