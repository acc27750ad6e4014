//! Bytes on their way into one connection's socket. In come whole packets, out they go in order,
//! many with one system call; PINGREQ goes between two of them. It counts what the socket has
//! taken, so that the relay knows how much waits here. No clock, no socket of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

const PINGREQ: [u8; 2] = [0xC0, 0];
/// Pieces for one system call: batches are kilobytes, so that this fills any send buffer.
const PIECES_MAX: usize = 16;

/// What waits to be written on one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whole packets each; the first may be written in part.
    pieces: VecDeque<Vec<u8>>,
    first_written: usize,
    /// PINGREQ bytes still to write; the ping stands before `pieces`, or after their first when
    /// that one is written in part.
    ping: Option<usize>,
    total: u64,
    unflushed: bool,
}

impl Outbox {
    /// Puts whole packets behind what waits.
    pub(super) fn push(&mut self, packets: Vec<u8>) {
        if !packets.is_empty() {
            self.pieces.push_back(packets);
        }
    }

    /// Puts a PINGREQ before what waits, behind what is already begun.
    pub(super) fn push_ping(&mut self) {
        self.ping.get_or_insert(0);
    }

    /// Whether a PINGREQ waits.
    pub(super) const fn ping_waits(&self) -> bool {
        self.ping.is_some()
    }

    /// Whether there is something to write or to flush.
    pub(super) fn is_busy(&self) -> bool {
        self.unflushed || self.ping.is_some() || !self.pieces.is_empty()
    }

    /// Bytes of packets that the socket has taken.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Writes once and flushes (TLS keeps a record back until then). Ready when that is through;
    /// what was begun survives when the caller looks elsewhere in between.
    pub(super) fn poll_write(
        &mut self,
        mut writer: Pin<&mut (impl AsyncWrite + ?Sized)>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unflushed {
            let written = self.poll_pieces(writer.as_mut(), context);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
            self.unflushed = true;
        }
        ready!(writer.poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_pieces(
        &self,
        writer: Pin<&mut (impl AsyncWrite + ?Sized)>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let ping = self.ping_left();
        let begun = self.first_written > 0;
        let mut slices = [IoSlice::new(&[]); PIECES_MAX + 1];
        let mut count = 0;
        let mut add = |bytes| {
            if let Some(slot) = slices.get_mut(count) {
                *slot = IoSlice::new(bytes);
                count += 1;
            }
        };
        if !begun {
            add(ping);
        }
        for (index, piece) in self.pieces.iter().take(PIECES_MAX).enumerate() {
            let written = if index == 0 { self.first_written } else { 0 };
            add(piece.get(written..).unwrap_or_default());
            if index == 0 && begun {
                add(ping);
            }
        }
        writer.poll_write_vectored(context, slices.get(..count).unwrap_or_default())
    }

    fn ping_left(&self) -> &'static [u8] {
        const BYTES: &[u8] = &PINGREQ;
        self.ping
            .and_then(|written| BYTES.get(written..))
            .unwrap_or_default()
    }

    /// Takes `written` bytes off the front, in the order in which they were offered.
    fn advance(&mut self, written: usize) {
        let mut left = written;
        if self.first_written > 0 {
            left = self.advance_first(left);
        }
        if self.first_written == 0 {
            left = self.advance_ping(left);
        }
        while left > 0 && !self.pieces.is_empty() {
            left = self.advance_first(left);
        }
    }

    fn advance_ping(&mut self, left: usize) -> usize {
        let taken = left.min(self.ping_left().len());
        self.ping = self
            .ping
            .map(|written| written + taken)
            .filter(|&w| w < PINGREQ.len());
        left - taken
    }

    fn advance_first(&mut self, left: usize) -> usize {
        let Some(first) = self.pieces.front() else {
            return left;
        };
        let taken = left.min(first.len().saturating_sub(self.first_written));
        self.first_written += taken;
        self.total = self.total.saturating_add(taken as u64);
        if self.first_written == first.len() {
            self.pieces.pop_front();
            self.first_written = 0;
        }
        left - taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes a given number of bytes at each write.
    struct Narrow {
        taken: Vec<u8>,
        takes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.takes);
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            let count = all.len().min(self.takes);
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write_once(outbox: &mut Outbox, socket: &mut Narrow) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(done) = outbox.poll_write(Pin::new(socket), &mut context) else {
            panic!("the socket was ready");
        };
        done.unwrap();
    }

    #[test]
    fn does_everything_arrive_in_order_and_counted_however_narrow_the_socket() {
        for takes in 1..12 {
            let mut socket = Narrow {
                taken: Vec::new(),
                takes,
            };
            let mut outbox = Outbox::default();
            (0..40).for_each(|n| outbox.push(vec![n; 3]));
            while outbox.is_busy() {
                write_once(&mut outbox, &mut socket);
            }
            let wanted: Vec<u8> = (0..40).flat_map(|n| [n; 3]).collect();
            assert_eq!(socket.taken, wanted);
            assert_eq!(outbox.total(), 120);
        }
    }

    #[test]
    fn does_a_ping_go_between_whole_packets_and_uncounted() {
        for takes in 1..9 {
            let mut socket = Narrow {
                taken: Vec::new(),
                takes,
            };
            let mut outbox = Outbox::default();
            outbox.push(vec![1; 4]);
            outbox.push(vec![2; 4]);
            write_once(&mut outbox, &mut socket);
            outbox.push_ping();
            while outbox.is_busy() {
                write_once(&mut outbox, &mut socket);
            }
            let split = if takes <= 4 { 4 } else { 8 };
            let mut wanted = vec![1, 1, 1, 1, 2, 2, 2, 2];
            wanted.splice(split..split, PINGREQ);
            assert_eq!(socket.taken, wanted, "{takes} bytes at a time");
            assert_eq!(outbox.total(), 8);
            assert!(!outbox.ping_waits());
        }
    }
}
