//! The main loop's side: everything between a message and its acknowledgement. In come readings,
//! alarms, the time and what the link reports; out go [`Step`]s for whoever owns the socket. It
//! never does a step itself.
//!
//! The order of sending: what must go again, then alarms, then the latest of each channel.

use core::num::NonZeroU16;
use core::time::Duration;

use heapless::spsc::Consumer;

use crate::backoff::Backoff;
use crate::counts::{ByKind, Counts};
use crate::flight::{Flight, IN_FLIGHT_MAX};
use crate::latest::Latest;
use crate::message::{Kind, Message};
use crate::tick::Tick;

/// Places of the window that only alarms may take: a slow gateway must not fill it with readings.
const ALARM_RESERVE: usize = 4;
/// The most that [`OutboxSettings::window`] can be.
pub const WINDOW_MAX: usize = IN_FLIGHT_MAX - ALARM_RESERVE;

/// How the outbox behaves.
#[derive(Clone, Copy, Debug)]
pub struct OutboxSettings {
    /// Whether readings ask for an acknowledgement (QoS 1). Alarms and reports always do.
    pub readings_confirmed: bool,
    /// Readings and reports without acknowledgement at most, 1 to [`WINDOW_MAX`]. Alarms have a few
    /// places more.
    pub window: usize,
    /// No packet is sent for this long: a PINGREQ goes, and its answer must come as soon.
    pub ping_after: Duration,
    /// A connection that is not there in this time is given up.
    pub connect_max: Duration,
    /// A message that is not acknowledged in this time ends the connection: MQTT resends only on a
    /// new one (MQTT 5, 4.4).
    pub acknowledge_max: Duration,
    /// The longest wait between two tries to connect.
    pub wait_max: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a connection, then say `connected` or `disconnected`.
    Connect,
    /// Write this PUBLISH.
    Publish(Outgoing),
    /// Write a PINGREQ.
    Ping,
    /// Close the connection. That is known already; `disconnected` need not be said.
    Disconnect,
    /// Nothing until this time, or until something happens.
    Wait(Tick),
}

/// One PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Packet id of QoS 1; none is QoS 0.
    pub packet_id: Option<NonZeroU16>,
    /// The same packet id went out before in this session (MQTT 5, 3.3.1.1).
    pub dup: bool,
    /// It went out before, in whatever session.
    pub again: bool,
    /// What to say.
    pub message: Message,
}

/// What CONNACK said.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The far end still knows the session (MQTT 5, 3.2.2.1.1).
    pub present: bool,
    /// How many unacknowledged messages it takes (MQTT 5, 3.2.2.3.3); 65,535 when it does not say.
    pub receive_max: u16,
}

/// The main loop's state.
#[derive(Debug)]
pub struct Outbox {
    settings: OutboxSettings,
    link: Link,
    backoff: Backoff,
    latest: Latest,
    flight: Flight,
    counts: ByKind<Counts>,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Away { until: Tick },
    Connecting { since: Tick },
    Up(Up),
}

#[derive(Clone, Copy, Debug)]
struct Up {
    since: Tick,
    session: Session,
    /// When the last packet went out.
    sent: Tick,
    /// When a PINGREQ went out that is not answered.
    pinged: Option<Tick>,
}

impl Outbox {
    /// Nothing waits, and the first try to connect is due at `start`. `seed` spreads the tries of a
    /// fleet.
    #[must_use]
    pub fn new(settings: OutboxSettings, seed: u64, start: Tick) -> Self {
        Self {
            settings,
            link: Link::Away { until: start },
            backoff: Backoff::new(settings.wait_max, seed),
            latest: Latest::default(),
            flight: Flight::default(),
            counts: ByKind::default(),
        }
    }

    /// Keeps a reading or a report until it can go; the one that it replaces is superseded.
    pub fn keep(&mut self, message: Message) {
        if let Some(older) = self.latest.keep(message) {
            self.counts.of_mut(older.kind()).superseded += 1;
        }
    }

    /// What to do at `now`. To be asked again after each step, until it says to wait.
    pub fn poll(&mut self, now: Tick, alarms: &mut Consumer<'_, Message>) -> Step {
        match self.link {
            Link::Away { until } if now < until => Step::Wait(until),
            Link::Away { .. } => {
                self.link = Link::Connecting { since: now };
                Step::Connect
            }
            Link::Connecting { since } => {
                let end = since.after(self.settings.connect_max);
                self.give_up_or_wait(now, end)
            }
            Link::Up(up) => self.next_packet(now, &up, alarms),
        }
    }

    /// The connection is there.
    pub fn connected(&mut self, now: Tick, session: Session) {
        self.flight.link_lost();
        self.link = Link::Up(Up {
            since: now,
            session,
            sent: now,
            pinged: None,
        });
    }

    /// The connection is gone, or never came. The next try comes after a while.
    pub fn disconnected(&mut self, now: Tick) {
        let lived = match self.link {
            Link::Away { .. } => return,
            Link::Connecting { .. } => Duration::ZERO,
            Link::Up(up) => now.since(up.since),
        };
        self.flight.link_lost();
        let until = now.after(self.backoff.wait_after(lived));
        self.link = Link::Away { until };
    }

