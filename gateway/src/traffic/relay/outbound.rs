//! Both connections to the upstream as the relay sees them: a window each, what is encoded and not
//! yet handed over, and what limits them. It sends what it is given and says what came of it; which
//! message is next is the relay's decision.

use std::collections::HashSet;
use std::time::Duration;

use super::super::message::{ClassId, Message, MessageId, Tick, WallTime};
use super::super::queue::ClassSettings;
use super::super::schedule::bucket::Bucket;
use super::super::send::encode::{Encoder, Packet, keeps_qos0};
use super::super::send::window::{Sent, Window};
use super::super::send::{Link, LinkCommand, LinkLimits};
use super::RelaySettings;

/// A first-class message that is not acknowledged in this time, or in four times the smoothed
/// acknowledgement time, also goes over the other connection.
const DOUBLE_AFTER: Duration = Duration::from_secs(2);

/// The connections.
#[derive(Debug)]
pub struct Outbound {
    links: [LinkState; 2],
    encoder: Encoder,
    classes: Vec<ClassSettings>,
    /// Wire bytes of all classes, and of the first class alone: it is bound by the link's rate, never
    /// by what others used up.
    rate: Option<Bucket>,
    first_rate: Option<Bucket>,
    packet_bytes_max: u64,
    ack_timeout: Duration,
    connections: u8,
}

#[derive(Debug)]
struct LinkState {
    up: bool,
    attempt: u64,
    /// How often it came up.
    ups: u64,
    window: Window,
    out: Vec<u8>,
    publishes: Option<Bucket>,
    giving_up: GivingUp,
    /// Largest packet that the upstream announced when it was last up, in bytes.
    announced_bytes_max: u64,
    /// The last connection ended before anything was acknowledged.
    barren: bool,
    paused_until: Tick,
}

/// Whether a connection is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivingUp {
    No,
    Wanted,
    /// The door was told; `down` follows.
    Asked,
}

impl Outbound {
    /// Nothing is up yet.
    #[must_use]
    pub fn new(settings: &RelaySettings) -> Self {
        let uplink = &settings.uplink;
        let link = || LinkState {
            up: false,
            attempt: 0,
            ups: 0,
            window: Window::new(settings.classes.len()),
            out: Vec::new(),
            publishes: uplink
                .publish_max
                .map(|rate| Bucket::new(u64::from(rate), Tick::ZERO)),
            giving_up: GivingUp::No,
            announced_bytes_max: u64::MAX,
            barren: false,
            paused_until: Tick::ZERO,
        };
        let rate = || {
            uplink
                .rate_bytes_max
                .map(|rate| Bucket::new(rate, Tick::ZERO))
        };
        Self {
            links: [link(), link()],
            encoder: Encoder::new(uplink, &settings.gateway, &settings.classes),
            classes: settings.classes.clone(),
            rate: rate(),
            first_rate: rate(),
            packet_bytes_max: uplink.packet_bytes_max.map_or(u64::MAX, u64::from),
            ack_timeout: uplink.ack_timeout,
            connections: uplink.connections,
        }
    }

    /// A connection came up.
    pub fn up(&mut self, link: Link, attempt: u64, limits: LinkLimits) {
        let state = &mut self.links[link as usize];
        state.up = true;
        state.attempt = attempt;
        state.ups += 1;
        state.giving_up = GivingUp::No;
        state.out.clear();
        state.paused_until = Tick::ZERO;
        state.announced_bytes_max = u64::from(limits.packet_bytes_max);
        state.window.restart(limits, state.barren);
    }

    /// A connection ended: what was in flight, in order of sending, and whether one message was alone
    /// in flight because the connection before had ended barren too. `None` for a connection that
    /// is not the current one.
    pub fn down(&mut self, link: Link, attempt: u64) -> Option<(Vec<Sent>, bool)> {
        let state = &mut self.links[link as usize];
        if !state.up || state.attempt != attempt {
            return None;
        }
        state.up = false;
        state.out.clear();
        let alone = state.window.is_solo() && state.window.count() == 1;
        state.barren = state.window.acknowledged() == 0 && state.window.count() > 0;
        Some((state.window.take_all(), alone))
    }

    /// What an acknowledgement belongs to.
    pub fn acknowledge(&mut self, link: Link, attempt: u64, id: u16, now: Tick) -> Option<Sent> {
        self.current(link, attempt)?.window.acknowledge(id, now)
    }

    /// Messages sent with QoS 0 that are in the socket now.
    pub fn written(&mut self, link: Link, attempt: u64, total: u64, now: Tick) -> Vec<Message> {
        self.current(link, attempt)
            .map_or_else(Vec::new, |state| state.window.written(total, now))
    }

    /// Everything in flight, at the end.
    pub fn take_in_flight(&mut self, link: Link) -> Vec<Sent> {
        let state = &mut self.links[link as usize];
        // What was not handed over yet is not to follow now.
        state.out.clear();
        state.window.take_all()
    }

