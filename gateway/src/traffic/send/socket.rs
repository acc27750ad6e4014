//! The TCP socket to the upstream. Its send buffer can be made small and then is: Linux lets one write
//! append up to half of the peer's window, some 40 KiB, to what waits in the socket, whatever the size of
//! the buffer. So a write is cut to a part of it, and marked as a record of its own (MSG_EOR), to which
//! nothing is appended. In come bytes, out go bytes; it decides nothing.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Linux: no byte of a later write joins these.
const MSG_EOR: i32 = 0x80;
/// One segment: the least that one write is cut to.
const WRITE_BYTES_MIN: usize = 1448;
/// The part of the buffer that one write may fill, and exceed it by.
const WRITE_DIVISOR: usize = 4;

/// The socket.
pub(super) struct Socket(TcpStream);

/// Its send buffer. On a slow link what waits must stand in the gateway, where it can be re-ordered,
/// and not there.
#[derive(Debug)]
pub(super) struct SendBuffer(OwnedFd);

impl Socket {
    /// A socket whose buffer is still as large as the system makes it.
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    pub(super) fn send_buffer(&self) -> io::Result<SendBuffer> {
        Ok(SendBuffer(self.0.as_fd().try_clone_to_owned()?))
    }

    /// What is offered of these bytes at once.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = SockRef::from(&self.0);
        let mut left = (socket.send_buffer_size()? / WRITE_DIVISOR).max(WRITE_BYTES_MIN);
        let mut cut = Vec::with_capacity(slices.len());
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            cut.push(IoSlice::new(part));
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        socket.send_vectored_with_flags(&cut, MSG_EOR)
    }
}

impl SendBuffer {
    /// Makes it so large. Bytes that are in it already stay.
    pub(super) fn resize(&self, bytes: u64) {
        // The kernel doubles what it is told, for its own bookkeeping.
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        // A connection whose buffer cannot be changed keeps its size; it is only less well-behaved.
        let _ = SockRef::from(&self.0).set_send_buffer_size(half);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, || self.write(slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
