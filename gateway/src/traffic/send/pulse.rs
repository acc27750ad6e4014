//! The keep-alive of one connection (MQTT 5, 3.1.2.10): when to say PINGREQ, and when the peer is
//! dead. In come the moments at which bytes went and came, out goes what to do. Pure.

use std::time::Duration;

use crate::traffic::message::Tick;

/// What the keep-alive asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before this tick.
    Wait(Tick),
    /// Say PINGREQ.
    Ping,
    /// Nothing came for one and a half intervals although a PINGREQ asked for it.
    Dead,
}

/// The keep-alive of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    interval: Duration,
    sent: Tick,
    received: Tick,
    ping: Ping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    None,
    /// Waits behind bytes that the socket does not take. Whether the peer is alive cannot be told
    /// from here then; TCP_USER_TIMEOUT tells it.
    Queued,
    Asked(Tick),
}

impl Pulse {
    /// A connection that came up at `now`; a zero interval means no keep-alive.
    pub(super) const fn new(interval: Duration, now: Tick) -> Self {
        Self {
            interval,
            sent: now,
            received: now,
            ping: Ping::None,
        }
    }

    /// Bytes were received.
    pub(super) const fn received(&mut self, now: Tick) {
        self.received = now;
        if matches!(self.ping, Ping::Asked(_)) {
            self.ping = Ping::None;
        }
    }

    /// Bytes went into the socket; `ping_waits`: not the PINGREQ yet.
    pub(super) fn sent(&mut self, now: Tick, ping_waits: bool) {
        self.sent = now;
        if self.ping == Ping::Queued && !ping_waits {
            self.ping = Ping::Asked(now);
        }
    }

    /// What to do at `now`. A [`Beat::Ping`] is said once; queue it.
    pub(super) fn beat(&mut self, now: Tick) -> Beat {
        if self.interval.is_zero() {
            return Beat::Wait(Tick::NEVER);
        }
        match self.ping {
            Ping::None if now >= self.sent.after(self.interval) => {
                self.ping = Ping::Queued;
                Beat::Ping
            }
            Ping::None => Beat::Wait(self.sent.after(self.interval)),
            Ping::Queued => Beat::Wait(now.after(self.interval / 2)),
            Ping::Asked(at) => self.judge(now, at),
        }
    }

    /// At least half an interval for the answer, also when nothing came for long before.
    fn judge(&self, now: Tick, asked: Tick) -> Beat {
        let half = self.interval / 2;
        let dead = self
            .received
            .after(self.interval + half)
            .max(asked.after(half));
        if now >= dead {
            Beat::Dead
        } else {
            Beat::Wait(dead)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn is_a_quiet_connection_pinged_and_an_answered_one_left_alone() {
        let mut pulse = Pulse::new(KEEP_ALIVE, at(0));
        assert_eq!(pulse.beat(at(0)), Beat::Wait(at(10)));
        assert_eq!(pulse.beat(at(10)), Beat::Ping);
        pulse.sent(at(10), false);
        assert_eq!(pulse.beat(at(11)), Beat::Wait(at(15)));
        pulse.received(at(12));
        assert_eq!(pulse.beat(at(12)), Beat::Wait(at(20)));
    }

    #[test]
    fn is_a_silent_peer_dead_after_one_and_a_half_intervals() {
        let mut pulse = Pulse::new(KEEP_ALIVE, at(0));
        assert_eq!(pulse.beat(at(10)), Beat::Ping);
        pulse.sent(at(10), false);
        assert_eq!(pulse.beat(at(15)), Beat::Dead);
    }

    #[test]
    fn has_a_peer_that_owed_nothing_time_to_answer() {
        let mut pulse = Pulse::new(KEEP_ALIVE, at(0));
        pulse.sent(at(9), false);
        assert_eq!(pulse.beat(at(19)), Beat::Ping);
        pulse.sent(at(19), false);
        assert_eq!(pulse.beat(at(19)), Beat::Wait(at(24)));
        assert_eq!(pulse.beat(at(24)), Beat::Dead);
    }

    #[test]
    fn does_a_ping_behind_a_full_socket_condemn_nobody() {
        let mut pulse = Pulse::new(KEEP_ALIVE, at(0));
        assert_eq!(pulse.beat(at(10)), Beat::Ping);
        pulse.sent(at(30), true);
        assert!(matches!(pulse.beat(at(100)), Beat::Wait(_)));
        pulse.sent(at(100), false);
        assert_eq!(pulse.beat(at(100)), Beat::Wait(at(105)));
    }

    #[test]
    fn does_zero_switch_it_off() {
        assert_eq!(
            Pulse::new(Duration::ZERO, at(0)).beat(at(9_999)),
            Beat::Wait(Tick::NEVER)
        );
    }
}
