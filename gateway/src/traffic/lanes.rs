//! What the doors and the relay say to each other. Everything goes in batches over bounded
//! channels; the relay never waits for a door.
//!
//! Two lanes lead from the doors to the relay, so that an urgent message overtakes already there.
//! A door that cannot put a batch into the lane of the rest keeps reading as far as its own bound
//! allows, so that an urgent message behind bulk still gets through. Each connection takes turns: it
//! has one batch in a lane at a time, so that one which floods is followed by all others.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use super::message::{ClassId, DoorId, Message, Tick};

/// Batches that the lane of the first class holds.
pub const URGENT_LANE_BATCHES: usize = 256;
/// Batches that the lane of the rest holds.
pub const REST_LANE_BATCHES: usize = 64;
/// Bytes of [`Message::memory_bytes`] that the lane of the rest holds, for a batch may be one message
/// of megabytes: nearly as much as a full lane has of ordinary batches. A larger batch goes alone.
pub const REST_LANE_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// The same of the lane of the first class, which waits for the disk at most, and never for the brake.
pub const URGENT_LANE_BYTES_MAX: u64 = 1024 * 1024;
/// The lanes count in KiB, so that any number fits what a semaphore takes.
const UNIT_BYTES: u64 = 1024;
/// A door closes a batch at this many bytes of [`Message::memory_bytes`] (one larger message may
/// stand alone).
pub const BATCH_BYTES_MAX: u64 = 64 * 1024;

/// Messages of one door and one lane, in the order of receipt.
#[derive(Debug)]
pub struct Batch {
    /// Who sent them.
    pub door: DoorId,
    /// When the batch was put into the lane.
    pub at: Tick,
    /// The messages; never empty.
    pub messages: Vec<Message>,
    /// Payloads that a rule's condition could not read since the door's last batch.
    pub unreadable: u32,
    /// Topics that its door forgot since its last batch, for want of memory.
    pub forgotten: u32,
    /// What it takes of the lane, free again when the relay has taken it in; see [`Place::put`].
    pub room: Option<Room>,
}

impl Batch {
    /// Whether it has messages of a class.
    #[must_use]
    pub fn brings(&self, class: ClassId) -> bool {
        self.messages.iter().any(|message| message.class == class)
    }
}

/// What a batch takes of its lane; dropping it makes it free.
#[derive(Debug)]
pub struct Room {
    _bytes: OwnedSemaphorePermit,
    turn: Option<Turn>,
}

impl Room {
    /// Frees all but the turn of its sender, which can be given back later.
    #[must_use]
    pub fn into_turn(self) -> Option<Turn> {
        self.turn
    }
}

/// One connection's turns in one lane.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// The turn of one connection: until it is dropped, the connection puts no other batch into the lane.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is kept")] OwnedSemaphorePermit);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// The turn, if the connection has no batch in the lane.
    #[must_use]
    pub fn try_take(&self) -> Option<Turn> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Turn)
    }

    /// Waits for it. Cancel safe. It is never closed, so that there always comes one.
    pub async fn take(self) -> Option<Turn> {
        self.0.acquire_owned().await.ok().map(Turn)
    }
}

/// A door's end of one lane.
#[derive(Clone, Debug)]
pub struct Lane {
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    bytes_max: u64,
}

/// Room for one batch in a lane.
#[derive(Debug)]
pub struct Place {
    slot: mpsc::OwnedPermit<Batch>,
    room: OwnedSemaphorePermit,
}

/// Why a lane takes no batch now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// It is full.
    Full,
    /// The relay has ended.
    Closed,
}

impl Lane {
    /// A lane for so many batches of so many bytes in all, and the relay's end of it.
    #[must_use]
    pub fn new(batches_max: usize, bytes_max: u64) -> (Self, mpsc::Receiver<Batch>) {
        let (batches, taken) = mpsc::channel(batches_max);
        let lane = Self {
            batches,
            room: Arc::new(Semaphore::new(units(bytes_max) as usize)),
            bytes_max,
        };
        (lane, taken)
    }

    /// Room for a batch of so many bytes, if there is some now.
    ///
    /// # Errors
    /// There is none.
    pub fn try_reserve(&self, bytes: u64) -> Result<Place, NoPlace> {
        let slot = self.batches.clone().try_reserve_owned();
        let slot = slot.map_err(|error| match error {
            TrySendError::Full(_) => NoPlace::Full,
            TrySendError::Closed(_) => NoPlace::Closed,
        })?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.units(bytes));
        let room = room.map_err(|error| match error {
            TryAcquireError::NoPermits => NoPlace::Full,
            TryAcquireError::Closed => NoPlace::Closed,
        })?;
        Ok(Place { slot, room })
    }

    /// Waits for room for a batch of so many bytes; `None`: the relay has ended. Cancel safe.
    pub async fn reserve(&self, bytes: u64) -> Option<Place> {
        // A slot last: whoever has one waits for nobody.
        let room = Arc::clone(&self.room).acquire_many_owned(self.units(bytes));
        let room = room.await.ok()?;
        let slot = self.batches.clone().reserve_owned().await.ok()?;
        Some(Place { slot, room })
    }

    /// What a batch takes of the room; all of it if it is larger.
    fn units(&self, bytes: u64) -> u32 {
        units(bytes.min(self.bytes_max))
    }
}

