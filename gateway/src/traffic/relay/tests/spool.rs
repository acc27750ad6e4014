//! The relay beside a disk that the test plays: what is written and when, who is acknowledged for it,
//! and how what was given up in memory comes home.

mod dead;

use std::collections::BTreeMap;

use super::*;
use crate::traffic::spool::{
    Block, DiskHealth, Order, Position, SpoolCommand, SpoolReport, Unwritten, record,
};

#[path = "thinning.rs"]
mod thinning;

/// Longer than any message is not late.
const LATE: Duration = Duration::from_secs(6);
/// A commit is due, the uplink is away.
const AWAY: Duration = Duration::from_millis(1100);

/// A disk: what was committed and is not settled.
#[derive(Default)]
pub(super) struct Disk {
    blocks: Vec<Block>,
    pub(super) records: BTreeMap<Position, Message>,
    bytes: usize,
}

impl World {
    /// With a disk that works, and classes that keep this order.
    fn with_disk(order: Order) -> (Self, Disk) {
        Self::with_disk_and(|_| {}, |class| class.order = order)
    }

    fn with_disk_and(
        change: impl FnOnce(&mut UplinkSettings),
        change_class: impl FnMut(&mut ClassSettings),
    ) -> (Self, Disk) {
        let mut world = Self::with_classes(change, change_class);
        world.now = Tick::START;
        world.report(SpoolReport::Health(DiskHealth::Well));
        for class in 0..3 {
            world.report(SpoolReport::Scanned {
                class: ClassId(class),
            });
        }
        (world, Disk::default())
    }

    pub(super) fn report(&mut self, report: SpoolReport) {
        self.relay.spool_report(report, self.now);
    }

    /// A turn of the relay, and one of the disk.
    pub(super) fn turn_with(&mut self, disk: &mut Disk) -> Vec<Published> {
        let mut sent = self.turn();
        while let Some(command) = self.relay.take_spool_command() {
            for report in disk.obey(command) {
                self.report(report);
            }
            sent.extend(self.turn());
        }
        sent
    }

    fn counts(&self, class: u8) -> (u64, u64) {
        let waiting = self.relay.waiting()[usize::from(class)];
        (waiting.in_memory, waiting.on_disk)
    }
}

impl Disk {
    fn obey(&mut self, command: SpoolCommand) -> Vec<SpoolReport> {
        match command {
            SpoolCommand::Append(block) => {
                let (class, positions) = (block.class, block.positions());
                self.append(block);
                vec![SpoolReport::Safe { class, positions }]
            }
            SpoolCommand::KeepSettled | SpoolCommand::Keep(_) | SpoolCommand::Ask { .. } => {
                Vec::new()
            }
            SpoolCommand::Settle(positions) => {
                for position in positions {
                    assert!(self.records.remove(&position).is_some(), "{position:?}");
                }
                Vec::new()
            }
            SpoolCommand::Read {
                class, from, until, ..
            } => {
                let of_class = self.records.range(from..until);
                let of_class = of_class.filter(|(_, message)| message.class == class);
                let messages: Vec<_> = of_class.take(5).map(|(_, m)| m.clone()).collect();
                let last = messages.last().and_then(|message| message.spooled);
                let end = last
                    .filter(|_| messages.len() == 5)
                    .map_or(until, |at| at.plus(1));
                vec![SpoolReport::Records {
                    class,
                    looked_at: from..end,
                    messages,
                }]
            }
        }
    }

    /// The first letters of all payloads, in the order of the places.
    fn starts(&self) -> Vec<&str> {
        let payloads = self.records.values().map(|message| message.body.payload());
        let texts = payloads.map(|payload| str::from_utf8(payload).unwrap());
        texts.map(|text| &text[..text.len().min(3)]).collect()
    }

    fn append(&mut self, block: Block) {
        self.bytes += block.records.len();
        let mut rest = &block.records[..];
        for index in 0..block.count {
            let at = block.first.plus(index);
            let (message, bytes) = record::read(rest, block.class, at, block.opened).unwrap();
            rest = &rest[bytes..];
            self.records.insert(at, message);
        }
        assert!(rest.is_empty());
        self.blocks.push(block);
    }
}

