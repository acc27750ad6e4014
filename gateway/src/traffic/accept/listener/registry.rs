//! Who sits where: one seat for each client id that is connected or whose session is kept. The
//! task that holds the seat's lock owns the session; a newcomer claims the seat, which makes the
//! holder leave, and waits for the lock. The newest claim wins.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};

use super::lane::Unsent;
use crate::traffic::accept::decode::Will;
use crate::traffic::accept::session::Session;
use crate::traffic::lanes::Notice;
use crate::traffic::message::{DoorId, Tick};

/// A session and its way to the relay, while it passes from one connection to the next.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) session: Session,
    pub(super) notices: mpsc::Receiver<Vec<Notice>>,
    pub(super) door: DoorId,
    /// Whether the relay holds messages of this session.
    pub(super) held: bool,
    /// The share of its rate, in 1/1000, at which the relay wants it read.
    pub(super) slowed_permille: u32,
    /// The will that waits for its delay, and when that is over.
    pub(super) will: Option<(Will, Tick)>,
}

/// What a connection leaves to the next one of its client.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The session, unless it is over.
    pub(super) kept: Option<Kept>,
    /// What the lanes had no room for.
    pub(super) unsent: Unsent,
}

/// A seat that is held: its content is what the last holder left behind.
pub(super) type Seated = OwnedMutexGuard<Left>;

/// All seats.
pub(super) struct Registry {
    inner: Mutex<Inner>,
    sessions_max: usize,
}

#[derive(Default)]
struct Inner {
    seats: HashMap<Arc<str>, Arc<Seat>>,
    /// Sessions whose client is away, oldest first.
    parked: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
}

struct Seat {
    claims: watch::Sender<u64>,
    content: Arc<tokio::sync::Mutex<Left>>,
}

/// One connection's claim to a seat.
pub(super) struct Claim {
    id: Arc<str>,
    seat: Arc<Seat>,
    number: u64,
    claims: watch::Receiver<u64>,
}

/// A parked session's place in the order of leaving.
pub(super) struct Parking {
    number: u64,
    /// Ready when the session must make room for a younger one.
    pub(super) evicted: oneshot::Receiver<()>,
}

impl Registry {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            sessions_max,
        }
    }

    /// Claims the seat of a client id; whoever holds it will leave.
    pub(super) fn claim(&self, id: &str) -> Claim {
        let mut inner = self.lock();
        let seat = match inner.seats.get(id) {
            Some(seat) => Arc::clone(seat),
            None => {
                let seat = Arc::new(Seat::empty());
                inner.seats.insert(Arc::from(id), Arc::clone(&seat));
                seat
            }
        };
        let mut number = 0;
        seat.claims.send_modify(|claims| {
            *claims += 1;
            number = *claims;
        });
        Claim {
            id: Arc::from(id),
            number,
            claims: seat.claims.subscribe(),
            seat,
        }
    }

    /// The session is over. The seat goes, unless somebody waits for it.
    pub(super) fn vacate(&self, claim: &Claim) {
        let mut inner = self.lock();
        if *claim.seat.claims.borrow() == claim.number {
            inner.seats.remove(&claim.id);
        }
    }

    /// The session's client is away. The oldest such session makes room when there are too many.
    pub(super) fn park(&self) -> Parking {
        let (evict, evicted) = oneshot::channel();
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.parked.insert(number, evict);
        if inner.parked.len() > self.sessions_max
            && let Some((_, oldest)) = inner.parked.pop_first()
        {
            // Its task may be leaving on its own at this moment; then nobody needs to be told.
            let _ = oldest.send(());
        }
        Parking { number, evicted }
    }

    /// The session is over or taken up again.
    pub(super) fn unpark(&self, parking: &Parking) {
        self.lock().parked.remove(&parking.number);
    }

    #[cfg(test)]
    pub(super) fn parked(&self) -> usize {
        self.lock().parked.len()
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> usize {
        self.lock().seats.len()
    }

    /// The maps are whole at every await and panic-free between, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn empty() -> Self {
        Self {
            claims: watch::Sender::new(0),
            content: Arc::default(),
        }
    }
}

impl Claim {
    /// Waits until the seat is free. `None`: a newer claim came. Whoever claimed must wait here:
    /// the holder leaves its session to the newest claim.
    pub(super) async fn sit(&self) -> Option<Seated> {
        let content = Arc::clone(&self.seat.content);
        tokio::select! {
            biased;
            () = self.superseded() => None,
            seated = content.lock_owned() => Some(seated),
        }
    }

    /// Ready when a newer claim came.
    pub(super) fn superseded(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut claims = self.claims.clone();
        let number = self.number;
        // The sender lives in the seat, which the claim keeps.
        let seat = Arc::clone(&self.seat);
        async move {
            let _ = claims.wait_for(|newest| *newest > number).await;
            drop(seat);
        }
    }
}