impl Place {
    /// Puts the batch of a connection whose turn it is into the lane.
    pub fn put(self, mut batch: Batch, turn: Option<Turn>) {
        batch.room = Some(Room {
            _bytes: self.room,
            turn,
        });
        self.slot.send(batch);
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// What a sender is told about one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Acknowledge it: it is safe, or its class does not wait for that.
    Accepted,
    /// Refuse it where the protocol can say so, else acknowledge: it will not be taken.
    Refused(Refusal),
}

/// Why a message is not taken, for the sender that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Larger than the uplink takes (MQTT 5: 0x83 with a reason string; PUBACK has no 0x95).
    TooLarge,
    /// Its class is full (MQTT 5: 0x97). Never said of a guaranteed class.
    Full,
    /// The upstream refuses it for good (MQTT 5: 0x83 with a reason string).
    Upstream,
}

/// What the relay tells a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The message with this token is answered; the token is free again.
    Answer {
        /// The door's name for the message.
        token: u32,
        /// The answer.
        answer: Answer,
    },
    /// The message with this token is not kept: forget it and tell nobody, its sender brings it again.
    Returned {
        /// The door's name for the message.
        token: u32,
    },
    /// Messages of this door are held: stop reading.
    Held,
    /// Nothing of this door is held any more: read on.
    Released,
    /// Read on at this share of the rate at which messages came; 1000: as they come.
    Slowed {
        /// The share, in 1/1000.
        permille: u32,
    },
}

/// What a door tells the relay about itself.
#[derive(Debug)]
pub enum DoorEvent {
    /// A new sender. The relay answers with its id.
    Open {
        /// Where its notices go. The relay never waits: a full channel closes the door, so its
        /// capacity must be at least the door's unanswered messages plus a few.
        notices: mpsc::Sender<Vec<Notice>>,
        /// How the sender is called in logs.
        client: std::sync::Arc<str>,
        /// True for a source: it speaks for a whole site, so `client_max` does not bind it.
        site: bool,
        /// Where the id goes.
        id: oneshot::Sender<DoorId>,
    },
    /// Give back what is held of this sender: it was closed and will bring it again.
    Withdraw {
        /// The sender.
        door: DoorId,
        /// When it was closed. What it put into a lane after that came on its next connection,
        /// and stays.
        at: Tick,
    },
    /// The sender is gone for good: nobody waits for its notices.
    Close(DoorId),
}

/// The doors' ends of the lanes.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// For messages of the first class.
    pub urgent: Lane,
    /// For all others.
    pub rest: Lane,
    /// For doors that come and go.
    pub doors: mpsc::Sender<DoorEvent>,
}

/// How far the gateway's shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Running.
    Run,
    /// Nothing new is accepted and nothing more is read; notices are still passed on.
    Drain,
    /// Connections are closed, without wills.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        Batch {
            door: DoorId {
                index: 0,
                generation: 0,
            },
            at: Tick::ZERO,
            messages: Vec::new(),
            unreadable: 0,
            forgotten: 0,
            room: None,
        }
    }

    #[tokio::test]
    async fn is_a_lane_bounded_in_bytes_and_does_a_larger_batch_go_alone() {
        let (lane, mut taken) = Lane::new(REST_LANE_BATCHES, REST_LANE_BYTES_MAX);
        for _ in 0..2 {
            lane.try_reserve(REST_LANE_BYTES_MAX / 2)
                .unwrap()
                .put(batch(), None);
        }
        assert_eq!(lane.try_reserve(1).unwrap_err(), NoPlace::Full);
        drop(taken.recv().await);
        let larger = lane.reserve(10 * REST_LANE_BYTES_MAX);
        tokio::pin!(larger);
        tokio::select! {
            biased;
            _ = &mut larger => panic!("there is no room for it"),
            () = std::future::ready(()) => {}
        }
        drop(taken.recv().await);
        larger.await.unwrap().put(batch(), None);
        assert_eq!(lane.try_reserve(1).unwrap_err(), NoPlace::Full);
        drop(taken.recv().await);
        assert!(lane.try_reserve(1).is_ok());
        drop(taken);
        assert_eq!(lane.try_reserve(1).unwrap_err(), NoPlace::Closed);
        assert!(lane.reserve(1).await.is_none());
    }

    #[tokio::test]
    async fn is_a_turn_over_when_its_batch_is_taken_in() {
        let (lane, mut taken) = Lane::new(REST_LANE_BATCHES, REST_LANE_BYTES_MAX);
        let turns = Turns::default();
        let turn = turns.try_take();
        assert!(turn.is_some() && turns.try_take().is_none());
        lane.try_reserve(1).unwrap().put(batch(), turn);
        let batch = taken.recv().await.unwrap();
        assert!(turns.try_take().is_none());
        drop(batch);
        assert!(turns.try_take().is_some());
    }
}
