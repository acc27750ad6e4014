//! What the scheduler sees of a queue: a value, never the queue itself.

/// A class's queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// Payload, topic and property bytes of the message at the front; `None` when nothing waits.
    pub next_bytes: Option<u64>,
}
