//! A connection's end of the two lanes to the relay. In come classified messages; out go batches when
//! the lane has room. A full lane of the rest never keeps the connection from reading on, so that
//! an urgent message behind bulk still gets through: what waits here is bounded by the connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::clock::Clock;
use crate::traffic::lanes::{BATCH_BYTES_MAX, Batch, Lane, Lanes, NoPlace, Place, Turn, Turns};
use crate::traffic::message::{ClassId, DoorId, Message};

/// The relay has ended: nothing can be handed over any more.
#[derive(Debug)]
pub(super) struct RelayGone;

/// What the end of a lane waits for, which may never come when the relay has ended.
type Waits<T> = Pin<Box<dyn Future<Output = Option<T>> + Send>>;

/// Both lanes, seen from a connection.
pub(super) struct LaneEnds {
    door: DoorId,
    clock: Clock,
    urgent: LaneEnd,
    rest: LaneEnd,
    pub(super) unsent: Unsent,
}

/// Messages that found no room in the lanes yet. They go from a connection to the next one of its
/// client, which sends them before its own.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    urgent: Waiting,
    rest: Waiting,
    /// Payloads that a condition could not read since the last batch.
    pub(super) unreadable: u32,
    /// Topics that were forgotten since the last batch.
    pub(super) forgotten: u32,
}

impl LaneEnds {
    /// Lanes of this door, into which goes first what an earlier connection left `unsent`.
    pub(super) fn new(lanes: &Lanes, clock: Clock, door: DoorId, mut unsent: Unsent) -> Self {
        unsent.urgent.adopt(door);
        unsent.rest.adopt(door);
        Self {
            door,
            clock,
            urgent: LaneEnd::new(lanes.urgent.clone()),
            rest: LaneEnd::new(lanes.rest.clone()),
            unsent,
        }
    }

    /// Bytes of what waits here, except of what the session counts.
    #[inline]
    pub(super) const fn untracked_bytes(&self) -> u64 {
        self.unsent.urgent.untracked_bytes + self.unsent.rest.untracked_bytes
    }

    /// Hands over what the lanes take. Ready when nothing waits here.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayGone>> {
        let Unsent {
            urgent,
            rest,
            unreadable,
            forgotten,
        } = &mut self.unsent;
        let mut batch = |waiting: &mut Waiting| {
            let mut batch = waiting.batch(self.door, self.clock)?;
            batch.unreadable = std::mem::take(unreadable);
            batch.forgotten = std::mem::take(forgotten);
            Some(batch)
        };
        let urgent = self.urgent.poll_send(urgent, &mut batch, cx)?;
        let rest = self.rest.poll_send(rest, &mut batch, cx)?;
        if urgent.is_ready() && rest.is_ready() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Hands over all that is left. Cancel safe: what is not handed over stays here.
    pub(super) async fn finish(&mut self) -> Result<(), RelayGone> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Drops the waiting messages that their sender will bring again; gives their tokens.
    pub(super) fn drop_tracked(&mut self) -> Vec<u32> {
        let mut tokens = self.unsent.urgent.drop_tracked(self.door);
        tokens.extend(self.unsent.rest.drop_tracked(self.door));
        // With nothing left to send nobody polls these again, and they would keep a place of others.
        self.urgent.let_go();
        self.rest.let_go();
        tokens
    }
}

impl Unsent {
    /// A message for the lane of its class.
    #[inline]
    pub(super) fn push(&mut self, message: Message) {
        match message.class {
            ClassId::FIRST => self.urgent.push(message),
            _ => self.rest.push(message),
        }
    }

    /// Bytes of all that waits.
    #[inline]
    pub(super) const fn bytes(&self) -> u64 {
        self.urgent.bytes + self.rest.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.parcels.is_empty() && self.rest.parcels.is_empty()
    }

    /// Hands over what no connection will any more.
    pub(super) async fn hand_over(self, lanes: &Lanes, clock: Clock) {
        let parcels = self.urgent.parcels.iter().chain(&self.rest.parcels);
        let mut messages = parcels.flat_map(|parcel| &parcel.messages);
        // Each batch needs a sender; whom to answer stands in the messages.
        let Some(door) = messages.next().map(|message| message.receipt.door) else {
            return;
        };
        // A relay that is gone takes nothing more.
        let _ = LaneEnds::new(lanes, clock, door, self).finish().await;
    }
}

struct LaneEnd {
    lane: Lane,
    turns: Turns,
    next: Next,
}

/// How far the next batch is.
enum Next {
    /// Nothing is waited for.
    Idle,
    /// The last batch is not taken in yet.
    Turn(Waits<Turn>),
    /// The lane has no room.
    Place(Turn, Waits<Place>),
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    bytes: u64,
    /// Bytes of waiting messages that no session counts: nobody is told about them, or only an
    /// earlier session could have been.
    untracked_bytes: u64,
    /// How many messages the last batch had: the next one most likely has as many.
    last_len: usize,
}

