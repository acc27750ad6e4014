//! One connected client, from CONNACK to its end: bytes in, classified messages to the relay,
//! answers out. Generic over the stream. Whatever it waits for, it goes on hearing the relay and
//! the shutdown; whatever it keeps is bounded, and what exceeds a bound stops the reading, never
//! the relay.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::Shared;
use super::buffer::ReadBuffer;
use super::crowd::Member;
use super::greet::Agreement;
use super::lane::{LaneEnds, RelayGone, Unsent};
use super::registry::Kept;
use crate::traffic::accept::Protocol;
use crate::traffic::accept::decode::Fault;
use crate::traffic::accept::encode::Voice;
use crate::traffic::accept::pace::Pace;
use crate::traffic::classify::Classifier;
use crate::traffic::lanes::{Notice, Phase};
use crate::traffic::message::Tick;

/// Answers that may wait for a client that does not read before nothing more is read from it. The
/// answers to what was read before come on top: at most two for each unanswered message.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// A pause of this length may make a client leave: it waits for a PINGRESP that cannot come. No
/// client gives up after less, since this is the shortest keep-alive.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// What is read of a client that always has more before others get the processor: some hundred messages,
/// a fraction of a millisecond.
const BYTES_PER_TURN: usize = 64 * 1024;
/// What the buffer of answers keeps when it is empty.
const OUT_BYTES_KEPT: usize = 1024;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client closed, or the network did.
    Gone,
    /// The client said DISCONNECT; whether the will is to be published (MQTT 5, 3.14.2.1).
    Disconnected {
        /// False for reason 0 only.
        will: bool,
    },
    /// The client broke the protocol or a limit.
    Fault(Fault),
    /// Nothing was heard for one and a half keep-alive intervals.
    Silent,
    /// It began a packet and did not finish it in time.
    Unfinished,
    /// The client does not read its answers.
    Deaf,
    /// The same client id connected again.
    TakenOver,
    /// Its messages were held for `hold_max`.
    HeldTooLong,
    /// A message that it has sent again on this connection was given back meanwhile.
    Returned,
    /// The relay closed the door.
    DoorClosed,
    /// The gateway shuts down.
    Stop,
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<RelayGone> for Ending {
    fn from(_: RelayGone) -> Self {
        Self::DoorClosed
    }
}

type Signal = Pin<Box<dyn Future<Output = Phase> + Send>>;
type Supersession = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Turn {
    /// So many bytes came.
    Read(usize),
    /// There is room again for what was read before.
    Resume,
    /// A timer is due.
    Due,
}

