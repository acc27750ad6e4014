//! A far end that somebody else runs: a server of the caller's own tells it what arrives. In come
//! topics and payloads, while the run lasts, from whatever thread; out come [`Arrivals`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arrivals::Arrivals;
use crate::clock::Clock;

/// What arrives at a server of the caller's own. Copies are the same far end; it serves one run.
#[derive(Clone, Debug, Default)]
pub struct FarEnd(Arc<Mutex<Option<Seen>>>);

#[derive(Debug)]
struct Seen {
    clock: Clock,
    arrivals: Arrivals,
    arrived: u64,
}

impl FarEnd {
    /// A message arrived just now; whether it is one of the run that had not arrived before. Before
    /// the run none is.
    pub fn note(&self, topic: &[u8], payload: &[u8]) -> bool {
        self.lock().as_mut().is_some_and(|seen| {
            let new = seen.arrivals.arrived(topic, payload, seen.clock.now());
            seen.arrived += u64::from(new);
            new
        })
    }

    /// How many different messages of the run arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.lock().as_ref().map_or(0, |seen| seen.arrived)
    }

    /// Shows what arrived; before the run there is nothing to show.
    pub fn with<T>(&self, read: impl FnOnce(Option<&Arrivals>) -> T) -> T {
        read(self.lock().as_ref().map(|seen| &seen.arrivals))
    }

    /// The run begins.
    pub(crate) fn begin(&self, clock: Clock, arrivals: Arrivals) {
        *self.lock() = Some(Seen {
            clock,
            arrivals,
            arrived: 0,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