#[derive(Debug, Default)]
struct Parcel {
    messages: Vec<Message>,
    bytes: u64,
}

impl LaneEnd {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            turns: Turns::default(),
            next: Next::Idle,
        }
    }

    fn poll_send(
        &mut self,
        waiting: &mut Waiting,
        batch: &mut impl FnMut(&mut Waiting) -> Option<Batch>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayGone>> {
        while let Some(parcel) = waiting.parcels.front() {
            let (turn, place) = ready!(self.poll_place(parcel.bytes, cx))?;
            if let Some(batch) = batch(waiting) {
                place.put(batch, Some(turn));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// This connection's turn, and room for so many bytes.
    fn poll_place(
        &mut self,
        bytes: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Turn, Place), RelayGone>> {
        let turn = match std::mem::replace(&mut self.next, Next::Idle) {
            Next::Idle => self.turns.try_take(),
            Next::Turn(mut turn) => match turn.as_mut().poll(cx) {
                Poll::Ready(turn) => turn,
                Poll::Pending => {
                    self.next = Next::Turn(turn);
                    return Poll::Pending;
                }
            },
            Next::Place(turn, place) => return self.wait_for_place(turn, place, cx),
        };
        let Some(turn) = turn else {
            self.next = Next::Turn(Box::pin(self.turns.clone().take()));
            return self.poll_place(bytes, cx);
        };
        match self.lane.try_reserve(bytes) {
            Ok(place) => Poll::Ready(Ok((turn, place))),
            Err(NoPlace::Closed) => Poll::Ready(Err(RelayGone)),
            Err(NoPlace::Full) => {
                // What is added to this parcel meanwhile has no room of its own: less than
                // BATCH_BYTES_MAX, and the lane's number of batches bounds that.
                let lane = self.lane.clone();
                let place = Box::pin(async move { lane.reserve(bytes).await });
                self.wait_for_place(turn, place, cx)
            }
        }
    }

    fn wait_for_place(
        &mut self,
        turn: Turn,
        mut place: Waits<Place>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Turn, Place), RelayGone>> {
        match place.as_mut().poll(cx) {
            Poll::Ready(Some(place)) => Poll::Ready(Ok((turn, place))),
            Poll::Ready(None) => Poll::Ready(Err(RelayGone)),
            Poll::Pending => {
                self.next = Next::Place(turn, place);
                Poll::Pending
            }
        }
    }

    /// Waits for nothing any more.
    fn let_go(&mut self) {
        self.next = Next::Idle;
    }
}

impl Waiting {
    #[inline]
    fn push(&mut self, message: Message) {
        let bytes = message.memory_bytes();
        self.bytes += bytes;
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

    fn batch(&mut self, door: DoorId, clock: Clock) -> Option<Batch> {
        let parcel = self.parcels.pop_front()?;
        self.last_len = parcel.messages.len();
        self.bytes -= parcel.bytes;
        if self.untracked_bytes > 0 {
            self.untracked_bytes -= parcel.untracked_bytes(door);
        }
        Some(Batch {
            door,
            at: clock.now(),
            messages: parcel.messages,
            unreadable: 0,
            forgotten: 0,
            room: None,
        })
    }

    /// From now on this door's session counts.
    fn adopt(&mut self, door: DoorId) {
        let untracked = self
            .parcels
            .iter()
            .map(|parcel| parcel.untracked_bytes(door));
        self.untracked_bytes = untracked.sum();
    }

    fn drop_tracked(&mut self, door: DoorId) -> Vec<u32> {
        let mut tokens = Vec::new();
        for parcel in &mut self.parcels {
            parcel.messages.retain(|message| {
                let tracked = is_tracked(message, door);
                tokens.extend(message.receipt.token.filter(|_| tracked));
                !tracked
            });
        }
        self.parcels.retain(|parcel| !parcel.messages.is_empty());
        self.bytes = self.parcels.iter().map(|parcel| parcel.bytes).sum();
        tokens
    }
}

impl Parcel {
    #[inline]
    fn put(&mut self, message: Message, bytes: u64) {
        self.messages.push(message);
        self.bytes += bytes;
    }

    fn untracked_bytes(&self, door: DoorId) -> u64 {
        self.messages
            .iter()
            .filter(|message| !is_tracked(message, door))
            .map(Message::memory_bytes)
            .sum()
    }
}

/// Whether the session of this door waits for the answer to a message, and counts it.
fn is_tracked(message: &Message, door: DoorId) -> bool {
    message.receipt.token.is_some() && message.receipt.door == door
}