/// A connected client.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) shared: Arc<Shared>,
    pub(super) label: Arc<str>,
    pub(super) voice: Voice,
    pub(super) kept: Kept,
    pub(super) out: Vec<u8>,
    written: usize,
    pub(super) buffer: ReadBuffer,
    member: Member,
    pub(super) classifier: Classifier,
    pub(super) lanes: LaneEnds,
    /// Topic aliases (MQTT 5, 3.3.2.3.4): they live as long as the connection.
    pub(super) aliases: HashMap<u16, Arc<str>>,
    pub(super) session_expiry: Duration,
    /// One and a half keep-alive intervals.
    silence_max: Option<Duration>,
    heard: Tick,
    /// Since when the packet that stands in the buffer waits for its end; pauses of ours do not
    /// count.
    pub(super) unfinished_since: Option<Tick>,
    held_since: Option<Tick>,
    blocked_since: Option<Tick>,
    /// Whole packets may wait in the buffer for room elsewhere.
    stalled: bool,
    pub(super) pace: Pace,
    /// Nothing is taken from the client until its pace allows.
    pub(super) paced: bool,
    /// Nothing is taken from the client, so its silence does not count.
    paused: bool,
    /// Since when nothing is taken for reasons of ours.
    unheard_since: Option<Tick>,
    /// After a long pause of ours not all is read that came meanwhile: the end, too, may be older.
    behind: bool,
    ended: bool,
    draining: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Tick,
    signal: Signal,
    superseded: Supersession,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(
        stream: S,
        shared: Arc<Shared>,
        agreement: &Agreement,
        (kept, unsent): (Kept, Unsent),
        buffer: ReadBuffer,
        superseded: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let now = shared.clock.now();
        let mut pace = Pace::new(shared.settings.client_rate_max, agreement.keep_alive, now);
        pace.slow(kept.slowed_permille, now);
        Self {
            stream,
            label: Arc::clone(&agreement.label),
            voice: agreement.voice,
            held_since: kept.held.then_some(now),
            lanes: LaneEnds::new(&shared.lanes, shared.clock, kept.door, unsent),
            kept,
            out: Vec::new(),
            written: 0,
            // What came behind CONNECT waits there.
            stalled: true,
            pace,
            paced: false,
            paused: false,
            unheard_since: None,
            behind: false,
            buffer,
            member: Member::of(&shared.crowd),
            classifier: Classifier::new(Arc::clone(&shared.rules)),
            aliases: HashMap::new(),
            session_expiry: agreement.session_expiry,
            silence_max: agreement.keep_alive.map(|interval| interval * 3 / 2),
            heard: now,
            unfinished_since: None,
            blocked_since: None,
            ended: false,
            draining: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: Tick::NEVER,
            signal: signal(shared.phase.clone(), Phase::Drain),
            superseded: Box::pin(superseded),
            shared,
        }
    }

    /// Serves the client until the connection must end. Unwritten answers stay in `out`.
    pub(super) async fn run(&mut self) -> Ending {
        let mut unrested_bytes = 0;
        loop {
            let turn = poll_fn(|cx| self.poll_turn(cx)).await;
            if let Ok(Turn::Read(bytes)) = turn {
                unrested_bytes += bytes;
            }
            if unrested_bytes >= BYTES_PER_TURN {
                unrested_bytes = 0;
                rest().await;
            }
            if let Err(ending) = turn.and_then(|turn| self.take_turn(&turn)) {
                self.out.drain(..self.written);
                self.written = 0;
                return ending;
            }
        }
    }

    fn take_turn(&mut self, turn: &Turn) -> Result<(), Ending> {
        let now = self.shared.clock.now();
        match turn {
            Turn::Due => return self.on_time(now),
            Turn::Read(_) | Turn::Resume => self.heard = now,
        }
        self.stalled = self.take_packets(now)?;
        self.buffer.keep_at_most(self.member.buffer_bytes_max());
        if !self.buffer.unread().is_empty() {
            self.unfinished_since.get_or_insert(now);
        }
        self.lanes.unsent.unreadable += self.classifier.take_unreadable();
        self.lanes.unsent.forgotten += self.classifier.take_forgotten();
        if self.ended && !self.stalled {
            return Err(Ending::Gone);
        }
        Ok(())
    }

    /// One round: what the relay says, what shutdown says, answers out, messages on, bytes in.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, Ending>> {
        self.hear_relay(cx)?;
        self.hear_signals(cx)?;
        self.write(cx)?;
        if let Poll::Ready(sent) = self.lanes.poll_send(cx) {
            sent?;
        }
        if self.paced {
            self.paced = !self.pace.is_open(self.shared.clock.now());
        }
        self.member.note(self.lanes.unsent.bytes());
        let full = self.is_full();
        if self.paused && !full {
            self.heard = self.shared.clock.now();
            self.unfinished_since = self.unfinished_since.and(Some(self.heard));
        }
        self.paused = full;
        self.note_pause();
        if self.stalled && !full {
            return Poll::Ready(Ok(Turn::Resume));
        }
        if !self.ended && !self.draining {
            let busy_bytes = self.member.buffer_bytes_max();
            match self
                .buffer
                .poll_read(&mut self.stream, !full, busy_bytes, cx)
            {
                Poll::Ready(Ok(bytes @ 1..)) => return Poll::Ready(Ok(Turn::Read(bytes))),
                Poll::Ready(Ok(0)) if self.stalled => self.ended(),
                Poll::Ready(_) => return Poll::Ready(Err(Ending::Gone)),
                Poll::Pending if full => {}
                Poll::Pending => {
                    self.behind = false;
                    if self.pace.is_paced() {
                        self.pace.caught_up(self.shared.clock.now());
                    }
                }
            }
        }
        ready!(self.poll_timer(cx));
        Poll::Ready(Ok(Turn::Due))
    }

    fn note_pause(&mut self) {
        match (self.is_full_of_work(), self.unheard_since) {
            (true, None) => self.unheard_since = Some(self.shared.clock.now()),
            (false, Some(_)) => {
                self.behind |= self.is_unheard();
                self.unheard_since = None;
            }
            _ => {}
        }
    }

    /// The client's end of the stream is closed, and what it sent before still waits here.
    fn ended(&mut self) {
        // What comes of the pause from here on has driven nobody away.
        self.behind |= self.is_unheard();
        self.ended = true;
    }

    /// Whether a client that leaves now may have left because nothing was taken from it.
    pub(super) fn is_unheard(&self) -> bool {
        let long = |since| self.shared.clock.now().since(since) >= LONG_PAUSE;
        self.behind || !self.ended && self.unheard_since.is_some_and(long)
    }

    fn hear_relay(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        let mut returned = false;
        while let Poll::Ready(notices) = self.kept.notices.poll_recv(cx) {
            for notice in notices.ok_or(Ending::DoorClosed)? {
                match notice {
                    Notice::Answer { token, answer } => {
                        if let Some(reply) = self.kept.session.answer(token, answer) {
                            self.reply(reply);
                        }
                    }
                    Notice::Returned { token } => returned |= self.kept.session.returned(token),
                    Notice::Held => self.hold(),
                    Notice::Released => {
                        self.held_since = None;
                        self.kept.held = false;
                    }
                    Notice::Slowed { permille } => {
                        self.kept.slowed_permille = permille;
                        self.pace.slow(permille, self.shared.clock.now());
                    }
                }
            }
        }
        // Not before the rest is heard: each notice comes once. At a shutdown the end comes anyway.
        if returned && !self.draining {
            return Err(Ending::Returned);
        }
        Ok(())
    }

    fn hold(&mut self) {
        self.kept.held = true;
        if self.held_since.is_none() {
            self.held_since = Some(self.shared.clock.now());
        }
    }

    fn hear_signals(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.superseded.as_mut().poll(cx).is_ready() {
            return Err(Ending::TakenOver);
        }
        while let Poll::Ready(phase) = self.signal.as_mut().poll(cx) {
            if phase == Phase::Stop {
                return Err(Ending::Stop);
            }
            self.draining = true;
            self.signal = signal(self.shared.phase.clone(), Phase::Stop);
        }
        Ok(())
    }

    /// Writes what the socket takes; an error is the end of the connection.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.out.is_empty() {
            return Ok(());
        }
        while let Some(unwritten) = self.out.get(self.written..)
            && !unwritten.is_empty()
        {
            match Pin::new(&mut self.stream).poll_write(cx, unwritten) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.written += written;
                    self.blocked_since = None;
                }
                Poll::Ready(_) => return Err(Ending::Gone),
                Poll::Pending => {
                    self.blocked_since
                        .get_or_insert_with(|| self.shared.clock.now());
                    if self.written >= OUT_BYTES_KEPT {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
            }
        }
        self.kept.session.said();
        self.out.clear();
        self.out.shrink_to(OUT_BYTES_KEPT);
        self.written = 0;
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Ending::Gone),
            _ => Ok(()),
        }
    }

    /// Whether nothing more may be taken from the client now.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.is_full_of_work() || self.out.len() - self.written > OUT_BYTES_MAX
    }

    /// Whether that is for what the gateway has not done yet.
    #[inline]
    fn is_full_of_work(&self) -> bool {
        let settings = &self.shared.settings;
        let session = &self.kept.session;
        let bytes = session.unanswered_bytes() + self.lanes.untracked_bytes();
        // MQTT 5 clients are held to Receive Maximum by 0x93; what they left behind on an earlier
        // connection comes on top.
        let count_max = match self.voice.protocol {
            Protocol::V311 => usize::from(settings.receive_max),
            Protocol::V5 => usize::from(settings.receive_max) * 2,
        };
        self.draining
            || self.paced
            || self.held_since.is_some()
            || self.member.is_crowded(self.lanes.unsent.bytes())
            || bytes >= settings.connection_bytes_max
            || session.unanswered() >= count_max
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.deadlines().into_iter().min().unwrap_or(Tick::NEVER);
        if next < self.timer_at {
            self.set_timer(next);
        }
        if self.timer_at == Tick::NEVER {
            return Poll::Pending;
        }
        self.timer.as_mut().poll(cx)
    }

    fn set_timer(&mut self, at: Tick) {
        self.timer_at = at;
        if at != Tick::NEVER {
            self.timer
                .as_mut()
                .reset(self.shared.clock.instant(at).into());
        }
    }

    /// Silence, an unfinished packet, holding, deafness, idleness, the client's pace. Each moves on as things happen;
    /// the timer is set to the earliest and looks again when it is due.
    fn deadlines(&self) -> [Tick; 6] {
        let patience = &self.shared.patience;
        let after =
            |since: Option<Tick>, wait: Duration| since.map_or(Tick::NEVER, |at| at.after(wait));
        // The client's clocks stand still while the gateway does not read.
        let counted = |since: Option<Tick>| since.filter(|_| !self.paused);
        let silence = self
            .silence_max
            .map_or(Tick::NEVER, |wait| after(counted(Some(self.heard)), wait));
        let idle = self.buffer.is_grown().then_some(self.heard);
        [
            silence,
            after(counted(self.unfinished_since), patience.packet),
            after(self.held_since, self.shared.settings.hold_max),
            after(self.blocked_since, patience.write),
            after(idle, patience.idle),
            if self.paced {
                self.pace.opens_at()
            } else {
                Tick::NEVER
            },
        ]
    }

    fn on_time(&mut self, now: Tick) -> Result<(), Ending> {
        let [silence, unfinished, held, blocked, idle, _] = self.deadlines();
        if held <= now {
            return Err(Ending::HeldTooLong);
        }
        if blocked <= now {
            return Err(Ending::Deaf);
        }
        if silence <= now {
            return Err(Ending::Silent);
        }
        if unfinished <= now {
            return Err(Ending::Unfinished);
        }
        if idle <= now {
            self.buffer.shrink();
            self.kept.session.release_memory();
        }
        self.set_timer(Tick::NEVER);
        Ok(())
    }
}

/// Lets the tasks run that wait for the processor.
async fn rest() {
    let mut rested = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut rested, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ready when the shutdown is as far as `phase`. Its sender gone counts as the end.
fn signal(mut phases: watch::Receiver<Phase>, phase: Phase) -> Signal {
    Box::pin(async move {
        match phases.wait_for(|now| *now >= phase).await {
            Ok(now) => *now,
            Err(_) => Phase::Stop,
        }
    })
}