    /// Whether a message of this class may go over this connection now.
    pub fn admits(&mut self, link: Link, class: ClassId, now: Tick) -> bool {
        if self.home(class) != Some(link) {
            return false;
        }
        let open = self.links[link as usize].admits(class, now);
        let opens = |bucket: &mut Option<Bucket>| bucket.as_mut().is_none_or(|b| b.open(now));
        open && opens(&mut self.first_rate) && (class == ClassId::FIRST || opens(&mut self.rate))
    }

    /// Sends a message; gives its wire bytes.
    ///
    /// # Errors
    /// Gives the message back when the upstream takes none so large.
    pub fn send(
        &mut self,
        link: Link,
        message: Message,
        now: Tick,
        wall: WallTime,
    ) -> Result<u64, Box<Message>> {
        let state = &mut self.links[link as usize];
        let limits = *state.window.limits();
        let keep_qos0 = self.classes[message.class.index()].keep_qos0;
        let with_id = !keeps_qos0(&message, keep_qos0);
        let packet = Packet {
            id: with_id.then(|| state.window.next_id()),
            retain: limits.retain,
            bytes_max: self
                .packet_bytes_max
                .min(u64::from(limits.packet_bytes_max)),
            now: (now, wall),
        };
        let message_is_first = message.class == ClassId::FIRST;
        let Ok(bytes) = self.encoder.publish(&mut state.out, &message, packet) else {
            return Err(Box::new(message));
        };
        if with_id {
            state.window.send(message, bytes, now);
        } else {
            state.window.send_unacknowledged(message, bytes, now);
        }
        if let Some(bucket) = &mut state.publishes {
            bucket.take(1);
        }
        let first = message_is_first.then_some(&mut self.first_rate);
        for bucket in [&mut self.rate].into_iter().chain(first).flatten() {
            bucket.take(bytes);
        }
        Ok(bytes)
    }

    /// Marks the message that was sent last on this connection as a copy.
    pub fn mark_copy(&mut self, link: Link) {
        self.links[link as usize].window.mark_newest_doubled();
    }

    /// Gives up connections whose acknowledgements are overdue.
    pub fn give_up_overdue(&mut self, now: Tick) {
        for state in &mut self.links {
            let waiting_since = state.window.waiting_since();
            if waiting_since.is_some_and(|at| now.since(at) >= self.ack_timeout) {
                state.give_up();
            }
        }
    }

    /// A copy of a first-class message whose acknowledgement over `link` is late, if the other
    /// connection can take it.
    pub fn double_next(&mut self, link: Link, now: Tick) -> Option<Message> {
        // Looked at first: without the other connection the window need not be searched.
        if !self.links[link.other() as usize].admits(ClassId::FIRST, now) {
            return None;
        }
        let patience = patience(&self.links[link as usize].window);
        let oldest = self.links[link as usize].window.oldest_undoubled()?;
        if now.since(oldest) < patience {
            return None;
        }
        let patience = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let since = Tick::from_micros(now.micros().saturating_sub(patience));
        self.links[link as usize].window.double_next(since)
    }

    /// These messages have no copy on the other connection any more; `overdue` when another one is due
    /// as soon as that connection is up.
    pub fn undouble(&mut self, link: Link, ids: &HashSet<MessageId>, overdue: bool) {
        let window = &mut self.links[link as usize].window;
        window.undouble(ids, overdue);
    }

    /// Gives a connection up: it was overtaken by the other one.
    pub fn give_up(&mut self, link: Link) {
        self.links[link as usize].give_up();
    }

    /// Sends nothing over this connection until then.
    pub fn pause(&mut self, link: Link, until: Tick) {
        self.links[link as usize].paused_until = until;
    }

    /// The next command for a connection's door.
    pub fn take_command(&mut self, link: Link) -> Option<LinkCommand> {
        let state = &mut self.links[link as usize];
        if !state.up {
            return None;
        }
        let attempt = state.attempt;
        if state.giving_up != GivingUp::No {
            let wanted = state.giving_up == GivingUp::Wanted;
            state.giving_up = GivingUp::Asked;
            return wanted.then_some(LinkCommand::Reconnect { attempt });
        }
        if state.out.is_empty() {
            return None;
        }
        let packets = std::mem::take(&mut state.out);
        if let Some(bucket) = &mut self.rate {
            bucket.take(headers(packets.len() as u64));
        }
        Some(LinkCommand::Write { attempt, packets })
    }

    /// Whether the upstream is known to take no message so large, by the configuration or by what it
    /// announced when it was last up.
    #[must_use]
    pub fn is_too_large(&self, message: &Message) -> bool {
        let announced = self.links.iter().map(|link| link.announced_bytes_max);
        let bytes_max = announced.fold(self.packet_bytes_max, u64::min);
        bytes_max < u64::MAX && self.encoder.bytes_at_most(message) > bytes_max
    }

