//! What was read from a connection and not yet taken: small while the device is quiet, up to
//! 64 KiB while it is busy and few others are, and as large as one packet where a packet is larger.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// An idle connection keeps this much, so that a thousand of them take half a megabyte.
const IDLE_BYTES: usize = 512;
/// A busy connection reads this much at once: some hundred messages for each system call.
const BUSY_BYTES: usize = 64 * 1024;

/// A read buffer; empty until the first read.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// What is not taken yet.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `len` unread bytes are taken.
    #[inline]
    pub(super) fn take(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Reads once. 0: the end of the stream. With `grow` the buffer gets larger when it is full or
    /// was filled, to read up to `busy_bytes` at once; without, a full buffer is never ready.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        grow: bool,
        busy_bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.make_room(grow) {
            return Poll::Pending;
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let space = room.len();
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.end += read;
        let busy_bytes = busy_bytes.min(BUSY_BYTES);
        if grow && read == space && self.bytes.len() * 2 <= busy_bytes {
            self.enlarge();
        }
        Poll::Ready(Ok(read))
    }

    /// Whether there is room behind the unread bytes, which are moved to the front.
    fn make_room(&mut self, grow: bool) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() && (grow || self.bytes.is_empty()) {
            self.enlarge();
        }
        self.end < self.bytes.len()
    }

    /// Doubling follows what has really come: a packet that announces a megabyte and sends nothing
    /// takes nothing. Bounded by the largest packet, since nothing larger is ever waited for.
    fn enlarge(&mut self) {
        let len = (self.bytes.len() * 2).max(IDLE_BYTES);
        self.bytes.resize(len, 0);
    }

    /// Gives back what is more than a busy connection may have and nothing stands in.
    pub(super) fn keep_at_most(&mut self, busy_bytes: usize) {
        if self.bytes.len() > busy_bytes.max(IDLE_BYTES) && self.end <= busy_bytes {
            self.bytes.truncate(busy_bytes);
            self.bytes.shrink_to_fit();
        }
    }

    /// Whether it is larger than an idle connection needs.
    pub(super) fn is_grown(&self) -> bool {
        self.bytes.len() > self.unread().len().max(IDLE_BYTES)
    }

    /// Gives back what an idle connection does not need. Unread bytes stay.
    pub(super) fn shrink(&mut self) {
        let unread = self.unread();
        let len = unread.len().max(IDLE_BYTES);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(unread);
        self.end = unread.len();
        self.start = 0;
        bytes.resize(len, 0);
        self.bytes = bytes;
    }
}