    /// PUBACK: the far end has the message. Gives it, unless the packet id means nothing here.
    pub fn acknowledged(&mut self, packet_id: u16) -> Option<Message> {
        let message = self.flight.answered(packet_id)?;
        self.counts.of_mut(message.kind()).acknowledged += 1;
        Some(message)
    }

    /// PUBACK with a reason of 0x80 or above: the far end will not have it (MQTT 5, 3.4.2.1). Gives
    /// the message, which is not sent again.
    pub fn refused(&mut self, packet_id: u16) -> Option<Message> {
        let message = self.flight.answered(packet_id)?;
        self.counts.of_mut(message.kind()).refused += 1;
        Some(message)
    }

    /// PINGRESP.
    pub const fn ponged(&mut self) {
        if let Link::Up(up) = &mut self.link {
            up.pinged = None;
        }
    }

    /// Whether the connection is there.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// What waits to be sent for the first time, alarms in their queue apart.
    pub fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.latest.iter()
    }

    /// What was sent and is not acknowledged.
    pub fn in_flight(&self) -> impl Iterator<Item = &Message> {
        self.flight.iter()
    }

    /// What became of messages here; what was made and dropped the sampler counts.
    #[must_use]
    pub const fn counts(&self) -> &ByKind<Counts> {
        &self.counts
    }

    fn next_packet(&mut self, now: Tick, up: &Up, alarms: &mut Consumer<'_, Message>) -> Step {
        let next = self
            .resend(now, up)
            .or_else(|| self.next_alarm(now, up, alarms))
            .or_else(|| self.next_latest(now, up));
        if let Some(outgoing) = next {
            self.note_sent(now);
            return Step::Publish(outgoing);
        }
        self.keep_alive(now, up)
    }

    fn resend(&mut self, now: Tick, up: &Up) -> Option<Outgoing> {
        let sent = self
            .flight
            .resend(now, usize::from(up.session.receive_max))?;
        self.counts.of_mut(sent.message.kind()).resent += 1;
        Some(Outgoing {
            packet_id: NonZeroU16::new(sent.packet_id),
            dup: up.session.present,
            again: true,
            message: sent.message,
        })
    }

    fn next_alarm(
        &mut self,
        now: Tick,
        up: &Up,
        alarms: &mut Consumer<'_, Message>,
    ) -> Option<Outgoing> {
        if !self.may_send(up, Kind::Alarm) {
            return None;
        }
        let alarm = alarms.dequeue()?;
        self.send_confirmed(now, alarm)
    }

    fn next_latest(&mut self, now: Tick, up: &Up) -> Option<Outgoing> {
        let kind = self.latest.oldest_kind()?;
        if !self.may_send(up, kind) {
            return None;
        }
        let message = self.latest.take_oldest()?;
        if self.is_confirmed(kind) {
            self.send_confirmed(now, message)
        } else {
            Some(self.send_unconfirmed(message))
        }
    }

    /// Room in the window, and nothing that has to go again first.
    fn may_send(&self, up: &Up, kind: Kind) -> bool {
        let window_max = self.settings.window.clamp(1, WINDOW_MAX) + ALARM_RESERVE;
        let window_max = window_max.min(up.session.receive_max.into());
        let window_max = match kind {
            Kind::Alarm => window_max,
            // A far end that takes only a few still takes one.
            _ => window_max.saturating_sub(ALARM_RESERVE).max(1),
        };
        self.flight.all_on_link() && (!self.is_confirmed(kind) || self.flight.has_room(window_max))
    }

    const fn is_confirmed(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Reading) || self.settings.readings_confirmed
    }

    fn send_confirmed(&mut self, now: Tick, message: Message) -> Option<Outgoing> {
        let packet_id = self.flight.take_off(now, message)?;
        self.counts.of_mut(message.kind()).sent += 1;
        Some(Outgoing {
            packet_id: NonZeroU16::new(packet_id),
            dup: false,
            again: false,
            message,
        })
    }

    const fn send_unconfirmed(&mut self, message: Message) -> Outgoing {
        let counts = self.counts.of_mut(message.kind());
        counts.sent += 1;
        counts.unconfirmed += 1;
        Outgoing {
            packet_id: None,
            dup: false,
            again: false,
            message,
        }
    }

    /// Nothing to publish: is the connection still good for something?
    fn keep_alive(&mut self, now: Tick, up: &Up) -> Step {
        let acknowledged_by = self.flight.oldest().map_or(Tick::NEVER, |sent| {
            sent.after(self.settings.acknowledge_max)
        });
        let ping_after = self.settings.ping_after;
        let ponged_by = up
            .pinged
            .map_or(Tick::NEVER, |pinged| pinged.after(ping_after));
        let answered_by = acknowledged_by.min(ponged_by);
        if now >= answered_by || up.pinged.is_some() {
            return self.give_up_or_wait(now, answered_by);
        }
        let ping_at = up.sent.after(ping_after);
        if now < ping_at {
            return Step::Wait(ping_at.min(answered_by));
        }
        self.note_sent(now);
        if let Link::Up(up) = &mut self.link {
            up.pinged = Some(now);
        }
        Step::Ping
    }

    fn give_up_or_wait(&mut self, now: Tick, end: Tick) -> Step {
        if now < end {
            return Step::Wait(end);
        }
        self.disconnected(now);
        Step::Disconnect
    }

    const fn note_sent(&mut self, now: Tick) {
        if let Link::Up(up) = &mut self.link {
            up.sent = now;
        }
    }
}
