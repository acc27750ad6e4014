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
    /// Stop the replay, or let it go on; answers whether it was stopped before.
    Pause(bool, oneshot::Sender<bool>),
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