fn accepted(tokens: impl IntoIterator<Item = u32>) -> Vec<(u32, Answer)> {
    tokens
        .into_iter()
        .map(|token| (token, Answer::Accepted))
        .collect()
}

#[test]
fn does_a_guaranteed_message_touch_no_disk_while_the_uplink_is_well() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    for token in 0..100 {
        world.arrive(SURE, "x", Some(token));
        let sent = world.turn_with(&mut disk);
        world.wait(Duration::from_millis(300));
        world.answer(&sent[0], 0);
        world.turn_with(&mut disk);
    }
    assert_eq!(disk.bytes, 0);
    assert_eq!(world.answers(), accepted(0..100));
}

#[test]
fn is_a_late_message_written_and_acknowledged_by_whichever_comes_first() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.arrive(SURE, "one", Some(1));
    let one = world.turn_with(&mut disk);
    world.wait(LATE);
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), accepted([1]), "the commit was first");
    assert_eq!((disk.records.len(), world.counts(SURE)), (1, (1, 0)));
    world.answer(&one[0], 0);
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), [], "and is not said twice");
    assert!(disk.records.is_empty(), "what is delivered is settled");
    // Now the PUBACK is first.
    world.arrive(SURE, "two", Some(2));
    let two = world.turn_with(&mut disk);
    world.wait(LATE);
    world.turn();
    world.answer(&two[0], 0);
    assert_eq!(world.answers(), accepted([2]));
    world.wait(Duration::from_millis(100));
    let before = disk.bytes;
    world.turn_with(&mut disk);
    assert_eq!(disk.bytes, before, "what ended meanwhile is not written");
    assert_eq!(world.answers(), []);
    assert!(world.relay.is_idle());
}

#[test]
fn is_what_arrives_offline_safe_after_a_commit_and_home_when_the_link_is_back() {
    for order in [Order::Strict, Order::LiveFirst] {
        let (mut world, mut disk) = World::with_disk(order);
        world.turn_with(&mut disk);
        world.wait(AWAY);
        for token in 0..20 {
            world.arrive(SURE, &format!("{token:02}"), Some(token));
        }
        world.turn_with(&mut disk);
        assert_eq!(world.answers(), [], "not before the commit");
        world.wait(Duration::from_millis(100));
        world.turn_with(&mut disk);
        assert_eq!(world.answers(), accepted(0..20));
        world.up(Link::Bulk);
        let mut home = Vec::new();
        for _ in 0..100 {
            for sent in world.turn_with(&mut disk) {
                home.push(sent.payload.clone());
                world.answer(&sent, 0);
            }
        }
        assert!(home.is_sorted() && home.len() == 20, "{home:?}");
        world.turn_with(&mut disk);
        assert!(disk.records.is_empty() && world.relay.is_idle());
    }
}

/// More than memory holds: the rest of it stands on disk alone, and comes home in order, with its id.
#[test]
fn does_an_outage_larger_than_memory_come_home_whole_and_in_order() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.turn_with(&mut disk);
    world.wait(AWAY);
    let payload = |number: u32| format!("{number:05}{}", "x".repeat(10_000));
    for token in 0..600 {
        world.arrive(SURE, &payload(token), Some(token));
        world.wait(Duration::from_millis(50));
        world.turn_with(&mut disk);
    }
    world.wait(Duration::from_secs(1));
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), accepted(0..600));
    let (in_memory, on_disk) = world.counts(SURE);
    assert!(
        in_memory < 110 && on_disk == 600 - in_memory,
        "{in_memory} {on_disk}"
    );
    world.up(Link::Bulk);
    let mut home = Vec::new();
    for round in 0..5000 {
        world.wait(Duration::from_millis(1));
        for sent in world.turn_with(&mut disk) {
            // A broken connection in between brings some again, and overtakes nothing.
            if round == 30 {
                world.down(Link::Bulk, false);
                world.up(Link::Bulk);
                break;
            }
            home.push(sent.payload[..5].parse::<u32>().unwrap());
            world.answer(&sent, 0);
        }
    }
    assert_eq!(home, (0..600).collect::<Vec<_>>());
    assert_eq!(world.counts(SURE), (0, 0));
    world.turn_with(&mut disk);
    assert!(disk.records.is_empty());
}

