//! What all connections together keep in memory beside the lanes. One connection may have what its
//! settings say, but hundreds at once that outrun the relay may not: the more there is, the less
//! each of them keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes of messages that wait at all connections for room in the lanes. Beyond it each is left
/// [`LEAST_BYTES`]. As much as a busy gateway takes in within some hundred milliseconds.
const UNSENT_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Read buffers of all connections together, unless each has its least.
const BUFFERS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a connection has in any case, of each: some messages for each turn.
const LEAST_BYTES: usize = 2 * 1024;

/// All connections. The figures bound memory and nothing else, so that none waits for another's.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    connections: AtomicUsize,
    unsent_bytes: AtomicU64,
}

/// One connection's place among them; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Crowd>,
    unsent_bytes: u64,
}

impl Member {
    /// One more.
    pub(super) fn of(crowd: &Arc<Crowd>) -> Self {
        crowd.connections.fetch_add(1, Relaxed);
        Self {
            crowd: Arc::clone(crowd),
            unsent_bytes: 0,
        }
    }

    /// So much waits at this connection now.
    #[inline]
    pub(super) fn note(&mut self, unsent_bytes: u64) {
        let before = std::mem::replace(&mut self.unsent_bytes, unsent_bytes);
        let total = &self.crowd.unsent_bytes;
        if unsent_bytes > before {
            total.fetch_add(unsent_bytes - before, Relaxed);
        } else if unsent_bytes < before {
            total.fetch_sub(before - unsent_bytes, Relaxed);
        }
    }

    /// Whether it may keep no more than the `unsent_bytes` that wait at it now. Never of one at which
    /// nothing waits, so that whoever stops for this goes on when the lane takes what it has.
    #[inline]
    pub(super) fn is_crowded(&self, unsent_bytes: u64) -> bool {
        unsent_bytes > LEAST_BYTES as u64
            && self.crowd.unsent_bytes.load(Relaxed) - self.unsent_bytes + unsent_bytes
                > UNSENT_BYTES_MAX
    }

    /// How much it may read at once, if no packet needs more.
    #[inline]
    pub(super) fn buffer_bytes_max(&self) -> usize {
        let connections = self.crowd.connections.load(Relaxed).max(1);
        (BUFFERS_BYTES_MAX / connections).max(LEAST_BYTES)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.note(0);
        self.crowd.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_each_connection_keep_less_the_more_there_is() {
        let crowd = Arc::new(Crowd::default());
        let mut members: Vec<_> = (0..64).map(|_| Member::of(&crowd)).collect();
        let share = UNSENT_BYTES_MAX / 64;
        for member in &mut members {
            assert!(!member.is_crowded(share));
            member.note(share);
        }
        assert!(members[0].is_crowded(share + 1));
        assert!(!members[0].is_crowded(LEAST_BYTES as u64), "its least");
        assert_eq!(members[0].buffer_bytes_max(), BUFFERS_BYTES_MAX / 64);
        members.truncate(1);
        assert!(!members[0].is_crowded(UNSENT_BYTES_MAX));
        assert_eq!(members[0].buffer_bytes_max(), BUFFERS_BYTES_MAX);
        drop(members);
        assert_eq!(crowd.unsent_bytes.load(Relaxed), 0);
    }
}
