//! A connection's end of the two lanes to the relay. In come classified messages; out go batches when
//! the lane has room. A full lane of the rest never keeps the connection from reading on, so that
//! an urgent message behind bulk still gets through: what waits here is bounded by the connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::mpsc::{OwnedPermit, Sender};

use crate::clock::Clock;
use crate::traffic::lanes::{BATCH_BYTES_MAX, Batch, Lanes};
use crate::traffic::message::{ClassId, DoorId, Message};

/// The relay has ended: nothing can be handed over any more.
#[derive(Debug)]
pub(super) struct RelayGone;

type Reserving = Pin<Box<dyn Future<Output = Result<OwnedPermit<Batch>, SendError<()>>> + Send>>;

/// Both lanes, seen from a connection.
pub(super) struct LaneEnds {
    urgent: LaneEnd,
    rest: LaneEnd,
    /// Payloads that a condition could not read since the last batch.
    pub(super) unreadable: u32,
}

impl LaneEnds {
    pub(super) fn new(lanes: &Lanes, clock: Clock) -> Self {
        Self {
            urgent: LaneEnd::new(lanes.urgent.clone(), clock),
            rest: LaneEnd::new(lanes.rest.clone(), clock),
            unreadable: 0,
        }
    }

    /// A message for the lane of its class.
    #[inline]
    pub(super) fn push(&mut self, message: Message) {
        match message.class {
            ClassId::FIRST => self.urgent.waiting.push(message),
            _ => self.rest.waiting.push(message),
        }
    }

    /// Bytes of the QoS 0 messages that wait here; the others are in the session's count.
    #[inline]
    pub(super) const fn untracked_bytes(&self) -> u64 {
        self.urgent.waiting.untracked_bytes + self.rest.waiting.untracked_bytes
    }

    /// Hands over what the lanes take. Ready when nothing waits here.
    pub(super) fn poll_send(
        &mut self,
        door: DoorId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayGone>> {
        let urgent = self.urgent.poll_send(door, &mut self.unreadable, cx)?;
        let rest = self.rest.poll_send(door, &mut self.unreadable, cx)?;
        if urgent.is_ready() && rest.is_ready() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Hands over all that is left.
    pub(super) async fn finish(&mut self, door: DoorId) -> Result<(), RelayGone> {
        poll_fn(|cx| self.poll_send(door, cx)).await
    }

    /// Drops the waiting messages that their sender will bring again; gives their tokens.
    pub(super) fn drop_tracked(&mut self) -> Vec<u32> {
        let mut tokens = self.urgent.waiting.drop_tracked();
        tokens.extend(self.rest.waiting.drop_tracked());
        tokens
    }
}

struct LaneEnd {
    lane: Sender<Batch>,
    clock: Clock,
    waiting: Waiting,
    reserving: Option<Reserving>,
}

#[derive(Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    /// Bytes of waiting messages that nobody is told about.
    untracked_bytes: u64,
    /// How many messages the last batch had: the next one most likely has as many.
    last_len: usize,
}

#[derive(Default)]
struct Parcel {
    messages: Vec<Message>,
    bytes: u64,
}

impl LaneEnd {
    fn new(lane: Sender<Batch>, clock: Clock) -> Self {
        Self {
            lane,
            clock,
            waiting: Waiting::default(),
            reserving: None,
        }
    }

    fn poll_send(
        &mut self,
        door: DoorId,
        unreadable: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayGone>> {
        while !self.waiting.parcels.is_empty() {
            if self.reserving.is_none() {
                match self.lane.try_reserve() {
                    Ok(permit) => {
                        if let Some(batch) = self.waiting.batch(door, self.clock, unreadable) {
                            permit.send(batch);
                        }
                        continue;
                    }
                    Err(TrySendError::Closed(())) => return Poll::Ready(Err(RelayGone)),
                    Err(TrySendError::Full(())) => {
                        self.reserving = Some(Box::pin(self.lane.clone().reserve_owned()));
                    }
                }
            }
            if let Some(reserving) = &mut self.reserving {
                let permit = ready!(reserving.as_mut().poll(cx)).map_err(|_| RelayGone);
                self.reserving = None;
                match (permit, self.waiting.batch(door, self.clock, unreadable)) {
                    (Ok(permit), Some(batch)) => drop(permit.send(batch)),
                    (Err(gone), _) => return Poll::Ready(Err(gone)),
                    (Ok(_), None) => {}
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Waiting {
    #[inline]
    fn push(&mut self, message: Message) {
        let bytes = message.memory_bytes();
        if message.receipt.token.is_none() {
            self.untracked_bytes += bytes;
        }
        match self.parcels.back_mut() {
            Some(last) if last.bytes + bytes <= BATCH_BYTES_MAX => last.put(message, bytes),
            _ => {
                let mut parcel = Parcel {
                    messages: Vec::with_capacity(self.last_len.max(1)),
                    bytes: 0,
                };
                parcel.put(message, bytes);
                self.parcels.push_back(parcel);
            }
        }
    }

    fn batch(&mut self, door: DoorId, clock: Clock, unreadable: &mut u32) -> Option<Batch> {
        let parcel = self.parcels.pop_front()?;
        self.last_len = parcel.messages.len();
        if self.untracked_bytes > 0 {
            self.untracked_bytes -= parcel.untracked_bytes();
        }
        Some(Batch {
            door,
            at: clock.now(),
            messages: parcel.messages,
            unreadable: std::mem::take(unreadable),
        })
    }

    fn drop_tracked(&mut self) -> Vec<u32> {
        let mut tokens = Vec::new();
        for parcel in &mut self.parcels {
            parcel.messages.retain(|message| {
                tokens.extend(message.receipt.token);
                message.receipt.token.is_none()
            });
        }
        self.parcels.retain(|parcel| !parcel.messages.is_empty());
        tokens
    }
}

impl Parcel {
    #[inline]
    fn put(&mut self, message: Message, bytes: u64) {
        self.messages.push(message);
        self.bytes += bytes;
    }

    fn untracked_bytes(&self) -> u64 {
        self.messages
            .iter()
            .filter(|message| message.receipt.token.is_none())
            .map(Message::memory_bytes)
            .sum()
    }
}
