//! How much of one connection may stand in the kernel and in the network behind it. A window in bytes
//! bounds what is unacknowledged in all, but one message of a megabyte exceeds any window: on a slow link
//! it would fill the modem's buffer for seconds, before the alarms of the other connection. So the
//! socket's send buffer, which holds what the peer's kernel has not taken, follows the link. In come the
//! bytes that the socket took and when; out goes the size of the buffer. Pure.
//!
//! The signal is what a full buffer takes to pass, by Little's law its size over its rate; the rule is
//! the window's: double while nothing queues, shrink to where queueing costs the target.

use std::time::Duration;

use super::window::TARGET_DELAY;
use crate::traffic::message::Tick;

/// The least: what the kernel grants at least (three segments), 150 ms at 256 kbit/s.
pub(super) const BUFFER_BYTES_MIN: u64 = 4608;
/// The most: 1 MB a second over a round trip of 120 ms, and all that a message of that size can have in
/// the network.
pub(super) const BUFFER_BYTES_MAX: u64 = 128 * 1024;

/// The buffer of one connection.
#[derive(Debug)]
pub(super) struct Throat {
    bytes: u64,
    /// What a round trip takes when nothing queues.
    base: Duration,
    /// Since the outbox was last empty: the bytes that the socket had taken then, and, once the buffer
    /// was filled, when the present round began and at which total.
    busy_from: Option<u64>,
    round: Option<(Tick, u64)>,
}

impl Throat {
    /// Of a connection whose TCP took so long to connect, and whose CONNECT so long to be answered: a
    /// server may think long before that, and the SYN may have been lost, so that the shorter one counts.
    pub(super) fn new(connected_in: Duration, answered_in: Duration) -> Self {
        Self {
            bytes: BUFFER_BYTES_MIN,
            base: connected_in.min(answered_in),
            busy_from: None,
            round: None,
        }
    }

    /// The size of the buffer.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The socket has taken `total` bytes; with `more` it left some. Says the buffer's new size if it
    /// is to change.
    pub(super) fn took(&mut self, total: u64, more: bool, now: Tick) -> Option<u64> {
        if !more {
            (self.busy_from, self.round) = (None, None);
            return None;
        }
        let busy_from = *self.busy_from.get_or_insert(total);
        let Some((since, from)) = self.round else {
            // What fills the buffer is taken at once and says nothing of the link.
            if total - busy_from >= self.bytes {
                self.round = Some((now, total));
            }
            return None;
        };
        if total - from < self.bytes {
            return None;
        }
        let time = now.since(since) * u32::try_from(self.bytes).unwrap_or(u32::MAX)
            / u32::try_from(total - from).unwrap_or(u32::MAX).max(1);
        self.round = Some((now, total));
        self.steer(time)
    }

    fn steer(&mut self, time: Duration) -> Option<u64> {
        let before = self.bytes;
        let queueing = time.saturating_sub(self.base);
        if queueing < TARGET_DELAY * 3 / 4 {
            self.bytes *= 2;
        } else if queueing > TARGET_DELAY {
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let wanted = micros(self.base + TARGET_DELAY);
            self.bytes = self.bytes.saturating_mul(wanted) / micros(time).max(1);
        }
        self.bytes = self.bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        if self.bytes != before {
            // The buffer is filled anew, or drained, before it says something again.
            (self.busy_from, self.round) = (None, None);
        }
        (self.bytes != before).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a megabyte over a link of so many bytes a second; gives the buffer at its end and
    /// how long it took.
    fn send(throat: &mut Throat, rate: u64, round_trip: Duration) -> (u64, Duration) {
        let (mut now, mut total) = (Tick::ZERO, 0);
        let piece = 1448;
        while total < 1024 * 1024 {
            let _ = throat.took(total, true, now);
            total += piece;
            // What stands in the buffer goes at the link's rate, and not faster than once a round trip.
            let of_link = Duration::from_micros(piece * 1_000_000 / rate);
            let of_window =
                round_trip * u32::try_from(piece).unwrap() / u32::try_from(throat.bytes()).unwrap();
            now = now.after(of_link.max(of_window));
        }
        let _ = throat.took(total, false, now);
        (throat.bytes(), now.since(Tick::ZERO))
    }

    #[test]
    fn does_a_large_message_stand_in_the_modem_of_a_slow_link() {
        let mut throat = throat(Duration::from_millis(20));
        assert_eq!(
            send(&mut throat, 32_000, Duration::from_millis(20)).0,
            BUFFER_BYTES_MIN
        );
        // Of a faster link no more than the target delay, and the round trip.
        let (bytes, _) = send(&mut throat, 500_000, Duration::from_millis(20));
        let delay = Duration::from_micros(bytes * 1_000_000 / 500_000);
        assert!(
            delay <= Duration::from_millis(20) + TARGET_DELAY,
            "{delay:?}"
        );
        assert!(bytes > 10_000, "{bytes}");
    }

    fn throat(round_trip: Duration) -> Throat {
        Throat::new(round_trip, round_trip)
    }

    /// Or a lost SYN.
    #[test]
    fn does_a_server_that_thinks_long_before_connack_make_a_slow_link_one_with_a_long_way() {
        let ms = Duration::from_millis;
        for (connected_in, answered_in) in [(ms(20), ms(900)), (ms(1_020), ms(20))] {
            let mut throat = Throat::new(connected_in, answered_in);
            let (bytes, _) = send(&mut throat, 64_000, ms(20));
            assert_eq!(bytes, BUFFER_BYTES_MIN);
        }
    }

    #[test]
    fn is_a_satellite_link_used() {
        let round_trip = Duration::from_millis(600);
        let (bytes, time) = send(&mut throat(round_trip), 1_000_000, round_trip);
        assert_eq!(bytes, BUFFER_BYTES_MAX);
        assert!(time < Duration::from_secs(11), "{time:?}");
    }

    #[test]
    fn is_a_fast_link_found_fast_within_a_few_rounds() {
        let round_trip = Duration::from_micros(200);
        let (bytes, _) = send(&mut throat(round_trip), 100_000_000, round_trip);
        assert_eq!(bytes, BUFFER_BYTES_MAX);
    }

    #[test]
    fn does_an_idle_time_count_as_a_slow_link() {
        let mut throat = throat(Duration::from_millis(1));
        for second in 0..100 {
            let total = second * 100_000;
            let now = Tick::from_micros(second * 1_000_000);
            assert_eq!(throat.took(total, second % 2 == 0, now), None);
        }
    }
}
