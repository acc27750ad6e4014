//! What the scheduler sees of a class: a value, never the queue itself.

/// A class at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// What goes next in the class's own turn; `None` when nothing waits.
    pub own: Option<Source>,
    /// A backlog waits beside it, which has a share of its own.
    pub beside: bool,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The class's queue.
    Live,
    /// What was read back from the spool.
    Backlog,
}
