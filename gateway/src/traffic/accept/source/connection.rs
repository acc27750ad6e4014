//! One of a source's two connections: makes it, keeps it, makes it anew, in one task. In come the
//! link's words and the relay's notices, out go batches and acknowledgements.

mod log;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::intake::{Intake, Publication, Share};
use super::link::{Fault, Heard, Link};
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::{RETRY_MAX, UNANSWERED_MAX, WAITING_BYTES_MAX};
use crate::clock::Clock;
use crate::traffic::accept::SourceSettings;
use crate::traffic::classify::Rules;
use crate::traffic::lanes::{Batch, DoorEvent, Lane, Lanes, Notice, Phase, Place, Turn, Turns};
use crate::traffic::message::{DoorId, Message, Tick};
use crate::traffic::send::backoff::Backoff;

/// Batches of notices that may wait for us. The relay answers at most [`UNANSWERED_MAX`] messages of
/// this link; the rest is for late answers to messages of earlier ones.
const NOTICES_MAX: usize = 4 * UNANSWERED_MAX;
/// How long saying goodbye may take: it only spares the broker a time-out.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// The longest sleep; it exists because timers do not reach "never".
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Why a link ended.
enum End {
    /// The gateway stops.
    Stop,
    /// The relay closed the door, or is gone.
    DoorClosed,
    /// Messages were held for too long: the broker is to bring them again.
    Held,
    /// The relay gave back a message of this link: the broker is to bring it again.
    Returned,
    /// What went wrong.
    Fault(Fault),
}

/// One connection and all that it remembers.
pub(super) struct Connection {
    settings: Arc<SourceSettings>,
    name: Arc<str>,
    client_id: String,
    intake: Intake,
    lanes: Lanes,
    /// In the lane of the first class, and in that of the rest.
    turns: [Turns; 2],
    clock: Clock,
    phase: watch::Receiver<Phase>,
    door: DoorId,
    notices: mpsc::Receiver<Vec<Notice>>,
    receipts: Receipts,
    outbox: Outbox,
    backoff: Backoff,
    /// Since when the relay holds messages of ours.
    held_since: Option<Tick>,
    /// The relay gave back a message that this link brought.
    returned: bool,
    /// When this link's CONNACK came; `None` until then.
    up_since: Option<Tick>,
    heard_at: Tick,
    said_at: Tick,
    /// SUBACK granted all filters in this process's life.
    subscribed: bool,
    /// No link of this process was up before this one.
    first_link: bool,
    last_fault: Option<Fault>,
    dropped: u64,
}

impl Connection {
    /// Registers the connection with the relay; `None`: the relay is gone.
    pub(super) async fn open(
        settings: Arc<SourceSettings>,
        share: Share,
        rules: Arc<Rules>,
        lanes: Lanes,
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) -> Option<Self> {
        let name: Arc<str> = format!("{}, {} connection", settings.name, share.word()).into();
        let (door, notices) = open_door(&lanes, &name).await?;
        Some(Self {
            client_id: format!("{}-{}", settings.client_id, share.word()),
            intake: Intake::new(Arc::clone(&settings), share, rules),
            settings,
            name,
            lanes,
            turns: Default::default(),
            clock,
            phase,
            door,
            notices,
            receipts: Receipts::default(),
            outbox: Outbox::default(),
            backoff: Backoff::new(RETRY_MAX, seed()),
            held_since: None,
            returned: false,
            up_since: None,
            heard_at: Tick::ZERO,
            said_at: Tick::ZERO,
            subscribed: false,
            first_link: true,
            last_fault: None,
            dropped: 0,
        })
    }

    /// Link after link, until the gateway stops.
    pub(super) async fn run(mut self) {
        loop {
            match self.link().await {
                End::Stop => break,
                End::DoorClosed => {
                    let Some((door, notices)) = open_door(&self.lanes, &self.name).await else {
                        return;
                    };
                    (self.door, self.notices) = (door, notices);
                    self.forget();
                }
                End::Held => {
                    tracing::info!(
                        "{}: messages were held for {:?}; connecting again, so that the broker brings them again",
                        self.name,
                        self.settings.hold_max
                    );
                    self.let_go().await;
                }
                End::Returned => {
                    tracing::info!(
                        "{}: messages were given back; connecting again, so that the broker brings them again",
                        self.name
                    );
                    self.let_go().await;
                    self.rest().await;
                }
                End::Fault(fault) => {
                    self.report(fault);
                    self.let_go().await;
                    self.rest().await;
                }
            }
        }
        self.hand_over().await;
        // A relay that is gone needs no farewell.
        let _ = self.lanes.doors.send(DoorEvent::Close(self.door)).await;
    }

