//! What an operator may change of a spool in use: asked of the relay, which alone knows where each
//! message is, over the drive.

use tokio::sync::{mpsc, oneshot};

use super::Position;
use crate::traffic::message::ClassId;

/// Requests that may wait. Operators take turns.
const REQUESTS_MAX: usize = 4;

/// One wish. An answer that nobody waits for is dropped.
#[derive(Debug)]
pub enum SpoolRequest {
    /// Stop the replay of a class, or of all, or let it go on; answers whether any of it was stopped
    /// before.
    Pause(Option<ClassId>, bool, oneshot::Sender<bool>),
    /// Try these dead letters of a class again now; answers how many of them there are.
    Again(ClassId, Vec<Position>, oneshot::Sender<u64>),
    /// Remove these messages; answers how many were removed. What is on its way to the upstream, or
    /// ended meanwhile, is not.
    Purge(ClassId, Vec<Position>, oneshot::Sender<u64>),
}

/// For who asks.
pub type Requests = mpsc::Sender<SpoolRequest>;
/// For the drive.
pub type Requested = mpsc::Receiver<SpoolRequest>;

/// The channel from who asks to the drive.
#[must_use]
pub fn channel() -> (Requests, Requested) {
    mpsc::channel(REQUESTS_MAX)
}