#[test]
fn does_what_an_earlier_start_left_go_first_and_keep_its_identity() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    let mut records = Vec::new();
    for number in 0..7_u64 {
        let mut message = sample("t", format!("old {number}").as_bytes());
        (message.epoch, message.sequence) = (0xabc, number);
        record::write(&mut records, &message, Tick::START);
    }
    let block = Block {
        class: ClassId(SURE),
        first: Position::new(1, 0),
        count: 7,
        opened: Tick::START,
        records,
    };
    let ranges = vec![block.positions()];
    disk.append(block);
    world.report(SpoolReport::Found {
        class: ClassId(SURE),
        ranges,
    });
    assert_eq!(world.counts(SURE), (0, 7));
    world.arrive(SURE, "new", Some(1));
    world.up(Link::Bulk);
    let mut home = Vec::new();
    for _ in 0..40 {
        for sent in world.turn_with(&mut disk) {
            world.answer(&sent, 0);
            home.push(sent);
        }
    }
    let expected = [
        "old 0", "old 1", "old 2", "old 3", "old 4", "old 5", "old 6", "new",
    ];
    assert_eq!(payloads(&home), expected);
    let id = String::from_utf8_lossy(&home[3].properties).into_owned();
    assert!(id.contains("box:abc:3"), "{id}");
    let account = &world.relay.ledger().accounts()[usize::from(SURE)];
    assert_eq!(
        (
            account.found,
            account.received,
            account.ended(Outcome::Delivered)
        ),
        (7, 1, 8)
    );
}

#[test]
fn is_nothing_acknowledged_by_a_disk_that_fails_and_everything_when_it_is_well_again() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.turn_with(&mut disk);
    world.wait(AWAY);
    world.arrive(SURE, "x", Some(1));
    world.turn();
    world.wait(Duration::from_millis(100));
    world.turn();
    let Some(SpoolCommand::Append(block)) = world.relay.take_spool_command() else {
        panic!("it is written");
    };
    world.report(SpoolReport::Health(DiskHealth::Failing("full".into())));
    world.report(SpoolReport::Unwritten {
        class: block.class,
        positions: block.positions(),
        why: Unwritten::Failing,
    });
    world.wait(LATE);
    world.turn_with(&mut disk);
    assert_eq!((world.answers(), disk.bytes), (Vec::new(), 0));
    world.report(SpoolReport::Health(DiskHealth::Well));
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), accepted([1]));
    let second = disk.blocks[0].first;
    assert!(second.segment() > block.first.segment(), "a new segment");
}

#[test]
fn does_a_failing_disk_keep_no_live_message_waiting() {
    let (mut world, _) = World::with_disk(Order::Strict);
    world.report(SpoolReport::Found {
        class: ClassId(FIRST),
        ranges: vec![Position::new(1, 0)..Position::new(1, 9)],
    });
    world.report(SpoolReport::Health(DiskHealth::Failing("no".into())));
    world.up(Link::Bulk);
    world.arrive(FIRST, "alarm", Some(1));
    world.turn();
    world.wait(Duration::from_secs(2));
    let sent: Vec<_> = world.published.clone();
    let sent: Vec<_> = sent.into_iter().chain(world.turn()).collect();
    assert_eq!(payloads(&sent), ["alarm"]);
}

#[test]
fn is_what_is_evicted_counted_and_what_is_in_memory_of_it_kept() {
    let (mut world, mut disk) = World::with_disk(Order::LiveFirst);
    world.turn_with(&mut disk);
    world.wait(AWAY);
    for number in 0..300 {
        world.arrive(NORMAL, &format!("{number:03}{}", "x".repeat(10_000)), None);
        world.wait(Duration::from_secs(1));
        world.turn_with(&mut disk);
    }
    world.wait(Duration::from_secs(6));
    world.turn_with(&mut disk);
    let (in_memory, on_disk) = world.counts(NORMAL);
    assert!(on_disk > 100 && in_memory + on_disk == 300);
    let first = disk.blocks[0].first;
    world.report(SpoolReport::Gone {
        class: ClassId(NORMAL),
        positions: first..Position::new(first.segment() + 1, 0),
        outcome: Outcome::Evicted,
    });
    assert_eq!(world.ended(NORMAL, Outcome::Evicted), on_disk);
    assert_eq!(world.counts(NORMAL), (in_memory, 0));
    assert_eq!(world.ended(NORMAL, Outcome::Shed), 0);
}

