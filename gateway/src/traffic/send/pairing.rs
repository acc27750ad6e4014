//! Whether the upstream lets two connections live side by side. Some clouds allow one connection
//! for each device, certificate or user: they refuse the second, or let each new one end the other.
//! Then the urgent connection gives way and the bulk one carries everything. In come what the two
//! links saw, out goes the decision. Pure.

use std::fmt;
use std::time::Duration;

use super::Link;
use crate::traffic::accept::Protocol;
use crate::traffic::message::Tick;

/// How long the urgent connection rests before it is tried again: clouds change their minds when
/// somebody changes their settings, which takes people minutes.
pub(super) const REST: Duration = Duration::from_secs(600);
/// One connection's coming up and the other's end within this time belong together. Brokers end the
/// old connection in the moment of the new one; the rest is the way there and back.
const TOGETHER: Duration = Duration::from_secs(5);
/// Signs that could be chance, in a row, before the urgent connection gives way.
const SIGNS: u8 = 2;

/// How a connection, or the try to make one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// CONNACK refused it with this code.
    Refused(u8),
    /// The upstream closed it: without a word, or with this DISCONNECT reason.
    ClosedByPeer(Option<u8>),
    /// Anything else: the network, a time-out, our own wish.
    Other,
}

/// Why one connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OneOnly {
    /// The second was refused with this code while the first was up.
    Refused(u8),
    /// The second was closed each time at its start while the first stayed up.
    Closed,
    /// Each new connection ended the other.
    TakeOver,
}

impl fmt::Display for OneOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(
                f,
                "it refuses a second one with code 0x{code:02X} while the first is up"
            ),
            Self::Closed => {
                f.write_str("it closes a second one at its start while the first stays up")
            }
            Self::TakeOver => f.write_str("each new connection ends the other there"),
        }
    }
}

/// What the two links saw of each other.
#[derive(Debug)]
pub(super) struct Pairing {
    protocol: Protocol,
    /// The urgent link's, the bulk link's.
    seen: [Seen; 2],
    takeovers: u8,
    closings: u8,
    rest_until: Option<Tick>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Since when it is up.
    up: Option<Up>,
    /// When the upstream last closed it.
    closed: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct Up {
    since: Tick,
    /// The other link was up before this one came.
    second: bool,
}

impl Pairing {
    pub(super) const fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            seen: [Seen {
                up: None,
                closed: None,
            }; 2],
            takeovers: 0,
            closings: 0,
            rest_until: None,
        }
    }

    /// Until when the urgent link rests, if it does.
    pub(super) fn rest(&self, link: Link, now: Tick) -> Option<Tick> {
        self.rest_until
            .filter(|&until| link == Link::Urgent && now < until)
    }

    /// A link came up; it had said CONNECT at `asked`. Says so when the two cannot live together.
    pub(super) fn up(&mut self, link: Link, asked: Tick, now: Tick) -> Option<OneOnly> {
        let other = *self.of(link.other());
        let second = other.up.is_some();
        self.of(link).up = Some(Up { since: now, second });
        // The end of the other can be seen before the CONNACK that brought it about.
        let ended_other = !second && other.closed.is_some_and(|closed| closed >= asked);
        if ended_other {
            return self.took_over(now);
        }
        // Both were gone: what looked like signs was the end of both.
        if !second && self.rest_until.is_none() {
            self.forget();
        }
        None
    }

    /// A link that was up ended. Says so when the two cannot live together.
    pub(super) fn down(&mut self, link: Link, ending: Ending, now: Tick) -> Option<OneOnly> {
        let up = self.of(link).up.take()?;
        let Ending::ClosedByPeer(reason) = ending else {
            return None;
        };
        self.of(link).closed = Some(now);
        let other = self.of(link.other()).up?;
        if other.second && now.since(other.since) <= TOGETHER && other.since >= up.since {
            return self.took_over(now);
        }
        let lived = now.since(up.since);
        if lived > TOGETHER && now.since(other.since) > TOGETHER {
            self.forget();
        }
        let closed_at_start = link == Link::Urgent && lived <= TOGETHER;
        if closed_at_start && reason.is_none_or(speaks_of_a_second) {
            return self.closed(now);
        }
        None
    }

    /// A try to connect ended without coming up. Says so when the two cannot live together.
    pub(super) fn failed(&mut self, link: Link, ending: Ending, now: Tick) -> Option<OneOnly> {
        if link != Link::Urgent || self.of(Link::Bulk).up.is_none() {
            return None;
        }
        match ending {
            Ending::Refused(code) if self.refuses_a_second(code) => {
                self.give_way(OneOnly::Refused(code), now)
            }
            Ending::ClosedByPeer(_) => self.closed(now),
            _ => None,
        }
    }

    /// CONNACK codes that, while the bulk link is up with the same credentials, speak of the second
    /// connection itself: its client id, its right to be there, or the number of connections.
    const fn refuses_a_second(&self, code: u8) -> bool {
        match self.protocol {
            Protocol::V311 => matches!(code, 0x02 | 0x05),
            Protocol::V5 => matches!(code, 0x85 | 0x87 | 0x97 | 0x9F),
        }
    }

    fn took_over(&mut self, now: Tick) -> Option<OneOnly> {
        self.takeovers = self.takeovers.saturating_add(1);
        if self.takeovers < SIGNS {
            return None;
        }
        self.give_way(OneOnly::TakeOver, now)
    }

    fn closed(&mut self, now: Tick) -> Option<OneOnly> {
        self.closings = self.closings.saturating_add(1);
        if self.closings < SIGNS {
            return None;
        }
        self.give_way(OneOnly::Closed, now)
    }

    /// The counts stay where they are: after the rest, one more sign is enough. Said once a rest:
    /// when the urgent link stays in between, the bulk one's return ends it with one more sign.
    fn give_way(&mut self, why: OneOnly, now: Tick) -> Option<OneOnly> {
        let is_news = self.rest_until.is_none_or(|until| now >= until);
        self.rest_until = Some(now.after(REST));
        is_news.then_some(why)
    }

    /// The two lived side by side, or neither lived: no sign counts.
    const fn forget(&mut self) {
        (self.takeovers, self.closings) = (0, 0);
        self.rest_until = None;
    }

    const fn of(&mut self, link: Link) -> &mut Seen {
        let [urgent, bulk] = &mut self.seen;
        match link {
            Link::Urgent => urgent,
            Link::Bulk => bulk,
        }
    }
}