    /// At the end: what is left goes to the relay, which counts it.
    async fn hand_over(&mut self) {
        let lanes = [
            (&self.lanes.urgent, &mut self.outbox.urgent),
            (&self.lanes.rest, &mut self.outbox.rest),
        ];
        for (lane, queue) in lanes {
            while !queue.is_empty() {
                // A relay that is gone takes nothing more.
                let Some(place) = lane.reserve(queue.next_bytes()).await else {
                    return;
                };
                let messages = queue.pop().unwrap_or_default();
                place.put(
                    batch(self.door, self.clock.now(), messages, &mut self.intake),
                    None,
                );
            }
        }
    }

    /// Waits before the next link.
    async fn rest(&mut self) {
        let wait = self.backoff.wait();
        self.idle(self.clock.now().after(wait), Phase::Drain).await;
    }

    async fn link(&mut self) -> End {
        let mut link = match self.connect().await {
            Ok(link) => link,
            Err(end) => return end,
        };
        self.connected(&mut link);
        let end = match self.serve(&mut link).await {
            // At a clean stop the relay ends first, and with it the door.
            End::DoorClosed if self.phase_now() >= Phase::Drain => End::Stop,
            end => end,
        };
        if matches!(end, End::Stop) {
            self.farewell(&mut link).await;
        }
        self.first_link = false;
        if let Some(up_since) = self.up_since {
            self.backoff.ended(self.clock.now().since(up_since));
        }
        end
    }

    async fn connect(&mut self) -> Result<Link, End> {
        let settings = Arc::clone(&self.settings);
        let client_id = self.client_id.clone();
        let time = settings.remote.connect_timeout;
        let attempt = tokio::time::timeout(time, Link::connect(&settings, &client_id));
        tokio::pin!(attempt);
        while self.phase_now() == Phase::Run {
            tokio::select! {
                done = &mut attempt => return match done {
                    Ok(Ok(link)) => Ok(link),
                    Ok(Err(fault)) => Err(End::Fault(fault)),
                    Err(_) => Err(End::Fault(Fault::Broken(format!("no answer within {time:?}")))),
                },
                notices = self.notices.recv() => match notices {
                    Some(notices) => self.obey(&notices),
                    None => return Err(End::DoorClosed),
                },
                _ = self.phase.changed() => {}
            }
        }
        self.idle(Tick::NEVER, Phase::Stop).await;
        Err(End::Stop)
    }

