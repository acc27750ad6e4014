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

/// Pieces of one write; those beyond go with the next one.
const SLICES_MAX: usize = 32;

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
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        if left > WRITE_BYTES_MIN {
            // Most writes are small: they need not ask.
            left = left.min((socket.send_buffer_size()? / WRITE_DIVISOR).max(WRITE_BYTES_MIN));
        }
        let mut cut = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let offered = slices.iter().filter(|slice| !slice.is_empty());
        for (slot, slice) in cut.iter_mut().zip(offered) {
            if left == 0 {
                break;
            }
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            *slot = IoSlice::new(part);
            left -= part.len();
            count += 1;
        }
        socket.send_vectored_with_flags(cut.get(..count).unwrap_or_default(), MSG_EOR)
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test opens both ends")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn does_all_come_in_order_of_many_pieces_of_any_size() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(ours.unwrap());
        socket.send_buffer().unwrap().resize(4096);
        let pieces: Vec<Vec<u8>> = (0..100_u8)
            .map(|n| vec![n; usize::from(n) * if n < 50 { 1 } else { 100 }])
            .collect();
        let all = pieces.concat();
        let send = async {
            let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let written = socket.write_vectored(left).await.unwrap();
                assert!(written > 0);
                IoSlice::advance_slices(&mut left, written);
            }
        };
        let mut came = vec![0; all.len()];
        let (_, read) = tokio::join!(send, theirs.read_exact(&mut came));
        read.unwrap();
        assert!(came == all);
    }
}