#[test]
fn is_everything_acknowledged_written_at_a_stop() {
    let (mut world, mut disk) = World::with_disk(Order::LiveFirst);
    world.up(Link::Bulk);
    world.arrive(SURE, "in flight", Some(1));
    world.arrive(NORMAL, "acknowledged", None);
    world.turn_with(&mut disk);
    world.down(Link::Bulk, false);
    world.arrive(NORMAL, "waits", None);
    assert!(!world.relay.is_written());
    world.relay.stop();
    world.turn_with(&mut disk);
    assert!(world.relay.is_written());
    assert_eq!(world.relay.finish(), 0, "nothing is lost");
    assert_eq!(disk.records.len(), 3);
    assert_eq!((world.counts(SURE), world.counts(NORMAL)), ((0, 1), (0, 2)));
    assert_eq!(world.answers(), accepted([1]));
}

#[test]
fn is_a_doubled_alarm_written_once_and_settled_once() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Urgent);
    world.up(Link::Bulk);
    world.arrive(FIRST, "alarm", Some(1));
    let first = world.turn_with(&mut disk);
    world.wait(Duration::from_secs(3));
    let second = world.turn_with(&mut disk);
    assert_eq!(payloads(&second), ["alarm"]);
    world.wait(LATE);
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(disk.records.len(), 1);
    assert_eq!(world.answers(), accepted([1]));
    world.answer(&second[0], 0);
    world.turn_with(&mut disk);
    assert!(disk.records.is_empty());
    world.answer(&first[0], 0);
    world.turn_with(&mut disk);
    assert!(world.relay.is_idle());
}

#[test]
fn does_the_operator_purge_what_is_on_disk_alone() {
    let (mut world, mut disk) = World::with_disk(Order::LiveFirst);
    world.report(SpoolReport::Found {
        class: ClassId(NORMAL),
        ranges: vec![Position::new(1, 0)..Position::new(1, 9)],
    });
    let positions = [1, 2, 99].map(|index| Position::new(1, index));
    assert_eq!(world.relay.purge(ClassId(NORMAL), &positions), 2);
    assert_eq!(world.counts(NORMAL), (0, 7));
    assert_eq!(world.ended(NORMAL, Outcome::Purged), 2);
    disk.records.clear();
    assert!(
        matches!(world.relay.take_spool_command(), Some(SpoolCommand::Settle(at)) if at == positions[..2])
    );
}

/// Its record would never be settled: it filled the disk, and came again after each start.
#[test]
fn is_a_copy_of_what_the_other_connection_brought_home_not_written() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.report(SpoolReport::Health(DiskHealth::Failing("full".into())));
    world.up(Link::Urgent);
    world.up(Link::Bulk);
    world.arrive(FIRST, "alarm", Some(1));
    let first = world.turn_with(&mut disk);
    world.wait(Duration::from_secs(3));
    let second = world.turn_with(&mut disk);
    world.answer(&second[0], 0);
    world.report(SpoolReport::Health(DiskHealth::Well));
    world.wait(LATE);
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!((disk.bytes, payloads(&first)), (0, vec!["alarm"]));
    world.down(Link::Urgent, false);
    assert!(world.relay.is_idle());
}

/// A start reads the disk in the order in which it was written.
#[test]
fn does_what_is_in_flight_stand_on_disk_before_what_waits_behind_it() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.up(Link::Bulk);
    world.arrive(SURE, "one", Some(1));
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(1900));
    world.arrive(SURE, &format!("two{}", "x".repeat(4000)), Some(2));
    world.turn_with(&mut disk);
    world.arrive(SURE, "three", Some(3));
    assert_eq!(payloads(&world.turn_with(&mut disk)), [""; 0], "it waits");
    world.wait(Duration::from_millis(150));
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(disk.starts(), ["one", "two", "thr"]);
    assert_eq!(world.answers(), accepted([1, 2, 3]));
}