/// DISCONNECT reasons that can be about the other connection: not authorised, session taken over,
/// quota, administrative action, connection rate (MQTT 5, 3.14.2.1).
const fn speaks_of_a_second(reason: u8) -> bool {
    matches!(reason, 0x87 | 0x8E | 0x97 | 0x98 | 0x9F)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Link::{Bulk, Urgent};

    const CUT: Ending = Ending::ClosedByPeer(None);

    fn at(millis: u64) -> Tick {
        Tick::from_micros(1_000 * millis)
    }

    fn pairing() -> Pairing {
        Pairing::new(Protocol::V5)
    }

    #[test]
    fn do_two_that_take_each_other_over_end_as_one() {
        let mut pairing = pairing();
        assert_eq!(pairing.up(Bulk, at(0), at(10)), None);
        assert_eq!(pairing.up(Urgent, at(20), at(30)), None);
        assert_eq!(pairing.down(Bulk, CUT, at(31)), None);
        assert_eq!(pairing.up(Bulk, at(400), at(410)), None);
        assert_eq!(pairing.down(Urgent, CUT, at(411)), Some(OneOnly::TakeOver));
        assert_eq!(pairing.rest(Urgent, at(412)), Some(at(411).after(REST)));
        assert_eq!(pairing.rest(Bulk, at(412)), None);
        assert_eq!(pairing.rest(Urgent, at(411).after(REST)), None);
    }

    #[test]
    fn is_a_take_over_known_when_the_end_is_seen_before_the_connack() {
        let mut pairing = pairing();
        pairing.up(Bulk, at(0), at(10));
        pairing.down(Bulk, CUT, at(25));
        assert_eq!(pairing.up(Urgent, at(20), at(30)), None);
        pairing.down(Urgent, CUT, at(405));
        assert_eq!(pairing.up(Bulk, at(400), at(410)), Some(OneOnly::TakeOver));
    }

    #[test]
    fn is_it_said_once_when_the_urgent_one_came_last() {
        let mut pairing = pairing();
        pairing.up(Urgent, at(0), at(10));
        pairing.up(Bulk, at(20), at(30));
        assert_eq!(pairing.down(Urgent, CUT, at(31)), None);
        pairing.up(Urgent, at(400), at(410));
        assert_eq!(pairing.down(Bulk, CUT, at(411)), Some(OneOnly::TakeOver));
        pairing.up(Bulk, at(800), at(810));
        assert_eq!(pairing.down(Urgent, CUT, at(811)), None);
        assert!(pairing.rest(Urgent, at(812)).is_some());
    }

    #[test]
    fn does_one_more_sign_do_after_the_rest() {
        let mut pairing = pairing();
        pairing.up(Bulk, at(0), at(10));
        pairing.up(Urgent, at(20), at(30));
        pairing.down(Bulk, CUT, at(31));
        pairing.up(Bulk, at(400), at(410));
        pairing.down(Urgent, CUT, at(411));
        pairing.up(Urgent, at(700_000), at(700_010));
        assert_eq!(
            pairing.down(Bulk, CUT, at(700_011)),
            Some(OneOnly::TakeOver)
        );
    }

    #[test]
    fn does_a_broker_that_restarts_again_and_again_keep_two() {
        let mut pairing = pairing();
        for round in 0..20 {
            let start = round * 2_000;
            assert_eq!(pairing.up(Bulk, at(start), at(start + 10)), None);
            assert_eq!(pairing.up(Urgent, at(start + 5), at(start + 15)), None);
            let first = if round % 2 == 0 { Urgent } else { Bulk };
            assert_eq!(pairing.down(first, CUT, at(start + 900)), None);
            assert_eq!(pairing.down(first.other(), CUT, at(start + 901)), None);
        }
    }

    #[test]
    fn is_a_refused_second_given_up_at_once_and_a_refused_first_not() {
        for (protocol, code) in [
            (Protocol::V311, 2),
            (Protocol::V311, 5),
            (Protocol::V5, 0x85),
            (Protocol::V5, 0x87),
            (Protocol::V5, 0x97),
            (Protocol::V5, 0x9F),
        ] {
            let mut pairing = Pairing::new(protocol);
            let refused = Ending::Refused(code);
            assert_eq!(pairing.failed(Urgent, refused, at(0)), None, "nobody is up");
            pairing.up(Bulk, at(0), at(10));
            assert_eq!(
                pairing.failed(Urgent, refused, at(20)),
                Some(OneOnly::Refused(code))
            );
            assert!(pairing.rest(Urgent, at(21)).is_some());
        }
        let mut pairing = pairing();
        pairing.up(Urgent, at(0), at(10));
        assert_eq!(pairing.failed(Bulk, Ending::Refused(0x87), at(20)), None);
    }

    #[test]
    fn are_busy_codes_and_broken_networks_no_sign() {
        let mut pairing = pairing();
        pairing.up(Bulk, at(0), at(10));
        for ending in [Ending::Refused(0x88), Ending::Refused(0x89), Ending::Other] {
            (0..9).for_each(|n| assert_eq!(pairing.failed(Urgent, ending, at(20 + n)), None));
        }
    }

    #[test]
    fn is_a_second_that_is_closed_at_its_start_twice_given_up() {
        let mut pairing = pairing();
        pairing.up(Bulk, at(0), at(10));
        pairing.up(Urgent, at(20_000), at(20_010));
        assert_eq!(
            pairing.down(Urgent, Ending::ClosedByPeer(Some(0x97)), at(20_020)),
            None
        );
        assert_eq!(
            pairing.failed(Urgent, CUT, at(21_000)),
            Some(OneOnly::Closed)
        );
    }

    #[test]
    fn does_an_end_after_a_good_time_wipe_the_signs() {
        let mut pairing = pairing();
        pairing.up(Bulk, at(0), at(10));
        assert_eq!(pairing.failed(Urgent, CUT, at(20)), None);
        pairing.up(Urgent, at(500), at(510));
        assert_eq!(pairing.down(Urgent, CUT, at(90_000)), None);
        assert_eq!(pairing.failed(Urgent, CUT, at(90_500)), None);
    }
}