    /// Everything in flight, the urgent connection's first, to be changed in place.
    pub fn sent_mut(&mut self) -> impl Iterator<Item = &mut Sent> {
        self.links
            .iter_mut()
            .flat_map(|link| link.window.sent_mut())
    }

    /// The longest smoothed acknowledgement time of both connections.
    #[must_use]
    pub fn smoothed(&self) -> Duration {
        let times = self.links.iter().filter_map(|link| link.window.smoothed());
        times.max().unwrap_or_default()
    }

    /// Since when a connection that is up has acknowledged nothing of what is in flight.
    #[must_use]
    pub fn silent_since(&self) -> Option<Tick> {
        let up = self.links.iter().filter(|link| link.up);
        up.filter_map(|link| link.window.waiting_since()).min()
    }

    /// When the oldest message in flight was received.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<Tick> {
        let windows = self.links.iter().map(|link| &link.window);
        windows.filter_map(Window::oldest_received).min()
    }

    /// The connections that the configuration wants.
    pub fn links(&self) -> impl Iterator<Item = Link> + use<> {
        let one = self.connections == 1;
        Link::BOTH.into_iter().skip(usize::from(one))
    }

    /// One connection: whether it is up, how often it came up, what is in flight.
    #[must_use]
    pub const fn link(&self, link: Link) -> (bool, u64, &Window) {
        let state = &self.links[link as usize];
        (state.up, state.ups, &state.window)
    }

    /// Whether any connection is up.
    #[must_use]
    pub fn any_up(&self) -> bool {
        self.links.iter().any(|link| link.up)
    }

    /// Messages of a class in flight, copies of doubled ones counted twice.
    #[must_use]
    pub fn in_flight(&self, class: ClassId) -> usize {
        self.links
            .iter()
            .map(|link| link.window.in_flight(class))
            .sum()
    }

    /// When a limit opens or an acknowledgement gets late; [`Tick::NEVER`] when only an event changes
    /// anything.
    #[must_use]
    pub fn deadline(&self, now: Tick) -> Tick {
        let mut next = Tick::NEVER;
        for link in Link::BOTH {
            let state = &self.links[link as usize];
            if !state.up || state.giving_up != GivingUp::No {
                continue;
            }
            let overdue = state.window.waiting_since();
            let doubled = match self.links[link.other() as usize].up {
                true => state.window.oldest_undoubled(),
                false => None,
            };
            let buckets = state
                .publishes
                .iter()
                .chain(&self.rate)
                .chain(&self.first_rate);
            let times = [
                overdue.map(|at| at.after(self.ack_timeout)),
                doubled.map(|at| at.after(patience(&state.window))),
                Some(state.paused_until),
            ];
            let times = times.into_iter().flatten();
            // What is past and could not be done changes with an event, not with time.
            let ahead = times
                .chain(buckets.map(Bucket::opens_at))
                .filter(|at| *at > now);
            next = next.min(ahead.min().unwrap_or(Tick::NEVER));
        }
        next
    }

    /// Where a class goes: the first over the urgent connection, the others over the bulk one, each
    /// over the other while its own is not up. It goes nowhere while some of it is in flight on the
    /// other connection alone, so that it never overtakes itself.
    fn home(&self, class: ClassId) -> Option<Link> {
        let own = if class == ClassId::FIRST {
            Link::Urgent
        } else {
            Link::Bulk
        };
        let home = [own, own.other()].into_iter().find(|link| {
            let state = &self.links[*link as usize];
            state.up && state.giving_up == GivingUp::No
        })?;
        let other = &self.links[home.other() as usize].window;
        let left = if class == ClassId::FIRST {
            other.undoubled()
        } else {
            other.count() - other.in_flight(ClassId::FIRST)
        };
        (left == 0).then_some(home)
    }

    fn current(&mut self, link: Link, attempt: u64) -> Option<&mut LinkState> {
        let state = &mut self.links[link as usize];
        (state.up && state.attempt == attempt).then_some(state)
    }
}

fn patience(window: &Window) -> Duration {
    DOUBLE_AFTER.max(window.smoothed().unwrap_or(Duration::ZERO) * 4)
}

/// The TCP and IP headers of so many bytes: 52 for each started segment of 1,448.
const fn headers(bytes: u64) -> u64 {
    bytes.div_ceil(1448) * 52
}

impl LinkState {
    fn admits(&mut self, class: ClassId, now: Tick) -> bool {
        self.up
            && self.giving_up == GivingUp::No
            && now >= self.paused_until
            && self.window.admits(class)
            && self
                .publishes
                .as_mut()
                .is_none_or(|bucket| bucket.open(now))
    }

    fn give_up(&mut self) {
        if self.up && self.giving_up == GivingUp::No {
            self.giving_up = GivingUp::Wanted;
            self.out.clear();
        }
    }
}
