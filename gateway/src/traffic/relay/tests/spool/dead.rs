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

    /// One that the disk has, and that the upstream refuses for good while there is no room for a dead
    /// letter; gives where it stands.
    fn refused_when_full(&mut self, disk: &mut Disk, payload: &str) -> Position {
        let bad = self.refused_on_disk(disk, payload);
        let block = self.appended(disk);
        self.unwritten(&block, Unwritten::Full);
        bad
    }

    /// One that the disk has, and that is on its way to become a dead letter there.
    fn refused_on_disk(&mut self, disk: &mut Disk, payload: &str) -> Position {
        self.arrive(SURE, payload, Some(1));
        let sent = self.turn_with(disk);
        self.wait(LATE);
        self.turn_with(disk);
        self.wait(COMMIT);
        self.turn_with(disk);
        assert_eq!(self.answers(), accepted([1]), "it is safe");
        self.answer(&sent[0], 0x99);
        self.turn();
        self.wait(COMMIT);
        self.turn();
        *disk.records.last_key_value().unwrap().0
    }

    /// The dead letters that are to be written; what else was asked of the disk is done.
    fn appended(&mut self, disk: &mut Disk) -> Block {
        loop {
            match self.relay.take_spool_command().unwrap() {
                SpoolCommand::Append(block) if block.class == DEAD => return block,
                command => drop(disk.obey(command)),
            }
        }
    }

    fn unwritten(&mut self, block: &Block, why: Unwritten) {
        self.report(SpoolReport::Unwritten {
            class: block.class,
            positions: block.positions(),
            why,
        });
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
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 0);
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
    let settle = world.relay.take_spool_command().unwrap();
    let at_once = world.relay.take_spool_command();
    assert!(
        matches!(at_once, Some(SpoolCommand::KeepSettled)),
        "a kill in the next second keeps it twice: {at_once:?}"
    );
    disk.obey(settle);
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
    let block = world.appended(&mut disk);
    world.unwritten(&block, Unwritten::Full);
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

/// It was acknowledged: a dead letter that found no room took its good copy with it.
#[test]
fn does_what_the_disk_has_stay_there_when_it_takes_no_dead_letter() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    let bad = world.refused_when_full(&mut disk, "bad");
    let stays = |world: &mut World, disk: &mut Disk| {
        let sent = world.turn_with(disk);
        assert!(sent.is_empty(), "it keeps nobody waiting: {sent:?}");
        let there: Vec<_> = disk.records.keys().copied().collect();
        assert_eq!((there, world.counts(SURE)), (vec![bad], (0, 1)));
        assert_eq!(
            (world.lost(), world.ended(SURE, Outcome::DeadLetter)),
            (0, 0)
        );
        assert_eq!((world.relay.queues().bytes(), world.answers()), (0, vec![]));
    };
    stays(&mut world, &mut disk);
    world.wait(Duration::from_secs(60));
    stays(&mut world, &mut disk);
    world.arrive(SURE, "good", None);
    let sent = world.turn_with(&mut disk);
    assert_eq!(payloads(&sent), ["good"], "nothing waits for it");
    world.answer(&sent[0], 0);
    // Within the hour it goes again; now the disk fails, and does not even try.
    world.wait(Duration::from_secs(3600));
    let sent = world.turn_with(&mut disk);
    assert_eq!(payloads(&sent), ["bad"]);
    world.report(SpoolReport::Health(DiskHealth::Failing("full".into())));
    world.answer(&sent[0], 0x99);
    world.report(SpoolReport::Health(DiskHealth::Well));
    stays(&mut world, &mut disk);
    // By hand; and there is room again.
    world.relay.pause_replay(None, false);
    let sent = world.turn_with(&mut disk);
    assert_eq!(payloads(&sent), ["bad"]);
    world.answer(&sent[0], 0x99);
    world.turn_with(&mut disk);
    world.wait(COMMIT);
    world.turn_with(&mut disk);
    assert_eq!((disk.dead().len(), disk.records.len()), (1, 1));
    assert_eq!((world.counts(SURE), world.lost()), ((0, 0), 0));
    assert_eq!(world.ended(SURE, Outcome::DeadLetter), 1);
}

#[test]
fn is_what_rests_on_disk_purged_or_gone_like_all_that_stands_there() {
    for damaged in [false, true] {
        let (mut world, mut disk) = World::with_disk(Order::Strict);
        world.up(Link::Bulk);
        let bad = world.refused_when_full(&mut disk, "bad");
        let outcome = if damaged {
            disk.records.clear();
            world.report(SpoolReport::Gone {
                class: ClassId(SURE),
                positions: bad..bad.plus(1),
                outcome: Outcome::Damaged,
            });
            Outcome::Damaged
        } else {
            assert_eq!(world.relay.purge(ClassId(SURE), &[bad]), 1);
            Outcome::Purged
        };
        world.relay.pause_replay(None, false);
        assert!(world.turn_with(&mut disk).is_empty());
        assert_eq!(
            (world.ended(SURE, outcome), world.counts(SURE)),
            (1, (0, 0))
        );
        assert!(disk.records.is_empty());
    }
}

