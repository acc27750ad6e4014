//! The sink's book: it tells the fleet's far end what arrived, which knows every message by its device and
//! its number, and counts what only this benchmark asks of a message.

use std::time::Instant;

use firmware_sim::watch::FarEnd;

use crate::sink::Book;
use crate::wire::{Malformed, Publish};

/// What arrived of one play of the fleet.
#[derive(Default)]
pub(crate) struct Tally {
    /// Knows which messages are new, late and repeated.
    pub(crate) far_end: FarEnd,
    /// Messages with a user property, repeats included.
    pub(crate) with_id: u64,
    /// When the last new message arrived.
    pub(crate) last_arrival: Option<Instant>,
}

impl Book for Tally {
    fn record(&mut self, publish: &Publish<'_>, now: Instant) -> Result<(), Malformed> {
        self.with_id += u64::from(publish.has_user_property()?);
        if self.far_end.note(publish.topic, publish.payload) {
            self.last_arrival = Some(now);
        }
        Ok(())
    }
}