#[test]
fn does_what_could_not_be_written_stand_before_what_came_later() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.turn_with(&mut disk);
    world.wait(AWAY);
    world.arrive(SURE, "one", Some(1));
    world.turn();
    world.wait(Duration::from_millis(100));
    world.turn();
    let Some(SpoolCommand::Append(block)) = world.relay.take_spool_command() else {
        panic!("it is written");
    };
    world.arrive(SURE, "two", Some(2));
    world.turn();
    world.report(SpoolReport::Unwritten {
        class: block.class,
        positions: block.positions(),
        why: Unwritten::Full,
    });
    world.wait(Duration::from_secs(1));
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(disk.starts(), ["one", "two"]);
    assert_eq!(world.answers(), accepted([1, 2]));
}

#[test]
fn does_the_operator_purge_what_waits_in_memory_too_but_not_what_is_in_flight() {
    let (mut world, mut disk) = World::with_disk(Order::Strict);
    world.turn_with(&mut disk);
    world.wait(AWAY);
    for token in 0..4 {
        world.arrive(SURE, "x", Some(token));
    }
    world.turn_with(&mut disk);
    world.wait(Duration::from_millis(100));
    world.turn_with(&mut disk);
    assert_eq!(world.answers(), accepted(0..4));
    let positions: Vec<_> = disk.records.keys().copied().collect();
    assert_eq!((positions.len(), world.counts(SURE)), (4, (4, 0)));
    // Out of the middle, twice.
    for purged in [1, 0] {
        let middle = &positions[1..2];
        assert_eq!(world.relay.purge(ClassId(SURE), middle), purged);
    }
    world.turn_with(&mut disk);
    assert_eq!((disk.records.len(), world.counts(SURE)), (3, (3, 0)));
    world.up(Link::Bulk);
    let sent = world.turn_with(&mut disk);
    let in_flight = sent.len() as u64;
    assert!(in_flight > 0);
    let purged = world.relay.purge(ClassId(SURE), &positions);
    assert_eq!(purged, 3 - in_flight);
    assert_eq!(world.ended(SURE, Outcome::Purged), 1 + purged);
    for sent in &sent {
        world.answer(sent, 0);
    }
    world.turn_with(&mut disk);
    assert!(world.relay.is_idle() && disk.records.is_empty());
    assert_eq!(world.answers(), [], "they were answered by the disk");
}

#[test]
fn is_what_was_read_back_purged_and_its_room_given_back() {
    let (mut world, _) = World::with_disk(Order::LiveFirst);
    let class = ClassId(NORMAL);
    let ends = Position::new(1, 0)..Position::new(1, 3);
    world.report(SpoolReport::Found {
        class,
        ranges: vec![ends.clone()],
    });
    world.relay.pause_replay(None, true);
    world.up(Link::Bulk);
    world.turn();
    let asked = world.relay.take_spool_command();
    assert!(
        matches!(asked, Some(SpoolCommand::Read { .. })),
        "{asked:?}"
    );
    let positions = [0, 1, 2].map(|index| Position::new(1, index));
    let read = |at: &Position| {
        let mut message = sample("t", b"x");
        (message.class, message.epoch) = (class, 99);
        (message.spooled, message.replayed) = (Some(*at), true);
        message.receipt.door = DoorId::NOBODY;
        message
    };
    world.report(SpoolReport::Records {
        class,
        looked_at: ends,
        messages: positions.iter().map(read).collect(),
    });
    assert_eq!(world.counts(NORMAL), (3, 0));
    assert_eq!(world.relay.purge(class, &positions), 3);
    assert_eq!(world.ended(NORMAL, Outcome::Purged), 3);
    assert!(world.relay.is_idle());
    assert_eq!(world.relay.queues().bytes(), 0);
    let settled = world.relay.take_spool_command();
    assert!(matches!(settled, Some(SpoolCommand::Settle(at)) if at == positions));
}