/// Whatever becomes of its old place and of the new one, and in which order.
#[test]
fn is_a_message_that_moves_to_the_dead_letters_lost_only_when_both_places_are() {
    for (gone, written) in [(false, true), (true, true), (true, false)] {
        let (mut world, mut disk) = World::with_disk(Order::Strict);
        world.up(Link::Bulk);
        let bad = world.refused_on_disk(&mut disk, "bad");
        let block = world.appended(&mut disk);
        assert_eq!(world.relay.purge(ClassId(SURE), &[bad]), 0, "it moves");
        if gone {
            disk.records.clear();
            world.report(SpoolReport::Gone {
                class: ClassId(SURE),
                positions: bad..bad.plus(1),
                outcome: Outcome::Damaged,
            });
        }
        if written {
            let reports = disk.obey(SpoolCommand::Append(block));
            reports.into_iter().for_each(|report| world.report(report));
        } else {
            world.unwritten(&block, Unwritten::Failing);
        }
        world.turn_with(&mut disk);
        let there = usize::from(written);
        assert_eq!((disk.dead().len(), disk.records.len()), (there, there));
        assert_eq!(world.lost(), u64::from(!written));
        assert_eq!(world.ended(SURE, Outcome::DeadLetter), 1);
        assert_eq!(world.ended(SURE, Outcome::Damaged), 0);
        assert_eq!(world.counts(SURE), (0, 0));
    }
}

/// A disk that fails drops the open block; what the writer has is not answered yet, and may be safe.
#[test]
fn does_a_failing_disk_leave_alone_what_it_has_not_answered() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.refused_on_disk(&mut disk, "bad 1");
    let block = world.appended(&mut disk);
    world.arrive(SURE, "bad 2", Some(2));
    let sent = world.turn();
    world.answer(&sent[0], 0x99);
    world.report(SpoolReport::Health(DiskHealth::Failing("full".into())));
    assert_eq!((world.answers(), world.lost()), (vec![refused(2)], 1));
    assert!(world.relay.take_spool_command().is_none(), "nothing ended");
    let reports = disk.obey(SpoolCommand::Append(block));
    reports.into_iter().for_each(|report| world.report(report));
    world.turn_with(&mut disk);
    assert_eq!((world.lost(), world.counts(SURE)), (1, (0, 0)));
    assert_eq!((disk.dead().len(), disk.records.len()), (1, 1));
}

/// An upstream that refuses everything is asked no faster than the disk takes it.
#[test]
fn do_dead_letters_wait_for_a_disk_that_is_busy_however_many_they_are() {
    let large = |class: &mut ClassSettings| {
        (class.queue_bytes_max, class.client_bytes_max) = (4 << 20, 4 << 20);
    };
    let (mut world, mut disk) = World::with_disk_and(|_| {}, large);
    world.up(Link::Bulk);
    let mut token = 0;
    for _ in 0..400 {
        for _ in 0..4 {
            world.arrive(SURE, &"x".repeat(15_000), Some(token));
            token += 1;
        }
        for sent in world.turn() {
            world.answer(&sent, 0x90);
        }
        world.wait(Duration::from_millis(20));
    }
    assert_eq!((world.lost(), world.answers()), (0, vec![]));
    for _ in 0..3000 {
        for sent in world.turn_with(&mut disk) {
            world.answer(&sent, 0x90);
        }
        world.wait(COMMIT);
    }
    assert_eq!((world.lost(), disk.dead().len()), (0, token as usize));
    assert!(world.relay.is_idle());
}

#[test]
fn does_a_stop_that_the_disk_does_not_answer_leave_a_message_where_it_was() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    let bad = world.refused_on_disk(&mut disk, "bad");
    world.arrive(SURE, "new", Some(2));
    let sent = world.turn();
    world.answer(&sent[0], 0x99);
    world.relay.drain();
    world.relay.stop();
    world.turn();
    assert_eq!(world.relay.finish(), 0);
    assert_eq!((world.answers(), world.counts(SURE)), (vec![], (0, 1)));
    assert_eq!(world.ended(SURE, Outcome::Returned), 1);
    assert!(disk.records.contains_key(&bad));
    assert_eq!(world.relay.queues().bytes(), 0);
}

#[test]
fn is_a_dead_letter_that_waits_to_be_tried_purged_with_the_others() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.dead_letter(&mut disk, "bad 1");
    world.dead_letter(&mut disk, "bad 2");
    let places = disk.dead();
    world.relay.try_again(ClassId(SURE), &places);
    world.relay.turn(world.now, WALL);
    // It is being read when its class is paused.
    world.relay.pause_replay(None, true);
    assert!(world.turn_with(&mut disk).is_empty());
    assert_eq!(world.counts(SURE), (1, 0));
    assert_eq!(world.relay.purge(DEAD, &places), 2);
    world.turn_with(&mut disk);
    assert_eq!((world.counts(SURE), disk.records.len()), ((0, 0), 0));
    assert_eq!(world.ended(SURE, Outcome::Purged), 1, "it was made here");
    assert!(world.relay.is_idle());
}
