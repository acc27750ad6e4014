//! What waits for the link and need not all arrive: for each slot (a channel, or the report) the
//! newest message. In come messages, out goes the one that is due the longest; it holds as many as
//! there are slots, never more.

use heapless::LinearMap;

use crate::message::{Kind, Message};
use crate::sampler::CHANNELS_MAX;

/// A slot for each channel, and one for the report.
const SLOTS: usize = CHANNELS_MAX + 1;

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    slots: LinearMap<(Kind, u8), Message, SLOTS>,
}

impl Latest {
    /// Keeps `message` and gives back what it replaces: the older one of its slot, or itself when
    /// it is of a channel that no device has.
    pub(crate) fn keep(&mut self, message: Message) -> Option<Message> {
        let slot = (message.kind(), message.channel);
        match self.slots.insert(slot, message) {
            Ok(older) => older,
            Err((_, refused)) => Some(refused),
        }
    }

    /// Takes the message that was due first.
    pub(crate) fn take_oldest(&mut self) -> Option<Message> {
        let (&slot, _) = self.slots.iter().min_by_key(|(_, message)| message.due)?;
        self.slots.remove(&slot)
    }

    /// The kind of what [`Self::take_oldest`] would give.
    pub(crate) fn oldest_kind(&self) -> Option<Kind> {
        let oldest = self.slots.values().min_by_key(|message| message.due)?;
        Some(oldest.kind())
    }

    /// What waits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.slots.values()
    }
}
