//! How senders are slowed. Two ways: devices of a class under pressure are told to be read at a share of
//! their rate (`throttle`), and a sender of much of the first class waits for its next turn in the
//! lane, so that one which floods does not fill the queue before the alarms of others. Its
//! acknowledgements would slow it, but QoS 0 has none.

use std::time::Duration;

use super::super::lanes::{Room, Turn};
use super::super::message::{ClassId, DoorId, Tick};
use super::super::queue::pressure::Level;
use super::Relay;

/// What one sender may occupy of the first class before its next batch (64 KiB at most) waits: some fifty alarms.
/// A flood of QoS 0 then keeps 250 before those of others; with 64 KiB it kept 400, and 1 of 100 of theirs was
/// 107 ms late beside it, on an uplink of 5,000 messages a second.
const FIRST_CLASS_BYTES_MAX: u64 = 16 * 1024;
/// The longest that it waits: the queue has room, and on a slow link so much may stay for long.
const TURN_KEPT_MAX: Duration = Duration::from_millis(250);

/// Turns that senders get later.
#[derive(Debug, Default)]
pub(super) struct Slowing {
    turns: Vec<(DoorId, Tick, Turn)>,
}

impl Slowing {
    /// When the first turn is given back at the latest.
    pub(super) fn deadline(&self) -> Tick {
        let until = |(_, at, _): &(DoorId, Tick, Turn)| at.after(TURN_KEPT_MAX);
        self.turns.iter().map(until).min().unwrap_or(Tick::NEVER)
    }
}

impl Relay {
    /// A batch was taken in: its sender may bring the next one, or soon.
    pub(super) fn end_turn(&mut self, sender: DoorId, room: Option<Room>, now: Tick) {
        let turn = room.and_then(Room::into_turn);
        if let Some(turn) = turn.filter(|_| self.fills_first_class(sender)) {
            self.slowing.turns.push((sender, now, turn));
        }
    }

    /// Gives back the turns of those that fill the first class no more, or waited long.
    pub(super) fn give_turns_back(&mut self, now: Tick) {
        let mut turns = std::mem::take(&mut self.slowing.turns);
        turns.retain(|(sender, at, _)| {
            self.fills_first_class(*sender) && now.since(*at) < TURN_KEPT_MAX
        });
        self.slowing.turns = turns;
    }

    fn fills_first_class(&self, sender: DoorId) -> bool {
        let first = self.queues.class(ClassId::FIRST);
        // A source speaks for a whole site.
        !self.senders.is_site(sender)
            && first.occupied(sender) > FIRST_CLASS_BYTES_MAX
            && self.outbound.any_up()
            && !self.spool.is_stopping()
    }

    /// Tells devices at what share of their rate they are read.
    pub(super) fn slow_senders(&mut self) {
        if self
            .classes
            .iter()
            .all(|class| class.throttle_permille >= 1000)
        {
            return;
        }
        let (queues, classes) = (&self.queues, &self.classes);
        self.senders.slow(|class| match classes.get(class.index()) {
            Some(settings) if queues.class(class).level() > Level::Calm => {
                settings.throttle_permille
            }
            _ => 1000,
        });
    }
}
