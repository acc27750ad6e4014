//! What the doors and the relay say to each other. Everything goes in batches over bounded
//! channels; the relay never waits for a door.
//!
//! Two lanes lead from the doors to the relay, so that an urgent message overtakes already there.
//! A door that cannot put a batch into the lane of the rest keeps reading as far as its own bound
//! allows, so that an urgent message behind bulk still gets through.

use tokio::sync::{mpsc, oneshot};

use super::message::{DoorId, Message, Tick};

/// Batches that the lane of the first class holds.
pub const URGENT_LANE_BATCHES: usize = 256;
/// Batches that the lane of the rest holds: with [`BATCH_BYTES_MAX`] at most 4 MiB wait there.
pub const REST_LANE_BATCHES: usize = 64;
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
}

/// What a door tells the relay about itself.
#[derive(Debug)]
pub enum DoorEvent {
    /// A new sender. The relay answers with its id.
    Open {
        /// Where its notices go. The relay never waits: a full channel closes the door, so its
        /// capacity must be at least the door's unanswered messages plus two.
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
    pub urgent: mpsc::Sender<Batch>,
    /// For all others.
    pub rest: mpsc::Sender<Batch>,
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