    async fn serve(&mut self, link: &mut Link) -> End {
        let (lanes, turns) = (self.lanes.clone(), self.turns.clone());
        loop {
            if let Err(fault) = self.listen(link) {
                return End::Fault(fault);
            }
            self.acknowledge(link);
            let now = self.clock.now();
            if let Some(end) = self.overdue(now, link) {
                return end;
            }
            let wake = self.clock.instant(self.deadline(now, link));
            let flows = self.held_since.is_none();
            let read = self.has_room();
            tokio::select! {
                moved = link.step(read) => {
                    if let Err(fault) = moved {
                        return End::Fault(fault);
                    }
                }
                notices = self.notices.recv() => match notices {
                    Some(notices) => self.obey(&notices),
                    None => return End::DoorClosed,
                },
                place = place_in(&lanes.urgent, turns[0].clone(), self.outbox.urgent.next_bytes()), if flows && !self.outbox.urgent.is_empty() => {
                    let (Some((place, turn)), Some(messages)) = (place, self.outbox.urgent.pop()) else {
                        return End::DoorClosed;
                    };
                    place.put(batch(self.door, self.clock.now(), messages, &mut self.intake), Some(turn));
                }
                place = place_in(&lanes.rest, turns[1].clone(), self.outbox.rest.next_bytes()), if flows && !self.outbox.rest.is_empty() => {
                    let (Some((place, turn)), Some(messages)) = (place, self.outbox.rest.pop()) else {
                        return End::DoorClosed;
                    };
                    place.put(batch(self.door, self.clock.now(), messages, &mut self.intake), Some(turn));
                }
                _ = self.phase.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Takes what was read, as far as there is room.
    fn listen(&mut self, link: &mut Link) -> Result<(), Fault> {
        let now = self.clock.now();
        while self.has_room() {
            let Some(heard) = link.next()? else {
                break;
            };
            self.heard_at = now;
            match heard {
                Heard::Subscribed(answers) => self.granted(&answers),
                Heard::Published(publication) => self.published(&publication),
                Heard::Alive => {}
            }
        }
        if !self.has_room() {
            // While we do not listen, silence says nothing.
            self.heard_at = now;
        }
        Ok(())
    }

    fn connected(&mut self, link: &mut Link) {
        self.tell_connected(link.session_present);
        self.heard_at = self.clock.now();
        self.said_at = self.heard_at;
        self.up_since = Some(self.heard_at);
        self.last_fault = None;
        // In MQTT 3.1.1 each SUBSCRIBE brings the retained messages again (3.8.4), so it is said
        // only when it must be: the session holds the subscriptions, `topics` may have changed
        // since the last start.
        self.subscribed &= link.session_present;
        if !self.subscribed {
            link.subscribe(&self.settings.topics, self.settings.retained);
        }
    }

    fn granted(&mut self, answers: &[Option<String>]) {
        self.subscribed = answers.len() == self.settings.topics.len();
        for (filter, answer) in self.settings.topics.iter().zip(answers) {
            if let Some(reason) = answer {
                self.subscribed = false;
                self.tell_refused(filter, reason);
            }
        }
    }

    fn published(&mut self, publication: &Publication) {
        // After a restart with other rules a topic may have changed hands, and the copy that the
        // other connection once dropped is not coming back. So a resend is taken by whoever gets it.
        let taken = self
            .intake
            .message(publication, self.door, self.first_link, self.heard_at);
        match taken {
            // Neither taken nor acknowledged: the broker keeps it for the next start.
            Ok(_) if self.phase_now() != Phase::Run => {}
            Ok(mut message) => {
                message.receipt.token = publication
                    .packet_id
                    .map(|id| self.receipts.ask(id, self.heard_at));
                self.outbox.push(message);
            }
            Err(dropped) => {
                self.tell_dropped(&dropped, publication);
                if let Some(id) = publication.packet_id {
                    self.receipts.settle(id, self.heard_at);
                }
            }
        }
    }

    fn obey(&mut self, notices: &[Notice]) {
        for notice in notices {
            match *notice {
                // A refusal too: MQTT gives a subscriber no way to say it to a broker.
                Notice::Answer { token, .. } => self.receipts.answer(token),
                // What an earlier link brought was forgotten with it. What this one brought has
                // nobody any more: its receipt would stay open for ever.
                Notice::Returned { token } => self.returned |= self.receipts.is_open(token),
                Notice::Held => {
                    self.held_since.get_or_insert_with(|| self.clock.now());
                }
                Notice::Released => self.held_since = None,
                // The relay slows devices; a broker stands for a whole site.
                Notice::Slowed { .. } => {}
            }
        }
    }

    fn acknowledge(&mut self, link: &mut Link) {
        self.receipts.release(self.clock.now());
        while let Some(packet_id) = self.receipts.ready() {
            if !link.acknowledge(packet_id) {
                return;
            }
            self.receipts.acknowledged();
        }
    }

    fn has_room(&self) -> bool {
        self.receipts.open_count() < UNANSWERED_MAX && self.outbox.bytes() < WAITING_BYTES_MAX
    }

    fn held_until(&self) -> Tick {
        let until = |since: Tick| since.after(self.settings.hold_max);
        self.held_since.map_or(Tick::NEVER, until)
    }

    fn silent_at(&self, link: &Link) -> Tick {
        self.heard_at.after(link.keep_alive.mul_f32(1.5))
    }

    /// Half the keep-alive, so that an answer is due well before anybody gives up.
    fn ping_at(&self, link: &Link) -> Tick {
        self.said_at.after(link.keep_alive / 2)
    }

    fn overdue(&mut self, now: Tick, link: &mut Link) -> Option<End> {
        let phase = self.phase_now();
        if phase == Phase::Stop {
            return Some(End::Stop);
        }
        if self.returned && phase == Phase::Run {
            return Some(End::Returned);
        }
        if now >= self.held_until() && phase == Phase::Run {
            return Some(End::Held);
        }
        if now >= self.silent_at(link) {
            return Some(End::Fault(Fault::Silent));
        }
        if now >= self.ping_at(link) {
            link.ping();
            self.said_at = now;
        }
        None
    }

    fn deadline(&self, now: Tick, link: &Link) -> Tick {
        let held_until = match self.phase_now() {
            Phase::Run => self.held_until(),
            _ => Tick::NEVER,
        };
        let peer = self.silent_at(link).min(self.ping_at(link));
        let overdue = self.receipts.overdue_at();
        held_until.min(peer).min(overdue).min(now.after(SLEEP_MAX))
    }

    fn phase_now(&self) -> Phase {
        // Without the one who says so there is nobody left to serve.
        if self.phase.has_changed().is_err() {
            return Phase::Stop;
        }
        *self.phase.borrow()
    }

    /// The link is gone: the relay gives back what it holds, the broker brings the rest again.
    async fn let_go(&mut self) {
        self.forget();
        let withdraw = DoorEvent::Withdraw {
            door: self.door,
            at: self.clock.now(),
        };
        // A relay that is gone holds nothing; the next link notices.
        let _ = self.lanes.doors.send(withdraw).await;
    }

    fn forget(&mut self) {
        self.receipts.forget();
        self.outbox.forget();
        self.held_since = None;
        self.returned = false;
        self.up_since = None;
    }

    /// Waits until then, or until the gateway is in this phase.
    async fn idle(&mut self, until: Tick, phase: Phase) {
        loop {
            let now = self.clock.now();
            if now >= until || self.phase_now() >= phase {
                return;
            }
            let wake = self.clock.instant(until.min(now.after(SLEEP_MAX)));
            tokio::select! {
                notices = self.notices.recv() => match notices {
                    Some(notices) => self.obey(&notices),
                    None => return,
                },
                _ = self.phase.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Sends the last acknowledgements, then DISCONNECT. What does not go in time comes again.
    async fn farewell(&mut self, link: &mut Link) {
        while let Ok(notices) = self.notices.try_recv() {
            self.obey(&notices);
        }
        // Nothing more is answered, so what is waits for nothing.
        self.receipts.release(Tick::NEVER);
        self.acknowledge(link);
        let _ = tokio::time::timeout(FAREWELL_MAX, link.goodbye()).await;
    }
}

async fn open_door(
    lanes: &Lanes,
    name: &Arc<str>,
) -> Option<(DoorId, mpsc::Receiver<Vec<Notice>>)> {
    let (notices, receiver) = mpsc::channel(NOTICES_MAX);
    let (id, answer) = oneshot::channel();
    let open = DoorEvent::Open {
        notices,
        client: Arc::clone(name),
        site: true,
        id,
    };
    lanes.doors.send(open).await.ok()?;
    Some((answer.await.ok()?, receiver))
}

/// Room for so many bytes, when it is this connection's turn.
async fn place_in(lane: &Lane, turns: Turns, bytes: u64) -> Option<(Place, Turn)> {
    let turn = turns.take().await?;
    Some((lane.reserve(bytes).await?, turn))
}

fn batch(door: DoorId, at: Tick, messages: Vec<Message>, intake: &mut Intake) -> Batch {
    Batch {
        door,
        at,
        messages,
        unreadable: intake.take_unreadable(),
        forgotten: intake.take_forgotten(),
        room: None,
    }
}

/// Jitter that differs between gateways; without a source of randomness it does not, and all else
/// works.
fn seed() -> u64 {
    getrandom::u64().unwrap_or(1)
}
